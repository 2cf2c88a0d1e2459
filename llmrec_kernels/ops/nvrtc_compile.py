"""From the sources of csrc to GPU binaries by NVRTC, the compiler that comes as a library.

The sources are in the package, or beside it in a checkout. A binary is kept on disk, by what it was
made of: sources, options, architecture and compiler. NVRTC is called directly and not through CuPy,
which adds -ftz=true: that takes subnormal numbers for zero, and scores must have the reference's
bits. No driver is needed to compile.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from llmrec_kernels._cache import cache_folder

# As in setup.py, but for the functions without a mark in common/rows.h: here they are the device's.
OPTIONS = ("--std=c++20", "--device-as-default-execution-space")
HEADERS = ("*/*.cuh", "common/rows.h")  # what kernels include, below csrc
RELEASES = (13, 12)  # of CUDA, newest first
HOW_TO_GET_IT = "pip install cupy-cuda12x[ctk], or nvidia-cuda-nvrtc-cu12, or a CUDA toolkit"


class Binary(NamedTuple):
    """Compiled kernels.

    Parameters
    ----------
    path
        A file for the driver to load.
    names
        What the file calls each kernel, by its C++ expression.
    """

    path: Path
    names: dict[str, str]


def sources() -> Path:
    """The folder of the CUDA sources: shipped in the package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    for folder in (package / "csrc", package.parent / "csrc"):
        if (folder / "common" / "cuda.cuh").exists():
            return folder
    raise RuntimeError(
        f"the CUDA sources are neither in {package} nor beside it; install llmrec_kernels again"
    )


def compiled(source: str, expressions: Sequence[str], capability: int, release: int) -> Binary:
    """Kernels of a source, `"pack/pack.cu"`, for a GPU: from disk, or compiled now.

    Parameters
    ----------
    source
        Below csrc.
    expressions
        The kernels, as C++ names them: `"llmrec::cuda::scan_few<1>"`.
    capability
        The GPU's compute capability, times ten.
    release
        The newest CUDA release that the driver runs.

    Raises
    ------
    RuntimeError
        If there is no NVRTC, it does not know the GPU, or it finds an error.
    """
    nvrtc = library(release)
    text, headers = read(source)
    options = (*OPTIONS, f"--gpu-architecture=sm_{nvrtc.architecture_for(capability)}")
    made_of = [nvrtc.version, *options, *sorted(expressions), text, *headers, *headers.values()]
    digest = hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:32]
    folder = binaries_folder()
    found = _kept(folder, digest)
    if found is None:
        binary, names = nvrtc.compile(source, text, headers, expressions, options)
        try:
            found = _keep(folder, digest, binary, names)
        except OSError:  # as where another user's files are in the way
            found = _keep(_temporary_folder(), digest, binary, names)
    return found


def read(source: str) -> tuple[str, dict[str, str]]:
    """The text of a source, and those of all headers by the names they are included by."""
    root = sources()
    paths = sorted(path for pattern in HEADERS for path in root.glob(pattern))
    headers = {path.relative_to(root).as_posix(): path.read_text("utf-8") for path in paths}
    return (root / source).read_text("utf-8"), headers


def binaries_folder() -> Path:
    """The cache's folder, else a temporary one."""
    folder = cache_folder("nvrtc")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return _temporary_folder()
    return folder if os.access(folder, os.W_OK | os.X_OK) else _temporary_folder()


@functools.cache
def _temporary_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="llmrec-nvrtc-"))


def _kept(folder: Path, digest: str) -> Binary | None:
    """What is there and can be read."""
    path = folder / f"{digest}.cubin"
    try:
        with path.open("rb"):  # as the driver will
            return Binary(path, json.loads(path.with_suffix(".json").read_text("utf-8")))
    except (OSError, ValueError):
        return None


def _keep(folder: Path, digest: str, binary: bytes, names: dict[str, str]) -> Binary:
    """Each file whole or not at all, the binary last: where it is, the names are."""
    path = folder / f"{digest}.cubin"
    for place, content in (
        (path.with_suffix(".json"), json.dumps(names).encode()),
        (path, binary),
    ):
        part = folder / f"{uuid.uuid4().hex}.part"  # with the umask's mode, for who shares this
        try:
            part.write_bytes(content)
            part.replace(place)
        finally:
            part.unlink(missing_ok=True)
    return Binary(path, names)


class Nvrtc:
    """The library, by the few of its functions that are needed."""

    def __init__(self, loaded: ctypes.CDLL) -> None:
        self._loaded = loaded
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self.version = f"{major.value}.{minor.value}"
        count = ctypes.c_int()
        self._call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
        known = (ctypes.c_int * count.value)()
        self._call("nvrtcGetSupportedArchs", known)
        self.architectures: list[int] = sorted(known)

    def architecture_for(self, capability: int) -> int:
        """What to compile for: a binary runs on its own major version, from its minor on."""
        fitting = [a for a in self.architectures if a // 10 == capability // 10 and a <= capability]
        if not fitting:
            least, most = self.architectures[0] / 10, self.architectures[-1] / 10
            raise RuntimeError(
                f"the GPU has compute capability {capability / 10}, and NVRTC {self.version} "
                f"compiles for {least} to {most}; another release of nvidia-cuda-nvrtc may know it"
            )
        return fitting[-1]

    def compile(
        self, source: str, text: str, headers: dict[str, str], expressions: Sequence[str],
        options: Sequence[str],
    ) -> tuple[bytes, dict[str, str]]:  # fmt: skip
        """The binary, and the names of its kernels by their expressions."""
        program = ctypes.c_void_p()
        self._call(
            "nvrtcCreateProgram", ctypes.byref(program), text.encode(), source.encode(),
            len(headers), _strings(list(headers.values())), _strings(list(headers)),
        )  # fmt: skip
        try:
            for expression in expressions:
                self._call("nvrtcAddNameExpression", program, expression.encode())
            status = self._loaded.nvrtcCompileProgram(program, len(options), _strings(options))
            if status != 0:
                log = self._bytes("nvrtcGetProgramLog", program).rstrip(b"\0").decode()
                raise RuntimeError(
                    f"NVRTC {self.version} cannot compile {source} with {' '.join(options)}, "
                    f"which is a bug of llmrec_kernels:\n{log or self._words(status)}"
                )
            names = {}
            for expression in expressions:
                name = ctypes.c_char_p()
                self._call("nvrtcGetLoweredName", program, expression.encode(), ctypes.byref(name))
                names[expression] = (name.value or b"").decode()
            return self._bytes("nvrtcGetCUBIN", program), names
        finally:
            self._call("nvrtcDestroyProgram", ctypes.byref(program))

    def _bytes(self, function: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"{function}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._call(function, program, buffer)
        return buffer.raw

    def _call(self, function: str, *arguments: object) -> None:
        status = getattr(self._loaded, function)(*arguments)
        if status != 0:
            raise RuntimeError(f"{function} of NVRTC failed: {self._words(status)}")

    def _words(self, status: int) -> str:
        words = self._loaded.nvrtcGetErrorString
        words.restype = ctypes.c_char_p
        return str(words(status).decode())


def _strings(values: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * len(values))(*(value.encode() for value in values))


@functools.cache
def library(release: int) -> Nvrtc:
    """The newest NVRTC up to a CUDA release: its binaries are what the driver can load."""
    found = next(filter(None, map(_opened, _candidates(release))), None)
    if found is None:
        raise RuntimeError(f"there is no NVRTC for CUDA {release}: {HOW_TO_GET_IT}")
    return Nvrtc(found)


def _opened(path: str) -> ctypes.CDLL | None:
    try:
        loaded = ctypes.CDLL(path)
        # It opens its builtins by their name alone, and the wheel of 13.0 does not look beside it.
        for builtins in Path(path).parent.glob("libnvrtc-builtins.so*") if "/" in path else ():
            ctypes.CDLL(str(builtins))
    except OSError:
        return None
    return loaded


def _candidates(release: int) -> Iterator[str]:
    """Where the library may be: NVIDIA's wheels, the loader's own places, a CUDA toolkit."""
    wheels = find_spec("nvidia")
    folders = [] if wheels is None else list(wheels.submodule_search_locations or ())
    homes = [os.environ.get("CUDA_PATH"), os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    for number in RELEASES:
        if number > release:
            continue
        name = f"libnvrtc.so.{number}"
        for folder in map(Path, folders):
            yield str(folder / f"cu{number}" / "lib" / name)
            yield str(folder / "cuda_nvrtc" / "lib" / name)
        yield name
        yield from (str(Path(home) / "lib64" / name) for home in homes if home)
