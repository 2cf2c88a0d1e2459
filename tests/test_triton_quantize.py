"""The Triton quantization, every access checked, has the bits of the reference."""

from __future__ import annotations

import pytest
import torch
from cases import random, stored
from triton_rooms import room

from llmrec_kernels.ops.quantize.reference import DTYPES

pytestmark = pytest.mark.usefixtures("races")
room("quantize")


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("dtype", range(5), ids=DTYPES)
def test_quantized_rows_have_the_bits_of_the_reference(dtype: int, symmetric: bool) -> None:
    for dim, source in ((1, "float32"), (13, "float16"), (64, "bfloat16"), (300, "float32")):
        weight = stored(random(11, dim) * 10.0 ** torch.linspace(-4, 4, 11)[:, None], source)
        weight[0], weight[1, 0] = 2.0, 0.0
        found = torch.ops.llmrec.quantize_triton(weight, dtype, symmetric)
        want = torch.ops.llmrec.quantize_reference(weight, dtype, symmetric)
        for ours, theirs in zip(found, want, strict=True):
            assert ours.dtype == theirs.dtype
            assert torch.equal(ours.view(torch.uint8), theirs.contiguous().view(torch.uint8))


def test_every_half_way_number_is_rounded_to_even() -> None:
    codes = torch.arange(256.0)
    weight = torch.cat([codes, codes[:-1] + 0.5])[None]
    found = torch.ops.llmrec.quantize_triton(weight, 0, False)
    assert torch.equal(found[0], torch.ops.llmrec.quantize_reference(weight, 0, False)[0])


def test_what_is_no_number_stays_none_in_narrow_floats() -> None:
    payloads = torch.tensor([[0x7FC00000, 0x7F800001, 0x7FFFFFFF, -1, 0x3F800000]]).int()
    weight = payloads.view(torch.float32)
    for dtype in ("fp8_e4m3", "float16", "bfloat16"):
        codes, _ = torch.ops.llmrec.quantize_triton(weight, DTYPES.index(dtype), True)
        assert codes.float().isnan().tolist() == [[True] * 4 + [False]]


def test_a_row_with_nan_stays_in_its_row() -> None:
    weight = random(5, 7)
    weight[2, 3], weight[3, 1] = torch.nan, torch.inf
    for dtype in range(5):
        clean = torch.ops.llmrec.quantize_reference(weight[[0, 1, 4]], dtype, True)[0]
        found = torch.ops.llmrec.quantize_triton(weight, dtype, True)[0].view(torch.uint8)
        assert torch.equal(found[[0, 1, 4]], clean.view(torch.uint8))
        if DTYPES[dtype] == "int8":
            assert found[2, 3] == 0


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("dtype", range(5), ids=DTYPES)
def test_rows_without_elements_have_the_numbers_of_the_reference(
    dtype: int, symmetric: bool
) -> None:
    for shape in ((3, 0), (0, 3), (0, 0)):
        found = torch.ops.llmrec.quantize_triton(torch.empty(shape), dtype, symmetric)
        want = torch.ops.llmrec.quantize_reference(torch.empty(shape), dtype, symmetric)
        assert [x.float().tolist() for x in found] == [x.float().tolist() for x in want]
