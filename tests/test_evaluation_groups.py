"""evaluate() beyond accuracy: groups of users, popularity groups of items, the whole ranking."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import sklearn.metrics

from llmrec_kernels.datasets import movielens_100k
from llmrec_kernels.evaluation import (
    METRICS,
    Report,
    compare,
    compare_paired,
    evaluate,
    leave_last_out,
)


class Scores:
    """Rank items by a score for each user and item; what is not allowed or seen is left out."""

    def __init__(self, scores, train):
        self.scores = scores  # frame, users by items
        self.seen = train.groupby("user").item.agg(set).to_dict()
        self.asked = []

    def recommend(self, users, k=10, *, filter_seen=True, allow=None, exclude=None):
        self.asked.append((len(users), k))
        rows = []
        for user in users:
            best = self.scores.loc[user].sort_values(ascending=False, kind="stable").index
            seen = self.seen.get(user, set()) if filter_seen else set()
            best = [item for item in best if item not in seen and (allow is None or item in allow)]
            rows += [(user, item, rank) for rank, item in enumerate(best[:k], 1)]
        return SimpleNamespace(**pd.DataFrame(rows, columns=["user", "item", "rank"]))


def setting(seed=0, n_users=30, n_items=25):
    """Make random interactions, and a model with random scores."""
    rng = np.random.default_rng(seed)
    taken = rng.random((n_users, n_items)) < rng.random(n_items)
    held_out = taken & (rng.random(taken.shape) < 0.3)
    train, test = (
        pd.DataFrame({"user": 100 + user, "item": 1000 + item})
        for user, item in (np.nonzero(taken & ~held_out), np.nonzero(held_out))
    )
    scores = pd.DataFrame(
        rng.random(taken.shape), index=100 + np.arange(n_users), columns=1000 + np.arange(n_items)
    )
    return Scores(scores, train), train, test


# --- what is shown -----------------------------------------------------------------------------


def test_all_metrics_at_once_are_those_of_a_loop_over_users():
    model, train, test = setting()
    rng = np.random.default_rng(1)
    vectors = pd.DataFrame(rng.normal(size=(25, 4)), index=1000 + rng.permutation(25))
    report = evaluate(model, train, test, k=4, metrics=METRICS, vectors=vectors)
    popularity = train.item.value_counts()
    lists = {user: model.recommend([user], 4).item.tolist() for user in report.per_user.index}
    cosines = pd.DataFrame(
        sklearn.metrics.pairwise.cosine_similarity(vectors), vectors.index, vectors.index
    )
    for user, items in lists.items():
        row = report.per_user.loc[user]
        bits = -np.log2(popularity.reindex(items, fill_value=1) / len(train))
        assert row["Novelty@4"] == pytest.approx(bits.mean())
        pairs = [cosines.loc[a, b] for a in items for b in items if a != b]
        assert row["Diversity@4"] == pytest.approx(1 - np.mean(pairs))
        more_popular = [popularity[popularity > popularity.get(one, 0)].sum() for one in items]
        thirds = np.array(more_popular) * 3 // len(train)
        for group, name in enumerate(("head", "mid", "tail")):
            assert row[f"Exposure {name}@4"] == pytest.approx((thirds == group).mean())
    shown = pd.Series([item for items in lists.values() for item in items]).value_counts()
    catalogue = np.union1d(train.item, test.item)
    counts = shown.reindex(catalogue, fill_value=0).to_numpy()
    differences = np.abs(counts[:, None] - counts).sum()
    assert report["Gini@4"] == pytest.approx(differences / (2 * len(counts) ** 2 * counts.mean()))
    assert report["Coverage@4"] == pytest.approx((counts > 0).mean())
    assert report.labels[-2:] == ["Coverage@4", "Gini@4"]


def test_the_shares_of_exposure_sum_to_1_also_where_a_group_has_no_item():
    train = pd.DataFrame({"user": [1, 2], "item": [7, 7]})
    test = pd.DataFrame({"user": [1, 2], "item": [8, 8]})
    model = Scores(pd.DataFrame({8: 1.0}, index=[1, 2]), train)
    report = evaluate(model, train, test, metrics=["exposure"])
    assert report.per_user.sum(axis=1).tolist() == [1, 1]
    assert report["Exposure tail@10"] == 1


def test_a_user_who_is_shown_nothing_has_accuracy_0_and_no_novelty():
    _, train, test = setting()
    nothing = SimpleNamespace(user=np.array([]), item=np.array([]), rank=np.array([]))
    model = SimpleNamespace(recommend=lambda users, **options: nothing)
    report = evaluate(model, train, test, metrics=["ndcg", "novelty", "exposure", "gini", "auc"])
    assert (report["NDCG@10"], report["AUC"]) == (0, 0.5)
    labels = ["Novelty@10", "Exposure head@10", "Gini@10"]
    assert np.isnan([report[label] for label in labels]).all()


# --- the whole ranking -------------------------------------------------------------------------


def test_auc_is_that_of_scikit_learn_over_all_items_that_are_not_seen(monkeypatch):
    model, train, test = setting()
    monkeypatch.setattr("llmrec_kernels.evaluation.full_ranking._PLACES_AT_ONCE", 200)
    report = evaluate(model, train, test, metrics=["auc"])
    seen = train.groupby("user").item.agg(set)
    for user, relevant in test.groupby("user").item:
        scores = model.scores.loc[user].drop(list(seen.get(user, ())))
        expected = sklearn.metrics.roc_auc_score(scores.index.isin(relevant), scores)
        assert report.per_user.loc[user, "AUC"] == pytest.approx(expected)
    n_items = pd.concat([train, test]).item.nunique()
    assert all(n_users * k <= 200 for n_users, k in model.asked[1:])
    assert {k for _, k in model.asked[1:]} == {n_items}


def test_auc_among_allowed_items_and_with_what_was_seen():
    model, train, test = setting()
    allow = list(range(1005, 1020))
    report = evaluate(model, train, test, metrics=["auc"], allow=allow, filter_seen=False)
    for user, relevant in test[test.item.isin(allow)].groupby("user").item:
        scores = model.scores.loc[user, allow]
        expected = sklearn.metrics.roc_auc_score(scores.index.isin(relevant), scores)
        assert report.per_user.loc[user, "AUC"] == pytest.approx(expected)


# --- groups of users ---------------------------------------------------------------------------


def test_a_metric_of_a_group_is_the_mean_over_its_users():
    model, train, test = setting()
    users = test.user.unique()
    groups = pd.Series(np.where(users % 3, "old", "new"), index=users)
    report = evaluate(model, train, test, k=5, groups=groups)
    for label in ("NDCG@5", "HR@5"):
        table = report.groups(label)
        expected = report.per_user[label].groupby(groups).mean()
        pd.testing.assert_series_equal(table["mean"], expected, check_names=False)
        gap = report.gap(label)
        assert gap.difference == pytest.approx(expected.max() - expected.min())
        assert (gap.highest, gap.lowest) == (expected.idxmax(), expected.idxmin())
        assert gap.low <= gap.difference <= gap.high
    assert table.users.tolist() == [sum(users % 3 == 0), sum(users % 3 > 0)]
    frame = groups.rename("group").rename_axis("user").reset_index()
    again = evaluate(model, train, test, k=5, groups=frame.sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(again.groups("HR@5"), report.groups("HR@5"))


def test_the_interval_of_a_gap_is_that_of_two_samples_of_scipy():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.5, 0.2, 150), rng.normal(0.4, 0.4, 90)
    values = pd.DataFrame({"NDCG@10": np.concatenate([first, second])})
    group = pd.Series(["a"] * 150 + ["b"] * 90)
    theirs = scipy.stats.bootstrap(
        (first, second),
        lambda a, b, axis: np.mean(a, axis=axis) - np.mean(b, axis=axis),
        n_resamples=10_000,
        method="percentile",
        rng=1,
    ).confidence_interval
    gap = Report(10, values, {}, 0, group).gap("NDCG@10", resamples=10_000)
    assert (gap.low, gap.high) == pytest.approx((theirs.low, theirs.high), abs=0.003)


def test_the_interval_of_a_gap_holds_the_truth_as_often_as_its_level_says():
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(300):
        values = np.concatenate([rng.random(80) < 0.8, rng.random(80) < 0.3]) * 1.0
        report = Report(
            10, pd.DataFrame({"HR@10": values}), {}, 0, pd.Series(["a"] * 80 + ["b"] * 80)
        )
        gap = report.gap("HR@10", resamples=300)
        covered += gap.low <= 0.5 <= gap.high
    assert 0.91 < covered / 300 < 0.985


def test_groups_that_are_equal_have_a_gap_of_0():
    report = Report(10, pd.DataFrame({"HR@10": [1.0] * 4}), {}, 0, pd.Series([1, 1, 2, 2]))
    gap = report.gap("HR@10")
    assert (gap.difference, gap.low, gap.high) == (0, 0, 0)
    assert gap.highest != gap.lowest


def test_a_group_of_one_user_has_no_interval():
    report = Report(10, pd.DataFrame({"HR@10": [1.0, 0.0, 1.0]}), {}, 0, pd.Series([1, 2, 2]))
    assert np.isnan(report.groups("HR@10").loc[1, ["low", "high"]].astype(float)).all()
    gap = report.gap("HR@10")
    assert gap.difference == 0.5
    assert np.isnan([gap.low, gap.high]).all()


def test_on_movielens_groups_of_age_are_told_apart():
    data = movielens_100k()
    if data.users is None:
        pytest.skip("this copy of MovieLens-100K has no table of users")
    train, test = leave_last_out(data.interactions)
    popular = train.item.value_counts()
    scores = pd.DataFrame(
        np.broadcast_to(popular.to_numpy(float), (data.interactions.user.nunique(), len(popular))),
        index=data.interactions.user.unique(),
        columns=popular.index,
    )
    groups = data.users.assign(group=np.where(data.users["age"] < 30, "young", "old"))
    report = evaluate(Scores(scores, train), train, test, groups=groups, metrics=["hit_rate"])
    table = report.groups("HR@10")
    assert table.users.sum() == 943
    weighted = (table["mean"] * table.users).sum() / 943
    assert weighted == pytest.approx(report["HR@10"])


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        (pd.Series({100: "a"}), ValueError, "no group for .* of the .* users, such as user 101"),
        (pd.Series(["a", "b"], index=[100, 100]), ValueError, "groups has user 100 twice"),
        (pd.DataFrame({"user": [100]}), ValueError, "groups has no column group"),
        (pd.Series(dtype=object), ValueError, "groups has no group for"),
        ({100: "a"}, TypeError, "groups is a dict; expected a pandas Series with user ids"),
    ],
)
def test_groups_that_leave_a_user_out_are_refused(groups, error, message):
    model, train, test = setting()
    with pytest.raises(error, match=message):
        evaluate(model, train, test, groups=groups)


def test_a_gap_that_is_none_is_refused():
    values = pd.DataFrame({"HR@10": [1.0, 0.0]})
    with pytest.raises(ValueError, match="the report knows no groups; evaluate with groups="):
        Report(10, values, {}, 0).gap("HR@10")
    with pytest.raises(ValueError, match=r"a gap needs two groups of users with HR@10; got 1"):
        Report(10, values, {}, 0, pd.Series(["a", "a"])).gap("HR@10")


# --- models against a baseline -----------------------------------------------------------------


def test_compare_with_a_baseline_adds_the_paired_differences():
    model, train, test = setting()
    other, _, _ = setting(seed=0)
    other.scores = -other.scores
    options = {"k": 5, "metrics": ["ndcg", "coverage"]}
    table = compare({"a": model, "b": other}, train, test, baseline="b", **options)
    assert table.columns.tolist() == [
        "NDCG@5",
        "NDCG@5 SE",
        "NDCG@5 diff",
        "NDCG@5 diff low",
        "NDCG@5 diff high",
        "NDCG@5 p",
        "Coverage@5",
        "users",
    ]
    reports = [evaluate(one, train, test, **options) for one in (model, other)]
    paired = compare_paired(*reports, "NDCG@5")
    assert table.loc["a", "NDCG@5 diff"] == paired.difference
    assert table.loc["a", "NDCG@5 p"] == paired.p
    assert np.isnan(table.loc["b", "NDCG@5 diff"])


# --- questions without an answer ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": ["diversity"]}, "diversity needs vectors"),
        (
            {"metrics": ["diversity"], "vectors": pd.DataFrame([[1.0]], index=[7])},
            "vectors has no row for item 10",
        ),
        (
            {"metrics": ["diversity"], "vectors": pd.DataFrame([[1.0], [1.0]], index=[7, 7])},
            "vectors must be a DataFrame with item ids for index, each once",
        ),
        ({"test": pd.DataFrame({"user": [], "item": []})}, "test has no rows"),
        ({"test": pd.DataFrame({"user": [None], "item": [1]})}, "test has no user in row 0"),
        ({"train": pd.DataFrame({"user": [1.0], "item": [np.nan]})}, "train has no item in row 0"),
    ],
)
def test_a_question_without_an_answer_is_refused(change, message):
    model, train, test = setting()
    options = {"train": train, "test": test} | change
    with pytest.raises(ValueError, match=message):
        evaluate(model, **options)


def test_no_frame_is_refused():
    model, train, _ = setting()
    with pytest.raises(TypeError, match="test is a list; expected a pandas DataFrame with user"):
        evaluate(model, train, [(1, 2)])


@pytest.mark.parametrize(
    ("models", "baseline", "message"),
    [({}, None, "models is empty"), ({"a": None}, "b", "baseline must be among a; got 'b'")],
)
def test_a_comparison_of_nothing_is_refused(models, baseline, message):
    _, train, test = setting()
    with pytest.raises(ValueError, match=message):
        compare(models, train, test, baseline=baseline)


def test_one_user_and_one_item_have_every_metric():
    train = pd.DataFrame({"user": ["a"], "item": ["x"]})
    test = pd.DataFrame({"user": ["a"], "item": ["y"]})
    model = Scores(pd.DataFrame({"y": 1.0}, index=["a"]), train)
    vectors = pd.DataFrame([[1.0]], index=["y"])
    report = evaluate(model, train, test, metrics=METRICS, vectors=vectors, items=["x", "y"])
    assert report["NDCG@10"] == report["MAP@10"] == 1
    assert np.isnan(report["AUC"])  # nothing competes with the one item
    assert np.isnan(report["Diversity@10"])
    assert report["Coverage@10"] == 0.5
