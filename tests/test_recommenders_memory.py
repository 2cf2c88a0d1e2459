"""Answering every user of a model never takes memory for users × items: measured."""

from __future__ import annotations

import sys

import pytest
from recommender_processes import MADE, told_by

MOST = 0.5  # of a table with a float32 for each user and item; what is answered is in it


@pytest.fixture(scope="module")
def parts():
    if sys.platform != "linux":
        pytest.skip("a process's most memory since its fork is told by Linux")
    return told_by("memory")


@pytest.mark.parametrize("which", MADE)
def test_all_users_are_answered_without_a_table_of_users_and_items(parts, which):
    assert 0 < parts[which] < MOST


def test_every_kind_of_recommender_is_measured():
    assert {type(make()).__name__ for make in MADE.values()} == {
        "ALSRecommender",
        "AlignedRecommender",
        "ContentRecommender",
        "EASERecommender",
        "HybridRecommender",
        "ItemKNNRecommender",
        "PopularityRecommender",
        "UserKNNRecommender",
    }
