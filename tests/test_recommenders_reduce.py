"""Reduction of vectors: the same numbers as scikit-learn, and the bounds of the papers."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import sklearn.decomposition
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from llmrec_kernels.ops import quantize
from llmrec_kernels.recommenders.reduce import (
    PCA,
    STORAGES,
    RandomProjection,
    bytes_per_item,
    truncate,
)


def spread(n, d, seed=0):
    """Vectors whose directions differ clearly in variance, off the origin."""
    rng = np.random.default_rng(seed)
    turned = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return (rng.normal(size=(n, d)) * 0.8 ** np.arange(d)) @ turned + rng.normal(size=d) * 3


@given(st.integers(1, 8), st.integers(10, 40), st.integers(0, 10_000))
def test_pca_is_that_of_scikit_learn(dim, n, seed):
    vectors = spread(n, 9, seed)
    theirs = sklearn.decomposition.PCA(dim, svd_solver="full").fit(vectors)
    ours = PCA(dim).fit(vectors)
    # Where two variances are nearly equal their directions may be turned, and sums of them not.
    gaps = -np.diff(np.append(np.linalg.svd(vectors - vectors.mean(0))[1] ** 2, 0.0))
    assume(gaps[:dim].min() > 1e-3 * gaps.sum())
    np.testing.assert_allclose(ours.transform(vectors), theirs.transform(vectors), atol=2e-3)
    np.testing.assert_allclose(ours.components, theirs.components_, atol=2e-3)
    np.testing.assert_allclose(ours.explained, theirs.explained_variance_ratio_, atol=1e-5)
    np.testing.assert_allclose(ours.mean, theirs.mean_, atol=1e-5)


def test_the_largest_entry_of_a_direction_is_positive():
    components = PCA(7).fit(-spread(50, 7)).components
    assert (components.gather(1, components.abs().argmax(1, keepdim=True)) > 0).all()


def test_of_equally_large_entries_the_first_is_positive():
    line = torch.tensor([[-1.0, 1.0, 1.0], [1.0, -1.0, -1.0]])
    wanted = np.array([[1.0, -1.0, -1.0]]) / math.sqrt(3)
    np.testing.assert_allclose(PCA(1).fit(line).components, wanted, atol=1e-6)


def test_pca_of_more_rows_than_fit_into_a_chunk_is_the_same(monkeypatch):
    vectors = spread(100, 6)
    whole = PCA(3).fit(vectors)
    monkeypatch.setattr("llmrec_kernels.recommenders.reduce._CHUNK", 7)
    np.testing.assert_allclose(PCA(3).fit(vectors).components, whole.components, atol=1e-5)


def test_all_directions_together_keep_every_distance():
    vectors = torch.from_numpy(spread(30, 6)).float()
    turned = PCA(6).fit(vectors).transform(vectors)
    torch.testing.assert_close(torch.pdist(turned), torch.pdist(vectors))


def test_vectors_that_are_all_alike_have_no_variance_to_explain():
    alike = torch.ones(5, 3)
    pca = PCA(2).fit(alike)
    assert pca.explained.tolist() == [0.0, 0.0]
    assert pca.transform(alike).abs().max() == 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("dim", "eps"), [(64, 0.5), (256, 0.25), (1024, 0.15)])
def test_random_projection_distorts_no_more_often_than_the_bound(seed, dim, eps):
    vectors = torch.from_numpy(np.random.default_rng(99).normal(size=(400, 48))).float()
    small = RandomProjection(dim, seed=seed).fit(vectors).transform(vectors)
    ratio = small.square().sum(1) / vectors.square().sum(1)
    bound = 2 * math.exp(-dim * (eps**2 / 2 - eps**3 / 3) / 2)
    assert ((ratio - 1).abs() > eps).float().mean() <= bound


def test_over_many_seeds_a_squared_length_is_right_on_average():
    vector = torch.tensor([[3.0, -4.0, 12.0]])
    drawn = [RandomProjection(8, seed=s).fit(vector).transform(vector) for s in range(2000)]
    squares = torch.cat(drawn).square().sum(1) / 169.0  # chi-squared with 8 degrees, over 8
    assert squares.mean().item() == pytest.approx(1.0, abs=4 * math.sqrt(2 / 8 / 2000))
    assert squares.var().item() == pytest.approx(2 / 8, rel=0.2)


def test_a_seed_says_which_directions_are_drawn():
    vectors = torch.eye(5)
    one, same, other = (RandomProjection(3, seed=s).fit(vectors).matrix for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@given(st.integers(1, 6), st.integers(0, 100))
def test_truncation_keeps_the_first_numbers_at_length_one(dim, seed):
    vectors = np.random.default_rng(seed).normal(size=(4, 6))
    wanted = vectors[:, :dim] / np.linalg.norm(vectors[:, :dim], axis=1, keepdims=True)
    np.testing.assert_allclose(truncate(vectors, dim), wanted, atol=1e-6)


def test_truncation_leaves_zeros_where_nothing_is_left():
    assert truncate(torch.tensor([[0.0, 0.0, 5.0]]), 2).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("reducer", [PCA(3), RandomProjection(3, seed=4)])
def test_a_reducer_is_the_same_after_saving(reducer):
    vectors = spread(20, 5)
    values, tensors = reducer.fit(vectors).state()
    again = type(reducer).from_state(json.loads(json.dumps(values)), tensors)
    assert torch.equal(again.transform(vectors), reducer.transform(vectors))
    for name, wanted in vars(reducer).items():
        held = getattr(again, name)
        assert torch.equal(held, wanted) if isinstance(wanted, torch.Tensor) else held == wanted


@pytest.mark.parametrize("reducer", [PCA(3), RandomProjection(3)])
def test_a_saved_state_that_does_not_fit_is_refused(reducer):
    name = type(reducer).__name__
    values, tensors = reducer.fit(spread(20, 5)).state()
    with pytest.raises(ValueError, match=f"the saved {name} has no dim"):
        type(reducer).from_state({}, tensors)
    for key, tensor in tensors.items():
        rest = {one: held for one, held in tensors.items() if one != key}
        with pytest.raises(ValueError, match=f"the saved {name} has no {key}"):
            type(reducer).from_state(values, rest)
        with pytest.raises(ValueError, match=f"the saved {name} has .* of shape"):
            type(reducer).from_state(values, rest | {key: tensor[:-1]})
        with pytest.raises(ValueError, match=f"the saved {name} has .* of shape"):
            type(reducer).from_state(values, rest | {key: tensor[None]})


@pytest.mark.parametrize("reducer", [PCA(3), RandomProjection(3)])
def test_bad_vectors_are_refused_and_the_reducer_stays_as_it_was(reducer):
    vectors = torch.from_numpy(spread(20, 5)).float()
    reducer.fit(vectors)
    before = reducer.transform(vectors)
    holed = vectors.clone()
    holed[4, 2] = torch.nan
    with pytest.raises(ValueError, match="vectors holds NaN or Inf in row 4"):
        reducer.transform(holed)
    with pytest.raises(ValueError, match="vectors is 4 wide; expected 5"):
        reducer.transform(vectors[:, :4])
    with pytest.raises(ValueError, match=r"vectors has shape \[5\]; expected \[.*\]"):
        reducer.transform(vectors[0])
    with pytest.raises(TypeError, match="vectors is a str; expected"):
        reducer.fit("texts")
    assert torch.equal(reducer.transform(vectors), before)


def test_pca_of_too_little_or_broken_data_is_refused_and_it_stays_as_it_was():
    pca = PCA(3).fit(spread(20, 5))
    before = pca.components.clone()
    for vectors in (torch.ones(2, 5), torch.ones(5, 2), torch.empty(0, 5)):
        with pytest.raises(ValueError, match="expected at least dim = 3 rows and columns"):
            pca.fit(vectors)
    with pytest.raises(ValueError, match="vectors holds NaN or Inf in row 0"):
        pca.fit(torch.full((9, 9), torch.inf))
    assert torch.equal(pca.components, before)


@pytest.mark.parametrize("kind", [PCA, RandomProjection])
def test_a_reducer_is_fitted_before_it_is_used(kind):
    for use in (lambda: kind(2).transform(torch.eye(2)), kind(2).state):
        with pytest.raises(RuntimeError, match=f"this {kind.__name__} is not fitted"):
            use()


@pytest.mark.parametrize("kind", [PCA, RandomProjection])
def test_options_out_of_range_are_refused(kind):
    with pytest.raises(ValueError, match="dim is 0; expected at least 1"):
        kind(0)
    with pytest.raises(TypeError, match=r"dim is 2\.5; expected an integer"):
        kind(2.5)


def test_a_seed_is_an_integer_from_zero():
    with pytest.raises(ValueError, match="seed is -1; expected at least 0"):
        RandomProjection(2, seed=-1)
    with pytest.raises(TypeError, match="seed is None; expected an integer"):
        RandomProjection(2, seed=None)


def test_truncation_to_more_than_there_is_is_refused():
    with pytest.raises(ValueError, match="dim is 6; expected at most 5, the width of vectors"):
        truncate(torch.eye(5), 6)
    with pytest.raises(ValueError, match="dim is 0; expected at least 1"):
        truncate(torch.eye(5), 0)


@pytest.mark.parametrize("storage", STORAGES)
def test_bytes_of_an_item_are_those_of_a_table_of_them(storage):
    table = torch.randn(10, 33)
    held = table if storage == "float32" else quantize(table, storage)
    assert bytes_per_item(33, storage) * 10 == held.nbytes


def test_an_unknown_storage_is_refused():
    with pytest.raises(ValueError, match="storage is 'int3'; expected one of 'float32'"):
        bytes_per_item(8, "int3")
