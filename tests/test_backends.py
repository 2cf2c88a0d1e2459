"""Which backend runs an operator is chosen once, for reasons that can be read, never in silence."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from llmrec_kernels import (
    Ragged,
    _library,
    backends,
    candidate_scores,
    cosine_topk,
    embedding_bag,
    explain,
    pack,
    quantize,
)

Q, X = torch.ones(1, 2), torch.eye(2)
CALLS = {
    "cosine_topk": lambda backend: cosine_topk(Q, X, 1, backend=backend),
    "embedding_bag": lambda backend: embedding_bag(X, torch.tensor([[0]]), backend=backend),
    "candidate_scores": lambda backend: candidate_scores(Q, X, [[0]], backend=backend),
    "quantize": lambda backend: quantize(X, backend=backend),
    "pack": lambda backend: pack(X, backend=backend),
}


@pytest.fixture
def undecided(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """As in a fresh process: nothing chosen and nothing reported yet."""
    monkeypatch.setattr(backends, "_selected", {})
    monkeypatch.setattr(backends, "_reported", set())
    monkeypatch.delenv("LLMREC_STRICT", raising=False)
    return monkeypatch


@pytest.fixture
def unbuilt(undecided: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As where the extension was never built, and nobody asked for that."""
    undecided.setattr(_library, "extension", None)
    undecided.setattr(_library, "load_error", "it was not built")
    undecided.delenv("LLMREC_EXTENSION", raising=False)
    return undecided


def test_every_operator_has_the_backends_of_the_documentation() -> None:
    assert [b.name for b in backends.BACKENDS] == ["cuda", "triton", "nvrtc", "cpu", "reference"]
    assert set(backends.OPS) == set(CALLS)
    for op in backends.OPS:
        assert hasattr(torch.ops.llmrec, op)
        assert hasattr(torch.ops.llmrec, f"{op}_reference")


@pytest.mark.parametrize("op", backends.OPS)
def test_the_first_backend_without_reasons_runs(op: str) -> None:
    explanation = explain(op, torch.empty(0))
    reasons = {b.name: b.reasons(op, torch.device("cpu")) for b in backends.BACKENDS}
    runnable = [name for name, why in reasons.items() if not why]
    assert explanation.chosen == runnable[0]
    refused = list(reasons)[: list(reasons).index(runnable[0])]
    assert explanation.refused == {name: reasons[name] for name in refused}
    assert all(why for why in explanation.refused.values())
    assert CALLS[op](None) is not None


@pytest.mark.parametrize("op", backends.OPS)
def test_an_explanation_reads_as_the_decision(op: str) -> None:
    lines = str(explain(op)).splitlines()
    chosen = explain(op).chosen
    assert lines[0].startswith(f"{op} on cpu runs on backend {chosen!r}")
    text = "\n".join(lines[1:])
    assert "the tensors are on cpu, not cuda" in text
    assert all(name in text for name in explain(op).refused)


def test_the_inputs_decide_the_device() -> None:
    away = torch.empty(0, device="meta")
    assert explain("cosine_topk", away).device == "meta"
    assert explain("cosine_topk", "cosine", away, Q).device == "meta"
    assert explain("cosine_topk", quantize(X)).device == "cpu"
    assert explain("cosine_topk", np.ones((1, 2)), Ragged.of([])).device == "cpu"
    assert explain("pack").device == "cpu"
    why = explain("cosine_topk", away).refused
    assert why["cpu"] == ["the tensors are on meta, not cpu"]


@pytest.mark.parametrize("op", backends.OPS)
def test_a_forced_backend_runs_or_says_why_not(op: str) -> None:
    for backend in backends.BACKENDS:
        reasons = backend.reasons(op, torch.device("cpu"))
        if not reasons:
            assert explain(op, backend=backend.name).chosen == backend.name
            assert CALLS[op](backend.name) is not None
            continue
        with pytest.raises(ValueError, match=f"backend={backend.name!r} cannot run {op}: ") as info:
            CALLS[op](backend.name)
        assert all(reason in str(info.value) for reason in reasons)


def test_a_backend_that_does_not_exist_is_refused_with_those_that_do() -> None:
    message = "backend is 'avx2'; expected one of cuda, triton, nvrtc, cpu, reference, or None"
    for call in CALLS.values():
        with pytest.raises(ValueError, match=message):
            call("avx2")


def test_only_the_compiled_cpu_kernel_has_a_level() -> None:
    assert explain("cosine_topk", backend="reference").level is None
    if explain("cosine_topk").chosen == "cpu":
        assert explain("cosine_topk").level in ("scalar", "avx2", "avx512", "amx", "neon")


def test_the_choice_is_made_once(undecided: pytest.MonkeyPatch) -> None:
    asked = []

    def reasons(op: str, device: torch.device) -> list[str]:
        asked.append((op, device.type))
        return []

    only = backends.Backend("reference", "_reference", reasons)
    undecided.setattr(backends, "BACKENDS", (only,))
    undecided.setattr(backends, "_report_slow", lambda explanation: None)
    for _ in range(3):
        CALLS["pack"](None)
    assert asked == [("pack", "cpu")]


def test_plain_torch_in_place_of_a_kernel_warns_once(unbuilt: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for call in [*CALLS.values()] * 2:
            call(None)
    caught = [warning for warning in caught if warning.category is RuntimeWarning]
    assert len(caught) == 1
    message = str(caught[0].message)
    assert message.startswith("cosine_topk runs as plain torch on cpu")
    assert "because the compiled extension is not loaded: it was not built" in message
    assert "pip install" in message
    assert "llmrec-kernels info" in message
    assert caught[0].filename == __file__


def test_strict_refuses_to_fall_back(unbuilt: pytest.MonkeyPatch) -> None:
    unbuilt.setenv("LLMREC_STRICT", "1")
    for op, call in CALLS.items():
        for _ in range(2):
            with pytest.raises(RuntimeError, match=f"LLMREC_STRICT=1: {op} runs as plain torch"):
                call(None)
        call("reference")


def test_asking_for_plain_torch_is_no_fallback(unbuilt: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for call in CALLS.values():
            call("reference")
        unbuilt.setenv("LLMREC_EXTENSION", "0")
        for call in CALLS.values():
            call(None)


def test_a_kernel_that_one_operator_lacks_is_named(undecided: pytest.MonkeyPatch) -> None:
    undecided.setattr(_library, "load_error", None)
    undecided.setattr(_library, "build_info", lambda: {"ops": {"pack": ["cpu"]}, "levels": {}})
    undecided.delenv("LLMREC_EXTENSION", raising=False)
    with pytest.warns(RuntimeWarning, match="the extension holds no cpu kernel for quantize"):
        CALLS["quantize"](None)
    assert explain("pack").chosen == "cpu"


def test_a_gpu_that_the_built_kernels_cannot_use_is_told(undecided: pytest.MonkeyPatch) -> None:
    undecided.setattr(_library, "load_error", None)
    undecided.setattr(_library, "build_info", lambda: {"ops": {"pack": ["cpu", "cuda"]}})
    (cuda,) = (each for each in backends.BACKENDS if each.name == "cuda")
    undecided.setattr(_library, "cuda_problem", lambda index: f"GPU {index} is too old")
    assert cuda.reasons("pack", torch.device("cuda", 1)) == ["GPU 1 is too old"]
    assert cuda.reasons("pack", torch.device("cpu")) == ["the tensors are on cpu, not cuda"]
    undecided.setattr(_library, "cuda_problem", lambda index: "")
    assert cuda.reasons("pack", torch.device("cuda", 1)) == []


@pytest.fixture
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A GPU that is not there: only what the reasons ask torch about it."""
    pytest.importorskip("triton", reason="Triton is not installed")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setenv("CC", "cc")
    return monkeypatch


def triton_reasons(op: str) -> list[str]:
    (triton,) = (each for each in backends.BACKENDS if each.name == "triton")
    return triton.reasons(op, torch.device("cuda", 0))


def test_triton_says_each_limit(pretended_gpu: pytest.MonkeyPatch) -> None:
    assert [op for op in backends.OPS if not triton_reasons(op)] == list(backends.OPS[:4])
    assert triton_reasons("pack") == ["this version has no triton kernel for pack"]
    pretended_gpu.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert triton_reasons("quantize") == []
    assert triton_reasons("cosine_topk") == [
        "the GPU has compute capability 7.5; cosine_topk needs 8.0"
    ]
    pretended_gpu.setattr("triton.__version__", "3.4.0")
    assert triton_reasons("quantize") == ["triton 3.4 is older than 3.5"]
    pretended_gpu.undo()
    if not torch.cuda.is_available():
        assert "torch finds no CUDA device" in triton_reasons("quantize")


def test_triton_needs_a_c_compiler_for_its_launcher(pretended_gpu: pytest.MonkeyPatch) -> None:
    pretended_gpu.delenv("CC")
    pretended_gpu.setenv("PATH", "")
    assert triton_reasons("quantize") == [
        "Triton makes its launcher with a C compiler, and there is none on PATH"
    ]


def test_triton_may_be_missing(pretended_gpu: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    pretended_gpu.setattr(
        importlib.util, "find_spec", lambda name: None if name == "triton" else found(name)
    )
    assert triton_reasons("quantize") == ["triton is not installed"]


def test_a_package_that_cannot_be_imported_is_a_reason(pretended_gpu: pytest.MonkeyPatch) -> None:
    pretended_gpu.setitem(sys.modules, "triton", None)  # what `import` takes for a failed one
    pretended_gpu.setattr(importlib.util, "find_spec", lambda name: name)
    (why,) = triton_reasons("quantize")
    assert why.startswith("triton is installed, but its import fails: ")


CUPY = """
__version__ = "13.6.0"

def broken():
    raise RuntimeError("no driver")

class cuda:
    class runtime:
        driverGetVersion = staticmethod(lambda: {driver})
"""
NO_CUDART = "libcudart.so.12: cannot open shared object file"


@pytest.fixture
def nvrtc_reasons(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[..., list[str]]]:
    """The reasons with a CuPy of this source, and a GPU that is not there."""

    def reasons(cupy: str = CUPY, driver: object = 13000, capability: int = 90) -> list[str]:
        (tmp_path / "cupy.py").write_text(cupy.replace("{driver}", str(driver)))
        sys.modules.pop("cupy", None)
        importlib.invalidate_caches()
        monkeypatch.setattr(
            torch.cuda, "get_device_capability", lambda device: divmod(capability, 10)
        )
        (nvrtc,) = (each for each in backends.BACKENDS if each.name == "nvrtc")
        return nvrtc.reasons("pack", torch.device("cuda", 0))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # by its time and size it is not changed
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    yield reasons
    sys.modules.pop("cupy", None)


def test_nvrtc_says_what_compiling_would_raise(nvrtc_reasons: Callable[..., list[str]]) -> None:
    (why,) = nvrtc_reasons(driver=11080)
    assert why.startswith("there is no NVRTC for CUDA 11: pip install")
    assert nvrtc_reasons(capability=70) == ["the GPU has compute capability 7.0; pack needs 7.5"]
    if sys.platform == "linux":  # where the extra `dev` has a library
        assert nvrtc_reasons() == []
        (why,) = nvrtc_reasons(capability=990)
        assert "the GPU has compute capability 99.0, and NVRTC" in why
    assert nvrtc_reasons(driver="broken()") == ["no driver"]


def test_a_cupy_that_cannot_be_imported_is_a_reason(
    nvrtc_reasons: Callable[..., list[str]],
) -> None:
    want = [f"cupy is installed, but its import fails: {NO_CUDART}"]
    assert nvrtc_reasons(f"raise ImportError({NO_CUDART!r})") == want
    worded_anew = f"raise ImportError('=====\\nFailed.') from ImportError({NO_CUDART!r})"
    assert nvrtc_reasons(worded_anew) == want
    assert nvrtc_reasons(f"raise OSError({NO_CUDART!r})") == want
    assert "cupy 12.3 is older than 13.0" in nvrtc_reasons("__version__ = '12.3.0'")
