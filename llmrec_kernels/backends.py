"""Which kernel runs an operator, and why the others do not.

Each operator has one priority list of backends. A backend answers `reasons(device)`: why it
cannot run there; an empty list means that it can. The first that can is chosen.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from llmrec_kernels import _library

OPS = ("cosine_topk", "embedding_bag", "candidate_scores", "quantize", "pack")


@dataclass(frozen=True)
class Backend:
    """One way to run the operators: a name, a check, and what its operators are called.

    Parameters
    ----------
    name
        What `backend=` takes.
    suffix
        Added to the operator's name: kernels that the torch dispatcher does not choose are
        operators of their own.
    reasons
        `reasons(op, device)` lists why it cannot run; empty when it can.
    """

    name: str
    suffix: str
    reasons: Callable[[str, torch.device], list[str]]


def _compiled(device_type: str) -> Callable[[str, torch.device], list[str]]:
    def reasons(op: str, device: torch.device) -> list[str]:
        if device.type != device_type:
            return [f"the tensors are on {device.type}, not {device_type}"]
        if _library.load_error is not None:
            return [f"the compiled extension is not loaded: {_library.load_error}"]
        if device_type not in _library.build_info()["ops"].get(op, ()):
            return [f"the extension holds no {device_type} kernel for {op}"]
        if device_type == "cuda" and (problem := _library.cuda_problem(device.index or 0)):
            return [problem]
        return []

    return reasons


def _room(
    kind: str, package: str, oldest: tuple[int, int], capability: dict[str, tuple[int, int]]
) -> Callable[[str, torch.device], list[str]]:
    """Kernels in a `kind.py` of the operator's room, which a package compiles when they are used.

    `oldest` is the package's version; `capability` the GPU's, by operator, and "" for the others.
    """

    def reasons(op: str, device: torch.device) -> list[str]:
        if device.type != "cuda":
            return [f"the tensors are on {device.type}, not cuda"]
        found = []
        if importlib.util.find_spec(f"llmrec_kernels.ops.{op}.{kind}") is None:
            found.append(f"this version has no {kind} kernel for {op}")
        elif importlib.util.find_spec(package) is None:
            found.append(f"{package} is not installed")
        else:
            found += _age(package, oldest)
        if kind == "triton" and _no_c_compiler():
            found.append("Triton makes its launcher with a C compiler, and there is none on PATH")
        needed = capability.get(op, capability[""])
        if not torch.cuda.is_available():
            found.append("torch finds no CUDA device")
        elif (has := torch.cuda.get_device_capability(device)) < needed:
            found.append(
                f"the GPU has compute capability {_dotted(has)}; {op} needs {_dotted(needed)}"
            )
        elif kind == "nvrtc" and not found:
            found += _nvrtc_problems(has)
        return found

    return reasons


def _no_c_compiler() -> bool:
    return not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang"))


def _age(package: str, oldest: tuple[int, int]) -> list[str]:
    try:
        parts = importlib.import_module(package).__version__.split(".")[:2]
    except Exception as failure:  # whatever its libraries raise; CuPy words the cause anew
        words = " ".join(str(failure.__cause__ or failure).split())
        return [f"{package} is installed, but its import fails: {words}"]
    have = tuple(int(part) for part in parts)
    return [f"{package} {_dotted(have)} is older than {_dotted(oldest)}"] if have < oldest else []


def _nvrtc_problems(capability: tuple[int, int]) -> list[str]:
    """What compiling for the GPU would raise; only the library is loaded to know it."""
    runtime = importlib.import_module("cupy").cuda.runtime
    nvrtc = importlib.import_module("llmrec_kernels.ops.nvrtc_compile")
    try:
        library = nvrtc.library(runtime.driverGetVersion() // 1000)
        library.architecture_for(10 * capability[0] + capability[1])
    except RuntimeError as error:  # also CuPy's own
        return [str(error)]
    return []


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


# Fastest first.
BACKENDS = (
    Backend("cuda", "", _compiled("cuda")),
    # Triton has no tensor cores before 8.0, and the scan of cosine_topk is made of them.
    Backend(
        "triton",
        "_triton",
        _room("triton", "triton", (3, 5), {"": (7, 5), "cosine_topk": (8, 0)}),
    ),
    Backend("nvrtc", "_nvrtc", _room("nvrtc", "cupy", (13, 0), {"": (7, 5)})),
    Backend("cpu", "", _compiled("cpu")),
    Backend("reference", "_reference", lambda op, device: []),
)


@dataclass(frozen=True)
class Explanation:
    """Why an operator runs where it does; prints as a table.

    Parameters
    ----------
    op
        The operator.
    device
        Where its tensors are.
    chosen
        The backend that runs.
    refused
        Every faster backend with its reasons.
    level
        The instruction set level of the compiled CPU kernel, where that is what runs.
    """

    op: str
    device: str
    chosen: str
    refused: dict[str, list[str]]
    level: str | None

    def __str__(self) -> str:
        level = f" at level {self.level}" if self.level else ""
        lines = [f"{self.op} on {self.device} runs on backend {self.chosen!r}{level}"]
        return "\n".join(lines + refusal_lines(self.refused))


def refusal_lines(refused: dict[str, list[str]]) -> list[str]:
    """One line for each reason, with the backends that it keeps from running.

    Examples
    --------
    >>> refusal_lines({"cuda": ["no GPU"], "triton": ["no GPU"]})
    ['  not cuda, triton: no GPU']
    """
    by_reason: dict[str, list[str]] = {}
    for name, why in refused.items():
        by_reason.setdefault("; ".join(why), []).append(name)
    return [f"  not {', '.join(names)}: {why}" for why, names in by_reason.items()]


def explain(op: str, *inputs: Any, backend: str | None = None) -> Explanation:
    """Tell which backend an operator would take for these inputs, and why no faster one.

    Parameters
    ----------
    op
        An operator's name, such as `"cosine_topk"`.
    *inputs
        Its arguments, or some of them: the first with a device decides. Without any, the CPU.
    backend
        As the operators' own `backend=`.

    Raises
    ------
    ValueError
        If there is no such operator or backend, or the forced backend cannot run.

    Examples
    --------
    >>> from llmrec_kernels import explain
    >>> explain("cosine_topk", backend="reference").chosen
    'reference'
    """
    device = next((v.device for v in inputs if hasattr(v, "device")), "cpu")
    return _explain(op, torch.device(str(device)), backend)


def _explain(op: str, device: torch.device, backend: str | None) -> Explanation:
    if op not in OPS:
        raise ValueError(f"op is {op!r}; expected one of {', '.join(OPS)}")
    names = [candidate.name for candidate in BACKENDS]
    if backend is not None and backend not in names:
        raise ValueError(f"backend is {backend!r}; expected one of {', '.join(names)}, or None")
    refused: dict[str, list[str]] = {}
    for candidate in BACKENDS:
        if backend not in (None, candidate.name):
            continue
        reasons = candidate.reasons(op, device)
        if not reasons:
            level = _library.build_info()["levels"].get(op) if candidate.name == "cpu" else None
            return Explanation(op, str(device), candidate.name, refused, level)
        refused[candidate.name] = reasons
    why = "; ".join(refused[str(backend)])
    raise ValueError(f"backend={backend!r} cannot run {op}: {why}")


def select(op: str, device: torch.device, backend: str | None) -> str:
    """Name the torch operator to call: chosen once, and never in silence.

    Examples
    --------
    >>> select("cosine_topk", torch.device("cpu"), "reference")
    'cosine_topk_reference'
    """
    key = (op, device, backend)
    if key not in _selected:
        explanation = _explain(op, device, backend)
        if backend is None and explanation.chosen == "reference":
            _report_slow(explanation)
        chosen = next(b for b in BACKENDS if b.name == explanation.chosen)
        if chosen.suffix and chosen.name != "reference":
            importlib.import_module(f"llmrec_kernels.ops.{op}.{chosen.name}")  # defines it
        _selected[key] = op + chosen.suffix
    return _selected[key]


# What torch.compiler.assume_constant_result does, without its import of all of torch._dynamo:
# the choice is made while tracing and is a constant of the graph.
select._dynamo_marked_constant = True  # type: ignore[attr-defined]

_selected: dict[tuple[str, torch.device, str | None], str] = {}
_reported: set[str] = set()


def _report_slow(explanation: Explanation) -> None:
    """Warn once per device that plain torch stands in for a kernel; LLMREC_STRICT=1 refuses."""
    device = torch.device(explanation.device).type
    if device == "cpu" and _library.switched_off():
        return
    reasons = explanation.refused["cuda" if device == "cuda" else "cpu"]
    message = (
        f"{explanation.op} runs as plain torch on {device}, with the same results but slower, "
        f"because {'; '.join(reasons)}. "
        "To get the kernels, in a clone of the source, with torch and a C++ compiler: "
        "pip install --no-build-isolation . ; `llmrec-kernels info` shows the whole decision."
    )
    if os.environ.get("LLMREC_STRICT") == "1":
        raise RuntimeError(f"LLMREC_STRICT=1: {message}")
    if device not in _reported:
        _reported.add(device)
        warnings.warn(message, RuntimeWarning, stacklevel=5)
