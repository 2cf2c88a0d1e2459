"""Builds the extension, and nothing else: everything declarative is in pyproject.toml.

LLMREC_EXTENSION=auto|0|require  build it if possible (default), never, or fail where it cannot be
LLMREC_CUDA=auto|0|1             with CUDA kernels if nvcc can (default), without, or fail
LLMREC_CUDA_ARCHS="80;90"        its GPU architectures, also "8.0 9.0"; without, ARCHITECTURES
LLMREC_WERROR=1                  warnings are errors
MAX_JOBS=4                       compilers at a time; as many as there are cores
"""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
MINIMUM_TORCH = "0x020b000000000000"  # the stable ABI of torch 2.11, which later releases keep
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)  # Turing to Blackwell


def choice(name: str, default: str, *allowed: str) -> str:
    value = os.environ.get(name, default)
    if value not in allowed:
        sys.exit(f"{name} is one of {', '.join(allowed)}; got {value!r}")
    return value


def chosen_architectures() -> list[int]:
    """From LLMREC_CUDA_ARCHS, oldest first; empty where nobody chose."""
    value = os.environ.get("LLMREC_CUDA_ARCHS", "")
    words = re.split(r"[;,\s]+", value.strip(" ;,\t\n"))
    if words == [""]:
        return []
    if not all(re.fullmatch(r"\d{1,2}\.\d|\d{2,3}", word) for word in words):
        sys.exit(f'LLMREC_CUDA_ARCHS lists compute capabilities, such as "80;90"; got {value!r}')
    return sorted({int(word.replace(".", "")) for word in words})


def chosen_jobs() -> int:
    value = os.environ.get("MAX_JOBS") or str(os.cpu_count() or 1)
    if not (value.isdecimal() and int(value) > 0):
        sys.exit(f"MAX_JOBS is how many compilers run at a time, 1 or more; got {value!r}")
    return int(value)


EXTENSION = choice("LLMREC_EXTENSION", "auto", "auto", "0", "require")
CUDA = choice("LLMREC_CUDA", "auto", "auto", "0", "1")
WERROR = choice("LLMREC_WERROR", "0", "0", "1")
CHOSEN = chosen_architectures()
JOBS = chosen_jobs()


def without_extension(reason: str) -> dict:
    if EXTENSION == "require":
        sys.exit(f"LLMREC_EXTENSION=require, but {reason}")
    if CUDA == "1":
        sys.exit(f"LLMREC_CUDA=1, but {reason}")
    print(f"llmrec_kernels: installing without the compiled extension: {reason}", file=sys.stderr)
    return {}


class NoCudaError(Exception):
    """Why there will be no CUDA kernels."""


def find_nvcc() -> str:
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    folders = [os.environ.get("PATH", ""), *(str(Path(home) / "bin") for home in homes)]
    nvcc = shutil.which("nvcc", path=os.pathsep.join(folders))
    if nvcc is None:
        raise NoCudaError("there is no nvcc on PATH or under CUDA_HOME")
    return nvcc


def ask(nvcc: str, *options: str) -> str:
    """What nvcc says, on both its outputs."""
    run = subprocess.run([nvcc, *options], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise NoCudaError(f"{nvcc} {' '.join(options)} failed: {run.stderr.strip()}")
    return run.stdout + run.stderr


def architectures(nvcc: str) -> list[int]:
    """What to compile for, oldest first."""
    known = {int(arch) for arch in re.findall(r"compute_(\d+)\b", ask(nvcc, "--list-gpu-arch"))}
    if unknown := set(CHOSEN) - known:
        sys.exit(
            f"LLMREC_CUDA_ARCHS has {', '.join(map(str, sorted(unknown)))}, which {nvcc} does not "
            f"know; it knows {', '.join(map(str, sorted(known)))}"
        )
    found = CHOSEN or [arch for arch in ARCHITECTURES if arch in known]
    if not found:
        raise NoCudaError(f"{nvcc} knows none of {', '.join(map(str, ARCHITECTURES))}")
    return found


def static_runtime(nvcc: str) -> list[str]:
    """What to link with: the runtime itself, so that no CUDA library is needed to import it."""
    folders = re.findall(r'"-L([^"]+)"', ask(nvcc, "--dryrun", "-x", "cu", os.devnull))
    for folder in map(Path, folders):
        if (folder / "libcudart_static.a").exists():
            # Its symbols stay inside: torch has a CUDA runtime of its own.
            hidden = "-Wl,--exclude-libs,ALL"
            return [str(folder / "libcudart_static.a"), "-ldl", "-lrt", "-lpthread", hidden]
    raise NoCudaError(f"{nvcc} has no libcudart_static.a in {', '.join(folders)}")


def nvcc_options(archs: list[int]) -> list[str]:
    """A binary for each architecture, and PTX for those newer than the newest."""
    newest = archs[-1]
    return [
        "-std=c++20",
        "--expt-relaxed-constexpr",  # constexpr functions of common/rows.h in kernels
        "-O3",
        "-Xptxas=-O3",
        "-Xcompiler=-fPIC,-fvisibility=hidden",
        "-Xfatbin=-compress-all",
        "-cudart=static",
        "-Icsrc",
        *(f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs),
        f"-gencode=arch=compute_{newest},code=compute_{newest}",
        *(["-Werror=all-warnings"] if WERROR == "1" else []),
    ]


def is_current(built: Path, command: str, sources: list[Path]) -> bool:
    """Whether an object is what this command would make of its sources."""
    said = built.with_suffix(".command")
    return (
        built.exists()
        and said.exists()
        and said.read_text() == command
        and all(source.stat().st_mtime < built.stat().st_mtime for source in sources)
    )


def compile_with(command: list[str], built: Path, note: str) -> None:
    print(" ".join(command), flush=True)
    built.parent.mkdir(parents=True, exist_ok=True)
    run = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    print(run.stdout + run.stderr, end="", file=sys.stderr)
    if run.returncode != 0:
        built.unlink(missing_ok=True)
        raise NoCudaError(f"nvcc failed with {command[-3]}, see above")
    built.with_suffix(".command").write_text(note)


def compile_cuda(sources: list[Path]) -> list[str]:
    """The objects and libraries to link; only what changed is compiled, a file a process."""
    nvcc = find_nvcc()
    archs = architectures(nvcc)
    libraries = static_runtime(nvcc)
    release = ask(nvcc, "--version")
    headers = [*HERE.glob("csrc/**/*.h"), *HERE.glob("csrc/**/*.cuh")]
    folder = HERE / "build" / "cuda" / "-".join(map(str, archs))
    objects, work = [], []
    for source in sources:
        built = folder / source.relative_to(HERE / "csrc").with_suffix(".o")
        objects.append(built)
        command = [
            nvcc,
            *nvcc_options(archs),
            "-c",
            str(source.relative_to(HERE)),
            "-o",
            str(built),
        ]
        note = f"{release}{' '.join(command)}"
        if not is_current(built, note, [source, *headers]):
            work.append((command, built, note))
    if work:
        threads = f"--threads={max(1, JOBS // len(work))}"  # of each, over its architectures
        with ThreadPoolExecutor(JOBS) as pool:
            for done in [
                pool.submit(compile_with, [command[0], threads, *command[1:]], built, note)
                for command, built, note in work
            ]:
                done.result()
    return [*map(str, objects), *libraries]


def add_cuda(module) -> None:
    """Give the extension its CUDA kernels, or say why it has none."""
    sources = sorted(HERE.glob("csrc/*/*.cu"))
    try:
        if not sys.platform.startswith("linux"):
            raise NoCudaError(f"they are built on Linux, and this is {sys.platform}")
        module.extra_link_args += compile_cuda(sources)
    except NoCudaError as error:
        if CUDA == "1":
            sys.exit(f"LLMREC_CUDA=1, but {error}")
        print(f"llmrec_kernels: building without CUDA kernels: {error}", file=sys.stderr)
        return
    module.sources += sorted(str(p.relative_to(HERE)) for p in HERE.glob("csrc/*/bind_cuda.cpp"))


def extension() -> dict:
    if EXTENSION == "0":
        return without_extension("LLMREC_EXTENSION=0")
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
                if CUDA != "0":
                    add_cuda(self.extensions[0])
                super().run()
            except Exception as error:
                without_extension(f"the compiler failed: {error}")

    every = sorted(str(p.relative_to(HERE)) for p in HERE.glob("csrc/**/*.cpp"))
    module = CppExtension(
        "llmrec_kernels._C",
        [source for source in every if not source.endswith("bind_cuda.cpp")],
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


class WithSources(build_py):
    """Ships what NVRTC compiles where there is no CUDA extension: kernels, and their headers."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return  # they are beside the package
        for pattern in ("*/*.cu", "*/*.cuh", "common/rows.h"):
            for source in HERE.glob(f"csrc/{pattern}"):
                shipped = Path(self.build_lib, "llmrec_kernels", source.relative_to(HERE))
                self.mkpath(str(shipped.parent))
                self.copy_file(str(source), str(shipped))


if __name__ == "__main__":  # as pip runs it too
    arguments = extension()
    arguments.setdefault("cmdclass", {})["build_py"] = WithSources
    setup(**arguments)
