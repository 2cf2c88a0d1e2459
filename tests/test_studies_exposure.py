"""Exposure and gaps: groups as the protocol says, tables as plain counting gives them."""

from __future__ import annotations

from collections import Counter
from math import log2
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmrec_kernels.datasets import Dataset, DatasetNotFoundError, movielens_100k
from llmrec_kernels.evaluation import Report, leave_last_out
from llmrec_kernels.recommenders import ItemKNNRecommender, PopularityRecommender, rerank
from llmrec_kernels.studies.exposure import exposure, findings, item_groups, user_groups
from llmrec_kernels.studies.study import Study

N_USERS, N_ITEMS = 60, 150
MADE: dict[str, Any] = {"popularity": PopularityRecommender, "items": ItemKNNRecommender}


def _data() -> Dataset:
    """Histories of 5 to 20 items, low numbers liked more."""
    rng = np.random.default_rng(3)
    weight = 1 / np.arange(2.0, N_ITEMS + 2)
    liked = [
        rng.choice(N_ITEMS, rng.integers(5, 21), replace=False, p=weight / weight.sum())
        for _ in range(N_USERS)
    ]
    user = np.repeat(np.arange(1, N_USERS + 1), [len(one) for one in liked])
    log = pd.DataFrame({"user": user, "item": np.concatenate(liked) + 1})
    log = log.assign(rating=4.0, timestamp=rng.permutation(len(log)))
    ages, genders = rng.integers(18, 70, N_USERS), rng.choice(["F", "M"], N_USERS)
    users = pd.DataFrame({"user": range(1, N_USERS + 1), "age": ages, "gender": genders})
    return Dataset("numbers", log, pd.DataFrame({"item": range(1, N_ITEMS + 1)}), users)


DATA = _data()
TRAIN, TEST = leave_last_out(DATA.interactions)
VECTORS = np.random.default_rng(4).normal(size=(N_ITEMS, 6)).astype(np.float32) + 1


@pytest.fixture(scope="module")
def study() -> Study:
    return exposure(DATA, MADE, vectors=VECTORS, reranked="items")


def _lists(model: Any, k: int = 10) -> dict[int, list[int]]:
    return _listed(model.recommend(TEST["user"], k=k))


def _listed(recommended: Any) -> dict[int, list[int]]:
    lists: dict[int, list[int]] = {}
    for user, item in zip(recommended.user.tolist(), recommended.item.tolist(), strict=True):
        lists.setdefault(user, []).append(item)
    return lists


def _groups_by_hand(data: Dataset = DATA, train: pd.DataFrame = TRAIN) -> dict[int, str]:
    """Items that begin in the first, second and last third of interactions, ties in one group."""
    counts = Counter(train["item"].tolist())
    groups = {}
    for item in data.items["item"]:
        above = sum(count for count in counts.values() if count > counts[item])
        share = above / len(train)
        groups[item] = "head" if share < 1 / 3 else "mid" if share < 2 / 3 else "tail"
        if not counts[item]:
            groups[item] = "tail"
    return groups


def _shares(lists: dict[int, list[int]]) -> dict[str, float]:
    groups = _groups_by_hand()
    return {
        name: np.mean([np.mean([groups[item] == name for item in one]) for one in lists.values()])
        for name in ("head", "mid", "tail")
    }


def _ndcg(lists: dict[int, list[int]]) -> dict[int, float]:
    wanted = dict(zip(TEST["user"], TEST["item"], strict=True))
    return {
        user: 1 / log2(2 + one.index(wanted[user])) if wanted[user] in one else 0.0
        for user, one in lists.items()
    }


def _diversity(lists: dict[int, list[int]]) -> float:
    centred = VECTORS - VECTORS.mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    values = []
    for one in lists.values():
        pairs = [(i, j) for i in one for j in one if i != j]
        values.append(1 - np.mean([unit[i - 1] @ unit[j - 1] for i, j in pairs]))
    return float(np.mean(values))


def test_items_are_in_the_third_of_the_interactions_that_they_begin_in() -> None:
    assert item_groups(DATA.items, TRAIN).to_dict() == _groups_by_hand()


def test_an_age_is_in_the_band_that_begins_with_it() -> None:
    users = pd.DataFrame({"user": range(6), "age": [24, 25, 34, 35, 49, 50], "gender": "F"})
    log = pd.DataFrame({"user": range(6)})
    found = user_groups(Dataset("six", log, pd.DataFrame(), users), log)["age"]
    assert found.tolist() == [
        "under 25",
        *["25 to 34"] * 2,
        *["35 to 49"] * 2,
        "50 and over",
    ]


def test_activity_is_thirds_of_the_users_by_their_history_in_train() -> None:
    activity = user_groups(DATA, TRAIN)["activity"]
    counts = Counter(TRAIN["user"].tolist())
    order = sorted(counts, key=lambda user: (counts[user], user))
    for number, name in enumerate(("short", "middle", "long")):
        expected = order[number * N_USERS // 3 : (number + 1) * N_USERS // 3]
        assert sorted(activity.index[activity == name]) == sorted(expected)


def test_shares_are_those_of_plain_counting(study: Study) -> None:
    table = study.tables[0].frame
    for name, make in MADE.items():
        lists = _lists(make().fit(TRAIN, DATA.items))
        expected = _shares(lists)
        assert {group: table.loc[name, group] for group in expected} == pytest.approx(expected)
        shown = {item for one in lists.values() for item in one}
        assert table.loc[name, "Coverage@10"] == pytest.approx(len(shown) / N_ITEMS)
        assert table.loc[name, "Diversity@10"] == pytest.approx(_diversity(lists), abs=1e-6)
        mean = np.mean(list(_ndcg(lists).values()))
        assert table.loc[name, "NDCG@10"] == pytest.approx(mean)


def test_the_caption_says_what_the_test_items_are(study: Study) -> None:
    groups = _groups_by_hand()
    share = np.mean([groups[item] == "tail" for item in TEST["item"]])
    assert f"{share:.3f} are tail".lstrip("0") in study.tables[0].caption


@pytest.mark.parametrize(("number", "attribute"), [(1, "gender"), (2, "age"), (3, "activity")])
def test_gaps_are_between_the_best_and_the_worst_served(
    study: Study, number: int, attribute: str
) -> None:
    table, group = study.tables[number].frame, user_groups(DATA, TRAIN)[attribute]
    for name, make in MADE.items():
        values = _ndcg(_lists(make().fit(TRAIN, DATA.items)))
        means = {
            str(one): np.mean([values[user] for user in group.index[group == one]])
            for one in group.unique()
        }
        assert {one: table.loc[name, one] for one in means} == pytest.approx(means)
        gap = max(means.values()) - min(means.values())
        assert table.loc[name, "difference"] == pytest.approx(gap)
        if gap > 0:
            best, worst = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
            assert table.loc[name, "highest, lowest"] == f"{best}, {worst}"
        low, high = map(float, table.loc[name, "95% interval"].strip("[]").split(", "))
        assert low <= gap <= high


def test_reordered_lists_are_those_of_quota_and_mmr(study: Study) -> None:
    table = study.tables[4].frame
    longer = ItemKNNRecommender().fit(TRAIN, DATA.items).recommend(TEST["user"], k=100)
    centred = VECTORS - VECTORS.mean(axis=0)
    expected: dict[str, Any] = {
        "tail at least 50%": rerank.quota(longer, _groups_by_hand(), {"tail": (0.5, 1.0)}, 10),
        "mmr, trade-off 0.7": rerank.mmr(longer, DATA.items["item"], centred, 10, trade_off=0.7),
    }
    plain = _ndcg(_lists(ItemKNNRecommender().fit(TRAIN, DATA.items)))
    for name, recommended in expected.items():
        lists = _listed(recommended)
        assert table.loc[name, "tail"] == pytest.approx(_shares(lists)["tail"])
        assert table.loc[name, "Diversity@10"] == pytest.approx(_diversity(lists), abs=1e-6)
        mean = np.mean(list(_ndcg(lists).values()))
        assert table.loc[name, "NDCG@10"] == pytest.approx(mean)
        difference = mean - np.mean(list(plain.values()))
        assert float(table.loc[name, "difference"]) == pytest.approx(difference, abs=6e-4)
    assert table.loc["tail at least 50%", "tail"] >= 0.5
    assert table.loc["mmr, trade-off 0.5", "Diversity@10"] > table.loc["items", "Diversity@10"]


def test_the_study_renders_with_its_protocol(study: Study) -> None:
    page = study.markdown()
    assert page.count("| popularity |") == 4
    assert "the first 100 of the items" in page
    assert "ALS begins with the seed 0" in page
    assert "of the vectors given" in page
    sizes = Counter(_groups_by_hand().values())
    assert f"{sizes['head']} head, {sizes['mid']} mid, {sizes['tail']} tail" in page
    assert study.findings.startswith("- ")


def _reports(**ndcg: float) -> dict[str, Report]:
    """Of lists that are as good for every user, so that what differs at all differs surely."""
    return {
        name: Report(
            10, pd.DataFrame({"NDCG@10": [one] * 5, "Exposure tail@10": [one] * 5}), {}, n_skipped=0
        )
        for name, one in ndcg.items()
    }


def test_findings_say_of_each_reordered_list_whether_it_gains_costs_or_does_neither() -> None:
    after = _reports(ours=0.5, better=0.75, worse=0.25, equal=0.5, alike=0.5)
    told = findings(_reports(ours=0.5, other=1.0), {}, after, "ours").splitlines()
    assert told[:4] == [
        "- The tail has .500 of the places with ours, 1.000 with other.",
        "- Reordered, better gains .250 of NDCG@10.",
        "- Reordered, worse costs .250 of NDCG@10.",
        "- The NDCG@10 of the lists reordered by equal; alike cannot be told from that of "
        "the ours.",
    ]


def test_findings_do_not_speak_of_lists_that_are_not_there() -> None:
    for after in (_reports(ours=0.5, worse=0.25), _reports(ours=0.5)):
        assert "cannot be told" not in findings(_reports(ours=0.5), {}, after, "ours")


def test_users_of_whom_nothing_is_known_are_refused() -> None:
    nobody = Dataset("numbers", DATA.interactions, DATA.items)
    with pytest.raises(ValueError, match="numbers knows no age and no gender and no user"):
        exposure(nobody, MADE, vectors=VECTORS, reranked="items")


def test_reordering_a_model_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="reranked is 'hybrid'; expected one of popularity, items"):
        exposure(DATA, MADE, vectors=VECTORS)


def test_films_of_movielens_are_in_their_thirds() -> None:
    try:
        data = movielens_100k(download=False)
    except DatasetNotFoundError as error:
        pytest.skip(f"MovieLens-100K is not here: {error}")
    train, _ = leave_last_out(data.interactions)
    assert item_groups(data.items, train).to_dict() == _groups_by_hand(data, train)
