"""What docs/results.md claims, measured once more: `make studies`, a rung of `make test-all`.

The floors are those that the project promises; the page has the numbers.
"""

from __future__ import annotations

import pytest
from small_histories import real

from llmrec_kernels.datasets import (
    movielens_100k,
    movielens_100k_split,
    movielens_latest_small,
)
from llmrec_kernels.evaluation import compare_paired, evaluate, leave_last_out, pool
from llmrec_kernels.recommenders import ContentRecommender, EASERecommender
from llmrec_kernels.studies import cold_items, known_items, models, ratings, text_ratings


def value(cell: object) -> float:
    """The number of a cell such as ".205 [.178, .231]"."""
    return float(str(cell).split()[0])


@pytest.fixture(scope="module")
def films():
    return real(movielens_100k)


@pytest.fixture(scope="module")
def last(films):
    return leave_last_out(films.interactions)


def test_the_hybrid_is_better_than_ease_with_settings_that_the_test_did_not_choose(films, last):
    train, test = last
    chosen = known_items.choose(train, films.items)
    assert chosen == models.CHOSEN
    ease = evaluate(EASERecommender().fit(train, films.items), train, test)
    hybrid = evaluate(chosen.model().fit(train, films.items), train, test)
    for label in ("HR@10", "NDCG@10"):
        assert compare_paired(hybrid, ease, label).low > 0


def test_the_last_interactions_change_no_choice(films, last):
    train, test = last
    inner, held_out = leave_last_out(train)
    assert not set(inner.index) & set(test.index)
    assert not set(held_out.index) & set(test.index)
    assert len(inner) + len(held_out) + len(test) == len(films.interactions)


def test_the_official_split_reaches_the_ruler():
    real(lambda: movielens_100k_split("u1"))
    table = known_items.official_split().tables[0].frame
    best = table[[name.startswith("EASE") for name in table.index]].iloc[-1]
    assert value(best["Recall@20"]) >= 0.305
    assert value(best["NDCG@10"]) >= 0.559


def test_ratings_are_predicted_as_well_as_promised():
    real(lambda: movielens_100k_split("u5"))
    table = ratings.five_folds().tables[0].frame
    assert table.loc["item neighbours", "RMSE"] <= 0.932
    assert table.loc["item neighbours", "MAE"] <= 0.735
    assert table.loc["biases only", "RMSE"] == pytest.approx(0.942, abs=0.002)  # the ruler's


def test_cold_films_are_ranked_as_well_as_promised():
    films = real(lambda: movielens_100k(plots=True))
    content, aligned, chosen, towers = [], [], [], []
    for seed, draw in enumerate(cold_items.draws(films)):
        made = (
            (content, ContentRecommender(models.text_encoder())),
            (aligned, cold_items.aligned()),
            (chosen, cold_items.choose(draw, films.items, seed)),
            (towers, cold_items.towers()),
        )
        for reports, model in made:
            reports.append(draw.ndcg(model.fit(draw.train, films.items)))
    assert pool(content)["NDCG@10"] >= 0.23
    assert pool(aligned)["NDCG@10"] >= 0.27
    assert pool(chosen)["NDCG@10"] >= 0.27
    assert pool(towers)["NDCG@10"] >= pool(aligned)["NDCG@10"]


def test_ratings_of_films_that_nobody_has_rated_are_foretold_better_than_by_biases():
    real(movielens_latest_small)
    means, differences = (one.frame for one in text_ratings.text_ratings().tables[:2])
    highs = [float(cell.strip("[]").split(", ")[1]) for cell in differences["95% interval"]]
    assert len(highs) == 12  # two models, five draws and all together
    assert max(highs) < 0
    assert means.loc["texts", "RMSE"] <= 0.905
    assert means.loc["texts", "RMSE"] < min(means.loc[["biases", "means of users"], "RMSE"])


def test_sequences_pass_ease_and_make_the_best_hybrid(films, last):
    train, test = last
    metrics = ("hit_rate", "ndcg")
    with_sequence = models.CHOSEN.with_sequence(models.WITH_SEQUENCE).fit(train, films.items)
    best = evaluate(with_sequence, train, test, metrics=metrics)
    hybrid = evaluate(models.hybrid().fit(train, films.items), train, test, metrics=metrics)
    assert compare_paired(best, hybrid, "NDCG@10").low > 0
    with_sequence.set_weights({"ease": 0.0, "items": 0.0})
    alone = evaluate(with_sequence, train, test, metrics=metrics)
    assert alone["HR@10"] >= 0.19  # EASE: .143
    assert best["HR@10"] >= 0.22
