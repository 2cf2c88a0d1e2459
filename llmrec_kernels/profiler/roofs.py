"""The roofs of a machine, measured: what the speed of a call is a share of.

On a CPU they are loops of our own for each instruction set (`csrc/roofs`): loads, copies past the
caches, and multiply-adds on registers. On a GPU they are torch's sums, copies and products, which
are the vendor's libraries. A multiplication and its addition are two operations.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from pydantic import Field, ValidationError

from llmrec_kernels import _library
from llmrec_kernels._cache import cache_folder
from llmrec_kernels._files import write_text
from llmrec_kernels.profiler.environment import current, device_of, fingerprint, last_level_cache
from llmrec_kernels.profiler.figures import Model
from llmrec_kernels.profiler.report import Ceiling, Kind

LEVELS = ("scalar", "avx2", "avx2_vnni", "avx512", "amx", "neon")
KINDS: tuple[Kind, ...] = ("int8", "bfloat16", "float32")
SIZES = tuple(2**power for power in (21, 23, 25, 27, 29))  # bytes of a buffer that is read
MEMORY = SIZES[-1]  # several times a second-level cache
REPETITIONS = 5
REPEATABLE = 0.05  # what two rounds should differ by at most
ROUNDS = (2, 4)
GPU_EDGE = 8192
GPU_KINDS: tuple[Kind, ...] = ("int8", "float16", "bfloat16", "float32", "tf32")

_library.library.define("read_roof(int level, int bytes, int repetitions, bool all) -> float")
_library.library.define("copy_roof(int level, int bytes, int repetitions, bool all) -> float")
_library.library.define("peak_roof(int level, int kind, int repetitions, bool all) -> float")


class Roofs(Model):
    """What a device can do at best; prints as a table.

    Examples
    --------
    >>> from llmrec_kernels import profiler
    >>> roofs = profiler.roofs()                    # doctest: +SKIP
    >>> print(roofs.peak("int8").per_second / 1e12) # doctest: +SKIP
    0.81
    """

    device: str
    fingerprint: str = Field(description="of the machine: see environment.fingerprint")
    threads: int = Field(description="CPU threads that worked together")
    rates: dict[str, Ceiling] = Field(
        description="by name: 'read <bytes>', 'read <bytes> alone', 'copy', 'copy alone', "
        "'<level> <kind>', '<level> <kind> alone': bytes or operations a second; alone: one thread"
    )
    cache_bytes: int = Field(description="of the last cache, as the machine or the GPU tells")
    refused: dict[str, str] = Field(description="what has no figure, and why")

    @property
    def memory(self) -> Ceiling:
        """Bytes a second that all threads read from main memory."""
        return self.rates[f"read {MEMORY}"]

    def bandwidth(self, size: int) -> Ceiling:
        """Bytes a second read from a buffer that is no larger than `size` bytes, or a little more.

        The largest measured buffer within `size` counts, since a cache that holds less is faster:
        so this is never too low, but for buffers below the smallest, of 2 MB.
        """
        within = [each for each in SIZES if each <= size] or [SIZES[0]]
        slower = [f"read {each}" for each in SIZES if each >= within[-1]]
        return max((self.rates[name] for name in slower if name in self.rates), key=_rate)

    def in_cache(self, size: int) -> bool:
        """Whether the last cache can hold so many bytes."""
        return size <= self.cache_bytes

    def peak(self, kind: str) -> Ceiling | None:
        """Operations a second of the level that is best at this arithmetic; None: not measured."""
        found = [rate for name, rate in self.rates.items() if name.split()[1:] == [kind]]
        return max(found, key=_rate, default=None)

    @property
    def peaks(self) -> dict[Kind, Ceiling]:
        """The best of each kind of arithmetic."""
        kinds: Iterable[Kind] = dict.fromkeys((*KINDS, *GPU_KINDS))
        return {kind: peak for kind in kinds if (peak := self.peak(kind)) is not None}

    @property
    def repeatability(self) -> float:
        """The largest relative difference between repeated measurements of the roofs in use."""
        return max(c.repeatability or 0.0 for c in (self.memory, *self.peaks.values()))

    def higher(self, other: Roofs) -> Roofs:
        """The better measurement of each: a disturbance makes it too low, and nothing too high."""
        pairs = ((rate, other.rates.get(name, rate)) for name, rate in self.rates.items())
        best = (max(pair, key=_rate) for pair in pairs)
        return self.model_copy(update={"rates": dict(zip(self.rates, best, strict=True))})

    def __str__(self) -> str:
        lines = [f"{self.device}: {self.threads} threads, and one alone"]
        for name, rate in self.rates.items():
            if name.endswith(" alone"):
                continue
            alone = self.rates.get(f"{name} alone")
            unit = "GB/s" if name.split()[0] in ("read", "copy") else "Gop/s"
            shown = "" if alone is None else f"{alone.per_second / 1e9:,.1f}"
            lines.append(
                f"{_title(name):24}{rate.per_second / 1e9:>12,.1f}{shown:>12} {unit:5}"
                f" ±{rate.repeatability or 0:.1%}"
            )
        lines += [f"  {why}" for why in dict.fromkeys(self.refused.values())]
        stated = "repeatable" if self.repeatability <= REPEATABLE else "NOT repeatable"
        return "\n".join([*lines, f"{stated} within {max(self.repeatability, REPEATABLE):.1%}"])


def roofs(device: str | torch.device | None = None, *, refresh: bool = False) -> Roofs:
    """The roofs of a device, measured once for each machine, boot and number of threads.

    Measuring takes some ten seconds. What was measured is kept in `$LLMREC_CACHE/roofs`.

    Parameters
    ----------
    device
        "cpu" or "cuda:<index>"; a GPU that is in use by default, else the CPU.
    refresh
        Measure again.

    Raises
    ------
    RuntimeError
        The compiled extension, which measures a CPU, is not there; or memory could not be read.
    """
    name = device_of(device)
    path = cache_folder("roofs") / f"{fingerprint(name)}-{name.replace(':', '')}.json"
    if not refresh:
        try:
            return Roofs.model_validate_json(path.read_text())
        except (OSError, ValidationError):
            pass  # not measured yet, or by another version
    with current(name):
        measured = _repeated(_cpu_rates() if name == "cpu" else _gpu_rates(name))
    rates = {rate: ceiling for rate, ceiling in measured.items() if isinstance(ceiling, Ceiling)}
    refused = {rate: why for rate, why in measured.items() if isinstance(why, str)}
    if f"read {MEMORY}" not in rates:  # and nothing is kept
        raise RuntimeError(f"{name} has no memory roof: {refused.get(f'read {MEMORY}')}")
    found = Roofs(
        device=name, fingerprint=fingerprint(name), threads=torch.get_num_threads(),
        rates=rates, refused=refused, cache_bytes=last_level_cache(name),
    )  # fmt: skip
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(found.model_dump_json(indent=1), path)
    except OSError:
        pass  # a folder that cannot be written costs time, and nothing else
    return found


def read_bandwidth(size: int) -> float:
    """Bytes a second that all threads read from a buffer of `size` bytes, measured now."""
    return _fastest("read_roof", size, everyone=True)


def int8_peak(level: str) -> float:
    """Int8 operations a second that kernels of a level can reach on all threads, measured now.

    A kernel of level avx2 takes the instructions of avx2_vnni where the processor has them.
    """
    found = []
    for each in ("avx2", "avx2_vnni") if level == "avx2" else (level,):
        with contextlib.suppress(ValueError):  # no such level here
            found.append(_operations(LEVELS.index(each), KINDS.index("int8"), everyone=True))
    return max(found)


Rate = Callable[[], float]


def _repeated(rates: dict[str, Rate]) -> dict[str, Ceiling | str]:
    """Rounds over all rates, until the best two of each are as good as equal, or enough."""
    seen: dict[str, list[float]] = {name: [] for name in rates}
    refused: dict[str, Ceiling | str] = {}
    for number in range(ROUNDS[1]):
        for name, rate in rates.items():
            if name in refused or (number >= ROUNDS[0] and _spread(seen[name]) <= REPEATABLE):
                continue
            try:
                seen[name].append(rate())
            except (ValueError, RuntimeError) as error:
                refused[name] = str(error).splitlines()[0]
    found = {
        name: Ceiling(per_second=max(values), source="measured here", repeatability=_spread(values))
        for name, values in seen.items()
        if name not in refused
    }
    return found | refused


def _spread(values: list[float]) -> float:
    """How far the second best is below the best."""
    best, second = sorted(values, reverse=True)[:2]
    return 1 - second / best


def _cpu_rates() -> dict[str, Rate]:
    if _library.load_error is not None:
        raise RuntimeError(f"the compiled extension measures roofs, but {_library.load_error}")
    rates: dict[str, Rate] = {}
    for words, everyone in (("", True), (" alone", False)):
        for size in SIZES:
            rates[f"read {size}{words}"] = partial(_fastest, "read_roof", size, everyone)
        rates[f"copy{words}"] = partial(_fastest, "copy_roof", MEMORY, everyone)
        for level in LEVELS:
            for kind in KINDS:
                arguments = (LEVELS.index(level), KINDS.index(kind))
                rates[f"{level} {kind}{words}"] = partial(_operations, *arguments, everyone)
    return rates


def _fastest(op: str, size: int, everyone: bool) -> float:
    """Of the level that reads or copies fastest."""
    found = []
    for level in range(len(LEVELS)):
        try:
            call = getattr(torch.ops.llmrec, op)
            found.append(float(call(level, size, REPETITIONS, everyone)))
        except ValueError:  # noqa: PERF203 - no such level here, or no such loop of it
            continue
    return max(found)


def _operations(level: int, kind: int, everyone: bool) -> float:
    return 2 * float(torch.ops.llmrec.peak_roof(level, kind, REPETITIONS, everyone))


def _gpu_rates(device: str) -> dict[str, Rate]:
    def best(call: Callable[[], Any]) -> float:
        return min(_gpu_seconds(call, device) for _ in range(REPETITIONS))

    return torch_rates(device, best, MEMORY, GPU_EDGE)


def torch_rates(
    device: str, seconds: Callable[[Callable[[], Any]], float], size: int, edge: int
) -> dict[str, Rate]:
    """Sums and copies of `size` bytes, and square products of `edge`, timed by `seconds`."""

    def read() -> float:
        source = torch.ones(size // 4, device=device)
        return source.nbytes / seconds(source.sum)

    def copy() -> float:
        source = torch.ones(size // 4, device=device)
        return 2 * source.nbytes / seconds(partial(torch.empty_like(source).copy_, source))

    def product(kind: Kind) -> float:
        dtype = torch.float32 if kind == "tf32" else getattr(torch, kind)
        matrix = torch.ones(edge, edge, device=device).to(dtype)
        multiply = partial(torch.matmul, matrix, matrix)
        if kind == "int8":  # cuBLASLt's fast kernels take the right operand by columns
            multiply = partial(torch._int_mm, matrix, matrix.t())
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if kind == "tf32" else "highest")
        try:
            return 2 * edge**3 / seconds(multiply)
        finally:
            torch.set_float32_matmul_precision(before)

    return {
        f"read {MEMORY}": read,
        "copy": copy,
        **{f"tensor {kind}": partial(product, kind) for kind in GPU_KINDS},
    }


def _gpu_seconds(call: Callable[[], Any], device: str) -> float:
    call()
    torch.cuda.synchronize(device)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(10_000_000)  # the GPU waits while the host queues
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def _rate(ceiling: Ceiling) -> float:
    return ceiling.per_second


def _title(name: str) -> str:
    what, _, size = name.partition(" ")
    return f"read {int(size) >> 20} MB" if what == "read" else name
