"""The Python launchers launch what the C++ ones do: the same kernels, grids and structs."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import nvrtc_stand_in
import pytest
import torch
from cases import STORAGES, random, stored
from nvrtc_stand_in import LAYOUTS, TOPK, Launched, launched_in_cpp

from llmrec_kernels import Ragged, pack
from llmrec_kernels.ops import nvrtc_common, nvrtc_compile
from llmrec_kernels.ops.cosine_topk.nvrtc_plan import MOST_DECIDERS, Tuning
from llmrec_kernels.ops.rows import Rows, rows_of

pytestmark = nvrtc_stand_in.emulates
KEPT = [name for name in STORAGES if name != "float64"]


def numbers_of(rows: Rows) -> list[int]:
    held = nvrtc_common.DeviceRows.of(rows)
    return [nvrtc_common.STORAGES.index(held.storage), *held.values]


def field(launched: Launched, layout: str, name: str) -> int:
    return int(np.frombuffer(launched.call, LAYOUTS[layout])[name][0])


def check(op: str, ours: list[Launched], numbers: list[Any], workspace: int = 0) -> None:
    """The same launches; `workspace` is how many bytes the Python launcher took."""
    taken, theirs = launched_in_cpp(op, numbers)
    assert [one.kernel for one in ours] == [one.kernel for one in theirs]
    assert ours == theirs
    assert taken == workspace


@pytest.mark.parametrize("struct", LAYOUTS)
def test_structs_lie_in_memory_as_in_cpp(struct: str) -> None:
    library, layout = nvrtc_stand_in.library(), LAYOUTS[struct]
    assert library.layout_of(struct.encode()) == layout.itemsize
    for name, offset in nvrtc_stand_in.fields(layout):
        assert library.layout_of(f"{struct}.{name}".encode()) == offset, name


def test_a_gpu_has_more_threads_for_a_query_than_the_emulator() -> None:
    _, headers = nvrtc_compile.read("cosine_topk/topk.cu")
    numbers = re.findall(r"constexpr int kMostDeciders = (\d+);", headers["cosine_topk/decide.cuh"])
    assert numbers == ["64", str(MOST_DECIDERS)]


PLANS = {
    "one query": (1, 700, 20, 3, Tuning()),
    "three queries, many results": (3, 500, 9, 600, Tuning()),
    "eight queries": (8, 130, 33, 5, Tuning()),
    "twenty queries in chunks": (20, 900, 5, 4, Tuning(chunk_bytes=2048)),
    "forty queries, little room": (40, 1500, 4, 2, Tuning(capacity=64)),
    "many queries in rounds": (150, 200, 4, 3, Tuning(round_queries=130)),
    "rounds of few": (11, 300, 6, 2, Tuning(round_queries=4, capacity=32, chunk_bytes=1024)),
    "a sample": (2, 9000, 4, 1, Tuning(capacity=256)),
    "no dimensions": (2, 40, 0, 3, Tuning()),
    "no items": (2, 0, 6, 3, Tuning()),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("plan", PLANS)
def test_cosine_topk_launches_what_cpp_does(plan: str, packed: bool) -> None:
    count, width, dim, k, tuning = PLANS[plan]
    storage = KEPT[list(PLANS).index(plan) % len(KEPT)]
    items: Any = stored(random(width, dim, seed=1), storage)
    rows = rows_of("items", pack(items) if packed else items)
    queries, bias = random(count, dim), random(width, seed=2)
    lists = Ragged.of([[query, 1, 2] for query in range(count)])
    few = torch.tensor([1, 5])
    filters: Any = {
        "one query": (few, None, torch.ones(width, dtype=torch.bool), None, None),
        "eight queries": (None, None, torch.ones(count, width, dtype=torch.bool), None, None),
        "twenty queries in chunks": (lists.values, lists.offsets, None, few, None),
        "rounds of few": (few, None, None, lists.values, lists.offsets),
    }.get(plan, (None,) * 5)
    sizes: list[dict[str, int]] = []
    sketch = rows.sketch or (None,) * 3
    with nvrtc_stand_in.installed(runs=False) as ours, pytest.MonkeyPatch.context() as patch:
        patch.setattr(TOPK, "TUNING", tuning)
        plan_of = TOPK.Plan.sizes
        patch.setattr(
            TOPK.Plan, "sizes", lambda self, dim: sizes.append(plan_of(self, dim)) or sizes[-1]
        )
        scores, ids = torch.ops.llmrec.cosine_topk_nvrtc(
            queries, rows.data, rows.scale, rows.bias, rows.inverse_norms, *sketch,
            rows.bits, k, 1, bias, None, *filters, True,
        )  # fmt: skip
    first = next(one for one in ours if len(one.call) == LAYOUTS["TopkCall"].itemsize)
    where = nvrtc_common.pointer
    mask = filters[2]
    check(
        "cosine_topk",
        ours,
        [
            *numbers_of(rows), where(queries), count, k, 0, 1, where(bias), 0, *map(where, sketch),
            where(scores), where(ids), where(mask),
            0 if mask is None else 1 if mask.dim() == 1 else count,
            *map(where, filters[:2]), 0 if filters[0] is None else len(filters[0]),
            *map(where, filters[3:]), 0 if filters[3] is None else len(filters[3]), *tuning,
            field(first, "TopkCall", "query_codes"),
        ],
        sum(sizes[0].values()),
    )  # fmt: skip


@pytest.mark.parametrize("storage", KEPT)
def test_embedding_bag_launches_what_cpp_does(storage: str) -> None:
    where = nvrtc_common.pointer
    for dim in (1, 13, 64, 300):
        rows = rows_of("table", stored(random(23, dim), storage))
        lists, weights = Ragged.of([[1, 2], [], [5] * 300, *[[7]] * 200]), random(502)
        for mode in (0, 1, 2):
            for normalize, out_dtype in ((False, 1), (True, 0), (True, 2)):
                shares = None if mode == 2 else weights
                with nvrtc_stand_in.installed(runs=False) as ours:
                    out = torch.ops.llmrec.embedding_bag_nvrtc(
                        rows.data, rows.scale, rows.bias, rows.bits, dim, lists.values,
                        lists.offsets, mode, shares, 4, normalize, out_dtype,
                    )  # fmt: skip
                pooled = field(ours[0], "PoolCall", "out")
                apart = normalize and out_dtype != 0
                numbers = [
                    *numbers_of(rows), where(lists.values), where(lists.offsets), where(shares),
                    len(lists.values), len(lists), 4, mode, normalize, out_dtype, where(out),
                    pooled if apart else 0,
                ]  # fmt: skip
                check("embedding_bag", ours, numbers, out.numel() * 4 if apart else 0)


@pytest.mark.parametrize("k", [0, 3, 5000])
@pytest.mark.parametrize("storage", KEPT)
def test_candidate_scores_launch_what_cpp_does(storage: str, k: int) -> None:
    rows = rows_of("items", pack(stored(random(30, 11, seed=1), storage)))
    queries, lists, where = random(40, 11), Ragged.of([[1, 2]] * 40), nvrtc_common.pointer
    terms = (random(40), random(30), 0.25, random(40), random(30))
    arguments = (
        queries, rows.data, rows.scale, rows.bias, rows.inverse_norms, rows.bits, lists.values,
        lists.offsets, 0, *terms,
    )  # fmt: skip
    with nvrtc_stand_in.installed(runs=False) as ours:
        if k:
            scores, ids = torch.ops.llmrec.candidate_scores_nvrtc(*arguments, k)
        else:
            scores, ids = torch.ops.llmrec.candidate_scores_nvrtc(*arguments), None
    numbers = [
        *numbers_of(rows), where(queries), 40, where(lists.values), where(lists.offsets), 80, 1,
        *map(where, (*terms[:2], *terms[3:])), 0.25, where(scores), k, where(ids),
        field(ours[0], "CandidateCall", "inverse"),
    ]  # fmt: skip
    check("candidate_scores", ours, numbers, 8 * (40 + (80 if k else 0)))


@pytest.mark.parametrize("dim", [0, 1, 9, 100, 5000])
def test_quantize_and_pack_launch_what_cpp_does(dim: int) -> None:
    where = nvrtc_common.pointer
    weight = random(50, dim).to(torch.bfloat16)
    for dtype in range(5):
        for symmetric in (False, True):
            with nvrtc_stand_in.installed(runs=False) as ours:
                results = torch.ops.llmrec.quantize_nvrtc(weight, dtype, symmetric)
            name = nvrtc_stand_in.QUANTIZE.target_of(dtype, symmetric)
            target = nvrtc_common.STORAGES.index(name)
            numbers = [*numbers_of(rows_of("weight", weight)), target, *map(where, results)]
            check("quantize", ours, numbers)
    for storage in KEPT:
        rows = rows_of("items", stored(random(50, dim), storage))
        with nvrtc_stand_in.installed(runs=False) as ours:
            results = torch.ops.llmrec.pack_nvrtc(
                rows.data, rows.scale, rows.bias, rows.bits, rows.dim
            )
        check("pack", ours, [*numbers_of(rows), *map(where, results)])
