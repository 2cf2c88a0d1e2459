"""Checkpoints as folders: `checkpoint.json` says how far, and a safetensors file has the tensors.

`checkpoint.json` is written last and in one step, and names the file of tensors, which has a name
that no other file has: whatever happens in between, the checkpoint before is whole. Both carry
checksums, so that a damaged file is told and not used.

It has the weights that are trained, those of the best epoch, and the state of the optimiser. It
needs no state of random generators: each batch draws from a seed of its own. Weights that are not
trained are not in it; a checksum of them is.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes
from torch import Tensor

from llmrec_kernels.index import disk
from llmrec_kernels.training.state import State
from llmrec_kernels.training.task import CheckpointError

FORMAT, VERSION = "llmrec_kernels.training", 2
SAVE_EVERY_SECONDS = 60.0
_NAME = "checkpoint.json"

Entries = Mapping[str, Any]


class Same(NamedTuple):
    """What a checkpoint and a training must have alike, by name."""

    always: dict[str, Any]  # what is trained, and in which order
    unless_diverged: dict[str, Any]  # what may change to go on from before it diverged


class Found(NamedTuple):
    """What a checkpoint has."""

    state: State
    tensors: dict[str, Tensor]  # of the network and the optimiser, by name


class Checkpoints:
    """A folder with the last checkpoint of a training."""

    def __init__(self, folder: Path, same: Same) -> None:
        self.folder = folder
        self._same = Same(*(_as_read(one) for one in same))
        self._written = time.monotonic()
        self.last: dict[str, Any] | None = None  # what checkpoint.json says

    def read(self, expected: Mapping[str, Tensor]) -> Found | None:
        """What is there, if it fits; `expected` has a tensor for each of the network's."""
        path = self.folder / _NAME
        body = _body(path)
        if body is None:
            return None
        with _as_damage(path):
            self._compare(body)
            tensors = _tensors(self.folder, body["tensors"])
            state = State.of_record(body["state"], _named("best.", tensors))
        kept = {name: one for name, one in tensors.items() if not name.startswith("best.")}
        self._compare_tensors(expected, _named("network.", kept))
        if state.best:
            self._compare_tensors(expected, state.best)
        self.last = body
        return Found(state, kept)

    @property
    def due(self) -> bool:
        """Whether the last one was written a while ago."""
        return time.monotonic() - self._written >= SAVE_EVERY_SECONDS

    def write(self, state: State, tensors: Mapping[str, Tensor]) -> None:
        """Put a checkpoint in the place of the last one."""
        named = dict(tensors) | {f"best.{name}": one for name, one in state.best.items()}
        # copies, as tied weights are one tensor, which safetensors refuses under two names
        data = tensor_bytes({name: one.cpu().contiguous().clone() for name, one in named.items()})
        file = f"checkpoint-{disk.new_token()}.safetensors"
        body = {
            "format": FORMAT,
            "version": VERSION,
            "same": self._same.always,
            "unless_diverged": self._same.unless_diverged,
            "diverged": False,
            "state": state.as_record(),
            "tensors": {"file": file, "bytes": len(data), "checksum": disk.checksum(data)},
        }
        with self._sentences():
            disk.write_new(self.folder / file, [data])
            disk.replace(self.folder / _NAME, _signed(body))
        self.last, self._written = body, time.monotonic()
        self._clean(file)

    def note_divergence(self) -> None:
        """Let the next training go on from the last checkpoint with another learning rate."""
        assert self.last is not None
        self.last = self.last | {"diverged": True}
        with self._sentences():
            disk.replace(self.folder / _NAME, _signed(self.last))

    def _compare(self, body: Entries) -> None:
        differs = _differences(body["same"], self._same.always)
        if not body["diverged"]:
            differs += _differences(body["unless_diverged"], self._same.unless_diverged)
        if differs:
            raise CheckpointError(
                f"the checkpoint in {self.folder} is of another training: {'; '.join(differs)}. "
                "Give another folder as training.checkpoint, or remove this one"
            )

    def _compare_tensors(self, expected: Entries, found: Entries) -> None:
        differs = _differences(_shapes(found), _shapes(expected))
        if differs:
            raise CheckpointError(
                f"the checkpoint in {self.folder} is of another network: {'; '.join(differs[:3])}"
            )

    def _clean(self, file: str) -> None:
        """Remove what earlier writes left, also those that were killed."""
        for pattern in ("checkpoint-*.safetensors", f".{_NAME}.*"):
            for old in self.folder.glob(pattern):
                if old.name != file:
                    with contextlib.suppress(OSError):
                        old.unlink()

    @contextlib.contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            before = "the one before is whole" if self.last else "there is none before it"
            raise OSError(
                error.errno,
                f"no checkpoint can be written to {self.folder} ({error.strerror}); {before}",
            ) from error


def begun(folder: Path) -> bool:
    """Whether there is a checkpoint in a folder."""
    return (folder / _NAME).exists()


@contextlib.contextmanager
def checkpoints(folder: str, same: Same) -> Iterator[Checkpoints]:
    """The checkpoints of a folder, which is made, and is this training's alone meanwhile."""
    path = Path(folder)
    disk.make_folder(path)
    try:
        handle = disk.lock(path)
    except BlockingIOError as error:
        raise BlockingIOError(
            error.errno, f"another training writes its checkpoints to {path}; give another folder"
        ) from error
    try:
        yield Checkpoints(path, same)
    finally:
        disk.unlock(handle)


def _differences(found: Entries, expected: Entries) -> list[str]:
    """What is not alike, in words."""
    names = [*expected, *(name for name in found if name not in expected)]
    nothing = "not there"
    return [
        f"{name} is {found.get(name, nothing)} in the checkpoint; expected "
        f"{expected.get(name, 'none')}"
        for name in names
        if (name in found, found.get(name)) != (name in expected, expected.get(name))
    ]


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    return {
        name: f"{list(one.shape)} {str(one.dtype).removeprefix('torch.')}"
        for name, one in tensors.items()
    }


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those whose name begins so, without it."""
    some = {name: one for name, one in tensors.items() if name.startswith(prefix)}
    return {name.removeprefix(prefix): one for name, one in some.items()}


def _as_read(entries: dict[str, Any]) -> dict[str, Any]:
    """Entries as JSON gives them back; fails now, and not when the first epoch is done."""
    return dict(json.loads(_canonical(entries)))


def _canonical(body: Entries) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _signed(body: dict[str, Any]) -> bytes:
    signed = body | {"checksum": disk.checksum(_canonical(body))}
    return (json.dumps(signed, indent=1, allow_nan=False) + "\n").encode()


def _body(path: Path) -> dict[str, Any] | None:
    """What checkpoint.json says, checked; None where there is none."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    with _as_damage(path):
        body = dict(json.loads(text))
        checksum = body.pop("checksum")
        if body["format"] != FORMAT:
            raise CheckpointError(f"{path} has the format {body['format']!r}; expected {FORMAT!r}")
        if body["version"] != VERSION:
            raise CheckpointError(f"{path} is of version {body['version']!r}; expected {VERSION}")
        if disk.checksum(_canonical(body)) != checksum:
            raise CheckpointError(f"{path} is damaged: its checksum is not that of its text")
    return body


def _tensors(folder: Path, record: Entries) -> dict[str, Tensor]:
    path = folder / str(record["file"])
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing, which {_NAME} names") from error
    if len(data) != record["bytes"]:
        raise CheckpointError(
            f"{path} is damaged: it has {len(data)} bytes; {_NAME} says {record['bytes']}"
        )
    if disk.checksum(data) != record["checksum"]:
        raise CheckpointError(f"{path} is damaged: its checksum is not the one in {_NAME}")
    return dict(read_tensors(data))


@contextlib.contextmanager
def _as_damage(path: Path) -> Iterator[None]:
    """Say of what is no checkpoint, or does not fit its tensors, that it is damaged."""
    try:
        yield
    except CheckpointError:
        raise
    except (LookupError, TypeError, ValueError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged or no checkpoint: {error!r}") from error
