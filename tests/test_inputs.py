"""Bad input is refused before any kernel starts, in a sentence that names the argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from cases import random

from llmrec_kernels import (
    PackedItems,
    QuantizedTable,
    Ragged,
    candidate_scores,
    cosine_topk,
    embedding_bag,
    explain,
    pack,
    quantize,
)

B, N, D = 3, 10, 8
Q, X = random(B, D), random(N, D, seed=1)
LISTS = [[1, 2], [], [9]]
INDICES, OFFSETS = torch.tensor([0, 3, 9]), torch.tensor([0, 1])
NAN, INF = float("nan"), float("inf")


def spoilt(tensor: torch.Tensor, value: float) -> torch.Tensor:
    """The tensor with its last entry replaced."""
    copy = tensor.clone()
    copy.view(-1)[-1] = value
    return copy


def ragged(values: list[int], offsets: list[int]) -> Ragged:
    return Ragged(torch.tensor(values, dtype=torch.int64), torch.tensor(offsets))


def ids(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def topk(queries: Any = Q, items: Any = X, k: Any = 2, **options: Any) -> Callable[[str], Any]:
    return lambda backend: cosine_topk(queries, items, k, **{"backend": backend, **options})


def candidates(
    queries: Any = Q, items: Any = X, lists: Any = LISTS, **options: Any
) -> Callable[[str], Any]:
    return lambda backend: candidate_scores(queries, items, lists, backend=backend, **options)


def bag(
    table: Any = X, indices: Any = INDICES, offsets: Any = OFFSETS, **options: Any
) -> Callable[[str], Any]:
    return lambda backend: embedding_bag(table, indices, offsets, backend=backend, **options)


def packing(items: Any) -> Callable[[str], Any]:
    return lambda backend: pack(items, backend=backend)


def quantizing(weight: Any, *arguments: Any, **options: Any) -> Callable[[str], Any]:
    return lambda backend: quantize(weight, *arguments, backend=backend, **options)


def refused(
    backend: str, call: Callable[[str], Any], error: type[Exception], sentence: str
) -> None:
    """The call raises exactly this error with this sentence, and plain torch the same."""
    with pytest.raises(error, match=sentence) as found:
        call(backend)
    assert found.type is error
    with pytest.raises(error) as of_reference:
        call("reference")
    assert str(found.value) == str(of_reference.value)


def cases(table: list[tuple[Callable[[str], Any], str]]) -> Any:
    return pytest.mark.parametrize(("call", "sentence"), table, ids=[row[1] for row in table])


NO_ARRAY = "expected a torch, NumPy, CuPy or JAX array"
FLOATS = "expected float32, float16, bfloat16 or float64"
FINITE = "expected finite numbers"


@cases(
    [
        (topk(queries=[[1.0] * D]), f"queries is a list; {NO_ARRAY}"),
        (topk(queries=None), "queries is a NoneType"),
        (topk(items=[[1.0] * D]), f"items is a list; {NO_ARRAY}"),
        (topk(items=X.to_sparse()), "items is a torch.sparse_coo tensor; expected a dense one"),
        (topk(queries=Q.to_sparse()), "queries is a torch.sparse_coo tensor"),
        (topk(k=2.0), "k is 2.0; expected an integer of at least 1"),
        (topk(k=True), "k is True; expected an integer"),
        (topk(k="3"), "k is '3'; expected an integer"),
        (topk(k=None), "k is None; expected an integer"),
        (topk(item_bias=3.0), "item_bias is a float"),
        (topk(item_scale=[1.0] * N), "item_scale is a list"),
        (topk(exclude=3), "exclude is a int"),
        (topk(exclude={1, 2}), "exclude is a set"),
        (topk(exclude="12"), "exclude is a str"),
        (topk(exclude=[1.0]), r"exclude\[0\] is 1.0; expected an integer"),
        (topk(exclude=[[1], ["a"], []]), r"exclude\[1\] holds 'a'; expected an integer"),
        (topk(allow=[True] * N), r"allow\[0\] is True; expected an integer"),
        (topk(allow=torch.eye(N)[:B].bool().to_sparse()), "allow is a Tensor"),
        (candidates(queries=[[1.0]]), "queries is a list"),
        (candidates(lists=[1, 2, 3]), r"candidates\[0\] is a int; expected a list of integer ids"),
        (candidates(lists=ids(1, 2, 3)), "candidates is a Tensor; expected Ragged"),
        (candidates(lists=None), "candidates is a NoneType"),
        (candidates(offset="high"), "offset is 'high'; expected a number"),
        (candidates(offset=None), "offset is None; expected a number"),
        (candidates(k=1.5), "k is 1.5; expected an integer"),
        (candidates(query_bias=1.0), "query_bias is a float"),
        (bag(table=[[1.0]]), "table is a list"),
        (bag(table=pack(X)), "table is PackedItems; expected an array or a QuantizedTable"),
        (bag(indices="01"), "indices is a str"),
        (bag(indices=[0.5, 1]), r"indices\[0\] is 0.5; expected an integer"),
        (bag(offsets=0), "offsets is a int"),
        (bag(per_sample_weights=[1.0, 1.0, 1.0]), "per_sample_weights is a list"),
        (bag(padding_idx="0"), "padding_idx is '0'; expected an integer"),
        (bag(padding_idx=1.5), "padding_idx is 1.5; expected an integer"),
        (bag(padding_idx=True), "padding_idx is True; expected an integer"),
        (packing([[1.0]]), f"items is a list; {NO_ARRAY}"),
        (packing("items"), "items is a str"),
        (quantizing([[1.0]]), "weight is a list"),
        (quantizing(X.to_sparse()), "weight is a torch.sparse_coo tensor"),
    ]
)
def test_the_wrong_kind_is_a_type_error(
    backend: str, call: Callable[[str], Any], sentence: str
) -> None:
    refused(backend, call, TypeError, sentence)


@cases(
    [
        (topk(queries=Q[0]), r"queries has shape \[8\]; expected \[B, d\]"),
        (topk(queries=Q[None]), r"queries has shape \[1, 3, 8\]; expected \[B, d\]"),
        (topk(items=X[0]), r"items has shape \[8\]; expected \[N, d\]"),
        (topk(items=X[:, :5]), "queries has 8 columns but items has 5"),
        (topk(items=pack(X[:, :5])), "queries has 8 columns but items has 5"),
        (topk(items=quantize(X[:, :7], "int4")), "queries has 8 columns but items has 7"),
        (topk(item_bias=torch.zeros(9)), r"item_bias has 9 entries; expected 10, \[N\]"),
        (topk(item_scale=torch.zeros(N, 1)), r"item_scale has shape \[10, 1\]; expected \[N\]"),
        (topk(item_bias=torch.tensor(1.0)), r"item_bias has shape \[\]; expected \[N\]"),
        (topk(exclude=torch.zeros(B, 2, dtype=torch.int64)), r"exclude has shape \[3, 2\]"),
        (topk(exclude=[[1], [2]]), "exclude has 2 lists but there are 3 queries"),
        (topk(allow=Ragged.of([[1]] * 4)), "allow has 4 lists but there are 3 queries"),
        (topk(allow=torch.ones(9, dtype=torch.bool)), r"allow is a mask of shape \[9\]; expected"),
        (topk(allow=np.ones((N, B), dtype=bool)), r"shape \[10, 3\]; expected \[10\] .*\[3, 10\]"),
        (candidates(queries=Q[0]), r"queries has shape \[8\]"),
        (candidates(items=X[:, 1:]), "queries has 8 columns but items has 7"),
        (candidates(lists=[[1]]), "candidates has 1 lists but there are 3 queries"),
        (candidates(query_bias=torch.ones(N)), r"query_bias has 10 entries; expected 3, \[B\]"),
        (candidates(query_scale=torch.ones(2)), "query_scale has 2 entries; expected 3"),
        (candidates(item_bias=torch.ones(B)), "item_bias has 3 entries; expected 10"),
        (candidates(item_scale=torch.ones(B)), "item_scale has 3 entries; expected 10"),
        (bag(table=X[0]), r"table has shape \[8\]"),
        (bag(offsets=None), r"indices has shape \[3\]; expected \[B, L\] where offsets is None"),
        (bag(indices=ids(1)[None]), r"indices has shape \[1, 1\]; expected \[nnz\]"),
        (bag(offsets=OFFSETS[None]), r"offsets has shape \[1, 2\]; expected \[B\]"),
        (bag(per_sample_weights=torch.ones(2)), r"per_sample_weights has shape \[2\]; expected"),
        (bag(per_sample_weights=torch.ones(3, 1)), r"per_sample_weights has shape \[3, 1\]"),
        (packing(X[0]), r"items has shape \[8\]"),
        (quantizing(X[0]), r"weight has shape \[8\]"),
        (quantizing(X[None]), r"weight has shape \[1, 10, 8\]"),
    ]
)
def test_the_wrong_shape_is_a_value_error(
    backend: str, call: Callable[[str], Any], sentence: str
) -> None:
    refused(backend, call, ValueError, sentence)


@cases(
    [
        (topk(queries=Q.int()), f"queries has dtype torch.int32; {FLOATS}"),
        (topk(queries=Q > 0), f"queries has dtype torch.bool; {FLOATS}"),
        (topk(items=X.to(torch.complex64)), "items has dtype torch.complex64"),
        (topk(items=X.to(torch.float8_e4m3fn)), "items has dtype torch.float8_e4m3fn"),
        (topk(items=np.array([["a"] * D])), "items has dtype <U1"),
        (topk(items=np.array([[None] * D])), "items has dtype object"),
        (topk(item_bias=torch.ones(N, dtype=torch.int64)), "item_bias has dtype torch.int64"),
        (topk(exclude=torch.ones(2)), "exclude has dtype torch.float32; expected int64"),
        (topk(exclude=torch.ones(N, dtype=torch.bool)), "exclude has dtype torch.bool"),
        (topk(allow=np.array([0.0])), "allow has dtype torch.float64; expected int64"),
        (candidates(query_scale=torch.ones(B) > 0), "query_scale has dtype torch.bool"),
        (bag(indices=INDICES.float()), "indices has dtype torch.float32; expected int64"),
        (bag(indices=INDICES > 0), "indices has dtype torch.bool"),
        (bag(offsets=OFFSETS.float()), "offsets has dtype torch.float32"),
        (bag(table=X.long()), f"table has dtype torch.int64; {FLOATS}"),
        (bag(per_sample_weights=INDICES), "per_sample_weights has dtype torch.int64"),
        (bag(out_dtype=torch.float64), "out_dtype is torch.float64; expected float32, float16"),
        (bag(out_dtype="float16"), "out_dtype is float16; expected float32"),
        (packing(X.long()), f"items has dtype torch.int64; {FLOATS}"),
        (quantizing(X.long()), f"weight has dtype torch.int64; {FLOATS}"),
    ]
)
def test_the_wrong_dtype_is_a_value_error(
    backend: str, call: Callable[[str], Any], sentence: str
) -> None:
    refused(backend, call, ValueError, sentence)


@cases(
    [
        (topk(k=0), "k is 0; expected at least 1"),
        (topk(k=-5), "k is -5; expected at least 1"),
        (topk(k=2**70), "k is 1180591620717411303424; expected"),
        (topk(metric="euclidean"), "metric is 'euclidean'; expected one of 'cosine', 'dot'"),
        (topk(metric=["cosine"]), r"metric is \['cosine'\]; expected one of"),
        (topk(precision="low"), "precision is 'low'; expected one of 'exact', 'fast'"),
        (topk(backend="tpu"), "backend is 'tpu'; expected one of cuda, triton, nvrtc, cpu"),
        (topk(backend="cuda"), "backend='cuda' cannot run cosine_topk: the tensors are on cpu"),
        (candidates(k=0), "k is 0; expected at least 1"),
        (candidates(metric="l2"), "metric is 'l2'; expected one of"),
        (bag(mode="min"), "mode is 'min'; expected one of 'sum', 'mean', 'max'"),
        (bag(mode="max", per_sample_weights=torch.ones(3)), "per_sample_weights are for mode"),
        (quantizing(X, "int2"), "dtype is 'int2'; expected one of 'int8', 'int4'"),
        (quantizing(X, scheme="log"), "scheme is 'log'; expected one of 'affine', 'symmetric'"),
    ]
)
def test_a_choice_that_is_none_is_a_value_error(
    backend: str, call: Callable[[str], Any], sentence: str
) -> None:
    refused(backend, call, ValueError, sentence)


@cases(
    [
        (topk(queries=spoilt(Q, NAN)), f"queries holds NaN or Inf in row 2; {FINITE}"),
        (topk(queries=spoilt(Q, INF), metric="dot"), "queries holds NaN or Inf in row 2"),
        (topk(queries=spoilt(Q.double(), 1e300)), "queries holds NaN or Inf in row 2"),
        (topk(items=spoilt(X, NAN)), f"items holds NaN or Inf in row 9; {FINITE}"),
        (topk(items=spoilt(X, -INF), metric="dot"), "items holds NaN or Inf in row 9"),
        (topk(items=spoilt(X.half(), NAN)), "items holds NaN or Inf in row 9"),
        (topk(items=spoilt(X, NAN), exclude=[9]), "items holds NaN or Inf in row 9"),
        (topk(item_bias=spoilt(torch.ones(N), NAN)), "item_bias holds NaN or Inf at entry 9"),
        (topk(item_scale=spoilt(torch.ones(N), INF)), "item_scale holds NaN or Inf at entry 9"),
        (candidates(queries=spoilt(Q, NAN)), "queries holds NaN or Inf in row 2"),
        (candidates(items=spoilt(X, NAN)), "items holds NaN or Inf in row 9"),
        (candidates(items=spoilt(X, NAN), metric="dot"), "items holds NaN or Inf in row 9"),
        (candidates(items=spoilt(X, INF), metric="dot", k=2), "items holds NaN or Inf in row 9"),
        (candidates(query_bias=spoilt(torch.ones(B), NAN)), "query_bias holds NaN or Inf at entry"),
        (candidates(item_bias=spoilt(torch.ones(N), NAN)), "item_bias holds NaN or Inf at entry 9"),
        (candidates(query_scale=spoilt(torch.ones(B), INF)), "query_scale holds NaN or Inf"),
        (candidates(item_scale=spoilt(torch.ones(N), NAN)), "item_scale holds NaN or Inf"),
        (candidates(offset=NAN), "offset is nan; expected a finite number"),
        (candidates(offset=INF), "offset is inf; expected a finite number"),
        (packing(spoilt(X, NAN)), "items holds NaN or Inf in row 9"),
        (quantizing(spoilt(X, NAN)), f"weight holds NaN or Inf in row 9; {FINITE}"),
        (quantizing(spoilt(X, INF), "int4"), "weight holds NaN or Inf in row 9"),
        (quantizing(spoilt(X, -INF), scheme="symmetric"), "weight holds NaN or Inf in row 9"),
    ]
)
def test_numbers_that_are_not_finite_are_a_value_error(
    backend: str, call: Callable[[str], Any], sentence: str
) -> None:
    refused(backend, call, ValueError, sentence)


DOWN, LATE = ragged([1], [0, 1, 0, 1]), ragged([1], [1, 1, 1, 1])
SHORT = ragged([1, 2], [0, 0, 1, 1])


@cases(
    [
        (topk(exclude=DOWN), "exclude offsets goes down from 1 to 0 at entry 2"),
        (topk(exclude=LATE), "exclude offsets begins with 1; expected 0"),
        (topk(exclude=SHORT), "exclude offsets ends with 1; expected 2"),
        (topk(allow=DOWN), "allow offsets goes down from 1 to 0 at entry 2"),
        (topk(allow=ragged([1], [0, 0, 0, 2])), "allow offsets ends with 2; expected 1"),
        (candidates(lists=DOWN), "candidates offsets goes down from 1 to 0 at entry 2"),
        (candidates(lists=LATE), "candidates offsets begins with 1; expected 0"),
        (candidates(lists=SHORT, k=1), "candidates offsets ends with 1; expected 2"),
        (candidates(lists=ragged([1], [-1, 0, 0, 1])), "candidates offsets begins with -1"),
        (bag(offsets=ids(0, 2, 1)), "offsets goes down from 2 to 1 at entry 2"),
        (bag(offsets=ids(1)), "offsets begins with 1; expected 0"),
        (bag(offsets=ids(0, 4)), "offsets holds 4 at entry 1; expected at most 3, the number of"),
        (bag(offsets=ids()), "offsets is empty but there are 3 indices"),
        (bag(offsets=ids(0, 2), include_last_offset=True), "offsets ends with 2; expected 3"),
        (bag(offsets=ids(0, 9), include_last_offset=True), "offsets ends with 9; expected 3"),
        (bag(offsets=ids(), include_last_offset=True), "offsets is empty"),
        (bag(offsets=ids()), "offsets"),
    ]
)
def test_offsets_that_are_no_offsets_are_a_value_error(
    backend: str, call: Callable[[str], Any], sentence: str
) -> None:
    refused(backend, call, ValueError, sentence)


@cases(
    [
        (topk(allow=[0, N]), "allow holds 10 at entry 1; expected 0 to 9"),
        (topk(allow=[[0], [], [-1]]), "allow holds -1 at entry 1; expected 0 to 9"),
        (topk(items=X[:0], allow=[0]), "allow holds 0 at entry 0, but there are no rows"),
        (candidates(lists=[[0], [N], []]), "candidates holds 10 at entry 1; expected 0 to 9"),
        (candidates(lists=[[-1], [], []]), "candidates holds -1 at entry 0"),
        (candidates(items=X[:0], lists=[[0], [], []]), "candidates .* there are no rows"),
        (bag(indices=ids(0, 1, N)), "indices holds 10 at entry 2; expected 0 to 9"),
        (bag(indices=ids(0, -1, 2)), "indices holds -1 at entry 1"),
        (bag(table=quantize(X), indices=ids(0, 1, N)), "indices holds 10 at entry 2"),
        (bag(table=X[:0]), "indices holds 0 at entry 0, but there are no rows"),
        (bag(padding_idx=N), "padding_idx is 10; expected -10 to 9"),
        (bag(padding_idx=-N - 1), "padding_idx is -11; expected -10 to 9"),
    ]
)
def test_ids_that_do_not_exist_are_an_index_error(
    backend: str, call: Callable[[str], Any], sentence: str
) -> None:
    refused(backend, call, IndexError, sentence)


AWAY = torch.device("meta")


@cases(
    [
        (topk(items=X.to(AWAY)), "items is on meta; expected cpu, as the queries are"),
        (topk(items=quantize(X).to(AWAY)), "items is on meta; expected cpu"),
        (topk(item_bias=torch.ones(N, device=AWAY)), "item_bias is on meta; expected cpu"),
        (topk(item_scale=torch.ones(N, device=AWAY)), "item_scale is on meta; expected cpu"),
        (topk(exclude=ids(1).to(AWAY)), "exclude is on meta; expected cpu"),
        (topk(exclude=Ragged.of(LISTS).to(AWAY)), "exclude is on meta; expected cpu"),
        (topk(allow=ids(1).to(AWAY)), "allow is on meta; expected cpu"),
        (topk(allow=torch.ones(N, dtype=torch.bool, device=AWAY)), "allow is on meta"),
        (candidates(items=X.to(AWAY)), "items is on meta; expected cpu"),
        (candidates(lists=Ragged.of(LISTS).to(AWAY)), "candidates is on meta; expected cpu"),
        (candidates(query_bias=torch.ones(B, device=AWAY)), "query_bias is on meta"),
        (bag(indices=INDICES.to(AWAY), offsets=OFFSETS.to(AWAY)), "indices is on meta"),
        (bag(offsets=OFFSETS.to(AWAY)), "offsets is on meta; expected cpu"),
        (bag(per_sample_weights=torch.ones(3, device=AWAY)), "per_sample_weights is on meta"),
    ]
)
def test_tensors_on_different_devices_are_a_value_error(
    backend: str, call: Callable[[str], Any], sentence: str
) -> None:
    refused(backend, call, ValueError, sentence)


def test_empty_everything_is_no_error(backend: str) -> None:
    for d in (0, 5):
        nobody, nothing = torch.empty(0, d), torch.empty(0, d)
        for items in (nothing, pack(nothing, backend=backend), quantize(nothing, "int4")):
            top = cosine_topk(
                nobody, items, 3, item_bias=torch.empty(0), item_scale=torch.empty(0),
                exclude=[], allow=torch.empty(0, 0, dtype=torch.bool), backend=backend,
            )  # fmt: skip
            assert top.ids.shape == top.scores.shape == (0, 3)
            assert candidate_scores(nobody, items, [], backend=backend).shape == (0,)
            assert isinstance(items, torch.Tensor | PackedItems | QuantizedTable)
        for table in (nothing, quantize(nothing, backend=backend)):
            pooled = embedding_bag(table, ids(), ids(), normalize=True, backend=backend)
            assert pooled.shape == (0, d)


def test_an_operator_that_does_not_exist_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="op is 'softmax'; expected one of cosine_topk, "):
        explain("softmax")
