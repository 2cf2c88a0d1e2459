"""The study of what little is known: who is held out, what is told, and what the numbers are."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from llmrec_kernels.datasets import Dataset, DatasetNotFoundError, load
from llmrec_kernels.evaluation import bootstrap_interval
from llmrec_kernels.recommenders import (
    AlignedRecommender,
    ContentRecommender,
    EASERecommender,
    ItemKNNRecommender,
    PopularityRecommender,
    UserKNNRecommender,
)
from llmrec_kernels.studies import few_shot
from llmrec_kernels.studies.few_shot import Told, measured
from llmrec_kernels.studies.few_shot_report import (
    CANNOT,
    QUESTIONS,
    best_of,
    beyond_popularity,
    differences,
    estimates,
    findings,
)
from llmrec_kernels.studies.few_shot_tasks import (
    GIVEN,
    MIN_LIKES,
    TASKS,
    Task,
    film_sentence,
    halves,
    hold_out,
    product_sentence,
)

N_ITEMS, N_USERS = 60, 40
WORDS = ("space", "crime", "love", "war")


class Words:
    """A text encoder: which of a few words come, and how long the text is."""

    def encode(self, texts):
        counts = [[text.split().count(word) for word in WORDS] for text in texts]
        return np.array([[*row, len(text) / 20] for row, text in zip(counts, texts, strict=True)])


def made_task(seed=0):
    """Users with two favourite words each, most of them with enough likes."""
    draw = np.random.default_rng(seed)
    kind = draw.integers(len(WORDS), size=N_ITEMS)
    items = pd.DataFrame(
        {
            "item": [f"item {number:02}" for number in range(N_ITEMS)],
            "text": [f"{WORDS[one]} number {'x' * (n % 7)}" for n, one in enumerate(kind)],
            "kind": [WORDS[one] for one in kind],
            "price": draw.integers(1, 9, size=N_ITEMS).astype(float),
        }
    )
    rows = []
    for user in range(N_USERS):
        weight = np.where(kind == user % len(WORDS), 6.0, 1.0) * (1 + np.arange(N_ITEMS) % 5)
        count = 12 if user % 8 == 7 else draw.integers(MIN_LIKES, 30)
        liked = draw.choice(N_ITEMS, size=count, replace=False, p=weight / weight.sum())
        times = draw.integers(1000, size=count)
        rows += [(user, items["item"][one], int(t)) for one, t in zip(liked, times, strict=True)]
    likes = pd.DataFrame(rows, columns=["user", "item", "timestamp"])
    likes = likes.sort_values("timestamp", kind="stable").reset_index(drop=True)
    return Task("made up", likes, items, most_frequent, ("kind",), ("price",), "Likes are drawn.")


def most_frequent(items):
    return " ".join(items["kind"].value_counts().index[:2])


TASK = made_task()
USERS = halves(TASK.likes)
NEWCOMERS = hold_out(TASK.likes, USERS.to_test, 3)
TEXTS = {user: f"{WORDS[user % len(WORDS)]} number" for user in NEWCOMERS.known["user"].unique()}


def in_time(user):
    """The likes of a user, by the whole table."""
    rows = TASK.likes[TASK.likes["user"] == user]
    return sorted(zip(rows["timestamp"], rows.index, rows["item"], strict=True))


def items_of(user):
    return [item for _, _, item in in_time(user)]


def ndcg(ranked, relevant):
    """By its definition, of a list of 10."""
    gain = sum(1 / math.log2(place + 2) for place, one in enumerate(ranked[:10]) if one in relevant)
    return gain / sum(1 / math.log2(place + 2) for place in range(min(10, len(relevant))))


def test_users_with_enough_likes_are_divided_and_nobody_is_in_both_halves():
    counts = TASK.likes["user"].value_counts()
    enough = {user for user, count in counts.items() if count >= MIN_LIKES}
    assert set(USERS.to_choose) | set(USERS.to_test) == enough
    assert not set(USERS.to_choose) & set(USERS.to_test)
    assert len(USERS.to_choose) == len(enough) // 2


def test_held_out_users_are_held_out_with_all_they_like():
    held_out = set(NEWCOMERS.test["user"])
    assert len(held_out) == 2 * len(USERS.to_test) // 5
    assert held_out <= set(USERS.to_test)
    assert not held_out & set(NEWCOMERS.train["user"])
    assert set(NEWCOMERS.train["user"]) | held_out == set(TASK.likes["user"])


def test_the_first_ten_likes_by_time_are_known_and_the_later_ones_are_the_test():
    for user in NEWCOMERS.test["user"].unique():
        known = NEWCOMERS.known[NEWCOMERS.known["user"] == user]["item"].tolist()
        later = NEWCOMERS.test[NEWCOMERS.test["user"] == user]["item"].tolist()
        assert known == items_of(user)[:GIVEN]
        assert later == items_of(user)[GIVEN:]


def test_each_seed_holds_out_other_users_and_the_same_seed_the_same():
    again = hold_out(TASK.likes, USERS.to_test, 3)
    assert again.test.equals(NEWCOMERS.test)
    others = hold_out(TASK.likes, USERS.to_test, 4)
    assert set(others.test["user"]) != set(NEWCOMERS.test["user"])


def test_no_choice_changes_with_what_the_users_of_the_test_like(monkeypatch):
    draw = np.random.default_rng(5)
    other = TASK.likes.copy()
    for user in USERS.to_test:
        theirs = other["user"] == user
        other.loc[theirs, "item"] = draw.choice(TASK.items["item"], theirs.sum(), replace=False)
    changed = Task(**(vars(TASK) | {"likes": other}))
    seen = []

    class Spy(Words):
        def encode(self, texts):
            seen.extend(texts)
            return super().encode(texts)

    few = {name: options[:2] for name, options in few_shot.CANDIDATES.items()}
    monkeypatch.setattr(few_shot, "CANDIDATES", few)
    tried = few_shot.candidates_tried(changed, Spy())
    assert tried == few_shot.candidates_tried(TASK, Words())
    assert [len(some) for some in tried.values()] == [2] * len(few)
    assert seen  # models with texts are among the candidates


@pytest.mark.parametrize(
    "make",
    [
        PopularityRecommender,
        UserKNNRecommender,
        lambda: ItemKNNRecommender(shrink=1),
        lambda: EASERecommender(5),
        lambda: AlignedRecommender(Words(), factors=4),
        lambda: ContentRecommender(Words()),
    ],
    ids=["popularity", "user neighbours", "item neighbours", "EASE", "aligned", "content"],
)
def test_numbers_are_those_of_asking_for_one_user_after_the_other(make):
    found = measured({"it": make().fit(NEWCOMERS.train, TASK.items)}, NEWCOMERS, TEXTS)
    found = found.set_index(["question", "user"])
    alone = make().fit(NEWCOMERS.train, TASK.items)
    for question in QUESTIONS:
        if question.label not in found.index:
            assert question.sentence
            assert not isinstance(alone, AlignedRecommender)
            continue
        for user in NEWCOMERS.test["user"].unique():
            first, relevant = items_of(user)[:GIVEN], items_of(user)[GIVEN:]
            told = first[: question.likes]
            if question.sentence:
                answer = alone.recommend_from_text(TEXTS[user], k=N_ITEMS, liked=told)
            else:
                answer = alone.recommend_from_history(told, k=N_ITEMS)
            ranked = [item for item in answer.item if item not in first]
            row = found.loc[(question.label, user)]
            assert row["NDCG@10"] == pytest.approx(ndcg(ranked, relevant))
            assert row["HR@10"] == float(bool(set(ranked[:10]) & set(relevant)))


def test_none_of_the_first_likes_is_in_a_list_whether_it_was_told_or_not():
    users = NEWCOMERS.test["user"].unique()
    model = AlignedRecommender(Words(), factors=4).fit(NEWCOMERS.train, TASK.items)
    for question in QUESTIONS:
        answer = Told(model, NEWCOMERS, question, TEXTS).recommend(users, 30)
        lists = pd.DataFrame({"user": answer.user, "item": answer.item})
        for user in users:
            listed = lists[lists["user"] == user]["item"].tolist()
            assert len(listed) == 30
            assert not set(listed) & set(items_of(user)[:GIVEN])


def test_models_are_told_the_first_likes_as_many_as_the_question_has_and_no_later_one():
    told = []

    class Listening(EASERecommender):
        def update(self, interactions):
            told.append(interactions)
            return super().update(interactions)

        def recommend(self, users, *args, **options):
            pairs = pd.concat(told)
            for user in users:
                heard.setdefault(len(told) - 1, {})[user] = pairs[pairs["user"] == user]["item"]
            return super().recommend(users, *args, **options)

    heard = {}
    measured({"it": Listening(5).fit(NEWCOMERS.train, TASK.items)}, NEWCOMERS, TEXTS)
    asked = [one for one in range(len(QUESTIONS)) if not QUESTIONS[one].sentence]
    assert sorted(heard) == asked
    for number in asked:
        for user, items in heard[number].items():
            assert items.tolist() == items_of(user)[: QUESTIONS[number].likes]


def values_of(rows):
    columns = ["seed", "user", "recommender", "question", "NDCG@10", "HR@10"]
    return pd.DataFrame(rows, columns=columns)


def test_estimates_are_means_over_users_with_the_spread_of_the_seeds():
    draw = np.random.default_rng(1)
    rows = [(s, 10 * s + u, "it", "1 like", draw.random(), 1.0) for s in (0, 1) for u in range(8)]
    values = values_of(rows)
    found = estimates(values, "NDCG@10")["it", "1 like"]
    means = [values["NDCG@10"][:8].mean(), values["NDCG@10"][8:].mean()]
    assert found.mean == pytest.approx(values["NDCG@10"].mean())
    assert found.deviation == pytest.approx(np.std(means, ddof=1))
    assert (found.low, found.high) == pytest.approx(bootstrap_interval(values["NDCG@10"]))


def test_a_user_whom_several_seeds_hold_out_is_one_user_to_the_bootstrap():
    once = values_of([(0, u, "it", "1 like", u / 8, 1.0) for u in range(8)])
    twice = pd.concat([once, once.assign(seed=1)])
    one, other = (estimates(values, "NDCG@10")["it", "1 like"] for values in (once, twice))
    assert (one.low, one.high) == pytest.approx((other.low, other.high))


def test_differences_are_between_the_same_users():
    rows = [(0, 1, "it", "a sentence", 0.1, 1), (0, 2, "it", "a sentence", 0.5, 1)]
    rows += [(0, 2, "it", "1 like", 0.9, 1), (0, 1, "it", "1 like", 0.2, 1)]
    rows += [(0, 1, "popularity", "nothing", 0.3, 1), (0, 2, "popularity", "nothing", 0.6, 1)]
    values = values_of(rows)
    gain = differences(values, "NDCG@10")["it", "a sentence → 1 like"]
    assert (gain.mean, gain.low, gain.high) == pytest.approx((0.25, 0.1, 0.4))
    beyond = beyond_popularity(values, "NDCG@10")
    assert set(beyond) == {("it", "a sentence"), ("it", "1 like")}
    assert beyond["it", "1 like"].mean == pytest.approx((0.9 - 0.6 + 0.2 - 0.3) / 2)
    assert beyond["it", "1 like"].low == pytest.approx(-0.1)


def test_the_study_has_a_row_for_each_recommender_and_says_what_cannot_be_asked(
    tmp_path, monkeypatch
):
    pytest.importorskip("matplotlib")
    one = {name: options[:1] for name, options in few_shot.CANDIDATES.items()}
    monkeypatch.setattr(few_shot, "CANDIDATES", one)
    study = few_shot.study_of(TASK, Words(), (0, 1))
    page = study.markdown()
    first = study.tables[0].frame
    assert "hybrid" in first.index
    assert len(first) == 9
    no_text = first.index[first["a sentence"] == CANNOT].tolist()
    assert no_text == ["popularity", "item neighbours", "user neighbours", "ALS", "EASE"]
    assert first["nothing"].nunique() == 1  # all answer with what is popular
    assert first.loc["popularity"].drop(["a sentence", "a sentence and 2 likes"]).nunique() == 1
    assert "Likes are drawn." in page
    assert "permutation" in page
    assert "the 10 people who took an item are counted over everybody" in page
    assert "ALS begins with the seed 0 each time" in page
    assert "nan" not in page
    study.write_pictures(tmp_path)
    assert "likes known" in (tmp_path / "few-shot-made up.svg").read_text()


def test_the_best_candidate_is_chosen_and_of_equal_ones_the_first():
    tried = {"EASE": [({"a": 1}, 0.2), ({"a": 2}, 0.3), ({"a": 3}, 0.3)], "ALS": [({"b": 1}, 0.0)]}
    assert best_of(tried) == {"EASE": {"a": 2}, "ALS": {"b": 1}}


def test_findings_name_who_is_better_than_popularity():
    rows = []
    for user in range(20):
        rows.append((0, user, "popularity", "nothing", 0.2 + user / 200, 1))
        for name, above in (("good", 0.1), ("bad", -0.1)):
            rows += [
                (0, user, name, one.label, 0.2 + user / 200 + above, 1) for one in QUESTIONS[1:]
            ]
    values = values_of(rows)
    beyond, gains = beyond_popularity(values, "NDCG@10"), differences(values, "NDCG@10")
    told = findings(estimates(values, "NDCG@10"), beyond, gains)
    line = next(one for one in told.splitlines() if one.startswith("- 1 like:"))
    assert "best is good" in line
    assert "above: good;" in line
    assert "below: bad." in line


def test_a_film_sentence_leaves_out_what_is_not_known():
    films = pd.DataFrame({"genres": [(), ("War",)], "year": pd.array([None, 1987], dtype="Int64")})
    assert film_sentence(films) == "War films from the 1980s."
    assert film_sentence(films[:1]) == "Films."


def test_words_of_equal_number_come_in_the_order_of_the_likes():
    titles = ["Vintage cup", "Set of 3 cake tins", "Cake stand"]
    assert product_sentence(pd.DataFrame({"title": titles})) == "Cake, vintage, cup."


def test_purchases_are_likes_once_in_the_order_of_time_and_rare_items_are_left_out():
    users = [*range(10), 0, 3]
    bought = pd.DataFrame({"user": users, "item": ["a"] * 11 + ["b"], "rating": 1.0})
    bought["timestamp"] = [50, *range(40, 49), 7, 1]
    items = pd.DataFrame({"item": ["a", "b", "c"], "title": ["Cup"] * 3, "text": ["Cup."] * 3})
    task = TASKS["online-retail"](Dataset("online-retail", bought, items))
    assert task.items["item"].tolist() == ["a"]  # ten people took it, and nobody else anything
    assert task.likes["user"].tolist() == [0, *range(1, 10)]
    assert task.likes["timestamp"].tolist() == [7, *range(40, 49)]


def test_likes_of_films_are_ratings_of_four_stars_or_more():
    try:
        data = load("ml-latest-small")
    except DatasetNotFoundError:
        pytest.skip("ml-latest-small is not here; set LLMREC_DATA to the folder that has it")
    task = TASKS["ml-latest-small"](data)
    counts = data.interactions["item"].value_counts()
    rows = data.interactions[data.interactions["item"].map(counts) >= 10]
    assert len(task.likes) == (rows["rating"] >= 4).sum()
    assert set(task.items["item"]) == set(counts.index[counts >= 10])
    assert task.likes["timestamp"].is_monotonic_increasing


def test_what_cannot_be_studied_is_refused():
    with pytest.raises(ValueError, match="name"):
        few_shot.few_shot("ml-100k")
    with pytest.raises(ValueError, match="seeds is empty"):
        few_shot.study_of(TASK, Words(), ())
    with pytest.raises(ValueError, match="likes has 0 users with at least 20"):
        halves(TASK.likes[TASK.likes["user"] == 7])
