"""The draws of the study of cold items: what is held out is held out everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from small_histories import real

from llmrec_kernels.datasets import movielens_100k
from llmrec_kernels.recommenders import PopularityRecommender
from llmrec_kernels.studies import cold_items


@pytest.fixture(scope="module")
def films():
    return real(movielens_100k)


def test_five_draws_hold_out_a_fifth_of_the_films_with_all_their_ratings(films):
    drawn = list(cold_items.draws(films))
    assert len(drawn) == 5
    assert len({tuple(sorted(draw.held_out)) for draw in drawn}) == 5
    for draw in drawn:
        assert len(set(draw.held_out)) == 336
        assert not draw.train.item.isin(draw.held_out).any()
        assert draw.test.item.isin(draw.held_out).all()
        assert len(draw.train) + len(draw.test) == len(films.interactions)


def test_settings_are_chosen_on_films_that_are_not_held_out(films):
    for seed, draw in enumerate(cold_items.draws(films)):
        within = cold_items.inner(draw, seed)
        assert not set(within.held_out) & set(draw.held_out)
        assert not within.train.item.isin([*within.held_out, *draw.held_out]).any()
        assert within.test.index.isin(draw.train.index).all()


def test_only_held_out_films_are_ranked(films):
    draw = next(cold_items.draws(films))
    model = PopularityRecommender().fit(draw.train, films.items)
    report = draw.ndcg(model)
    liked = draw.test[draw.test.rating >= 4].groupby("user").item.agg(set)
    # Nobody rated them, so that popularity has them in the order of the catalogue.
    order = [item for item in films.items.item if item in set(draw.held_out)][:10]
    gains = 1 / np.log2(np.arange(10) + 2)
    ndcg = [
        sum(gain for gain, item in zip(gains, order, strict=True) if item in wanted)
        / gains[: min(10, len(wanted))].sum()
        for wanted in liked
    ]
    assert report["NDCG@10"] == pytest.approx(np.mean(ndcg))
