"""evaluate() and compare(): the published rulers, and no model that breaks the rules."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from llmrec_kernels.datasets import (
    DatasetNotFoundError,
    movielens_100k,
    movielens_latest_small,
)
from llmrec_kernels.evaluation import (
    DEFAULT_METRICS,
    Report,
    cold_item_split,
    compare,
    evaluate,
    hit_rate,
    leave_last_out,
    match,
    ndcg,
)


class Ranked:
    """Rank one list of items for everybody: what is first and not seen comes first."""

    def __init__(self, items, train):
        self.items = np.asarray(items)
        self.seen = {user: set(rows) for user, rows in train.groupby("user").item}

    def recommend(self, users, k=10, *, filter_seen=True, allow=None, exclude=None):
        items = self.items if allow is None else self.items[np.isin(self.items, allow)]
        rows = []
        for user in users:
            seen = self.seen.get(user, set()) if filter_seen else set()
            best = [item for item in items if item not in seen][:k]
            rows += [(user, item, -float(rank), rank) for rank, item in enumerate(best, 1)]
        return SimpleNamespace(
            **pd.DataFrame(rows, columns=["user", "item", "score", "rank"]).to_dict("series")
        )


class Shuffled:
    """Rank the allowed items at random, anew for each user."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def recommend(self, users, k=10, *, filter_seen=True, allow=None, exclude=None):
        item = np.concatenate([self.rng.permutation(allow)[:k] for _ in users])
        return SimpleNamespace(
            user=np.repeat(users, k), item=item, rank=np.tile(np.arange(1, k + 1), len(users))
        )


def popularity(train):
    """Most interactions first, equally popular items by smaller id."""
    counts = train.groupby("item").size().rename("count").reset_index()
    return Ranked(counts.sort_values(["count", "item"], ascending=[False, True]).item, train)


class Says:
    """Answer with given rows of (user, item, rank), and remember the question."""

    def __init__(self, *rows):
        self.rows = rows

    def recommend(self, users, k=10, **options):
        self.asked = (list(users), k, options)
        user, item, rank = zip(*self.rows, strict=True) if self.rows else ([], [], [])
        return SimpleNamespace(user=np.array(user), item=np.array(item), rank=np.array(rank))


def frame(*rows):
    return pd.DataFrame(rows, columns=["user", "item", "rating"])


TRAIN = frame((1, 10, 5.0), (2, 11, 5.0))
TEST = frame((1, 20, 5.0), (1, 21, 2.0), (2, 20, 2.0))


# --- the rulers --------------------------------------------------------------------------------


def test_popularity_on_movielens_100k_gives_the_published_numbers():
    """HR@10 .086 and NDCG@10 .044 where equally popular items come by larger id; here .045."""
    train, test = leave_last_out(movielens_100k().interactions)
    report = evaluate(popularity(train), train, test)
    assert (report.n_users, report.n_skipped) == (943, 0)
    assert report["HR@10"] == pytest.approx(0.086, abs=0.0005)
    assert report["NDCG@10"] == pytest.approx(0.044, abs=0.001)
    assert report["Recall@10"] == report["HR@10"]  # one relevant item a user
    assert report["Precision@10"] == pytest.approx(report["HR@10"] / 10)
    assert 0 < report["MRR@10"] < report["NDCG@10"]


def test_popularity_on_movielens_latest_small_gives_the_published_numbers():
    try:
        data = movielens_latest_small(download=False)
    except DatasetNotFoundError as error:
        pytest.skip(str(error))
    train, test = leave_last_out(data.interactions)
    report = evaluate(popularity(train), train, test)
    assert report["HR@10"] == pytest.approx(0.043, abs=0.0005)
    assert report["NDCG@10"] == pytest.approx(0.019, abs=0.0005)


def test_cold_items_of_movielens_give_the_published_rulers():
    """Over five seeds: random order .039, and the held-out items' own popularity .326."""
    interactions = movielens_100k().interactions
    scores = []
    for seed in range(5):
        held_out = np.random.default_rng(seed).choice(1682, 336, replace=False) + 1
        train, test = cold_item_split(interactions, held_out)
        models = {"random": Shuffled(seed), "own": popularity(test)}
        options = {"relevance": 4, "allow": held_out, "filter_seen": False, "metrics": ["ndcg"]}
        scores.append(compare(models, train, test, **options)["NDCG@10"])
    means = pd.concat(scores, axis=1).mean(axis=1)
    assert means["own"] == pytest.approx(0.326, abs=0.002)
    assert means["random"] == pytest.approx(0.039, abs=0.004)  # about two standard errors


# --- what is asked and what is counted ---------------------------------------------------------


def test_each_user_is_scored_by_their_own_list_in_any_order_of_rows():
    model = Says((2, 20, 2), (1, 30, 1), (2, 31, 1), (1, 21, 2), (1, 20, 3))
    report = evaluate(model, TRAIN, TEST, k=3)
    assert model.asked == ([1, 2], 3, {"filter_seen": True, "allow": None})
    hits = match([[30, 21, 20], [31, 20, -1]], [[20, 21], [20]])
    assert report.per_user.index.tolist() == [1, 2]
    np.testing.assert_array_equal(report.per_user["HR@3"], hit_rate(hits, 3))
    np.testing.assert_array_equal(report.per_user["NDCG@3"], ndcg(hits, 3))
    assert report["NDCG@3"] == pytest.approx(ndcg(hits, 3).mean())


def test_users_without_a_relevant_item_are_left_out_and_counted():
    model = Says((1, 20, 1))
    report = evaluate(model, TRAIN, TEST, relevance=4)
    assert model.asked[0] == [1]
    assert (report.n_users, report.n_skipped, report["Recall@10"]) == (1, 1, 1.0)


def test_only_ratings_of_the_given_relevance_count():
    report = evaluate(Says((1, 21, 1)), TRAIN, TEST, relevance=4)
    assert report["HR@10"] == 0
    assert evaluate(Says((1, 21, 1)), TRAIN, TEST, relevance=2)["HR@10"] == 0.5


def test_a_test_item_that_the_user_has_in_train_is_not_asked_for_again():
    test = pd.concat([TEST, frame((1, 10, 5.0))])
    assert evaluate(Says((1, 20, 1), (1, 21, 2)), TRAIN, test)["Recall@10"] == 0.5
    report = evaluate(Says((1, 10, 1)), TRAIN, test, filter_seen=False, metrics=["recall"])
    assert report.per_user["Recall@10"].tolist() == [1 / 3, 0]


def test_with_allow_only_those_items_are_ranked_and_asked_for():
    model = Says((1, 21, 1))
    report = evaluate(model, TRAIN, TEST, allow=[21, 22])
    assert model.asked == ([1], 10, {"filter_seen": True, "allow": [21, 22]})
    assert (report["Recall@10"], report["Coverage@10"], report.n_skipped) == (1.0, 0.5, 1)


def test_a_user_with_an_empty_list_scores_0():
    report = evaluate(Says(), TRAIN, TEST)
    assert [report[label] for label in report.labels] == [0] * len(DEFAULT_METRICS)


@pytest.mark.parametrize(
    ("items", "share"),
    [
        (None, 1 / 4),  # 10, 11, 20 and 21 are known from train and test; 99 is not
        ([20, 99, 99, 1, 2, 3], 2 / 5),
        (pd.DataFrame({"item": [99, 10]}), 1 / 2),
    ],
)
def test_coverage_is_a_share_of_the_catalogue(items, share):
    report = evaluate(Says((1, 99, 1), (2, 20, 1)), TRAIN, TEST, items=items)
    assert report["Coverage@10"] == share


def test_ids_may_be_strings():
    def named(f):
        return f.assign(user="u" + f.user.astype(str), item="i" + f.item.astype(str))

    model = Says(("u1", "i20", 1), ("u2", "i30", 1))
    report = evaluate(model, named(TRAIN), named(TEST), allow=["i20", "i30"])
    assert report.per_user["HR@10"].to_dict() == {"u1": 1.0, "u2": 0.0}


def test_large_ids_are_told_apart():
    near = 2**60
    train, test = frame((1, 1, 5.0)), frame((1, near + 1, 5.0))
    assert evaluate(Says((1, near, 1)), train, test)["HR@10"] == 0
    assert evaluate(Says((1, near + 1, 1)), train, test)["HR@10"] == 1


# --- models that break their promise, and questions without an answer --------------------------


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((3, 20, 1), "item 20 to user 3, a user nobody asked for"),
        ((1, 20, 0), "with a rank outside 1 to 2"),
        ((1, 20, 3), "with a rank outside 1 to 2"),
        ((1, 22, 1), "item 22 to user 1, at a rank that the list already has"),
        ((1, 21, 2), "item 21 to user 1, for the second time"),
        ((1, 10, 2), "item 10 to user 1, who has it in train"),
    ],
)
def test_a_model_that_breaks_its_promise_is_refused(row, message):
    with pytest.raises(ValueError, match=message):
        evaluate(Says((1, 21, 1), row), TRAIN, TEST, k=2)


def test_a_model_that_ignores_allow_is_refused():
    with pytest.raises(ValueError, match="item 22 to user 1, which is not in allow"):
        evaluate(Says((1, 22, 1)), TRAIN, TEST, allow=[20, 21])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": ["ndgc"]}, "metrics must be among hit_rate, .*; got 'ndgc'"),
        ({"k": 0}, "k must be at least 1; got 0"),
        ({"relevance": 6}, "test has no relevant item for any of its 2 users"),
        ({"train": TRAIN[["user"]]}, "train has no column item; its columns are user"),
        ({"test": TEST[["user", "item"]], "relevance": 4}, "test has no column rating"),
        ({"items": pd.DataFrame({"id": [1]})}, "items has no column item; its columns are id"),
    ],
)
def test_a_question_without_an_answer_is_refused(change, message):
    options = {"train": TRAIN, "test": TEST} | change
    with pytest.raises(ValueError, match=message):
        evaluate(Says((1, 20, 1)), **options)


def as_text(f, *columns):
    return f.astype(dict.fromkeys(columns, str))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"test": as_text(TEST, "item")},
            "item ids are both numbers and strings, such as .* train",
        ),
        ({"test": as_text(TEST, "user")}, "user ids are both numbers and strings, such as .* test"),
        ({"train": as_text(TRAIN, "item")}, "item ids are both strings and numbers"),
        ({"allow": ["20"]}, "item ids are both .* in train and '20' in allow"),
        ({"items": ["20"]}, "item ids are both .* in train and '20' in items"),
    ],
)
def test_ids_of_another_kind_are_refused_and_the_model_is_not_asked(change, message):
    model = Says((1, 20, 1))
    options = {"train": TRAIN, "test": TEST} | change
    with pytest.raises(TypeError, match=message):
        evaluate(model, **options)
    assert not hasattr(model, "asked")


def test_a_model_that_answers_with_ids_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="such as 10 in train and '20' in the model's lists"):
        evaluate(Says((1, "20", 1)), TRAIN, TEST)


@pytest.mark.parametrize(
    "listed",
    [set, tuple, iter, pd.Index, pd.Series, np.array, dict.fromkeys, lambda ids: (i for i in ids)],
)
def test_items_may_be_listed_by_anything_that_lists(listed):
    model = Says((1, 21, 1))
    report = evaluate(model, TRAIN, TEST, allow=listed([21, 22]))
    assert sorted(model.asked[2]["allow"]) == [21, 22]
    assert (report["Recall@10"], report["Coverage@10"], report.n_skipped) == (1.0, 0.5, 1)
    assert evaluate(model, TRAIN, TEST, items=listed([21, 22, 23, 24]))["Coverage@10"] == 1 / 4


@pytest.mark.parametrize("argument", ["items", "allow"])
def test_what_lists_no_items_is_refused_by_its_name(argument):
    with pytest.raises(TypeError, match=f"{argument} is 20; expected a list of ids"):
        evaluate(Says((1, 20, 1)), TRAIN, TEST, **{argument: 20})


def test_ratings_and_a_relevance_that_do_not_compare_are_refused():
    with pytest.raises(TypeError, match=r"test has rating '5.0' in row 0; expected a number"):
        evaluate(Says((1, 20, 1)), TRAIN, as_text(TEST, "rating"), relevance=4)
    with pytest.raises(TypeError, match="relevance is '4'; expected a number"):
        evaluate(Says((1, 20, 1)), TRAIN, TEST, relevance="4")


# --- the report --------------------------------------------------------------------------------


@pytest.fixture
def report():
    values = pd.DataFrame({"HR@5": [1.0, 0.0, 1.0, 1.0], "MRR@5": [1.0, 0.0, 0.5, 0.25]})
    return Report(5, values, {"Coverage@5": 0.25}, n_skipped=2)


def test_the_error_of_a_mean_is_that_of_the_users(report):
    assert report["HR@5"] == 0.75
    assert report.standard_error("HR@5") == pytest.approx(0.5 / 2)  # s = 0.5, 4 users
    assert np.isnan(report.standard_error("Coverage@5"))
    row = report.to_pandas().loc["HR@5"]
    assert row["mean"] == 0.75
    assert row.standard_error == pytest.approx(0.25)
    assert np.isnan(report.to_pandas().loc["Coverage@5", ["standard_error", "low", "high"]]).all()


def test_a_report_is_a_line_and_a_dictionary_that_json_takes(report):
    assert str(report) == (
        "HR@5 0.7500 ± 0.4900 | MRR@5 0.4375 ± 0.4184 | Coverage@5 0.2500 | 4 users, 2 left out"
    )
    known = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert (known["k"], known["users"], known["users_left_out"]) == (5, 4, 2)
    assert known["metrics"]["MRR@5"]["mean"] == 0.4375
    assert known["metrics"]["Coverage@5"]["standard_error"] is None


def test_a_report_says_which_metrics_it_has(report):
    with pytest.raises(KeyError, match=r"no 'HR@10'; it has HR@5, MRR@5, Coverage@5"):
        report["HR@10"]


def test_one_user_has_a_mean_and_no_error():
    report = evaluate(Says((1, 20, 1)), TRAIN, TEST, relevance=4, metrics=["mrr"])
    assert str(report) == "MRR@10 1.0000 | 1 users, 1 left out"


def test_a_report_of_metrics_that_no_single_user_has_is_a_table_too():
    report = evaluate(Says((1, 20, 1)), TRAIN, TEST, metrics=["coverage", "gini"])
    table = report.to_pandas()
    assert table.index.tolist() == ["Coverage@10", "Gini@10"]
    assert table["mean"].tolist() == [0.25, 0.75]
    assert table[["standard_error", "low", "high"]].isna().all(axis=None)


def test_an_item_that_is_none_is_refused():
    with pytest.raises(ValueError, match="to user 1, which is no item"):
        evaluate(Says((1, None, 1)), TRAIN, TEST)


def test_compare_puts_models_side_by_side_under_the_same_rules():
    models = {"good": Says((1, 20, 1), (2, 20, 1)), "bad": Says((1, 30, 1))}
    table = compare(models, TRAIN, TEST, k=1, metrics=["coverage", "hit_rate"])
    assert table.index.tolist() == ["good", "bad"]
    assert table.columns.tolist() == ["HR@1", "HR@1 SE", "Coverage@1", "users"]
    assert table["HR@1"].tolist() == [1, 0]
    assert table["users"].tolist() == [2, 2]
    assert models["good"].asked == models["bad"].asked
