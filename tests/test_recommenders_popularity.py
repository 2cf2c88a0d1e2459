"""What is particular to `PopularityRecommender`; the rest is in the contract suite."""

from __future__ import annotations

import pandas as pd
import pytest

from llmrec_kernels.datasets import movielens_100k
from llmrec_kernels.evaluation import evaluate, leave_last_out
from llmrec_kernels.recommenders import PopularityRecommender, UnsupportedError


def frame(*pairs):
    return pd.DataFrame(pairs, columns=["user", "item"])


def test_the_score_is_the_number_of_users_who_took_the_item():
    seen = frame((1, 7), (2, 7), (3, 7), (1, 8), (1, 8), (1, 8), (2, 9), (3, 9))
    answer = PopularityRecommender().fit(seen).recommend([99])
    assert answer.item.tolist() == [7, 9, 8]
    assert answer.score.tolist() == [3, 2, 1]


def test_ties_come_in_the_order_of_the_items_frame():
    seen = frame((1, 7), (2, 5), (3, 9))
    items = pd.DataFrame({"item": [9, 4, 7, 5]})
    assert PopularityRecommender().fit(seen, items).recommend([99]).item.tolist() == [9, 7, 5, 4]


def test_without_an_items_frame_ties_come_in_the_order_of_the_ids():
    seen = frame((1, "b"), (2, "c"), (3, "a"))
    assert PopularityRecommender().fit(seen).recommend([99]).item.tolist() == ["a", "b", "c"]


def test_feedback_counts_at_once_and_once_a_user():
    model = PopularityRecommender().fit(frame((1, 7), (2, 7), (3, 8)))
    model.update(frame((1, 8), (4, 8), (4, 8), (3, 8)))
    assert model.score([1, 1], [7, 8]).tolist() == [2, 3]
    model.update(frame())
    assert model.score([1, 1], [7, 8]).tolist() == [2, 3]


def test_it_says_what_it_cannot_do():
    model = PopularityRecommender().fit(frame((1, 7)))
    with pytest.raises(UnsupportedError, match="PopularityRecommender reads no text"):
        model.recommend_from_text("a film")
    with pytest.raises(UnsupportedError, match="does not compare items"):
        model.similar_items([7])
    with pytest.raises(UnsupportedError, match="does not score by what a user took"):
        model.explain(1, 7)


def test_leave_last_out_reaches_the_published_ruler():
    data = movielens_100k()
    train, test = leave_last_out(data.interactions)
    report = evaluate(PopularityRecommender().fit(train, data.items), train, test)
    assert report["HR@10"] == pytest.approx(0.086, abs=0.002)
    assert report["NDCG@10"] == pytest.approx(0.044, abs=0.002)
