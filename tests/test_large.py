"""Tables of more than 2^31 elements: every offset into them is 64-bit."""

import pytest
import torch

from llmrec_kernels import (
    PackedItems,
    QuantizedTable,
    Ragged,
    candidate_scores,
    cosine_topk,
    embedding_bag,
    pack,
)
from llmrec_kernels.ops.pack import layout
from llmrec_kernels.ops.rows import Sketch

DIM = 512
ROWS = 2**31 // DIM + 1_000
LAST = 500  # rows at the far end, where a 32-bit offset would have wrapped


@pytest.fixture(scope="module")
def codes():
    """Zero rows, but for the last."""
    found = torch.zeros(ROWS, DIM, dtype=torch.int8)
    generator = torch.Generator().manual_seed(0)
    found[-LAST:] = torch.randint(-127, 128, (LAST, DIM), dtype=torch.int8, generator=generator)
    return found


@pytest.fixture(scope="module")
def scale():
    return torch.rand(ROWS, generator=torch.Generator().manual_seed(1)) / 100


@pytest.fixture(scope="module")
def table(codes, scale):
    return QuantizedTable(codes, scale, None, "int8", DIM)


@pytest.fixture(scope="module")
def end(codes, scale):
    """The last rows as a table of their own."""
    return QuantizedTable(codes[-LAST:], scale[-LAST:], None, "int8", DIM)


@pytest.fixture(scope="module", params=["without a sketch", "with a sketch"])
def packed(request, codes, scale, end):
    """The table with its inverse norms and its sketch, which are 0 for the zero rows."""
    of_end, sketch = pack(end), None
    inverse_norms = torch.zeros(ROWS, dtype=torch.float64)
    inverse_norms[-LAST:] = of_end.inverse_norms
    if request.param == "with a sketch":
        blocks = (layout.blocks(ROWS), layout.groups(DIM), layout.LANES, layout.GROUP)
        sketch = Sketch(torch.zeros(blocks, dtype=torch.int8), torch.zeros(ROWS), torch.zeros(ROWS))
        layout.append(sketch.codes, ROWS - LAST, of_end.sketch.codes, LAST)
        sketch.unit_scale[-LAST:] = of_end.sketch.unit_scale
        sketch.residual[-LAST:] = of_end.sketch.residual
    return PackedItems(codes, scale, None, 8, DIM, inverse_norms, sketch)


@pytest.fixture(scope="module")
def queries():
    return torch.randn(2, DIM, generator=torch.Generator().manual_seed(1))


def test_the_last_rows_are_found(backend, packed, end, queries):
    allowed = torch.arange(ROWS - LAST, ROWS)
    found = cosine_topk(queries, packed, 5, allow=allowed, backend=backend)
    expected = cosine_topk(queries, end, 5, backend=backend)
    assert torch.equal(found.ids, expected.ids + ROWS - LAST)
    assert torch.equal(found.scores, expected.scores)


def test_the_last_rows_are_scored(backend, table, end, queries):
    lists = Ragged.of([[0, 7, LAST - 1], [3]])
    moved = Ragged(lists.values + ROWS - LAST, lists.offsets)
    found = candidate_scores(queries, table, moved, backend=backend)
    assert torch.equal(found, candidate_scores(queries, end, lists, backend=backend))


def test_the_last_rows_are_pooled(backend, table, end):
    indices = torch.tensor([[0, 1, LAST - 1], [7, 7, 2]])
    found = embedding_bag(table, indices + ROWS - LAST, backend=backend)
    assert torch.equal(found, embedding_bag(end, indices, backend=backend))
