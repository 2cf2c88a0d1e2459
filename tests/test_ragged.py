"""`Ragged` holds lists of different lengths, made of whatever users have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array, csr_matrix

from llmrec_kernels import Ragged

LISTS = st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5), max_size=6)


@given(lists=LISTS)
def test_lists_come_back_as_they_went_in(lists: list[list[int]]) -> None:
    ragged = Ragged.of(lists)
    assert ragged.tolist() == lists
    assert len(ragged) == len(lists)
    assert [ragged[row].tolist() for row in range(len(ragged))] == lists
    assert ragged.values.dtype == ragged.offsets.dtype == torch.int64
    assert ragged.offsets.tolist() == np.cumsum([0, *map(len, lists)]).tolist()


@given(table=st.lists(st.tuples(*[st.booleans()] * 4), max_size=5))
def test_the_stored_columns_of_a_matrix_are_the_ids(table: list[tuple[bool, ...]]) -> None:
    dense = np.array(table, dtype=bool).reshape(len(table), 4)
    want = [np.flatnonzero(row).tolist() for row in dense]
    assert Ragged.of(csr_array(dense)).tolist() == want
    assert Ragged.of(csr_matrix(dense.astype(np.float32))).tolist() == want


@pytest.mark.filterwarnings("ignore:Sparse")
def test_torch_csr_and_scipy_csr_agree() -> None:
    dense = torch.tensor([[0, 2, 0, 1], [0, 0, 0, 0], [5, 0, 0, 0]])
    want = [[1, 3], [], [0]]
    assert Ragged.of(dense.to_sparse_csr()).tolist() == want
    assert Ragged.of(dense.bool().to_sparse_csr()).tolist() == want
    sparse = csr_array(dense.numpy())
    assert sparse.indices.dtype == np.int32
    assert Ragged.of(sparse).tolist() == want


def test_stored_zeros_and_unsorted_columns_are_kept() -> None:
    matrix = csr_array(([0.0, 1.0, 1.0], [3, 0, 3], [0, 2, 3]), shape=(2, 4))
    assert Ragged.of(matrix).tolist() == [[3, 0], [3]]


def test_sequences_of_many_kinds_are_lists() -> None:
    rows = ((2, 1), [np.int64(3)], np.array([4, 5], dtype=np.uint8), torch.tensor([6]), range(2))
    assert Ragged.of(rows).tolist() == [[2, 1], [3], [4, 5], [6], [0, 1]]
    assert Ragged.of([{7}, frozenset([8]), set()]).tolist() == [[7], [8], []]
    assert Ragged.of([]).tolist() == []
    assert Ragged.of([]).offsets.tolist() == [0]


def test_ragged_is_returned_as_it_is() -> None:
    ragged = Ragged.of([[1]])
    assert Ragged.of(ragged) is ragged


def test_rows_count_from_the_end_too() -> None:
    ragged = Ragged.of([[1], [2, 3]])
    assert ragged[-1].tolist() == [2, 3]
    for row in (2, -3):
        with pytest.raises(IndexError, match=f"row {row} is out of range for 2 lists"):
            ragged[row]
    assert [row.tolist() for row in ragged] == [[1], [2, 3]]


def test_narrow_integers_become_int64() -> None:
    ragged = Ragged(torch.tensor([1], dtype=torch.uint8), torch.tensor([0, 1], dtype=torch.int32))
    assert ragged.values.dtype == ragged.offsets.dtype == torch.int64


def test_lists_move_between_devices() -> None:
    moved = Ragged.of([[1]]).to("meta")
    assert moved.values.device.type == moved.offsets.device.type == "meta"
    assert Ragged.of([[1]]).to("cpu").tolist() == [[1]]


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ([1, 2], r"seen\[0\] is a int; expected a list of integer ids"),
        ([[1], "23"], r"seen\[1\] is a str"),
        ([[1], None], r"seen\[1\] is a NoneType"),
        ([[1], [2.0]], r"seen\[1\] holds 2.0; expected an integer"),
        ([[True]], r"seen\[0\] holds True"),
        ([["a"]], r"seen\[0\] holds 'a'"),
        ([[[1]]], r"seen\[0\] holds \[1\]"),
        ([np.array([1.5])], r"seen\[0\] holds 1.5"),
        ([torch.tensor([True])], r"seen\[0\] holds True"),
        ("12", "seen is a str; expected Ragged, a list of lists, or a CSR matrix"),
        (b"12", "seen is a bytes"),
        (3, "seen is a int"),
        (None, "seen is a NoneType"),
        ({1: [2]}, "seen is a dict"),
        (torch.tensor([1, 2]), "seen is a Tensor"),
        (np.array([[1, 2]]), "seen is a ndarray"),
        (csr_array(np.eye(2)).tocsc(), "seen is a csc_array"),
        (csr_array(np.eye(2)).tocoo(), "seen is a coo_array"),
    ],
)
def test_what_is_no_lists_of_ids_is_refused(lists: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Ragged.of(lists, name="seen")


@pytest.mark.parametrize(
    ("values", "offsets", "error", "message"),
    [
        ([1], torch.tensor([0, 1]), TypeError, "Ragged values is a list; expected a tensor"),
        (torch.tensor([1]), [0, 1], TypeError, "Ragged offsets is a list"),
        (
            torch.tensor([1.0]),
            torch.tensor([0, 1]),
            ValueError,
            "values has dtype .*float32",
        ),
        (torch.tensor([True]), torch.tensor([0, 1]), ValueError, "values has dtype .*bool"),
        (torch.tensor([1]), torch.tensor([0.0]), ValueError, "Ragged offsets has dtype"),
        (torch.tensor([[1]]), torch.tensor([0]), ValueError, r"values has shape \[1, 1\]"),
        (torch.tensor(1), torch.tensor([0]), ValueError, r"values has shape \[\]"),
        (torch.tensor([1]), torch.tensor(0), ValueError, r"offsets has shape \[\]"),
        (torch.tensor([1]), torch.tensor([], dtype=torch.int64), ValueError, "offsets is empty"),
        (
            torch.tensor([1]),
            torch.tensor([0], device="meta"),
            ValueError,
            "but offsets on meta",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    values: object, offsets: object, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Ragged(values, offsets)


def test_ids_beyond_int64_are_refused_by_name() -> None:
    with pytest.raises((ValueError, IndexError), match="seen"):
        Ragged.of([[2**63]], name="seen")
