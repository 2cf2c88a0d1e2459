"""Builds the extension, and nothing else: everything declarative is in pyproject.toml.

LLMREC_EXTENSION=auto|0|require  build it if possible (default), never, or fail where it cannot be
LLMREC_CUDA=auto|0|1             compile .cu sources where nvcc is found (default), never, or always
LLMREC_WERROR=1                  C++ warnings are errors
"""

import os
import shutil
import sys
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
MINIMUM_TORCH = "0x020b000000000000"  # the stable ABI of torch 2.11, which later releases keep


def choice(name: str, default: str, *allowed: str) -> str:
    value = os.environ.get(name, default)
    if value not in allowed:
        sys.exit(f"{name} is one of {', '.join(allowed)}; got {value!r}")
    return value


EXTENSION = choice("LLMREC_EXTENSION", "auto", "auto", "0", "require")
CUDA = choice("LLMREC_CUDA", "auto", "auto", "0", "1")
WERROR = choice("LLMREC_WERROR", "0", "0", "1")


def without_extension(reason: str) -> dict:
    if EXTENSION == "require":
        sys.exit(f"LLMREC_EXTENSION=require, but {reason}")
    print(f"llmrec_kernels: installing without the compiled extension: {reason}", file=sys.stderr)
    return {}


def extension() -> dict:
    if EXTENSION == "0":
        return without_extension("LLMREC_EXTENSION=0")
    if CUDA == "1" and not shutil.which("nvcc"):
        sys.exit("LLMREC_CUDA=1 needs nvcc on PATH, and there is none")
    if CUDA == "1" and not list(HERE.glob("csrc/*/*.cu")):
        sys.exit("LLMREC_CUDA=1, but this version has no CUDA sources; use LLMREC_CUDA=auto or 0")
    try:
        from torch.utils.cpp_extension import BuildExtension, CppExtension, include_paths
    except ImportError as error:
        return without_extension(
            f"torch cannot be imported at build time ({error}); "
            "install torch first, then: pip install --no-build-isolation ."
        )

    class BuildOrExplain(BuildExtension):
        def run(self) -> None:
            try:
                super().run()
            except Exception as error:
                without_extension(f"the compiler failed: {error}")

    sources = sorted(str(p.relative_to(HERE)) for p in HERE.glob("csrc/**/*.cpp"))
    module = CppExtension(
        "llmrec_kernels._C",
        sources,
        include_dirs=[str(HERE / "csrc")],
        py_limited_api=True,
        extra_compile_args=[
            "-O3",
            "-g0",
            "-fvisibility=hidden",
            "-ffp-contract=off",  # the reference score is one result on every machine
            "-fno-math-errno",
            "-Wall",
            "-Wextra",
            "-Wno-psabi",  # wide vectors are passed within a file only
            "-Wno-maybe-uninitialized",  # GCC's own AVX-512 headers
            *(["-Werror"] if WERROR == "1" else []),
            f"-DTORCH_TARGET_VERSION={MINIMUM_TORCH}",
            *(f"-isystem{path}" for path in include_paths()),  # their warnings are not ours
        ],
    )
    return {
        "ext_modules": [module],
        "cmdclass": {"build_ext": BuildOrExplain},
        "options": {"bdist_wheel": {"py_limited_api": "cp310"}},
    }


setup(**extension())
