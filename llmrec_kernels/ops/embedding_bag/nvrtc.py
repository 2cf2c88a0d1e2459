"""Pooled embedding lookup by NVRTC: the kernels and the launches of csrc/embedding_bag/bag.cu."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from llmrec_kernels.ops import nvrtc_common as nvrtc
from llmrec_kernels.ops.embedding_bag.reference import MAX, MEAN, OUT_DTYPES
from llmrec_kernels.ops.embedding_bag.schema import offer
from llmrec_kernels.ops.rows import Rows

SOURCE = "embedding_bag/bag.cu"
THREADS = 128  # kPoolThreads
BYTES = 16  # kBytes of common/decode.cuh

POOL_CALL = nvrtc.struct(
    ("table", nvrtc.ROWS), "indices", "offsets", "weights", "entries", "bags", "padding_idx",
    "mean", "out_storage", "out",
)  # fmt: skip
NORMALIZE_CALL = nvrtc.struct("pooled", "bags", "dim", "out_storage", "out")


def embedding_bag(
    data: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    bits: int,
    dim: int,
    indices: Tensor,
    offsets: Tensor,
    mode: int,
    per_sample_weights: Tensor | None,
    padding_idx: int,
    normalize: bool,
    out_dtype: int,
) -> Tensor:
    """As `reference.embedding_bag`, with no look at contents: entries out of range are skipped."""
    count = offsets.shape[0] - 1
    out = data.new_empty(count, dim, dtype=OUT_DTYPES[out_dtype])
    if count == 0 or dim == 0:
        return out
    table = nvrtc.DeviceRows.of(Rows(data, scale, bias, bits, dim))
    indices, offsets = indices.contiguous(), offsets.contiguous()
    (weights,) = nvrtc.packed(per_sample_weights)
    # Sums of bags whose rows are divided by their lengths; those of float32 are so in place.
    pooled = torch.empty_like(out, dtype=torch.float32) if normalize and out_dtype != 0 else out
    call = np.array(
        (
            table.values, nvrtc.pointer(indices), nvrtc.pointer(offsets), nvrtc.pointer(weights),
            indices.shape[0], count, padding_idx, mode == MEAN, 0 if normalize else out_dtype,
            nvrtc.pointer(pooled),
        ),
        POOL_CALL,
    )  # fmt: skip
    pool, lengths = (
        nvrtc.expression("pool", table.storage, mode == MAX),
        nvrtc.expression("normalize"),
    )
    columns = nvrtc.parts((nvrtc.bits_of(table.storage) * dim + 7) // 8, BYTES)
    with nvrtc.kernels(data.device, {SOURCE: [pool, lengths]}) as launch:
        launch(pool, (nvrtc.parts(count * columns, THREADS),), THREADS, 0, call)
        if normalize:
            rest = np.array(
                (nvrtc.pointer(pooled), count, dim, out_dtype, nvrtc.pointer(out)), NORMALIZE_CALL
            )
            launch(lengths, (nvrtc.parts(count, THREADS // nvrtc.TEAM),), THREADS, 0, rest)
    return out


offer("_nvrtc", embedding_bag)
