"""Shilling: the profiles are what the protocol says, and the measures what a plain loop gives."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_kernels.datasets import Dataset, DatasetNotFoundError, movielens_100k
from llmrec_kernels.evaluation import evaluate, leave_last_out
from llmrec_kernels.recommenders import (
    ContentRecommender,
    ItemKNNRecommender,
    PopularityRecommender,
)
from llmrec_kernels.studies.shilling import attacked, findings, shilling
from llmrec_kernels.studies.shilling_attacks import attacks_of, profiles_for

N_USERS, N_ITEMS, LENGTH = 200, 45, 13  # 12 of each history are train, 2 users are 1%


def _data() -> Dataset:
    """People who like low numbers more, each with as many items."""
    rng = np.random.default_rng(7)
    weight = 1 / np.arange(2.0, N_ITEMS + 2)
    liked = [
        rng.choice(N_ITEMS, LENGTH, replace=False, p=weight / weight.sum()) for _ in range(N_USERS)
    ]
    log = pd.DataFrame(
        {
            "user": np.repeat(np.arange(1, N_USERS + 1), LENGTH),
            "item": np.concatenate(liked) + 100,
            "rating": rng.integers(1, 5, N_USERS * LENGTH).astype(float),  # nobody gives 5 but one
            "timestamp": rng.permutation(N_USERS * LENGTH),
        }
    )
    log.loc[0, "rating"] = 5.0
    return Dataset("numbers", log, pd.DataFrame({"item": np.arange(100, 100 + N_ITEMS)}))


DATA = _data()
TRAIN, TEST = leave_last_out(DATA.interactions)
BY_POPULARITY = [
    item for item, _ in sorted(Counter(TRAIN["item"]).items(), key=lambda pair: (-pair[1], pair[0]))
]


def _profiles(target: int, fillers: str, seed: int = 0) -> list[dict[int, float]]:
    made = profiles_for(TRAIN, target, fillers, np.random.default_rng(seed))
    assert not made.duplicated(["user", "item"]).any()
    return [dict(zip(one["item"], one["rating"], strict=True)) for _, one in made.groupby("user")]


def _mean_rating(item: int) -> float:
    ratings = [
        rating for one, rating in zip(TRAIN["item"], TRAIN["rating"], strict=True) if one == item
    ]
    return float(round(sum(ratings) / len(ratings)))


@given(st.sampled_from(BY_POPULARITY), st.sampled_from(["random", "popular"]), st.integers(0, 99))
@settings(max_examples=25)
def test_each_profile_is_as_the_protocol_says(target: int, fillers: str, seed: int) -> None:
    popular = [item for item in BY_POPULARITY if item != target][:5]
    profiles = _profiles(target, fillers, seed)
    assert len(profiles) == 2
    for profile in profiles:
        assert len(profile) == 12
        assert {item: profile[item] for item in [target, *popular]} == dict.fromkeys(
            [target, *popular], 5.0
        )
        for item in set(profile) - {target, *popular}:
            assert profile[item] == _mean_rating(item)


def test_popular_fillers_are_the_next_most_popular_items() -> None:
    target = BY_POPULARITY[8]
    others = [item for item in BY_POPULARITY if item != target]
    for profile in _profiles(target, "popular"):
        assert set(profile) == {target, *others[:11]}


def test_random_fillers_differ_from_profile_to_profile_and_reach_every_item() -> None:
    one, other = _profiles(BY_POPULARITY[-1], "random")
    assert set(one) != set(other)
    reached = {item for seed in range(60) for p in _profiles(100, "random", seed) for item in p}
    assert reached == set(BY_POPULARITY)


@pytest.mark.parametrize("name", [int, "user-{}".format])
def test_profiles_are_new_users_at_the_last_moment(name: Any) -> None:
    train = TRAIN.assign(user=[name(user) for user in TRAIN["user"]])
    made = profiles_for(train, 100, "random", np.random.default_rng(0))
    assert made["user"].nunique() == 2
    assert not set(made["user"]) & set(train["user"])
    assert set(made["timestamp"]) == {train["timestamp"].max()}


def test_targets_come_from_the_lowest_and_the_middle_third() -> None:
    third = len(BY_POPULARITY) // 3
    lowest = set(BY_POPULARITY[-third:])
    middle = set(BY_POPULARITY[-2 * third : -third])
    counts = Counter(TRAIN["item"])
    attacks = [attack for seed in range(9) for attack in attacks_of(TRAIN, 3, seed)]
    seen: dict[str, set[int]] = {"unpopular": set(), "middling": set()}
    for attack in attacks:
        assert attack.target in set(attack.profiles["item"])
        seen[attack.kind].add(attack.target)
    # Equal counts may fall on either side of a border.
    assert {counts[one] for one in seen["unpopular"]} <= {counts[one] for one in lowest}
    assert {counts[one] for one in seen["middling"]} <= {counts[one] for one in middle}
    assert len(seen["unpopular"]) > 5


def test_each_target_is_pushed_with_both_kinds_of_fillers() -> None:
    attacks = attacks_of(TRAIN, 2, 0)
    pushed = Counter((one.kind, one.target) for one in attacks)
    assert len(pushed) == 4
    assert set(pushed.values()) == {2}
    assert [one.fillers for one in attacks] == ["random", "popular"] * 4


def test_a_seed_gives_the_same_attacks_again() -> None:
    for one, other in zip(attacks_of(TRAIN, 2, 5), attacks_of(TRAIN, 2, 5), strict=True):
        assert one.target == other.target
        pd.testing.assert_frame_equal(one.profiles, other.profiles)
    assert [one.target for one in attacks_of(TRAIN, 2, 6)] != [
        one.target for one in attacks_of(TRAIN, 2, 5)
    ]


class Spy(PopularityRecommender):
    """Keeps what it is fitted on and whom it is asked for."""

    fitted: list[pd.DataFrame] = []  # noqa: RUF012
    asked: list[list[int]] = []  # noqa: RUF012

    def fit(self, interactions: Any, items: Any = None, users: Any = None) -> Any:
        Spy.fitted.append(interactions)
        return super().fit(interactions, items, users)

    def recommend(self, users: Any, k: int = 10, **options: Any) -> Any:
        Spy.asked.append(list(users))
        return super().recommend(users, k, **options)


def test_models_learn_train_and_one_attack_and_never_the_test() -> None:
    Spy.fitted, Spy.asked = [], []
    attacks = attacks_of(TRAIN, 1, 0)
    list(attacked(Spy, DATA.items, TRAIN, TEST, attacks))
    assert len(Spy.fitted) == 1 + len(attacks)
    pd.testing.assert_frame_equal(Spy.fitted[0], TRAIN)
    for fitted, attack in zip(Spy.fitted[1:], attacks, strict=True):
        genuine = fitted[fitted["user"].isin(TRAIN["user"])]
        pd.testing.assert_frame_equal(genuine, TRAIN.reset_index(drop=True))
        assert len(fitted) == len(TRAIN) + len(attack.profiles)
    assert all(sorted(asked) == sorted(TEST["user"]) for asked in Spy.asked)


def _listed(recommended: Any) -> dict[int, list[int]]:
    lists: dict[int, list[int]] = {}
    for user, item in zip(recommended.user.tolist(), recommended.item.tolist(), strict=True):
        lists.setdefault(user, []).append(item)
    return lists


def _by_hand(make: Any, attack: Any) -> dict[str, float]:
    """The same measures from lists of ten and whole rankings, in loops."""
    clean = make().fit(TRAIN, DATA.items)
    fooled = make().fit(pd.concat([TRAIN, attack.profiles]), DATA.items)
    found: dict[str, float] = {}
    had = set(TRAIN.loc[TRAIN["item"] == attack.target, "user"])
    free = [user for user in TEST["user"] if user not in had]
    shown: dict[str, dict[int, list[int]]] = {}
    for name, model in (("before", clean), ("after", fooled)):
        shown[name] = _listed(model.recommend(TEST["user"]))
        whole = _listed(model.recommend(TEST["user"], k=N_ITEMS))
        found[f"HR {name}"] = np.mean([attack.target in shown[name][user] for user in free])
        found[f"rank {name}"] = np.mean([whole[user].index(attack.target) + 1 for user in free])
        found[f"NDCG@10 {name}"] = evaluate(model, TRAIN, TEST)["NDCG@10"]
    new = [
        item not in shown["before"][user] for user in TEST["user"] for item in shown["after"][user]
    ]
    found["places changed"] = np.mean(new)
    return found


@pytest.mark.parametrize("make", [PopularityRecommender, ItemKNNRecommender])
def test_measures_are_those_of_a_plain_loop(make: Any) -> None:
    attacks = attacks_of(TRAIN, 1, 3)
    for attack, measured in zip(
        attacks, attacked(make, DATA.items, TRAIN, TEST, attacks), strict=True
    ):
        assert measured["target"] == attack.target
        expected = _by_hand(make, attack)
        assert {name: measured[name] for name in expected} == pytest.approx(expected)
        assert np.isnan(measured["shift"])  # they predict no ratings


def test_the_shift_is_how_much_the_predicted_rating_rises() -> None:
    def make() -> ItemKNNRecommender:
        return ItemKNNRecommender(feedback="ratings")

    attacks = attacks_of(TRAIN, 1, 3)
    clean = make().fit(TRAIN, DATA.items)
    measured = list(attacked(make, DATA.items, TRAIN, TEST, attacks))
    for attack, row in zip(attacks, measured, strict=True):
        fooled = make().fit(pd.concat([TRAIN, attack.profiles]), DATA.items)
        had = set(TRAIN.loc[TRAIN["item"] == attack.target, "user"])
        free = [user for user in TEST["user"] if user not in had]
        pushed = [attack.target] * len(free)
        rise = fooled.predict(free, pushed) - clean.predict(free, pushed)
        assert row["shift"] == pytest.approx(np.mean(rise), abs=1e-5)
    assert max(row["shift"] for row in measured) > 0


def test_what_reads_texts_alone_is_immune() -> None:
    vectors = np.random.default_rng(0).normal(size=(N_ITEMS, 4)).astype(np.float32)
    attacks = attacks_of(TRAIN, 2, 0)
    for row in attacked(
        lambda: ContentRecommender(embeddings=vectors), DATA.items, TRAIN, TEST, attacks
    ):
        assert row["places changed"] == 0
        assert row["HR before"] == row["HR after"]
        assert row["rank before"] == row["rank after"]
        assert row["NDCG@10 before"] == row["NDCG@10 after"]


def test_the_tables_are_means_over_attacks_and_the_study_renders() -> None:
    made = {"popularity": PopularityRecommender, "item neighbours": ItemKNNRecommender}
    study = shilling(DATA, made, seeds=[0, 1], targets=2)
    attacks = [attack for seed in (0, 1) for attack in attacks_of(TRAIN, 2, seed)]
    for table, (kind, fillers) in zip(
        study.tables,
        itertools.product(["unpopular", "middling"], ["random", "popular"]),
        strict=True,
    ):
        assert kind in table.caption.lower()
        assert f"{fillers} fillers" in table.caption
        chosen = [one for one in attacks if (one.kind, one.fillers) == (kind, fillers)]
        for name, make in made.items():
            rows = pd.DataFrame(attacked(make, DATA.items, TRAIN, TEST, chosen))
            for column in ("HR before", "HR after", "places changed", "NDCG@10 after"):
                assert table.frame.loc[name, column] == pytest.approx(rows[column].mean())
            assert table.frame.loc[name, "highest HR"] == pytest.approx(rows["HR after"].max())
            assert table.frame.loc[name, "rank after"] == f"{rows['rank after'].mean():,.0f}"
    page = study.markdown()
    assert "2 profiles (1% of the users)" in page
    assert "16 attacks" in page
    assert "ALS begins with the seed 0 before and after each attack" in page
    assert page.count("| item neighbours |") == 4
    assert study.findings


def _measured(**models: dict[str, float]) -> pd.DataFrame:
    """Of two attacks on each model, the second as the first but for what is given."""
    still = {"HR before": 0.1, "HR after": 0.1, "NDCG@10 before": 0.5, "NDCG@10 after": 0.5}
    first = {"fillers": "random", "kind": "unpopular", "places changed": 0.0, **still}
    rows = [
        {"model": name} | row
        for name, change in models.items()
        for row in (first, first | {"kind": "middling"} | change)
    ]
    return pd.DataFrame(rows).set_index("model")


def test_findings_name_where_the_attack_does_most() -> None:
    told = findings(
        _measured(
            calm={},
            fooled={"HR after": 0.4, "places changed": 0.25, "NDCG@10 after": 0.55},
            upset={"HR after": 0.1019, "places changed": 0.125, "NDCG@10 after": 0.45},
        )
    ).splitlines()
    assert told[:5] == [
        "- The target gains most with fooled (middling targets, random fillers): HR goes from "
        ".1000 to .4000.",
        "- It reaches fewer than 0.2% more of the users, in every table, with calm, upset.",
        "- Lists change most with fooled (middling targets, random fillers): 25.0% of the places.",
        "- NDCG@10 falls most with upset (middling targets, random fillers): NDCG@10 goes from "
        ".5000 to .4500.",
        "- All lists stay as they are with calm.",
    ]


def test_findings_do_not_speak_of_a_fall_where_all_rise() -> None:
    told = findings(
        _measured(one={"NDCG@10 after": 0.6, "HR after": 0.2, "places changed": 0.1})
    ).splitlines()
    assert told[1] == "- With every model it reaches 0.2% more of the users or more, in some table."
    assert told[3] == "- NDCG@10 falls with no model."
    assert told[4] == "- With every model some list changes."


def test_findings_say_that_nothing_happens_where_nothing_does() -> None:
    told = findings(_measured(calm={})).splitlines()
    assert told[:5] == [
        "- The target gains with no model.",
        "- It reaches fewer than 0.2% more of the users, in every table, with calm.",
        "- No place changes.",
        "- NDCG@10 falls with no model.",
        "- All lists stay as they are with calm.",
    ]


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match=r"targets is 16; expected at most 15"):
        attacks_of(TRAIN, 16, 0)
    with pytest.raises(ValueError, match=r"made has 0 models and seeds 5"):
        shilling(DATA, {})
    with pytest.raises(ValueError, match=r"made has 1 models and seeds 0"):
        shilling(DATA, {"popularity": PopularityRecommender}, seeds=[])


def test_one_percent_of_movielens_are_nine_profiles_of_105_films() -> None:
    try:
        data = movielens_100k(download=False)
    except DatasetNotFoundError as error:
        pytest.skip(f"MovieLens-100K is not here: {error}")
    train, _ = leave_last_out(data.interactions)
    for attack in attacks_of(train, 1, 0):
        assert attack.profiles.groupby("user").size().tolist() == [105] * 9
