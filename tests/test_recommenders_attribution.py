"""Integrated gradients: complete, exact where the score is linear, and of what was planted."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
import torch

from llmrec_kernels.recommenders import SequenceRecommender
from llmrec_kernels.recommenders.attribution import TOLERANCE, integrated_gradients
from llmrec_kernels.recommenders.sequence_networks import SequenceNetwork


def inputs(n, d, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, d)))


def test_a_linear_score_has_exact_shares():
    x, weight, nothing = inputs(5, 3), inputs(5, 3, 1), inputs(5, 3, 2)
    shares, baseline = integrated_gradients(
        lambda x: (x * weight).sum(dim=(1, 2)) + 7.0, x, nothing
    )
    torch.testing.assert_close(shares, ((x - nothing) * weight).sum(dim=1))
    assert baseline == pytest.approx(float((nothing * weight).sum()) + 7.0)


def test_shares_are_the_integral_by_a_fine_sum():
    x, nothing = inputs(3, 4), inputs(1, 4, 1)[0]

    def score(x):
        return x.tanh().sum(dim=2).prod(dim=1) + x[:, 0, 1] ** 3

    shares, baseline = integrated_gradients(score, x, nothing)
    way, points = x - nothing, (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    line = (nothing + points[:, None, None] * way).requires_grad_()
    slope = torch.autograd.grad(score(line).sum(), line)[0].mean(dim=0)
    torch.testing.assert_close(shares, (slope * way).sum(dim=1), atol=1e-7, rtol=1e-6)
    assert baseline == pytest.approx(float(score(nothing.expand(1, 3, 4))))


@pytest.mark.parametrize("kind", ["attention", "gru", "lstm"])
@pytest.mark.parametrize("steps", [4, 32])
def test_the_shares_of_a_network_and_its_baseline_are_the_score(kind, steps):
    torch.manual_seed(1)
    network = SequenceNetwork(kind, 8, 2, 2, 20, 0.2).double().eval().requires_grad_(False)
    x, item = inputs(20, 8), inputs(1, 8, 1)[0] * 3

    def score(x):
        return network(x)[:, -1] @ item

    shares, baseline = integrated_gradients(score, x, x.mean(dim=0), steps)
    whole = float(score(x[None]))
    assert float(shares.sum()) + baseline == pytest.approx(whole, abs=TOLERANCE * max(1, whole))
    assert baseline == pytest.approx(float(score(x.mean(dim=0).expand(1, 20, 8))))
    assert shares.shape == (20,)


def test_a_score_that_turns_near_zeros_is_followed():
    x, near = inputs(3, 4), 1e-4 * inputs(1, 4, 1)

    def score(x):
        moved = x + near
        return (moved / moved.norm(dim=2, keepdim=True))[:, :, 0].sum(dim=1)

    shares, baseline = integrated_gradients(score, x)
    # Each vector by itself: its share is what its own part of the score changes by.
    unit = (x + near) / (x + near).norm(dim=1, keepdim=True)
    torch.testing.assert_close(shares, unit[:, 0] - (near / near.norm())[0, 0], atol=1e-6, rtol=0)
    assert baseline == pytest.approx(3 * float(near[0, 0] / near.norm()))


def test_by_default_the_baseline_is_nothing():
    shares, baseline = integrated_gradients(lambda x: x.sum(dim=(1, 2)) + 1, inputs(2, 3))
    torch.testing.assert_close(shares, inputs(2, 3).sum(dim=1))
    assert baseline == 1.0


def test_a_score_that_leaps_is_told():
    with pytest.raises(
        ArithmeticError, match=r"the score leaps by .* at 0\.5.*expected one that is smooth"
    ):
        integrated_gradients(
            lambda x: (x.sum(dim=(1, 2)) > 0.5).double() + 0 * x.sum(dim=(1, 2)),
            torch.ones(1, 1, dtype=torch.float64),
        )


def test_without_captum_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ImportError, match=r"needs captum.*pip install .*attribution"):
        integrated_gradients(lambda x: x.sum(dim=(1, 2)), inputs(1, 1))


@pytest.mark.parametrize("network", ["attention", "gru"])
def test_the_item_that_decides_has_the_largest_share(network):
    """Who took 0 takes 8 at last, who took 1 takes 9; what comes between says nothing."""
    draw, rows = np.random.default_rng(0), []
    for user in range(300):
        kind = user % 2
        taken = draw.permutation([2, 3, 4, 5, 6, 7])[:4].tolist()
        taken.insert(int(draw.integers(0, 4)), kind)
        rows += [(user, item, place) for place, item in enumerate([*taken, 8 + kind])]
    seen = pd.DataFrame(rows, columns=["user", "item", "timestamp"])
    seen = seen[(seen.user > 20) | (seen.timestamp < 5)]  # of 21 users the last is not told
    training = {"epochs": 12, "learning_rate": 0.01, "patience": None}
    model = SequenceRecommender(network=network, dim=16, layers=1, dropout=0, training=training)
    model.fit(seen)
    first = 0
    for user in range(20):
        right, wrong = 8 + user % 2, 9 - user % 2
        why, other = model.explain(user, right), model.explain(user, wrong)
        assert why.score > other.score
        for one in (why, other):
            assert sum(one.blocks.values()) == pytest.approx(one.score, abs=1e-4)
            assert one.share.sum() == pytest.approx(one.blocks["taste"])
        # All items say that it is time for one of the two: which one, a single one says.
        against = dict(zip(other.source, other.share, strict=True))
        more = {
            item: share - against[item] for item, share in zip(why.source, why.share, strict=True)
        }
        first += max(more, key=more.get) == user % 2
    assert first >= 14  # by chance 4: the history has five items


def test_items_that_are_not_read_have_no_share():
    rows = [(user, (user + step) % 8, step) for user in range(8) for step in range(6)]
    seen = pd.DataFrame(rows, columns=["user", "item", "timestamp"])
    model = SequenceRecommender(dim=4, max_length=2, training={"epochs": 1}).fit(seen)
    why = model.explain(0, 7)
    assert set(why.source) == {4, 5}
    assert why.weight.tolist() == [1.0, 1.0]
