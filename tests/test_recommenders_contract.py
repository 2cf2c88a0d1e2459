"""What every recommender promises of its lists and scores, tested on each of them.

Updates, explanations, saving, bad input and memory have files of their own.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from recommender_cases import (
    N_ITEMS,
    READ_TEXT,
    RECOMMENDERS,
    learnable,
    lists,
    make_interactions,
    make_items,
    name,
    seen_by,
    table,
)

from llmrec_kernels import recommenders
from llmrec_kernels.recommenders import (
    PopularityRecommender,
    UnsupportedError,
)
from llmrec_kernels.recommenders.base import Recommender


@pytest.fixture(params=RECOMMENDERS)
def which(request):
    return request.param


@pytest.fixture
def model(which):
    return RECOMMENDERS[which]()


@pytest.fixture
def fitted(model):
    return model.fit(make_interactions(name), make_items(name))


def test_nobody_is_shown_what_they_have_seen(fitted):
    interactions = make_interactions(name)
    users = [name(u) for u in range(6)]
    answer = lists(fitted.recommend(users, k=N_ITEMS))
    for user in users:
        seen = seen_by(interactions, user)
        unseen = {name(code) for code in range(N_ITEMS)} - seen
        assert set(answer.get(user, [])) == unseen


def test_a_user_who_saw_everything_gets_a_short_list(fitted):
    assert len(fitted.recommend([name(0)])) == 0
    both = fitted.recommend([name(0), name(3)], k=2)
    assert both.user.tolist() == [name(3)] * 2
    assert both.unknown_users == ()


def test_what_was_seen_comes_back_where_it_is_not_filtered(fitted):
    everything = fitted.recommend([name(0), name(1)], k=99, filter_seen=False)
    assert {len(items) for items in lists(everything).values()} == {N_ITEMS}


def test_ranks_count_from_one_and_scores_never_rise(fitted):
    frame = fitted.recommend([name(u) for u in (4, 2, 5)], k=5).to_pandas()
    assert list(frame.columns) == ["user", "item", "score", "rank"]
    assert frame.user.drop_duplicates().tolist() == [name(u) for u in (4, 2, 5)]
    for _, rows in frame.groupby("user"):
        assert rows["rank"].tolist() == list(range(1, len(rows) + 1))
        assert (rows.score.diff().dropna() <= 0).all()
        assert not rows.item.duplicated().any()


def test_a_longer_list_begins_with_the_shorter_one(fitted):
    users = [name(u) for u in range(1, 6)]
    short, long = (lists(fitted.recommend(users, k=k)) for k in (2, 99))
    assert all(long[user][:2] == short[user] for user in users)


def test_an_answer_does_not_depend_on_who_else_is_asked_for(fitted):
    users = [name(u) for u in (5, 1, 3)]
    together = fitted.recommend(users).to_pandas()
    alone = pd.concat([fitted.recommend([user]).to_pandas() for user in users])
    pd.testing.assert_frame_equal(together, alone.reset_index(drop=True))


def test_who_is_asked_for_twice_is_answered_twice(fitted):
    once = table(fitted.recommend([name(4)], k=3))
    twice = fitted.recommend([name(4), name(2), name(4)], k=3).to_pandas()
    for part in (twice[:3], twice[-3:]):
        assert part.to_dict("list") == once
    assert fitted.recommend([name(50)] * 2).unknown_users == (name(50),) * 2


def test_nobody_asked_for_gives_no_rows(fitted):
    nothing = fitted.recommend([])
    assert len(nothing) == 0
    assert list(nothing.to_pandas().columns) == ["user", "item", "score", "rank"]


@pytest.mark.parametrize("kind", [int, name])
def test_ids_come_back_as_they_were_given(model, kind):
    model.fit(make_interactions(kind), make_items(kind))
    answer = model.recommend(np.array([kind(2)]))
    assert {type(one) for one in answer.user.tolist()} == {type(kind(2))}
    assert set(answer.item.tolist()) <= {kind(code) for code in range(N_ITEMS)}
    assert answer.user.dtype == answer.item.dtype == (np.int64 if kind is int else object)


def test_only_what_is_allowed_and_nothing_excluded_is_recommended(fitted):
    interactions = make_interactions(name)
    users = [name(u) for u in (3, 4)]
    some = [name(code) for code in (0, 1, 2, 3, 4)]
    for user, items in lists(fitted.recommend(users, k=99, allow=some)).items():
        assert set(items) == set(some) - seen_by(interactions, user)
    answer = fitted.recommend(users, k=99, exclude=[*some, "no such item"])
    for user, items in lists(answer).items():
        rest = {name(code) for code in range(5, N_ITEMS)}
        assert set(items) == rest - seen_by(interactions, user)
    answer = fitted.recommend(users, k=99, allow=some, exclude=some[1:], filter_seen=False)
    assert lists(answer) == {user: [some[0]] for user in users}


def test_filters_can_differ_from_user_to_user(fitted):
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


def test_an_unknown_item_in_allow_is_refused(fitted):
    for allow in ([name(1), name(77)], [[name(77)]]):
        with pytest.raises(IndexError, match=f"allow.* holds {name(77)!r}, which is no item"):
            fitted.recommend([name(2)], allow=allow)


def test_unknown_users_get_what_is_popular_and_are_named(fitted):
    users = [name(50), name(2), name(60)]
    answer = fitted.recommend(users, k=4)
    assert answer.unknown_users == (name(50), name(60))
    popular = PopularityRecommender().fit(make_interactions(name), make_items(name))
    assert lists(answer)[name(50)] == lists(popular.recommend([name(50)], k=4))[name(50)]
    assert lists(answer)[name(2)] == lists(fitted.recommend([name(2)], k=4))[name(2)]


def test_unknown_users_are_refused_on_request(fitted):
    with pytest.raises(IndexError, match=f"users holds {name(50)!r}, which is no user"):
        fitted.recommend([name(2), name(50)], on_unknown="raise")
    assert len(fitted.recommend([name(2)], on_unknown="raise"))


def test_users_without_interactions_can_be_made_known(model):
    users = pd.DataFrame({"user": [name(50)]})
    model.fit(make_interactions(name), make_items(name), users)
    answer = model.recommend([name(50)], on_unknown="raise")
    private = getattr(model, "privacy", None) is not None  # it does not tell that there is nothing
    assert answer.unknown_users == (() if private else (name(50),))
    assert len(answer) == 10


def test_scores_of_pairs_are_those_of_the_lists(fitted):
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


def test_a_history_without_a_user_is_answered(fitted):
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


def test_a_history_and_its_user_get_the_same_answer(fitted, which):
    rows = make_interactions(name)
    rows = rows[rows.user == name(2)]
    asked = table(fitted.recommend_from_history(rows.item, rows.rating))
    known = table(fitted.recommend([name(2)]))
    # Noise of its own for each who asks: the same would tell that a guessed history is right.
    same = which != "content, private"
    assert (asked["item"] == known["item"]) is same
    assert (asked["score"] == known["score"]) is same


def test_a_text_is_answered_by_those_who_read(fitted, which):
    if which not in READ_TEXT:
        with pytest.raises(UnsupportedError, match="reads no text"):
            fitted.recommend_from_text("abba")
        return
    answer = fitted.recommend_from_text("abba", k=99)
    assert set(answer.item) == {name(code) for code in range(N_ITEMS)}
    assert set(answer.user) == {None}
    assert answer.unknown_users == ()
    liked = fitted.recommend_from_text("abba", k=99, liked=[name(1), name(5)])
    assert set(liked.item) == {name(code) for code in range(N_ITEMS) if code not in (1, 5)}
    with pytest.raises(TypeError, match="text is a list; expected one string"):
        fitted.recommend_from_text(["abba"])
    with pytest.raises(IndexError, match="liked holds"):
        fitted.recommend_from_text("abba", liked=[name(77)])


def test_similar_items_are_others_the_best_first(fitted, which):
    if which == "popularity" or which.startswith(("user knn", "hybrid")):
        with pytest.raises(UnsupportedError, match="does not compare items"):
            fitted.similar_items([name(1)])
        return
    like = fitted.similar_items([name(3), name(1), name(3)], k=4)
    frame = like.to_pandas()
    assert list(frame.columns) == ["item", "similar", "score", "rank"]
    assert frame.item.drop_duplicates().tolist() == [name(3), name(1)]
    assert (frame.item != frame.similar).all()
    for _, rows in frame[frame.item == name(1)].groupby("item"):
        assert rows["rank"].tolist() == list(range(1, len(rows) + 1))
        assert (rows.score.diff().dropna() <= 0).all()
    with pytest.raises(IndexError, match="items holds"):
        fitted.similar_items([name(77)])


def test_fitting_again_forgets_the_first_time(model):
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
    frame = pd.DataFrame(pairs, columns=["user", "item"])
    frame["rating"] = [3.0 + row % 2 for row in range(len(frame))]
    assume(learnable(which, frame))
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
