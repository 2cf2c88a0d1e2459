"""The study of what a language model ranks: who is drawn, and what is told of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from language_models import smollm
from scipy.stats import mannwhitneyu
from small_histories import real

from llmrec_kernels.datasets import movielens_100k
from llmrec_kernels.evaluation import leave_last_out
from llmrec_kernels.language import LanguageModel, bundled_language_model_path
from llmrec_kernels.studies import language_ranking as study


@pytest.fixture(scope="module")
def films():
    return real(movielens_100k)


def test_auc_is_that_of_the_rank_sum_test():
    draw = np.random.default_rng(0)
    liked, others = draw.integers(0, 9, 7), draw.integers(0, 7, 5)
    expected = mannwhitneyu(liked, others).statistic / (7 * 5)
    assert study.auc(liked, others) == pytest.approx(expected)


def test_weights_are_chosen_by_lists_that_have_the_item_held_out(films):
    train, _ = leave_last_out(films.interactions)
    inner, held_out = leave_last_out(train)
    lists = study.with_the_item(films, inner, held_out).to_pandas()
    wanted = held_out.set_index("user")["item"]
    found = lists.groupby("user")["item"].agg(set)
    assert len(found) == study.CHOOSERS
    assert all(wanted[user] in items for user, items in found.items())
    assert (lists.groupby("user").size() == study.CANDIDATES).all()


def test_newcomers_are_known_by_five_ratings_and_asked_about_later_ones(films):
    train, known, people = study.newcomers(films)
    assert len({one.user for one in people}) == study.NEWCOMERS
    ratings = films.interactions.set_index(["user", "item"])
    for one in people:
        assert one.user not in set(train["user"])
        assert one.known["timestamp"].is_monotonic_increasing
        assert sorted(one.known["item"]) == sorted(known[known["user"] == one.user]["item"])
        assert len(one.known) == study.KNOWN
        assert len(set(one.liked)) == len(set(one.others)) == study.ASKED
        asked = ratings.loc[[(one.user, item) for item in [*one.liked, *one.others]]]
        assert (asked["rating"] >= study.LIKE).tolist() == [True] * 6 + [False] * 6
        assert asked["timestamp"].min() >= one.known["timestamp"].max()
        assert (one.known["rating"] >= study.LIKE).nunique() == 2


def test_histories_are_readable_titles_without_years_oldest_first(films):
    titles = study.readable_titles(films.items)
    assert titles[98] == "The Silence of the Lambs"
    told = study.histories(films.interactions, titles)
    rows = films.interactions[films.interactions["user"] == 1]
    ordered = rows.sort_values("timestamp", kind="stable")["item"]
    assert told[1] == [titles[item] for item in ordered]


def test_a_model_that_remembers_is_asked_once_and_says_the_same(monkeypatch):
    asked = []

    def likelihoods(self, prompt, continuations):
        asked.append((prompt, list(continuations)))
        return torch.tensor([float(len(prompt + one)) for one in continuations])

    monkeypatch.setattr(LanguageModel, "log_likelihoods", likelihoods)
    smollm()  # skips where there is none
    model = study.Remembering(bundled_language_model_path())
    assert model.log_likelihoods("p", ["a", "bb", "a"]).tolist() == [2.0, 3.0, 2.0]
    assert model.log_likelihoods("p", ["bb", "ccc"]).tolist() == [3.0, 4.0]
    assert model.log_likelihoods("qq", ["a"]).tolist() == [3.0]
    assert asked == [("p", ["a", "bb"]), ("p", ["ccc"]), ("qq", ["a"])]
