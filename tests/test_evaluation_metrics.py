"""Metrics: the same numbers as trec_eval and scikit-learn, on random and on real data."""

from itertools import islice

import numpy as np
import pytest
import pytrec_eval
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_kernels.datasets import movielens_100k
from llmrec_kernels.evaluation import (
    PAD,
    auc,
    average_precision,
    coverage,
    hit_rate,
    leave_last_out,
    mae,
    match,
    mrr,
    ndcg,
    precision,
    ratio_split,
    recall,
    rmse,
)

TREC = {
    hit_rate: "success_{k}",
    ndcg: "ndcg_cut_{k}",
    recall: "recall_{k}",
    precision: "P_{k}",
    mrr: "recip_rank",
    average_precision: "map_cut_{k}",
}


def trec_eval(lists, sets, k):
    """Compute each metric with trec_eval; the lists are cut at k, for recip_rank has no cut."""
    relevant = {str(u): {str(item): 1 for item in one} for u, one in enumerate(sets)}
    run = {
        str(u): {str(item): float(len(one) - rank) for rank, item in enumerate(one[:k])}
        for u, one in enumerate(lists)
    }
    names = {f"success.{k}", f"ndcg_cut.{k}", f"recall.{k}", f"P.{k}", "recip_rank", f"map_cut.{k}"}
    results = pytrec_eval.RelevanceEvaluator(relevant, names).evaluate(run)
    return {
        metric: np.array(
            [results.get(str(u), {}).get(name.format(k=k), 0.0) for u in range(len(lists))]
        )
        for metric, name in TREC.items()
    }


def padded(lists, width):
    return np.array([one + [PAD] * (width - len(one)) for one in lists]).reshape(len(lists), width)


@st.composite
def recommendations(draw):
    """Draw the lists of some users, short ones included, their relevant items, and a k."""
    ids = st.integers(0, 30)
    n_users = draw(st.integers(1, 5))
    width = draw(st.integers(1, 12))
    lists = [draw(st.lists(ids, unique=True, max_size=width)) for _ in range(n_users)]
    sets = [draw(st.lists(ids, unique=True, min_size=1, max_size=20)) for _ in range(n_users)]
    return lists, sets, width, draw(st.integers(1, width))


@settings(deadline=None)
@given(recommendations())
def test_ranking_metrics_are_those_of_trec_eval(drawn):
    lists, sets, width, k = drawn
    hits = match(padded(lists, width), sets)
    for metric, expected in trec_eval(lists, sets, k).items():
        np.testing.assert_allclose(metric(hits, k), expected, atol=1e-12, err_msg=metric.__name__)


@pytest.mark.parametrize("split", [leave_last_out, ratio_split])
def test_ranking_metrics_are_those_of_trec_eval_on_movielens(split):
    train, test = split(movielens_100k().interactions)
    popular = train.item.value_counts().index.tolist()
    seen = train.groupby("user").item.agg(set)
    relevant = test.groupby("user").item.agg(list)
    lists = [
        list(islice((item for item in popular if item not in seen[user]), 20))
        for user in relevant.index
    ]
    hits = match(lists, relevant.tolist())
    for k in (1, 5, 10, 20):
        for metric, expected in trec_eval(lists, relevant, k).items():
            assert expected.any()
            np.testing.assert_allclose(metric(hits, k), expected, atol=1e-12)


@settings(deadline=None)
@given(recommendations())
def test_ndcg_is_that_of_scikit_learn(drawn):
    lists, sets, width, k = drawn
    ours = ndcg(match(padded(lists, width), sets), k)
    for u, (one, relevant) in enumerate(zip(lists, sets, strict=True)):
        truth, scores = np.zeros((2, 1, 50))
        truth[0, relevant] = 1
        # scikit-learn ranks every item; relevant ones that were not recommended must come last.
        scores[0, relevant] = -1
        scores[0, one] = np.arange(len(one), 0, -1)
        theirs = sklearn.metrics.ndcg_score(truth, scores, k=k, ignore_ties=True)
        assert ours[u] == pytest.approx(theirs, abs=1e-12)


@settings(deadline=None)
@given(recommendations(), st.integers(31, 40))
def test_auc_is_that_of_scikit_learn_with_what_is_in_no_list_tied_at_the_end(drawn, n_items):
    lists, sets, width, _ = drawn
    ours = auc(padded(lists, width), sets, n_items)
    for u, (one, relevant) in enumerate(zip(lists, sets, strict=True)):
        truth, scores = np.zeros((2, n_items))
        truth[relevant] = 1
        scores[one] = np.arange(len(one), 0, -1)
        theirs = sklearn.metrics.roc_auc_score(truth, scores)
        assert ours[u] == pytest.approx(theirs, abs=1e-12)


@settings(deadline=None)
@given(st.permutations(list(range(12))), st.sets(st.integers(0, 11), min_size=1, max_size=11))
def test_auc_is_that_of_the_rank_sum_test_of_scipy(ranking, relevant):
    rank_of = {item: rank for rank, item in enumerate(ranking)}
    mine = [-rank_of[item] for item in relevant]
    others = [-rank_of[item] for item in set(ranking) - relevant]
    u = scipy.stats.mannwhitneyu(mine, others).statistic
    ours = auc([ranking], [list(relevant)], 12)[0]
    assert ours == pytest.approx(u / (len(mine) * len(others)))


def test_auc_counts_as_many_items_as_compete_for_each_user():
    values = auc([[1, 2], [1, 2]], [[2], [2]], [2, 3])
    assert values.tolist() == [0.0, 0.5]


def test_auc_is_not_defined_where_everything_is_relevant():
    assert np.isnan(auc([[1, 2]], [[2, 1]], 2)).all()


def test_average_precision_divides_by_all_relevant_items_as_trec_eval_does():
    assert average_precision(match([[4, 5]], [[4, 5, 6, 7]]), 2).tolist() == [0.5]


ratings = st.lists(st.tuples(st.floats(-10, 10), st.floats(-10, 10)), min_size=1, max_size=30).map(
    lambda pairs: np.array(pairs).T
)


@settings(deadline=None)
@given(ratings)
def test_rating_errors_are_those_of_scikit_learn(pair):
    predicted, actual = pair
    squared = sklearn.metrics.root_mean_squared_error(actual, predicted)
    assert rmse(predicted, actual) == pytest.approx(squared, abs=1e-12)
    absolute = sklearn.metrics.mean_absolute_error(actual, predicted)
    assert mae(predicted, actual) == pytest.approx(absolute, abs=1e-12)


def test_rating_errors_are_those_of_scikit_learn_on_movielens():
    train, test = ratio_split(movielens_100k().interactions)
    means = train.groupby("item").rating.mean()
    predicted = test.item.map(means).fillna(train.rating.mean())
    squared = sklearn.metrics.root_mean_squared_error(test.rating, predicted)
    assert rmse(predicted, test.rating) == pytest.approx(squared, rel=1e-12)
    absolute = sklearn.metrics.mean_absolute_error(test.rating, predicted)
    assert mae(predicted, test.rating) == pytest.approx(absolute, rel=1e-12)


@settings(deadline=None)
@given(recommendations())
def test_metrics_lie_between_0_and_1_and_are_1_for_a_perfect_list(drawn):
    lists, sets, width, k = drawn
    hits = match(padded(lists, width), sets)
    for metric in TREC:
        values = metric(hits, k)
        assert ((values >= 0) & (values <= 1)).all()
    perfect = match(padded([one[:k] for one in sets], k), sets)
    for metric in (hit_rate, ndcg, mrr):
        assert (metric(perfect, k) == 1).all()


@settings(deadline=None)
@given(recommendations(), st.permutations(list(range(31))))
def test_metrics_do_not_depend_on_how_items_are_numbered(drawn, names):
    lists, sets, width, k = drawn
    renamed = match(
        padded([[names[item] * 2**40 for item in one] for one in lists], width),
        [[names[item] * 2**40 for item in one] * 2 for one in sets],  # repeats count once
    )
    for metric in TREC:
        hits = match(padded(lists, width), sets)
        np.testing.assert_array_equal(metric(renamed, k), metric(hits, k))


def test_precision_divides_by_k_where_the_list_is_short():
    hits = match([[4, PAD, PAD, PAD]], [[4]])
    assert precision(hits, 4).tolist() == [0.25]


def test_a_hit_after_rank_k_does_not_count():
    hits = match([[1, 2, 3]], [[3]])
    for metric in TREC:
        assert metric(hits, 2).tolist() == [0.0]
        assert metric(hits, 3)[0] > 0


@settings(deadline=None)
@given(recommendations())
def test_coverage_counts_each_recommended_item_once(drawn):
    lists, _, width, k = drawn
    recommended = {item for one in lists for item in one[:k]}
    assert coverage(padded(lists, width), 31, k) == pytest.approx(len(recommended) / 31)


def test_coverage_of_nothing_is_0():
    assert coverage([[PAD, PAD]], 5, 2) == 0
    assert coverage(np.empty((0, 3), int), 0, 2) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: match([1, 2], [[1]]), r"recommended must be integers of shape \[U, K\].*\[2\]"),
        (lambda: match([[1.5]], [[1]]), "recommended must be integers.*float64"),
        (lambda: match([[1], [2]], [[1]]), "recommended has 2 users but relevant has 1"),
        (lambda: match([[1], [2]], [[1], []]), "relevant has no item for the user in row 1"),
        (lambda: match([[1, PAD]], [[1, PAD]]), "relevant has the id -1, which fills short lists"),
        (lambda: match([[1, 2], [3, 3]], [[1], [3]]), "the item 3 twice in row 1"),
        (lambda: ndcg(match([[1, 2]], [[1]]), 3), r"k must.*k=3 and \[1, 2\]"),
        (lambda: recall(match([[1, 2]], [[1]]), 0), "k must be at least 1.*k=0"),
        (lambda: auc([[1, 2]], [[3]], 2), "n_items must.*got 2 .*row 0, who has 3 ranked or"),
        (lambda: auc([[1, 1]], [[3]], 2), "the item 1 twice in row 0"),
        (lambda: coverage([[1, 2]], 1, 2), "n_items must be.*got 1, and 2 different"),
        (lambda: coverage([[1, 2]], 9, 3), r"recommended of shape \[U, k or more\]; got k=3"),
        (lambda: rmse([1, 2], [1]), r"of one shape \[n\] with n ≥ 1; got \[2\] and \[1\]"),
        (lambda: mae([], []), r"n ≥ 1; got \[0\] and \[0\]"),
        (lambda: mae([[1.0]], [[1.0]]), r"got \[1, 1\]"),
        (lambda: rmse([1, np.nan], [1, 2]), "predicted must be finite; got nan at 1"),
        (lambda: rmse([1, 2], [np.inf, 2]), "actual must be finite; got inf at 0"),
    ],
)
def test_what_has_no_metric_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
