"""Intervals and paired comparison: what scipy says, and as often right as they promise."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_kernels.evaluation import (
    RatingReport,
    Report,
    bootstrap_interval,
    compare_paired,
    pool,
)
from llmrec_kernels.evaluation import intervals as module


def report_of(values, index=None, label="HR@10"):
    return Report(10, pd.DataFrame({label: np.asarray(values, float)}, index=index), {}, 0)


def ratings_of(squared, absolute, ratings, index=None):
    columns = {"ratings": ratings, "squared_error": squared, "absolute_error": absolute}
    return RatingReport(pd.DataFrame(columns, index=index))


# --- intervals ---------------------------------------------------------------------------------


def test_the_interval_is_that_of_scipy_up_to_the_draws():
    values = np.random.default_rng(1).gamma(0.5, size=300)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=2
    ).confidence_interval
    ours = bootstrap_interval(values, resamples=20_000)
    error = values.std() / np.sqrt(len(values))
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.05 * error)


def test_the_interval_holds_the_truth_as_often_as_its_level_says():
    rng = np.random.default_rng(0)
    covered = {0.95: 0, 0.8: 0}
    for _ in range(500):
        values = rng.random(200) < 0.3
        for level in covered:
            low, high = bootstrap_interval(values, level=level, resamples=400)
            covered[level] += low <= 0.3 <= high
    assert 0.92 < covered[0.95] / 500 < 0.98
    assert 0.75 < covered[0.8] / 500 < 0.85


def test_the_interval_of_an_rmse_is_that_of_users_drawn_in_a_loop():
    rng = np.random.default_rng(3)
    ratings = rng.integers(1, 20, size=60)
    squared = rng.gamma(1.0, size=60) * ratings
    report = ratings_of(squared, squared, ratings)
    draws = []
    for _ in range(4000):
        users = rng.integers(0, 60, size=60)
        draws.append(np.sqrt(squared[users].sum() / ratings[users].sum()))
    expected = np.quantile(draws, [0.025, 0.975])
    assert report.interval("RMSE", resamples=4000) == pytest.approx(expected, rel=0.01)


def test_the_interval_is_a_function_of_its_seed_and_not_of_the_slices(monkeypatch):
    values = np.arange(50.0)
    first = bootstrap_interval(values, resamples=300, seed=4)
    assert first == bootstrap_interval(values, resamples=300, seed=4)
    assert first != bootstrap_interval(values, resamples=300, seed=5)
    monkeypatch.setattr(module, "_DRAWS_AT_ONCE", 120)  # two draws at once
    assert bootstrap_interval(values, resamples=300, seed=4) == pytest.approx(first)


def test_users_without_a_value_do_not_count():
    values = [1.0, np.nan, 0.0, np.nan]
    report = report_of(values)
    assert report["HR@10"] == 0.5
    assert report.standard_error("HR@10") == pytest.approx(0.5)
    low, high = report.interval("HR@10")
    assert (low, high) == (0, 1)


@pytest.mark.parametrize("values", [[], [3.0], [np.nan, 2.0, np.nan]])
def test_fewer_than_two_users_have_no_interval(values):
    assert np.isnan(bootstrap_interval(values)).all()
    row = report_of(values).to_pandas().loc["HR@10"]
    assert np.isnan(row[["standard_error", "low", "high"]]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval([[1.0]]), r"values must be finite.*\[1, 1\]"),
        (lambda: bootstrap_interval([np.inf, 1]), "values must be finite"),
        (lambda: bootstrap_interval([1, 2], level=1), "level must lie between 0 and 1; got 1"),
        (lambda: bootstrap_interval([1, 2], resamples=0), "resamples is 0; expected at least 1"),
    ],
)
def test_an_interval_that_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- paired comparison -------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.3])
def test_p_is_that_of_scipys_permutation_test(shift):
    rng = np.random.default_rng(5)
    first, second = rng.normal(shift, 1, 80), rng.normal(0, 1, 80)
    theirs = scipy.stats.permutation_test(
        (first, second),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        rng=6,
    )
    ours = compare_paired(report_of(first), report_of(second), "HR@10", permutations=20_000)
    assert ours.difference == pytest.approx(theirs.statistic)
    assert ours.p == pytest.approx(theirs.pvalue, abs=0.015)


def test_p_of_few_users_is_that_of_all_exchanges():
    first, second = np.array([0.5, 0.75, 1.0, 0.25, 0.5]), np.array([0.25, 0.5, 0.0, 0.5, 0.5])
    theirs = scipy.stats.permutation_test(
        (first, second), lambda a, b: np.mean(a - b), permutation_type="samples"
    )
    ours = compare_paired(report_of(first), report_of(second), "HR@10")
    assert ours.p == pytest.approx(theirs.pvalue, abs=0.02)


def test_p_of_an_rmse_is_that_of_users_exchanged_in_a_loop():
    rng = np.random.default_rng(7)
    ratings = rng.integers(1, 9, size=40)
    one, other = rng.gamma(1.2, size=40) * ratings, rng.gamma(1.0, size=40) * ratings

    def difference(a, b):
        return np.sqrt(a.sum() / ratings.sum()) - np.sqrt(b.sum() / ratings.sum())

    found, as_large = difference(one, other), 0
    for _ in range(5000):
        swap = rng.random(40) < 0.5
        exchanged = np.where(swap, other, one), np.where(swap, one, other)
        as_large += abs(difference(*exchanged)) >= abs(found)
    paired = compare_paired(
        ratings_of(one, one, ratings), ratings_of(other, other, ratings), "RMSE"
    )
    assert paired.difference == pytest.approx(found)
    assert paired.p == pytest.approx(as_large / 5000, abs=0.025)


def test_p_is_small_as_often_as_it_says_where_the_models_do_not_differ():
    rng = np.random.default_rng(8)
    small = 0
    for _ in range(300):
        first, second = report_of(rng.random(50)), report_of(rng.random(50))
        paired = compare_paired(first, second, "HR@10", permutations=500, resamples=1)
        small += paired.p <= 0.1
    assert 0.05 < small / 300 < 0.16


def test_the_interval_is_that_of_the_differences():
    rng = np.random.default_rng(9)
    hard = rng.random(400)  # how hard a user is, for both
    first, second = hard + rng.normal(0.02, 0.05, 400), hard + rng.normal(0, 0.05, 400)
    paired = compare_paired(report_of(first), report_of(second), "HR@10")
    theirs = scipy.stats.bootstrap(
        (first - second,), np.mean, n_resamples=5000, method="percentile", rng=0
    ).confidence_interval
    assert (paired.low, paired.high) == pytest.approx((theirs.low, theirs.high), abs=5e-4)
    single = report_of(first).interval("HR@10")
    assert paired.high - paired.low < (single.high - single.low) / 3


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_exchanging_the_models_turns_everything_round(pairs):
    first, second = (report_of(column) for column in zip(*pairs, strict=True))
    there = compare_paired(first, second, "HR@10", resamples=50, permutations=200)
    back = compare_paired(second, first, "HR@10", resamples=50, permutations=200)
    assert there.difference == pytest.approx(-back.difference)
    assert (there.wins, there.losses, there.ties) == (back.losses, back.wins, back.ties)
    assert there.wins == sum(a > b for a, b in pairs)
    assert there.n_users == there.wins + there.losses + there.ties == len(pairs)
    assert there.p == back.p
    if len(pairs) > 1:
        assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


def test_a_model_compared_with_itself_does_not_differ():
    report = report_of(np.random.default_rng(0).random(9))
    paired = compare_paired(report, report, "HR@10")
    assert (paired.difference, paired.low, paired.high, paired.p) == (0, 0, 0, 1)
    assert paired.ties == 9


def test_users_are_matched_by_id_whatever_their_order():
    first = report_of([1, 0, 1], index=["a", "b", "c"])
    second = report_of([1, 1, 0], index=["c", "a", "b"])
    assert compare_paired(first, second, "HR@10").ties == 3


def test_users_who_lack_a_value_from_either_are_left_out():
    paired = compare_paired(report_of([1, np.nan, 0, 1]), report_of([0, 1, np.nan, 1]), "HR@10")
    assert (paired.n_users, paired.first, paired.second) == (2, 1.0, 0.5)


def test_of_errors_the_smaller_one_wins():
    paired = compare_paired(ratings_of([1], [1], [1]), ratings_of([4], [2], [1]), "RMSE")
    assert (paired.difference, paired.wins, paired.losses) == (-1, 1, 0)
    assert np.isnan(paired.low)  # a single user


@pytest.mark.parametrize(
    ("first", "second", "error", "message"),
    [
        (report_of([1, 0]), report_of([1]), ValueError, "second lacks 1 of.*such as user 1"),
        (report_of([1]), report_of([1, 0, 0]), ValueError, "first lacks 2 of.*such as user 1"),
        (
            ratings_of([1.0], [1.0], [1]),
            ratings_of([1.0], [1.0], [2]),
            ValueError,
            "first has 1 values of user 0 but second has 2",
        ),
        (
            report_of([1, 0, 1], index=[7, 8, 7]),
            report_of([1, 0], index=[7, 8]),
            ValueError,
            "first has user 7 more than once; expected each user once",
        ),
        (
            report_of([1, 0], index=[7, 8]),
            report_of([1, 0, 1], index=[7, 8, 8]),
            ValueError,
            "second has user 8 more than once",
        ),
        (report_of([1]), report_of([1], label="MRR@10"), KeyError, "no 'HR@10'; it has MRR@10"),
    ],
)
def test_reports_of_different_users_are_not_compared(first, second, error, message):
    with pytest.raises(error, match=message):
        compare_paired(first, second, first.labels[-1])


def test_what_no_single_user_has_is_not_compared():
    report = Report(10, pd.DataFrame({"HR@10": [1.0]}), {"Gini@10": 0.5}, 0)
    with pytest.raises(KeyError, match="Gini@10 is a metric of all lists together"):
        compare_paired(report, report, "Gini@10")


# --- several runs ------------------------------------------------------------------------------


def test_runs_are_pooled_with_their_mean_and_spread():
    runs = [report_of(values) for values in ([1, 0], [1, 1], [0, 0, 0, 1])]
    pooled = pool(runs)
    values = [0.5, 1.0, 0.25]
    assert pooled["HR@10"] == pytest.approx(np.mean(values))
    assert pooled.standard_deviation("HR@10") == pytest.approx(np.std(values, ddof=1))
    row = pooled.to_pandas().loc["HR@10"]
    assert (row.lowest, row.highest, row.runs) == (0.25, 1.0, 3)
    assert str(pooled) == "HR@10 0.5833 (sd 0.3819) | 3 runs"


def test_reports_of_ratings_are_pooled_too():
    assert pool([ratings_of([4.0], [2.0], [1]), ratings_of([1.0], [1.0], [1])])["RMSE"] == 1.5


def test_a_single_run_has_no_spread():
    assert np.isnan(pool([report_of([1])]).standard_deviation("HR@10"))


@pytest.mark.parametrize(
    ("reports", "message"),
    [
        ([], "reports is empty"),
        ([report_of([1]), report_of([1], label="MRR@10")], "got HR@10 in .* MRR@10 in entry 1"),
    ],
)
def test_what_cannot_be_pooled_is_refused(reports, message):
    with pytest.raises(ValueError, match=message):
        pool(reports)


def test_pooled_runs_say_which_metrics_they_have():
    with pytest.raises(KeyError, match="no 'MRR@10'; they have HR@10"):
        pool([report_of([1])])["MRR@10"]


@pytest.mark.parametrize(
    "drawn",
    [
        lambda one, seed: one.interval("HR@10", seed=seed),
        lambda one, seed: one.to_pandas(seed=seed),
        lambda one, seed: compare_paired(one, one, "HR@10", seed=seed),
        lambda one, seed: bootstrap_interval([0, 1], seed=seed),
    ],
)
def test_a_seed_that_is_none_is_refused(drawn):
    with pytest.raises(ValueError, match="seed is -1; expected at least 0"):
        drawn(report_of([1.0, 0.0]), -1)
    with pytest.raises(TypeError, match=r"seed is 0.5; expected an integer of at least 0"):
        drawn(report_of([1.0, 0.0]), 0.5)
