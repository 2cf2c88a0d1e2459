"""What every recommender promises, tested on each of them."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_kernels import recommenders
from llmrec_kernels.recommenders import (
    AlignedRecommender,
    ALSRecommender,
    ContentRecommender,
    EASERecommender,
    HybridRecommender,
    ItemKNNRecommender,
    PopularityRecommender,
    UserKNNRecommender,
)
from llmrec_kernels.recommenders.base import Recommender

N_ITEMS = 12


class Letters:
    """A text encoder: how often each letter comes."""

    def encode(self, texts):
        return torch.tensor([[float(text.count(letter)) for letter in "abcdef"] for text in texts])


VECTORS = np.random.default_rng(7).normal(size=(N_ITEMS, 5))

RECOMMENDERS = {
    "popularity": PopularityRecommender,
    "content from texts": lambda: ContentRecommender(Letters()),
    "content, mean": lambda: ContentRecommender(embeddings=VECTORS, pooling="mean"),
    "content, liked": lambda: ContentRecommender(embeddings=VECTORS, min_rating=4),
    "content, recency": lambda: ContentRecommender(embeddings=VECTORS, pooling="recency"),
    "content, uncentred": lambda: ContentRecommender(embeddings=VECTORS, centre=False),
    "content, interests": lambda: ContentRecommender(embeddings=VECTORS, interests=2),
    "content, user bias": lambda: ContentRecommender(embeddings=VECTORS, user_bias=True),
    "item knn": lambda: ItemKNNRecommender(5, 1.0),
    "item knn, ratings": lambda: ItemKNNRecommender(5, 1.0, feedback="ratings"),
    "item knn, recency": lambda: ItemKNNRecommender(half_life=2),
    "user knn": lambda: UserKNNRecommender(3, 1.0),
    "user knn, ratings": lambda: UserKNNRecommender(3, 1.0, feedback="ratings"),
    "ease": lambda: EASERecommender(1.0),
    "als": lambda: ALSRecommender(3, 0.5),
    "aligned": lambda: AlignedRecommender(embeddings=VECTORS, factors=3),
    "aligned from texts": lambda: AlignedRecommender(Letters(), factors=3),
    "hybrid": lambda: HybridRecommender(
        {"ease": EASERecommender(1.0), "content": ContentRecommender(Letters())}
    ),
    "hybrid, ranks": lambda: HybridRecommender(
        {"users": UserKNNRecommender(3), "popular": PopularityRecommender()}, fusion="ranks"
    ),
    "hybrid, adaptive": lambda: HybridRecommender(
        {"items": ItemKNNRecommender(5), "popular": PopularityRecommender()}, adaptive=True
    ),
}
ID_KINDS = {"integers": lambda code: 1000 - 7 * code, "strings": lambda code: f"id {code}"}


@pytest.fixture(params=RECOMMENDERS)
def model(request):
    return RECOMMENDERS[request.param]()


@pytest.fixture(params=ID_KINDS)
def name(request):
    """How a number becomes an id."""
    return ID_KINDS[request.param]


def make_items(name):
    letters = np.random.default_rng(1).choice(list("abcdef"), size=(N_ITEMS, 9))
    return pd.DataFrame(
        {"item": [name(code) for code in range(N_ITEMS)], "text": ["".join(row) for row in letters]}
    )


def make_interactions(name, n_users=6):
    """User 0 took everything, user u the fewer the greater u is."""
    pairs = [(0, item) for item in range(N_ITEMS)]
    pairs += [(u, (u * 5 + 3 * j) % N_ITEMS) for u in range(1, n_users) for j in range(7 - u)]
    users, items = zip(*pairs, strict=True)
    return pd.DataFrame(
        {
            "user": [name(one) for one in users],
            "item": [name(one) for one in items],
            "rating": [float(3 + (u + i // 2) % 3) for u, i in pairs],
            "timestamp": np.arange(len(pairs)),
        }
    )


@pytest.fixture
def fitted(model, name):
    return model.fit(make_interactions(name), make_items(name))


def lists(recommendations):
    """User -> items in order."""
    answer: dict = {}
    for user, item in zip(recommendations.user, recommendations.item, strict=True):
        answer.setdefault(user, []).append(item)
    return answer


def seen_by(interactions, user):
    return set(interactions.item[interactions.user == user])


def table(recommendations):
    return recommendations.to_pandas().to_dict("list")


def test_nobody_is_shown_what_they_have_seen(fitted, name):
    interactions = make_interactions(name)
    users = [name(u) for u in range(6)]
    answer = lists(fitted.recommend(users, k=N_ITEMS))
    for user in users:
        seen = seen_by(interactions, user)
        unseen = {name(code) for code in range(N_ITEMS)} - seen
        assert set(answer.get(user, [])) == unseen


def test_a_user_who_saw_everything_gets_a_short_list(fitted, name):
    assert len(fitted.recommend([name(0)])) == 0
    both = fitted.recommend([name(0), name(3)], k=2)
    assert both.user.tolist() == [name(3)] * 2
    assert both.unknown_users == ()


def test_what_was_seen_comes_back_where_it_is_not_filtered(fitted, name):
    everything = fitted.recommend([name(0), name(1)], k=99, filter_seen=False)
    assert {len(items) for items in lists(everything).values()} == {N_ITEMS}


def test_ranks_count_from_one_and_scores_never_rise(fitted, name):
    frame = fitted.recommend([name(u) for u in (4, 2, 5)], k=5).to_pandas()
    assert list(frame.columns) == ["user", "item", "score", "rank"]
    assert frame.user.drop_duplicates().tolist() == [name(u) for u in (4, 2, 5)]
    for _, rows in frame.groupby("user"):
        assert rows["rank"].tolist() == list(range(1, len(rows) + 1))
        assert (rows.score.diff().dropna() <= 0).all()
        assert not rows.item.duplicated().any()


def test_a_longer_list_begins_with_the_shorter_one(fitted, name):
    users = [name(u) for u in range(1, 6)]
    short, long = (lists(fitted.recommend(users, k=k)) for k in (2, 99))
    assert all(long[user][:2] == short[user] for user in users)


def test_an_answer_does_not_depend_on_who_else_is_asked_for(fitted, name):
    users = [name(u) for u in (5, 1, 3)]
    together = fitted.recommend(users).to_pandas()
    alone = pd.concat([fitted.recommend([user]).to_pandas() for user in users])
    pd.testing.assert_frame_equal(together, alone.reset_index(drop=True))


def test_nobody_asked_for_gives_no_rows(fitted):
    nothing = fitted.recommend([])
    assert len(nothing) == 0
    assert list(nothing.to_pandas().columns) == ["user", "item", "score", "rank"]


def test_ids_come_back_as_they_were_given(fitted, name):
    answer = fitted.recommend(np.array([name(2)]))
    assert {type(one) for one in answer.user.tolist()} == {type(name(2))}
    assert set(answer.item.tolist()) <= {name(code) for code in range(N_ITEMS)}


def test_only_what_is_allowed_and_nothing_excluded_is_recommended(fitted, name):
    interactions = make_interactions(name)
    users = [name(u) for u in (3, 4)]
    some = [name(code) for code in (0, 1, 2, 3, 4)]
    for user, items in lists(fitted.recommend(users, k=99, allow=some)).items():
        assert set(items) == set(some) - seen_by(interactions, user)
    unknown = 123456 if isinstance(name(0), int) else "no such item"
    for user, items in lists(fitted.recommend(users, k=99, exclude=[*some, unknown])).items():
        rest = {name(code) for code in range(5, N_ITEMS)}
        assert set(items) == rest - seen_by(interactions, user)
    answer = fitted.recommend(users, k=99, allow=some, exclude=some[1:], filter_seen=False)
    assert lists(answer) == {user: [some[0]] for user in users}


def test_filters_can_differ_from_user_to_user(fitted, name):
    users = [name(u) for u in (3, 4, 5)]
    allow = [[name(0), name(1)], [name(2)], []]
    answer = fitted.recommend(users, k=99, allow=allow, filter_seen=False)
    assert {user: set(items) for user, items in lists(answer).items()} == {
        users[0]: {name(0), name(1)},
        users[1]: {name(2)},
    }
    answer = fitted.recommend(
        users, k=99, allow=allow, exclude=[[name(0)], [], [name(9)]], filter_seen=False
    )
    assert lists(answer) == {users[0]: [name(1)], users[1]: [name(2)]}
    answer = fitted.recommend(users, k=99, allow=allow, exclude=[name(2)], filter_seen=False)
    assert set(lists(answer)) == {users[0]}
    everything = {name(code) for code in range(N_ITEMS)}
    hidden = [[name(0)], [name(1), name(2)], []]
    answer = lists(fitted.recommend(users, k=99, exclude=hidden))
    for user, one in zip(users, hidden, strict=True):
        seen = seen_by(make_interactions(name), user)
        assert set(answer[user]) == everything - seen - set(one)


def test_an_unknown_item_in_allow_is_refused(fitted, name):
    for allow in ([name(1), name(77)], [[name(77)]]):
        with pytest.raises(IndexError, match=f"allow.* holds {name(77)!r}, which is no item"):
            fitted.recommend([name(2)], allow=allow)


def test_unknown_users_get_what_is_popular_and_are_named(fitted, name):
    users = [name(50), name(2), name(60)]
    answer = fitted.recommend(users, k=4)
    assert answer.unknown_users == (name(50), name(60))
    popular = PopularityRecommender().fit(make_interactions(name), make_items(name))
    assert lists(answer)[name(50)] == lists(popular.recommend([name(50)], k=4))[name(50)]
    assert lists(answer)[name(2)] == lists(fitted.recommend([name(2)], k=4))[name(2)]


def test_unknown_users_are_refused_on_request(fitted, name):
    with pytest.raises(IndexError, match=f"users holds {name(50)!r}, which is no user"):
        fitted.recommend([name(2), name(50)], on_unknown="raise")
    assert len(fitted.recommend([name(2)], on_unknown="raise"))


def test_users_without_interactions_can_be_made_known(model, name):
    users = pd.DataFrame({"user": [name(50)]})
    model.fit(make_interactions(name), make_items(name), users)
    answer = model.recommend([name(50)], on_unknown="raise")
    assert answer.unknown_users == (name(50),)
    assert len(answer) == 10


def test_scores_of_pairs_are_those_of_the_lists(fitted, name):
    users = [name(u) for u in (5, 2, 50, 3)]
    answer = fitted.recommend(users[:2] + users[3:], k=99, filter_seen=False)
    order = np.random.default_rng(0).permutation(len(answer))
    scores = fitted.score(answer.user[order], answer.item[order])
    assert scores.dtype == np.float32
    assert np.array_equal(scores, answer.score[order])
    assert fitted.score([], []).shape == (0,)
    with pytest.raises(IndexError, match="users holds"):
        fitted.score(users[2:3], [name(1)])
    with pytest.raises(IndexError, match="items holds"):
        fitted.score(users[:1], [name(77)])
    with pytest.raises(ValueError, match="users has 1 ids but items has 2"):
        fitted.score(users[:1], [name(1), name(2)])


def test_what_is_taken_since_is_not_recommended_any_more(fitted, name):
    before = lists(fitted.recommend([name(3)], k=99))[name(3)]
    others = table(fitted.recommend([name(5)]))
    news = pd.DataFrame(
        {
            "user": [name(3), name(40)],
            "item": [before[0], before[1]],
            "rating": 5.0,
            "timestamp": 99,
        }
    )
    assert fitted.update(news) is fitted
    assert before[0] not in lists(fitted.recommend([name(3)], k=99))[name(3)]
    new_user = fitted.recommend([name(40)], k=99)
    assert new_user.unknown_users == ()
    assert set(new_user.item) == {name(code) for code in range(N_ITEMS)} - {before[1]}
    if not isinstance(fitted, PopularityRecommender):
        assert table(fitted.recommend([name(5)])) == others


def test_updating_comes_to_the_same_as_fitting_on_everything(model, name):
    interactions = make_interactions(name)
    whole = table(model.fit(interactions, make_items(name)).recommend([name(u) for u in range(6)]))
    # The second part overlaps the first: repeats with the same timestamp change nothing.
    model.fit(interactions[:14], make_items(name)).update(interactions[10:])
    in_parts = table(model.recommend([name(u) for u in range(6)]))
    assert in_parts == whole


def test_of_repeated_interactions_the_last_counts(model, name):
    first = make_interactions(name)
    older = first.assign(rating=1.0, timestamp=-1)
    users = [name(u) for u in range(6)]
    again = pd.concat([first, older])
    scale = first[:1].assign(user=name(9), rating=1.0)  # keeps the scale of ratings the same
    wanted = table(model.fit(pd.concat([first, scale]), make_items(name)).recommend(users))
    assert table(model.fit(pd.concat([again, scale]), make_items(name)).recommend(users)) == wanted


def test_a_history_without_a_user_is_answered(fitted, name):
    answer = fitted.recommend_from_history([name(1), name(2)], [5.0, 4.0], k=99)
    assert set(answer.item) == {name(code) for code in range(N_ITEMS)} - {name(1), name(2)}
    assert set(answer.user) == {None}
    assert answer.unknown_users == ()
    assert len(fitted.recommend_from_history([name(1)], k=3)) == 3
    assert fitted.recommend_from_history([]).unknown_users == (None,)
    with pytest.raises(IndexError, match="item_ids holds"):
        fitted.recommend_from_history([name(77)])
    with pytest.raises(ValueError, match=r"ratings is .*; expected 2 finite numbers"):
        fitted.recommend_from_history([name(1), name(2)], [5.0])
    with pytest.raises(ValueError, match="expected 1 finite numbers"):
        fitted.recommend_from_history([name(1)], [np.nan])


def test_a_history_and_its_user_get_the_same_answer(fitted, name):
    rows = make_interactions(name)
    rows = rows[rows.user == name(2)]
    asked = fitted.recommend_from_history(rows.item, rows.rating)
    known = fitted.recommend([name(2)])
    assert asked.item.tolist() == known.item.tolist()
    assert asked.score.tolist() == known.score.tolist()


BAD_FRAMES = {
    "no item column": (lambda f: f.drop(columns="item"), ValueError, "has no column item"),
    "no user column": (lambda f: f.drop(columns="user"), ValueError, "has no column user"),
    "a list": (lambda f: [1, 2], TypeError, "interactions is a list; expected a pandas DataFrame"),
    "a missing rating": (
        lambda f: f.assign(rating=f.rating.where(f.index != 3)),
        ValueError,
        "has nan for rating in row 3",
    ),
    "an infinite rating": (
        lambda f: f.assign(rating=np.inf),
        ValueError,
        "has inf for rating in row 0",
    ),
    "ratings in words": (lambda f: f.assign(rating="good"), ValueError, "expected numbers"),
    "a missing timestamp": (
        lambda f: f.assign(timestamp=np.nan),
        ValueError,
        "has nan for timestamp in row 0",
    ),
    "a missing user": (
        lambda f: f.assign(user=[None, *f.user[1:]]),
        TypeError,
        "column user holds .* at entry 0; expected ids",
    ),
    "ids of two kinds": (
        lambda f: pd.concat([f, f.assign(user="ann" if f.user.dtype == int else 1)]),
        TypeError,
        "user ids are both integers and strings",
    ),
    "an unknown item": (
        lambda f: f.assign(item=[*f.item[:-1], 9999 if f.item.dtype == int else "x"]),
        ValueError,
        r"interactions has item .* in row \d+, which is not among the 12 items",
    ),
}


@pytest.mark.parametrize("bad", BAD_FRAMES)
@pytest.mark.parametrize("change", ["fit", "update"])
def test_bad_interactions_are_refused_and_change_nothing(fitted, name, bad, change):
    spoil, error, message = BAD_FRAMES[bad]
    frame = make_interactions(name)
    before = table(fitted.recommend([name(u) for u in range(6)]))
    arguments = [spoil(frame), make_items(name)][: 2 if change == "fit" else 1]
    with pytest.raises(error, match=message):
        getattr(fitted, change)(*arguments)
    assert table(fitted.recommend([name(u) for u in range(6)])) == before


BAD_ITEMS = {
    "no item column": (lambda f: f.drop(columns="item"), ValueError, "items has no column item"),
    "an item twice": (lambda f: pd.concat([f, f[2:3]]), ValueError, "items has item .* 2 times"),
    "no items": (lambda f: f[:0], ValueError, "there are no items"),
    "a dict": (lambda f: dict(f), TypeError, "items is a dict"),
}


@pytest.mark.parametrize("bad", BAD_ITEMS)
def test_bad_items_are_refused_and_change_nothing(fitted, name, bad):
    spoil, error, message = BAD_ITEMS[bad]
    before = table(fitted.recommend([name(u) for u in range(6)]))
    interactions = make_interactions(name)[:0] if bad == "no items" else make_interactions(name)
    with pytest.raises(error, match=message):
        fitted.fit(interactions, spoil(make_items(name)))
    assert table(fitted.recommend([name(u) for u in range(6)])) == before


BAD_QUESTIONS = {
    "one user for a list": (
        lambda m, name: m.recommend(name(1)),
        TypeError,
        "users is .*; expected a list of ids, such as",
    ),
    "users that are numbers with a point": (
        lambda m, name: m.recommend([1.5]),
        TypeError,
        "users holds 1.5 at entry 0",
    ),
    "k of zero": (lambda m, name: m.recommend([name(1)], k=0), ValueError, "k is 0"),
    "half a k": (lambda m, name: m.recommend([name(1)], k=2.5), TypeError, "k is 2.5"),
    "an option": (
        lambda m, name: m.recommend([name(1)], on_unknown="guess"),
        ValueError,
        "on_unknown is 'guess'; expected one of 'popular', 'raise'",
    ),
    "a list too few": (
        lambda m, name: m.recommend([name(1), name(2)], exclude=[[name(3)]]),
        ValueError,
        "exclude has 1 lists but there are 2 users",
    ),
    "allow as one id": (
        lambda m, name: m.recommend([name(1)], allow=name(3)),
        TypeError,
        "allow is .*; expected a list of ids",
    ),
}


@pytest.mark.parametrize("bad", BAD_QUESTIONS)
def test_a_bad_question_says_what_is_wrong(fitted, name, bad):
    ask, error, message = BAD_QUESTIONS[bad]
    with pytest.raises(error, match=message):
        ask(fitted, name)


def test_a_model_that_is_not_fitted_says_so(model):
    for ask in (
        lambda: model.recommend([1]),
        lambda: model.score([1], [1]),
        lambda: model.update(pd.DataFrame({"user": [1], "item": [1]})),
        lambda: model.recommend_from_history([1]),
    ):
        with pytest.raises(RuntimeError, match=re.escape("is not fitted; call fit first")):
            ask()


def test_fitting_again_forgets_the_first_time(model, name):
    first, second = make_interactions(name), make_interactions(name, n_users=3)
    again = table(
        model.fit(first, make_items(name)).fit(second, make_items(name)).recommend([name(2)])
    )
    assert again == table(model.fit(second, make_items(name)).recommend([name(2)]))
    assert model.recommend([name(5)]).unknown_users == (name(5),)


def test_every_recommender_is_tested_here():
    built = {type(make()) for make in RECOMMENDERS.values()}
    public = {getattr(recommenders, name) for name in recommenders.__all__}
    kinds = {one for one in public if isinstance(one, type) and issubclass(one, Recommender)}
    assert built == kinds - {Recommender}


@settings(deadline=None, max_examples=60)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, N_ITEMS - 1)), max_size=30),
    users=st.lists(st.integers(0, 6), max_size=5),
    k=st.integers(1, 20),
    allow=st.none() | st.lists(st.integers(0, N_ITEMS - 1), max_size=8),
    exclude=st.none() | st.lists(st.integers(0, 20), max_size=8),
    which=st.sampled_from(sorted(RECOMMENDERS)),
)
def test_lists_hold_as_many_items_as_the_filters_leave(pairs, users, k, allow, exclude, which):
    frame = pd.DataFrame(pairs, columns=["user", "item"]).assign(rating=4.0)
    items = make_items(int)
    answer = (
        RECOMMENDERS[which]().fit(frame, items).recommend(users, k, allow=allow, exclude=exclude)
    )
    wanted_users, wanted_counts = [], 0
    for user in users:
        left = set(range(N_ITEMS)) if allow is None else set(allow)
        left -= set(exclude or []) | {item for one, item in pairs if one == user}
        count = min(k, len(left))
        part = slice(wanted_counts, wanted_counts + count)
        assert set(answer.item[part].tolist()) <= left
        assert len(set(answer.item[part].tolist())) == count
        wanted_users += [user] * count
        wanted_counts += count
    assert answer.user.tolist() == wanted_users
