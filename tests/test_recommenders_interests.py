"""Several interests: spherical k-means by its invariants, and the maximum over interests."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_kernels import ContentRecommender, pack
from llmrec_kernels.recommenders.interests import interests_of
from llmrec_kernels.recommenders.profiles import Bags

N_ITEMS = 14


def unit(rows):
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)


def vectors_of(seed, dim=3):
    return unit(np.random.default_rng(seed).normal(size=(N_ITEMS, dim))).astype(np.float32)


HISTORIES = st.lists(
    st.lists(
        st.tuples(st.integers(0, N_ITEMS - 1), st.sampled_from([0.0, 0.5, 1.0, 2.0])),
        max_size=N_ITEMS,
        unique_by=lambda one: one[0],
    ),
    min_size=1,
    max_size=4,
)


def bags_of(histories):
    places = [place for one in histories for place, _ in one]
    weights = [weight for one in histories for _, weight in one]
    offsets = np.cumsum([0, *map(len, histories)])
    return Bags(np.array(places, dtype=np.int64), np.array(weights, dtype=float), offsets)


def clusters_of(vectors, histories, count):
    """For each history its clusters, each as a dict of place to weight."""
    bags = interests_of(pack(torch.from_numpy(vectors)), bags_of(histories), count)
    assert len(bags.offsets) == len(histories) * count + 1
    made = []
    for bag in range(len(bags.offsets) - 1):
        part = slice(bags.offsets[bag], bags.offsets[bag + 1])
        made.append(dict(zip(bags.places[part].tolist(), bags.weights[part], strict=True)))
    return [made[start : start + count] for start in range(0, len(made), count)]


def distinct(clusters):
    """The clusters themselves, without those that stand in for missing ones."""
    return list({tuple(one): one for one in clusters if one}.values())


def objective(vectors, clusters):
    """Σ over clusters of |Σ w x|: the sum of w cos(x, centre of its cluster)."""
    sums = [sum(w * vectors[place] for place, w in one.items()) for one in clusters]
    return sum(float(np.linalg.norm(one)) for one in sums)


def started(vectors, history, count):
    """The clusters to begin with: around the heaviest item, then the one least like it, etc."""
    starts = [max(history, key=lambda one: one[1])[0]]
    while len(starts) < count:
        nearest = [(max(vectors[place] @ vectors[one] for one in starts)) for place, _ in history]
        if min(nearest) >= 1 - 1e-6:
            break
        starts.append(history[int(np.argmin(nearest))][0])
    made: dict = {one: {} for one in starts}
    for place, weight in history:
        made[max(starts, key=lambda one, p=place: vectors[p] @ vectors[one])][place] = weight
    return list(made.values())


@settings(max_examples=60)
@given(histories=HISTORIES, count=st.integers(1, 4), seed=st.integers(0, 99))
def test_each_item_is_in_one_cluster_and_nearest_to_its_own_centre(histories, count, seed):
    vectors = vectors_of(seed)
    for history, clusters in zip(histories, clusters_of(vectors, histories, count), strict=True):
        counted = {place: weight for place, weight in history if weight}
        found = distinct(clusters)
        assert sum(map(len, found)) == len(counted)
        assert {place: w for one in found for place, w in one.items()} == counted
        if counted:
            assert all(clusters)  # the first stands in for those that are missing
        centres = [unit(sum(w * vectors[p] for p, w in one.items())) for one in found]
        for own, one in zip(centres, found, strict=True):
            for place in one:
                assert vectors[place] @ own >= max(vectors[place] @ c for c in centres) - 1e-5


@settings(max_examples=60)
@given(histories=HISTORIES, count=st.integers(1, 4), seed=st.integers(0, 99))
def test_the_clusters_are_not_worse_than_those_it_begins_with(histories, count, seed):
    vectors = vectors_of(seed)
    for history, clusters in zip(histories, clusters_of(vectors, histories, count), strict=True):
        counted = [one for one in history if one[1]]
        if counted:
            begun = objective(vectors, started(vectors, counted, count))
            assert objective(vectors, distinct(clusters)) >= begun - 1e-5


@settings(max_examples=30)
@given(histories=HISTORIES, count=st.integers(1, 4), seed=st.integers(0, 99))
def test_a_history_has_the_same_clusters_alone_and_in_a_batch(histories, count, seed):
    vectors = vectors_of(seed)
    together = clusters_of(vectors, histories, count)
    assert together == [clusters_of(vectors, [one], count)[0] for one in histories]


def test_planted_interests_are_found():
    rng = np.random.default_rng(0)
    kind = np.arange(N_ITEMS) % 3
    vectors = unit(np.eye(3)[kind] + 0.1 * rng.normal(size=(N_ITEMS, 3))).astype(np.float32)
    history = [(place, 1.0) for place in range(N_ITEMS)]
    clusters = clusters_of(vectors, [history], 3)[0]
    assert {frozenset(one) for one in clusters} == {
        frozenset(np.flatnonzero(kind == one).tolist()) for one in range(3)
    }


def test_an_item_of_which_nothing_is_known_takes_no_interest_away():
    vectors = unit(np.array([[0.0, 0.0], [1.0, 0.1], [1.0, -0.1], [0.2, 1.0]])).astype(np.float32)
    for weights in ([9.0, 1, 1, 1], [0.1, 1, 1, 1]):
        clusters = clusters_of(vectors, [list(enumerate(weights))], 2)[0]
        known = {frozenset(place for place in one if place) for one in clusters}
        assert known == {frozenset([1, 2]), frozenset([3])}
    assert clusters_of(vectors, [[(0, 1.0)]], 2) == [[{0: 1.0}, {0: 1.0}]]


@settings(max_examples=20)
@given(
    taken=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, N_ITEMS - 1), st.integers(1, 5)),
        min_size=1,
        max_size=20,
        unique_by=lambda one: one[:2],
    ),
    interests=st.integers(2, 4),
    k=st.integers(1, N_ITEMS),
    seed=st.integers(0, 99),
)
def test_an_item_counts_by_the_nearest_interest_in_lists_of_any_length(taken, interests, k, seed):
    vectors = vectors_of(seed)
    seen = pd.DataFrame(taken, columns=["user", "item", "rating"])
    model = ContentRecommender(
        embeddings=vectors, interests=interests, pooling="mean", centre=False
    ).fit(seen, pd.DataFrame({"item": range(N_ITEMS)}))
    users = sorted(set(seen.user))
    histories = [[(item, 1.0) for item in seen.item[seen.user == user]] for user in users]
    answer = model.recommend(users, k=k)
    for user, clusters in zip(users, clusters_of(vectors, histories, interests), strict=True):
        centres = unit(np.stack([sum(vectors[p] for p in one) for one in clusters]))
        wanted = (vectors.astype(np.float64) @ centres.T).max(axis=1)
        rows = answer.user == user
        left = np.setdiff1d(np.arange(N_ITEMS), seen.item[seen.user == user])
        best = np.sort(wanted[left])[::-1][:k]
        np.testing.assert_allclose(answer.score[rows], best, atol=1e-5)
        np.testing.assert_allclose(wanted[answer.item[rows]], best, atol=1e-5)
        pairs = model.score([user] * N_ITEMS, np.arange(N_ITEMS))
        np.testing.assert_allclose(pairs, wanted, atol=1e-5)
        for item in range(0, N_ITEMS, 3):
            why = model.explain(user, item)
            assert why.share.sum() == pytest.approx(why.score, abs=1e-5)
            sources = set(why.source.tolist())
            assert any(sources == set(one) for one in clusters)
