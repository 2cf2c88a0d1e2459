"""What the NVRTC kernels share: launches through CuPy, and the structs that kernels take.

The kernels are those of csrc/*/*.cu, compiled when they are first used. Imported only by the
`nvrtc.py` of an operator's room, when that is chosen. Tensors stay torch's, and launches go to
torch's current stream.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from llmrec_kernels.ops import nvrtc_compile
from llmrec_kernels.ops.rows import Rows

NAMESPACE = "llmrec::cuda::"
MOST_ITEMS = 2**31 - 1  # common/keys.cuh has room for so many ids
SORTING = 2048  # kSorting of common/select.cuh
SELECTION_BYTES = 4 * 256 + 4 * 4  # sizeof(Selection)
BEST_BYTES = 8 * SORTING + SELECTION_BYTES  # of shared memory, for write_best
TEAM = 8  # kTeam of common/score.cuh

# Storage of common/rows.h, in its order.
STORAGES = (
    "float32", "float16", "bfloat16", "int8_affine", "int8_symmetric", "int4_affine",
    "int4_symmetric", "fp8_e4m3",
)  # fmt: skip
_BITS = {"float32": 32, "float16": 16, "bfloat16": 16, "int4_affine": 4, "int4_symmetric": 4}

Struct = np.ndarray[Any, Any]  # of no dimensions: a kernel's argument
Launch = Callable[[str, tuple[int, ...], int, int, Struct], None]


def struct(*fields: str | tuple[str, Any]) -> np.dtype[Any]:
    """The layout of a struct of 8-byte fields: pointers and int64, or the type that is given."""
    return np.dtype([(f, np.int64) if isinstance(f, str) else f for f in fields])


ROWS = struct(
    "data", "scale", "bias", "inverse_norms", "count", "dim", "stride", "number_stride"
)  # DeviceRows of common/decode.cuh


def expression(kernel: str, *parameters: Any) -> str:
    """A kernel as C++ names it.

    Examples
    --------
    >>> expression("pool", "fp8_e4m3", True), expression("scan", 4, 1)
    ('llmrec::cuda::pool<llmrec::Storage::fp8_e4m3, true>', 'llmrec::cuda::scan<4, 1>')
    """
    words = [f"llmrec::Storage::{p}" if isinstance(p, str) else str(p).lower() for p in parameters]
    return NAMESPACE + kernel + (f"<{', '.join(words)}>" if words else "")


def pointer(tensor: Tensor | None) -> int:
    """Where a tensor's elements are; 0 for none."""
    return 0 if tensor is None else tensor.data_ptr()


def packed(*vectors: Tensor | None) -> list[Tensor | None]:
    """Numbers side by side, as kernels read them."""
    return [None if vector is None else vector.contiguous() for vector in vectors]


def parts(count: int, size: int) -> int:
    """How many parts of a size hold so many."""
    return -(-count // size)


def bits_of(storage: str) -> int:
    """Bits of an element."""
    return _BITS.get(storage, 8)


def storage_of(rows: Rows) -> str:
    """Which of STORAGES a table's rows are."""
    if rows.bits == 0:
        return STORAGES[(torch.float32, torch.float16, torch.bfloat16).index(rows.data.dtype)]
    if rows.data.dtype == torch.float8_e4m3fn:
        return "fp8_e4m3"
    return f"int{rows.bits}_{'symmetric' if rows.bias is None else 'affine'}"


class DeviceRows(NamedTuple):
    """Rows as kernels take them, with the tensors that hold them.

    Parameters
    ----------
    rows
        As they were, but for elements that do not lie side by side.
    storage
        One of STORAGES.
    values
        What goes into the fields of ROWS.
    """

    rows: Rows
    storage: str
    values: tuple[int, ...]

    @classmethod
    def of(cls, rows: Rows) -> DeviceRows:
        """The same memory where kernels can read it."""
        data, scale, bias = rows.data, rows.scale, rows.bias
        if data.shape[1] > 1 and data.stride(1) != 1:
            data = data.contiguous()
        if scale is not None and bias is not None and scale.stride(0) != bias.stride(0):
            scale, bias = scale.contiguous(), bias.contiguous()
        (norms,) = packed(rows.inverse_norms)
        values = (
            pointer(data), pointer(scale), pointer(bias), pointer(norms), data.shape[0], rows.dim,
            data.stride(0) * data.element_size(), 1 if scale is None else scale.stride(0),
        )  # fmt: skip
        held = rows._replace(data=data, scale=scale, bias=bias, inverse_norms=norms)
        return cls(held, storage_of(rows), values)


@contextmanager
def kernels(device: torch.device, needed: Mapping[str, Sequence[str]]) -> Iterator[Launch]:
    """Give what launches kernels on a device, on torch's current stream there.

    Parameters
    ----------
    device
        A GPU.
    needed
        Names of kernels by their sources; what was not used before is compiled first.
    """
    import cupy

    index = torch.cuda.current_device() if device.index is None else device.index
    with cupy.cuda.Device(index), _stream(cupy, torch.cuda.current_stream(index), index):
        loaded: dict[str, Any] = {}
        for source, names in needed.items():
            loaded |= _loaded(cupy, index, source, names)

        def launch(
            name: str, grid: tuple[int, ...], threads: int, shared: int, call: Struct
        ) -> None:
            loaded[name](grid, (threads,), (call,), shared_mem=shared)

        yield launch


def _stream(cupy: Any, stream: torch.cuda.Stream, index: int) -> Any:
    """A stream of torch's for CuPy: ExternalStream is deprecated from CuPy 14 on."""
    if hasattr(cupy.cuda.Stream, "from_external"):
        return cupy.cuda.Stream.from_external(stream)
    return cupy.cuda.ExternalStream(stream.cuda_stream, index)


_kernels: dict[tuple[int, str, str], Any] = {}
_lock = threading.Lock()


def _loaded(cupy: Any, index: int, source: str, names: Sequence[str]) -> dict[str, Any]:
    """CuPy's kernels by their names; those that are missing are compiled together."""
    with _lock:
        missing = [name for name in names if (index, source, name) not in _kernels]
        if missing:
            major, minor = torch.cuda.get_device_capability(index)
            release = cupy.cuda.runtime.driverGetVersion() // 1000
            binary = nvrtc_compile.compiled(source, missing, 10 * major + minor, release)
            module = cupy.RawModule(path=str(binary.path))
            for name in missing:
                _kernels[index, source, name] = module.get_function(binary.names[name])
        return {name: _kernels[index, source, name] for name in names}
