"""What an explanation promises: its shares are all of a score, or of what its class says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from recommender_cases import N_ITEMS, RECOMMENDERS, make_interactions, make_items, name, seen_by

from llmrec_kernels.recommenders import UnsupportedError

SILENT = {"popularity", "content, private"}
HISTORY = {"content", "item knn", "ease", "als", "aligned", "text ratings", "sequence", "towers"}


@pytest.fixture(params=sorted(RECOMMENDERS.keys() - SILENT))
def which(request):
    return request.param


@pytest.fixture
def fitted(which):
    users = pd.DataFrame({"user": [name(50)]})
    return RECOMMENDERS[which]().fit(make_interactions(name), make_items(name), users)


def baselines(seen, user):
    """μ + b_u + b_i of each item, by loops over the formula of `biases.py`."""
    seen = seen.drop_duplicates(["user", "item"], keep="last")
    rows = list(zip(seen.user, seen.item, seen.rating, strict=True))
    mean = sum(rating for *_, rating in rows) / len(rows)
    items, users = dict.fromkeys(map(name, range(N_ITEMS)), 0.0), {}

    def of_user(one):
        rest = [rating - mean - items[item] for who, item, rating in rows if who == one]
        return sum(rest) / (5 + len(rest))

    for _ in range(10):
        users = {one: of_user(one) for one in seen.user.unique()}
        for item in items:
            rest = [rating - mean - users[who] for who, what, rating in rows if what == item]
            items[item] = sum(rest) / (5 + len(rest))
    return {item: mean + of_user(user) + bias for item, bias in items.items()}


@pytest.mark.parametrize("user", [name(2), name(5)])
def test_the_shares_add_up_to_what_they_are_shares_of(fitted, which, user):
    base = baselines(make_interactions(name), user) if which.endswith("knn, ratings") else {}
    for item in map(name, range(N_ITEMS)):
        why = fitted.explain(user, item)
        score = float(fitted.score([user], [item])[0])
        assert why.score == score
        total = why.share.sum()
        if which.endswith("knn, ratings"):  # of the deviation from the baseline
            assert np.clip(base[item] + total, 3.0, 5.0) == pytest.approx(score, abs=1e-5)
        elif which.startswith("aligned"):  # of the taste; popularity is no share of a history
            assert set(why.blocks) == {"taste", "popularity"}
            assert total == pytest.approx(why.blocks["taste"], abs=1e-6)
            assert sum(why.blocks.values()) == pytest.approx(score, abs=1e-5)
        elif which.startswith(("text ratings", "sequence", "towers")):  # beside a baseline
            assert set(why.blocks) == {"taste", "baseline"}
            assert total == pytest.approx(why.blocks["taste"], abs=1e-6)
            assert sum(why.blocks.values()) == pytest.approx(score, abs=1e-5)
        else:
            assert total == pytest.approx(score, abs=1e-5)
        if which == "content, features":
            assert set(why.blocks) == {"text", "kind", "price"}
            assert sum(why.blocks.values()) == pytest.approx(score, abs=1e-5)


def test_the_sources_are_known_each_once_and_the_largest_share_comes_first(fitted, which):
    seen = make_interactions(name)
    for item in map(name, range(N_ITEMS)):
        why = fitted.explain(name(2), item)
        assert (why.user, why.item) == (name(2), item)
        assert len(set(why.source)) == len(why.source) == len(why.weight) == len(why.share)
        assert (np.diff(why.share) <= 0).all()
        assert list(why.to_pandas().columns) == [why.kind, "weight", "share"]
        if which.split(",")[0].split(" from")[0] in HISTORY:
            assert why.kind == "history"
            assert set(why.source) <= seen_by(seen, name(2))
        elif which.startswith("user knn"):
            assert why.kind == "neighbour"
            assert set(why.source) <= set(seen.user[seen.item == item])
        else:
            assert why.kind == "part"
            assert set(why.source) == set(fitted.parts)


def test_feedback_is_explained_at_once(fitted, which):
    if which.startswith(("user knn", "hybrid")):
        return  # their sources are no items of a history
    fitted.update(pd.DataFrame({"user": [name(5)], "item": [name(9)], "rating": [5.0]}))
    sources = [set(fitted.explain(name(5), name(item)).source) for item in range(N_ITEMS)]
    assert any(name(9) in one for one in sources)


def test_where_a_history_says_nothing_there_is_nothing_to_explain(fitted):
    with pytest.raises(ValueError, match="has no history that this model can use"):
        fitted.explain(name(50), name(1))


def test_what_is_explained_is_known(fitted):
    with pytest.raises(IndexError, match="user holds 'id 77'"):
        fitted.explain(name(77), name(1))
    with pytest.raises(IndexError, match="item holds 'id 77'"):
        fitted.explain(name(1), name(77))


@pytest.mark.parametrize("silent", sorted(SILENT))
def test_what_is_no_sum_over_a_history_is_not_explained(silent):
    model = RECOMMENDERS[silent]().fit(make_interactions(name), make_items(name))
    message = r"does not score by what a user took|has noise for privacy"
    with pytest.raises(UnsupportedError, match=message):
        model.explain(name(1), name(2))
