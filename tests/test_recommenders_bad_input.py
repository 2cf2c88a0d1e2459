"""Bad input to every recommender: a sentence that says what is wrong, and nothing is lost."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import torch
from recommender_cases import (
    N_ITEMS,
    N_USERS,
    RECOMMENDERS,
    VECTORS,
    Letters,
    everything,
    features,
    learnable,
    make_interactions,
    make_items,
    name,
    table,
)

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


@pytest.fixture(params=RECOMMENDERS)
def which(request):
    return request.param


@pytest.fixture
def model(which):
    return RECOMMENDERS[which]()


@pytest.fixture
def fitted(model):
    return model.fit(make_interactions(name), make_items(name))


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
        lambda f: pd.concat([f, f.assign(user=1)]),
        TypeError,
        "user ids are both integers and strings",
    ),
    "an unknown item": (
        lambda f: f.assign(item=[*f.item[:-1], "x"]),
        ValueError,
        r"interactions has item .* in row \d+, which is not among the 12 items",
    ),
}


@pytest.mark.parametrize("bad", BAD_FRAMES)
@pytest.mark.parametrize("change", ["fit", "update"])
def test_bad_interactions_are_refused_and_change_nothing(fitted, bad, change):
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
def test_bad_items_are_refused_and_change_nothing(fitted, bad):
    spoil, error, message = BAD_ITEMS[bad]
    before = table(fitted.recommend([name(u) for u in range(6)]))
    interactions = make_interactions(name)[:0] if bad == "no items" else make_interactions(name)
    with pytest.raises(error, match=message):
        fitted.fit(interactions, spoil(make_items(name)))
    assert table(fitted.recommend([name(u) for u in range(6)])) == before


BAD_QUESTIONS = {
    "one user for a list": (
        lambda m: m.recommend(name(1)),
        TypeError,
        "users is .*; expected a list of ids, such as",
    ),
    "users that are numbers with a point": (
        lambda m: m.recommend([1.5]),
        TypeError,
        "users holds 1.5 at entry 0",
    ),
    "k of zero": (lambda m: m.recommend([name(1)], k=0), ValueError, "k is 0"),
    "half a k": (lambda m: m.recommend([name(1)], k=2.5), TypeError, "k is 2.5"),
    "an option": (
        lambda m: m.recommend([name(1)], on_unknown="guess"),
        ValueError,
        "on_unknown is 'guess'; expected one of 'popular', 'raise'",
    ),
    "a list too few": (
        lambda m: m.recommend([name(1), name(2)], exclude=[[name(3)]]),
        ValueError,
        "exclude has 1 lists but there are 2 users",
    ),
    "allow as one id": (
        lambda m: m.recommend([name(1)], allow=name(3)),
        TypeError,
        "allow is .*; expected a list of ids",
    ),
}


@pytest.mark.parametrize("bad", BAD_QUESTIONS)
def test_a_bad_question_says_what_is_wrong(fitted, bad):
    ask, error, message = BAD_QUESTIONS[bad]
    with pytest.raises(error, match=message):
        ask(fitted)


def test_a_model_that_is_not_fitted_says_so(model):
    for ask in (
        lambda: model.recommend([1]),
        lambda: model.score([1], [1]),
        lambda: model.update(pd.DataFrame({"user": [1], "item": [1]})),
        lambda: model.recommend_from_history([1]),
    ):
        with pytest.raises(RuntimeError, match=re.escape("is not fitted; call fit first")):
            ask()


MORE_FRAMES = {
    "one timestamp missing": (
        lambda f: f.assign(timestamp=f.timestamp.astype(float).where(f.index != 5)),
        ValueError,
        "has nan for timestamp in row 5; expected a finite number: fill it in, or leave",
    ),
    "two columns of users": (
        lambda f: pd.concat([f, f[["user"]]], axis=1),
        ValueError,
        "interactions has 2 columns user; expected one",
    ),
    "ids with a point": (
        lambda f: f.assign(user=np.arange(len(f)) + 0.5),
        TypeError,
        "column user holds 0.5 at entry 0; expected ids that are integers or strings",
    ),
    "ids that are true or false": (lambda f: f.assign(item=True), TypeError, "item holds True"),
    "ids that are bytes": (lambda f: f.assign(user=b"ann"), TypeError, "user holds b'ann'"),
    "ids that are pairs": (
        lambda f: f.assign(user=[(1, 2)] * len(f)),
        TypeError,
        r"user holds \(1, 2\)",
    ),
    "a missing integer": (
        lambda f: f.assign(user=pd.array([1, None] * (len(f) // 2), dtype="Int64")),
        TypeError,
        "column user holds <NA> at entry 1",
    ),
    "ratings that are not there": (
        lambda f: f.assign(rating=pd.array([1, None] * (len(f) // 2), dtype="Int64")),
        ValueError,
        "has nan for rating in row 1",
    ),
}


@pytest.mark.parametrize("bad", MORE_FRAMES)
@pytest.mark.parametrize("change", ["fit", "update"])
def test_bad_columns_are_refused_and_nothing_is_lost(fitted, bad, change):
    spoil, error, message = MORE_FRAMES[bad]
    before = table(fitted.recommend([name(u) for u in range(N_USERS)]))
    frame = spoil(make_interactions(name)[: 2 * N_ITEMS])
    arguments = [frame, make_items(name)] if change == "fit" else [frame]
    with pytest.raises(error, match=message):
        getattr(fitted, change)(*arguments)
    assert table(fitted.recommend([name(u) for u in range(N_USERS)])) == before


def test_without_timestamps_the_order_of_rows_is_that_of_time(model, which):
    if which == "content, private":
        return  # its noise is another for another history, and times are a part of that
    seen, items = make_interactions(name), make_items(name)
    whole = everything(model.fit(seen, items), name)
    assert everything(model.fit(seen.drop(columns="timestamp"), items), name) == whole


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"user": ["a"], "item": ["id 0"], "rating": [3.0]}),
        pd.DataFrame({"user": ["a"] * 3, "item": ["id 0"] * 3, "rating": [3.0] * 3}),
        pd.DataFrame({"user": ["a", "b"], "item": ["id 0"] * 2, "rating": [-1.0, 1e9]}),
        make_interactions(name).assign(rating=4.0),
        make_interactions(name).assign(rating=-4.0, timestamp=0),
        make_interactions(name, n_users=1),
    ],
    ids=["one event", "one event thrice", "far apart", "all alike", "below 0", "one user"],
)
@pytest.mark.parametrize("alone", [False, True])
def test_small_and_even_data_are_answered_with_finite_scores(which, frame, alone):
    """With all items, or with those alone that were taken."""
    if which == "content, user bias" and (frame.rating < 0).any():
        with pytest.raises(
            ValueError, match="expected at least 0 with user_bias, which multiplies"
        ):
            RECOMMENDERS[which]().fit(frame, make_items(name))
        return
    if not learnable(which, frame):
        with pytest.raises(ValueError, match="expected ratings of at least two values"):
            RECOMMENDERS[which]().fit(frame, make_items(name))
        return
    items = make_items(name)
    if alone:
        items = items[items.item.isin(frame.item)]
    if len(items) < N_ITEMS and RECOMMENDERS[which]().__dict__.get("_embeddings") is not None:
        with pytest.raises(ValueError, match="embeddings has 12 rows but items has"):
            RECOMMENDERS[which]().fit(frame, items)
        return
    model = RECOMMENDERS[which]().fit(frame, items)
    answer = model.recommend([*frame.user.unique(), "nobody"], k=99, filter_seen=False)
    assert len(answer) == (frame.user.nunique() + 1) * len(items)
    assert np.isfinite(answer.score).all()
    assert np.isfinite(model.recommend_from_history([items.item.iloc[0]]).score).all()


TEXTS = {
    "empty": [""] * N_ITEMS,
    "blank": [" \n\t"] * N_ITEMS,
    "some empty": ["", "abba"] * (N_ITEMS // 2),
    "very long": ["abcdef " * 50_000 + "a" * code for code in range(N_ITEMS)],
    "in other scripts": ["七人の侍", "الرسالة", "🎬🍿", "Amélie", "Ирония судьбы", "\0\u202e"] * 2,
}


@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("reader", ["content from texts", "aligned from texts", "hybrid"])
def test_texts_of_any_kind_are_read(reader, texts):
    items = make_items(name).assign(text=TEXTS[texts])
    model = RECOMMENDERS[reader]().fit(make_interactions(name), items)
    for text in TEXTS[texts][:3]:
        answer = model.recommend_from_text(text, k=99)
        assert len(answer) == N_ITEMS
        assert np.isfinite(answer.score).all()
    assert len(model.recommend([name(0), name(4)], k=99, filter_seen=False)) == 2 * N_ITEMS


@pytest.mark.parametrize("reader", ["content from texts", "aligned from texts", "hybrid"])
@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, 3])
def test_an_item_without_a_text_is_told_and_nothing_is_lost(reader, missing):
    model = RECOMMENDERS[reader]().fit(make_interactions(name), make_items(name))
    before = everything(model, name)
    items = make_items(name).astype({"text": object})
    items.loc[7, "text"] = missing
    with pytest.raises(ValueError, match=r"items has .* for text in row 7; expected a string"):
        model.fit(make_interactions(name), items)
    assert everything(model, name) == before


def test_embeddings_are_finite_and_one_for_each_item():
    spoilt = VECTORS.copy()
    for bad in (np.nan, np.inf, -np.inf):
        spoilt[3, 1] = bad
        for made in (ContentRecommender, AlignedRecommender):
            with pytest.raises(ValueError, match="embeddings holds NaN or Inf in row 3"):
                made(embeddings=spoilt)
            with pytest.raises(ValueError, match="embeddings holds NaN or Inf in row 3"):
                made(embeddings=torch.from_numpy(spoilt))
    for made in (ContentRecommender, AlignedRecommender):
        with pytest.raises(ValueError, match="embeddings has 11 rows but items has 12"):
            made(embeddings=VECTORS[1:]).fit(make_interactions(name), make_items(name))
        with pytest.raises(ValueError, match="neither an encoder nor embeddings"):
            made()


def two(**options):
    parts = {"a": PopularityRecommender(), "b": EASERecommender()}
    return HybridRecommender(parts, **options)


one = PopularityRecommender()
NUMBER = (TypeError, "expected a number")
MADE = {
    "content": lambda **options: ContentRecommender(Letters(), **options),
    "features": lambda **options: ContentRecommender(features(), **options),
    "aligned": lambda **options: AlignedRecommender(Letters(), **options),
    "items": ItemKNNRecommender,
    "users": UserKNNRecommender,
    "ease": EASERecommender,
    "als": ALSRecommender,
    "hybrid": two,
}
WRONG = [
    *[("content", "interests", bad) for bad in (0, -1, 1.5, "two", True)],
    *[("content", "half_life", bad) for bad in (0, -1.0, np.nan, np.inf, "long")],
    *[("content", "min_rating", bad) for bad in (np.nan, np.inf, "good")],
    *[("content", "pooling", bad) for bad in ("max", None)],
    *[("aligned", "factors", bad) for bad in (0, -1, 1.5, "two")],
    *[(which, "regularization", bad) for which in ("aligned", "ease", "als") for bad in (0, -1)],
    *[
        (which, "regularization", bad)
        for which in ("aligned", "ease", "als")
        for bad in ("a", np.nan)
    ],
    *[("aligned", "popularity", bad) for bad in (-0.1, np.nan, "much")],
    *[(which, "neighbours", bad) for which in ("items", "users") for bad in (0, -2, 1.5, "all")],
    *[(which, "shrink", bad) for which in ("items", "users") for bad in (-1, np.inf, "much")],
    *[(which, "feedback", bad) for which in ("items", "users") for bad in ("explicit", None)],
    *[(which, "half_life", bad) for which in ("items", "ease") for bad in (0, -1, np.nan, "long")],
    *[("als", "factors", bad) for bad in (0, 2.5)],
    *[("als", "alpha", bad) for bad in (-1, np.nan, "much")],
    *[("als", "sweeps", bad) for bad in (0, 1.5)],
    *[("als", "seed", bad) for bad in (1.5, "one", None, -1, 2**70)],
    *[("hybrid", "weights", bad) for bad in ({"c": 1}, {"a": -1}, {"a": np.nan}, {"a": 0, "b": 0})],
    *[("hybrid", "fusion", bad) for bad in ("sum", None)],
    *[("hybrid", "rate", bad) for bad in (0, -1, np.inf, "fast")],
    *[("hybrid", "parts", bad) for bad in ([one], {"a": one}, {"a": one, "b": one})],
    *[("hybrid", "parts", bad) for bad in ({"a": one, 2: two()}, {"a": one, "b": "ease"})],
]


@pytest.mark.parametrize(("which", "option", "bad"), WRONG)
def test_an_option_out_of_its_range_is_named(which, option, bad):
    make = HybridRecommender if option == "parts" else MADE[which]
    with pytest.raises((ValueError, TypeError), match=rf"{option}.*(expected|parts|make one)"):
        make(**{option: bad})


def test_a_hybrid_whose_part_cannot_learn_stays_as_it_was():
    model = RECOMMENDERS["hybrid, everything"]()
    model.fit(make_interactions(name), make_items(name))
    before = everything(model, name)
    with pytest.raises(ValueError, match="items has no column"):
        model.fit(make_interactions(name)[:9], make_items(name)[["item", "text", "kind"]])
    assert everything(model, name) == before
