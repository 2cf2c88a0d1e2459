"""Packing by NVRTC: the kernel and the launch of csrc/pack/pack.cu."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from llmrec_kernels.ops import nvrtc_common as nvrtc
from llmrec_kernels.ops.pack.schema import offer, result
from llmrec_kernels.ops.rows import Rows

SOURCE = "pack/pack.cu"
ITEMS, THREADS, CHUNK = 16, 128, 128  # kItems, kPackThreads, kChunk
CHUNK_BYTES = ITEMS * CHUNK  # kChunkBytes
SHARED = 48 << 10  # kShared

CALL = nvrtc.struct(
    ("rows", nvrtc.ROWS), "tile", "data", "inverse_norms", "codes", "unit_scale", "residual"
)


class Plan(NamedTuple):
    """What a launch needs to know of the rows' storage and length.

    Parameters
    ----------
    tile
        Elements of a row that are in shared memory.
    shared
        Bytes of it.
    """

    tile: int
    shared: int

    @classmethod
    def of(cls, storage: str, dim: int) -> Plan:
        """As pack_cuda has it."""
        bits = nvrtc.bits_of(storage)
        most = ((SHARED - 2 * CHUNK_BYTES) // ITEMS - pitch_of(0, bits)) * 8 // bits // CHUNK
        tile = min(nvrtc.parts(dim, CHUNK), most) * CHUNK
        return cls(tile, 2 * CHUNK_BYTES + ITEMS * pitch_of(tile, bits))


def pitch_of(tile: int, bits: int) -> int:
    """Bytes from row to row in shared memory."""
    return tile * bits // 8 + 32


def kernel_of(storage: str) -> str:
    """The kernel for rows of a storage."""
    return nvrtc.expression("pack", storage)


def launch_pack(
    launch: nvrtc.Launch, storage: str, rows: tuple[int, ...], results: tuple[int, ...]
) -> None:
    """Pack rows into results: pointers to data, or 0 for no copy, norms and the sketch."""
    count, dim = rows[4], rows[5]
    plan = Plan.of(storage, dim)
    call = np.array((rows, plan.tile, *results), CALL)
    launch(kernel_of(storage), (nvrtc.parts(count, ITEMS),), THREADS, plan.shared, call)


def pack(
    data: Tensor, scale: Tensor | None, bias: Tensor | None, bits: int, dim: int
) -> tuple[Tensor, ...]:
    """As `reference.pack`, with no look at contents: a row that is not finite has a norm of NaN."""
    results = result(data, scale, bias, bits, dim)
    if data.shape[0] == 0:
        return results
    rows = nvrtc.DeviceRows.of(Rows(data, scale, bias, bits, dim))
    with nvrtc.kernels(data.device, {SOURCE: [kernel_of(rows.storage)]}) as launch:
        launch_pack(launch, rows.storage, rows.values, tuple(map(nvrtc.pointer, results)))
    return results


offer("_nvrtc", pack)
