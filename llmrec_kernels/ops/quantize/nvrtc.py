"""Row-wise quantization by NVRTC: the kernel and the launch of csrc/quantize/quantize.cu."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from llmrec_kernels.ops import nvrtc_common as nvrtc
from llmrec_kernels.ops.quantize.reference import DTYPES
from llmrec_kernels.ops.quantize.schema import offer, result
from llmrec_kernels.ops.rows import Rows

SOURCE = "quantize/quantize.cu"
THREADS, PART = 128, 8  # kQuantizeThreads, kPart
WARP = 32

CALL = nvrtc.struct(("weight", nvrtc.ROWS), "storage", "codes", "numbers")


def team_for(dim: int) -> int:
    """The lanes that share a row."""
    team = 1
    while team < WARP and team * PART < dim:
        team *= 2
    return team


def target_of(dtype: int, symmetric: bool) -> str:
    """The storage that codes are made for."""
    name = DTYPES[dtype]
    return f"{name}_{'symmetric' if symmetric else 'affine'}" if name in ("int8", "int4") else name


def quantize(weight: Tensor, dtype: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """As `reference.quantize`, with no look at contents."""
    codes, numbers = result(weight, dtype, symmetric)
    if weight.shape[0] == 0:
        return codes, numbers
    rows = nvrtc.DeviceRows.of(Rows(weight, None, None, 0, weight.shape[1]))
    storage = nvrtc.STORAGES.index(rows.storage)
    call = np.array((rows.values, storage, nvrtc.pointer(codes), nvrtc.pointer(numbers)), CALL)
    kernel = nvrtc.expression("quantize", target_of(dtype, symmetric))
    blocks = nvrtc.parts(weight.shape[0], THREADS // team_for(weight.shape[1]))
    with nvrtc.kernels(weight.device, {SOURCE: [kernel]}) as launch:
        launch(kernel, (blocks,), THREADS, 0, call)
    return codes, numbers


offer("_nvrtc", quantize)
