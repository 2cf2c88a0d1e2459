"""What every recommender promises of `update`: feedback counts at once, and what else it moves."""

from __future__ import annotations

import itertools

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from recommender_cases import (
    N_ITEMS,
    N_USERS,
    RECOMMENDERS,
    SHARED,
    everything,
    learnable,
    lists,
    make_interactions,
    make_items,
    name,
    seen_by,
    table,
)

from llmrec_kernels.recommenders import HybridRecommender, PopularityRecommender

REFITS = [one for one, make in RECOMMENDERS.items() if make().update_is_refit]
STAYS = [one for one in RECOMMENDERS if one not in REFITS]


@pytest.fixture(params=RECOMMENDERS)
def which(request):
    return request.param


@pytest.fixture
def fitted(which):
    return RECOMMENDERS[which]().fit(make_interactions(name), make_items(name))


def news(*pairs, rating=4.0, timestamp=99):
    users, items = zip(*pairs, strict=True)
    frame = pd.DataFrame({"user": map(name, users), "item": map(name, items)})
    return frame.assign(rating=rating, timestamp=timestamp)


def test_which_models_come_to_the_same_as_a_refit_is_said():
    assert set(REFITS) == {
        "popularity",
        *(one for one in RECOMMENDERS if one.startswith("content")),
        "user knn",
        "hybrid, ranks",
    }


def test_what_is_taken_since_is_not_recommended_any_more(fitted, which):
    before = lists(fitted.recommend([name(3)], k=99))[name(3)]
    others = table(fitted.recommend([name(5)], k=99))
    taken = int(before[0].split()[1]), int(before[1].split()[1])
    assert fitted.update(news((3, taken[0]), (40, taken[1]))) is fitted
    assert set(lists(fitted.recommend([name(3)], k=99))[name(3)]) == set(before[1:])
    new_user = fitted.recommend([name(40)], k=99, on_unknown="raise")
    assert new_user.unknown_users == ()
    assert set(new_user.item) == {name(code) for code in range(N_ITEMS)} - {before[1]}
    if which not in SHARED:
        assert table(fitted.recommend([name(5)], k=99)) == others


def test_what_others_took_since_moves_lists_that_are_made_of_it(fitted, which):
    """Each of `SHARED` is there for a reason: feedback of others changes what a user is told."""
    before = everything(fitted, name, [5])["all"]
    # They took what user 5 took, rated alike, and one more that they liked less.
    frame = news(*((user, item) for user in range(30, 60) for item in (1, 4, 8)))
    fitted.update(frame.assign(rating=[5.0, 4.0, 3.0] * 30))
    assert (everything(fitted, name, [5])["all"] != before) is (which in SHARED)


def test_the_answer_is_that_of_the_history_with_the_news_in_it(fitted, which):
    """Also where what was learned of the items stays, the history is up to date."""
    fitted.update(news((3, 2), (3, 9), rating=[3.0, 5.0]))
    rows = pd.concat([make_interactions(name), news((3, 2), (3, 9), rating=[3.0, 5.0])])
    rows = rows[rows.user == name(3)].drop_duplicates("item", keep="last")
    known = fitted.recommend([name(3)], k=99)
    asked = fitted.recommend_from_history(rows.item, rows.rating, k=99)
    assert set(known.item) == set(asked.item)
    if which != "content, private":  # has noise of its own for each who asks
        assert table(known)["item"] == table(asked)["item"]
        assert table(known)["score"] == table(asked)["score"]


def test_unknown_users_are_told_what_is_popular_now(fitted):
    frame = news(*((user, 7) for user in range(20, 40)))
    fitted.update(frame)
    answer = fitted.recommend([name(99)], k=N_ITEMS)
    assert answer.unknown_users == (name(99),)
    seen = pd.concat([make_interactions(name), frame])
    counts = seen.groupby("item").user.nunique()
    wanted = sorted(range(N_ITEMS), key=lambda code: (-counts.get(name(code), 0), code))
    assert answer.item.tolist() == [name(code) for code in wanted]
    assert answer.score.tolist() == [counts.get(name(code), 0) for code in wanted]


def test_no_news_change_nothing(fitted):
    before = everything(fitted, name)
    fitted.update(make_interactions(name)[:0])
    assert everything(fitted, name) == before


def test_old_news_of_what_was_taken_since_change_nothing_but_an_adaptive_weight(fitted):
    """Of a user and an item the latest counts, and the range of ratings has been seen."""
    before = everything(fitted, name)
    fitted.update(make_interactions(name).assign(timestamp=-5, rating=3.0))
    assert everything(fitted, name) == before


def test_a_model_fitted_on_nobody_learns_of_users(which):
    nobody = make_interactions(name)[:0].astype({"rating": float})
    model = RECOMMENDERS[which]().fit(nobody, make_items(name))
    assert model.recommend([name(3)], k=99).unknown_users == (name(3),)
    model.update(news((3, 1), (3, 4)))
    answer = model.recommend([name(3)], k=99, on_unknown="raise")
    assert set(answer.item) == {name(code) for code in range(N_ITEMS)} - {name(1), name(4)}
    if which in REFITS:
        whole = RECOMMENDERS[which]().fit(news((3, 1), (3, 4)), make_items(name))
        assert everything(model, name) == everything(whole, name)


# Ratings whose sums are rounded, of any order in time, beyond the first ones, with repeats.
RATINGS = st.sampled_from([0.1, 0.2, 0.7, 1.0, 3.3, 4.9, 5.0])
EVENTS = st.lists(
    st.tuples(st.integers(0, N_USERS), st.integers(0, N_ITEMS - 1), RATINGS, st.integers(0, 5)),
    max_size=40,
)
COLUMNS = ["user", "item", "rating", "timestamp"]


def framed(events):
    frame = pd.DataFrame(events, columns=COLUMNS).astype({"rating": float})
    return frame.assign(user=frame.user.astype(int), item=frame.item.astype(int))


@settings(deadline=None, max_examples=60)
@given(events=EVENTS, cuts=st.lists(st.integers(0, 40), max_size=4), which=st.sampled_from(REFITS))
def test_updating_is_the_same_as_fitting_on_everything_where_it_says_so(events, cuts, which):
    items, frame = make_items(int), framed(events)
    users = pd.DataFrame({"user": [90, 3]})
    bounds = [0, *sorted(min(cut, len(frame)) for cut in cuts), len(frame)]
    parts = [frame[start:stop] for start, stop in itertools.pairwise(bounds)]
    model = RECOMMENDERS[which]().fit(parts[0], items, users)
    for part in parts[1:]:
        model.update(part)
    whole = RECOMMENDERS[which]().fit(frame, items, users)
    asked = [*range(N_USERS + 1), 90, 91]
    assert everything(model, int, asked) == everything(whole, int, asked)


@settings(deadline=None, max_examples=60)
@given(first=EVENTS, later=EVENTS, which=st.sampled_from(STAYS))
def test_histories_are_up_to_date_where_updating_is_no_refit(first, later, which):
    assume(learnable(which, framed(first)))
    frame = framed(first + later)
    model = RECOMMENDERS[which]().fit(framed(first), make_items(int)).update(framed(later))
    users = list(range(N_USERS + 1))
    answer = model.recommend(users, k=99)
    for user in users:
        left = set(range(N_ITEMS)) - seen_by(frame, user)
        assert set(lists(answer).get(user, [])) == left
        assert (user in model.recommend([user]).unknown_users) or user in set(frame.user)


@settings(deadline=None, max_examples=60)
@given(first=EVENTS, later=EVENTS, which=st.sampled_from(sorted(RECOMMENDERS)))
def test_one_event_at_a_time_comes_to_the_same_as_all_at_once(first, later, which):
    assume(learnable(which, framed(first)))
    model, other = (RECOMMENDERS[which]().fit(framed(first), make_items(int)) for _ in range(2))
    model.update(framed(later))
    for event in later:
        other.update(framed([event]))
    # Weights that learn have learned from other histories; all else is the same.
    if "adaptive" not in which and which != "hybrid of a hybrid":
        assert everything(model, int) == everything(other, int)


def test_a_hybrid_says_that_updating_is_a_refit_where_it_is_for_all_parts():
    def hybrid(**options):
        parts = {"a": PopularityRecommender(), "b": RECOMMENDERS["user knn"]()}
        return HybridRecommender(parts, **options)

    assert hybrid().update_is_refit
    assert not hybrid(adaptive=True).update_is_refit
    mixed = HybridRecommender({"a": PopularityRecommender(), "b": RECOMMENDERS["ease"]()})
    assert not mixed.update_is_refit


def test_what_was_learned_of_items_stays_until_the_next_fit():
    for which in ("item knn", "ease", "als", "aligned"):
        model = RECOMMENDERS[which]().fit(make_interactions(name), make_items(name))
        like = table(model.similar_items([name(code) for code in range(N_ITEMS)]))
        frame = news(*((user, item) for user in range(20, 40) for item in (0, 5)))
        model.update(frame)
        assert table(model.similar_items([name(code) for code in range(N_ITEMS)])) == like
        model.fit(pd.concat([make_interactions(name), frame]), make_items(name))
        assert table(model.similar_items([name(code) for code in range(N_ITEMS)])) != like


def test_the_weights_of_an_adaptive_hybrid_move_toward_what_predicts():
    model = RECOMMENDERS["hybrid, adaptive"]().fit(make_interactions(name), make_items(name))
    before = model.current_weights
    popular = model.parts["popular"]
    for user in range(20, 30):
        model.update(news((user, user % N_ITEMS)))
        model.update(news((user, int(popular.recommend([name(user)]).item[0].split()[1]))))
    after = model.current_weights
    assert after["popular"] > before["popular"]
    assert sum(after.values()) == pytest.approx(sum(before.values()))
