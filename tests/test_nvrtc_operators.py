"""The NVRTC rooms as operators of torch: schemas, fake kernels, compile, no waiting."""

from __future__ import annotations

import importlib
from typing import Any

import nvrtc_stand_in
import pytest
import torch
from cases import random
from torch import Tensor

from llmrec_kernels import Ragged, quantize
from llmrec_kernels.ops.rows import rows_of

pytestmark = nvrtc_stand_in.emulates


def calls() -> dict[str, tuple[Any, ...]]:
    rows, lists = rows_of("items", quantize(random(40, 8))), Ragged.of([[1, 2], [39]])
    of_rows = (rows.data, rows.scale, rows.bias)
    queries, none = random(2, 8), (None,) * 5
    plain = (0, None, None, 0.0, None, None)
    pairs = (queries, *of_rows, None, 8, lists.values, lists.offsets, *plain)
    return {
        "embedding_bag": (*of_rows, 8, 8, lists.values, lists.offsets, 0, None, -1, True, 0),
        "quantize": (random(5, 8), 0, False),
        "pack": (*of_rows, 8, 8),
        "candidate_scores": pairs,
        "candidate_scores.topk": (*pairs, 2),
        "cosine_topk": (queries, *of_rows, None, None, None, None, 8, 3, 0, None, None,
                        lists.values, lists.offsets, *none[2:], True),
    }  # fmt: skip


def operator_of(name: str) -> Any:
    op, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.llmrec, f"{op}_nvrtc"), overload or "default")


@pytest.mark.parametrize("name", calls())
def test_they_are_operators_that_torch_knows(name: str) -> None:
    with nvrtc_stand_in.installed():
        torch.library.opcheck(
            operator_of(name), calls()[name], test_utils=("test_schema", "test_faketensor")
        )


@pytest.mark.parametrize("name", calls())
def test_torch_compile_traces_through_them(name: str) -> None:
    op, arguments = operator_of(name), calls()[name]
    compiled = torch.compile(lambda *a: op(*a), fullgraph=True, backend="aot_eager")
    with nvrtc_stand_in.installed():
        ours, plain = compiled(*arguments), op(*arguments)
    for one, other in zip(
        *((x if isinstance(x, tuple) else (x,)) for x in (ours, plain)), strict=True
    ):
        assert torch.equal(one.flatten().view(torch.uint8), other.flatten().view(torch.uint8))


@pytest.mark.parametrize("name", calls())
def test_no_launch_waits_for_the_device(name: str) -> None:
    """Without contents nothing can: a tensor of none refuses to become a number or a shape."""
    op, _, overload = name.partition(".")
    room = importlib.import_module(f"llmrec_kernels.ops.{op}.nvrtc")
    run = room.candidate_topk if overload else getattr(room, op)
    bare = [a.to("meta") if isinstance(a, Tensor) else a for a in calls()[name]]
    with nvrtc_stand_in.installed(runs=False) as launched:
        run(*bare)
    assert launched
    for wait in (lambda: bare[0].sum().item(), lambda: bare[0].cpu(), lambda: bare[0].nonzero()):
        with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
            wait()
