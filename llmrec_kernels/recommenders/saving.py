"""Models as folders: `model.json` says what it is, and a safetensors file has the numbers.

`model.json` is written last and in one step, and names the file of numbers, which has a name that
no other file has: whatever happens in between, the model that was saved before is whole. Both
carry checksums, so that a damaged file is told and not used. A hybrid's parts are in the same two
files, under names of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from inspect import isabstract
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes
from torch import Tensor

from llmrec_kernels._ids import IdMap, id_array
from llmrec_kernels.index import disk
from llmrec_kernels.recommenders.answering import Fitted
from llmrec_kernels.recommenders.base import Recommender
from llmrec_kernels.recommenders.history import History, Lists, as_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT, VERSION = "llmrec_kernels.recommender", 1
_MODEL = "model.json"

Model = TypeVar("Model", bound=Recommender[Any])


class ModelFormatError(ValueError):
    """A folder has no model that this version can read.

    Examples
    --------
    >>> raise ModelFormatError("there is no model in here: it has no model.json")
    Traceback (most recent call last):
        ...
    llmrec_kernels.recommenders.saving.ModelFormatError: there is no model in here: it has no
    model.json
    """


class Helpers(NamedTuple):
    """What a model needs that is not saved with it."""

    encoder: Any
    privacy: Any


def save(model: Recommender[Any], path: str | os.PathLike[str]) -> None:
    """Write a fitted model into a folder, whole or not at all."""
    folder, known = Path(path), model._ready()
    tensors: dict[str, Tensor] = {}
    body = {
        "format": FORMAT,
        "version": VERSION,
        "fitted": _fitted_record(known, tensors),
        "model": model._record("model", tensors),
    }
    data = tensor_bytes({name: one.contiguous().clone() for name, one in tensors.items()})
    disk.make_folder(folder)
    with disk.locked(folder):
        numbers = f"numbers-{disk.new_token()}.safetensors"
        body["numbers"] = {"file": numbers, "bytes": len(data), "checksum": disk.checksum(data)}
        disk.write_new(folder / numbers, [data])
        disk.replace(folder / _MODEL, _signed(body))
        for old in folder.glob("numbers-*.safetensors"):
            if old.name != numbers:
                with contextlib.suppress(OSError):
                    old.unlink()


def load(wanted: type[Model], path: str | os.PathLike[str], helpers: Helpers) -> Model:
    """Read a model of a class, or of any where that is `Recommender`."""
    folder = Path(path)
    body = _body(folder)
    with _as_damage(folder / _MODEL):
        found = class_named(body["model"]["class"])
        if not issubclass(found, wanted):
            raise ModelFormatError(
                f"{folder} has a {found.__name__}; expected a {wanted.__name__}: load it with "
                f"{found.__name__}.load, or Recommender.load"
            )
        tensors = _numbers(folder, body["numbers"])
        model, learned = found._of_record(body["model"], "model", tensors, helpers)
        model._take(learned, _fitted(body["fitted"], tensors))
    assert isinstance(model, wanted)
    return model


def class_named(name: str) -> type[Recommender[Any]]:
    """The recommender of that name."""
    from llmrec_kernels import recommenders

    found = getattr(recommenders, name, None)
    if not (isinstance(found, type) and issubclass(found, Recommender)) or isabstract(found):
        raise ModelFormatError(f"the model is of the class {name!r}, which this version has not")
    return found


def _fitted_record(known: Fitted, tensors: dict[str, Tensor]) -> dict[str, Any]:
    everyone = known.history.everyone()
    tensors["history.offsets"] = torch.from_numpy(everyone.offsets)
    for column in ("item", "rating", "timestamp"):
        tensors[f"history.{column}"] = torch.from_numpy(everyone.rows[column].copy())
    return {
        "users": _ids_record(known.users, "users", tensors),
        "items": _ids_record(known.items, "items", tensors),
        "lowest": known.history.lowest,
        "highest": known.history.highest,
    }


def _fitted(record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Fitted:
    users, items = (
        IdMap(name, _ids(record[f"{name}s"], f"{name}s", tensors)) for name in ("user", "item")
    )
    item, rating, timestamp = (
        tensors[f"history.{one}"].numpy() for one in ("item", "rating", "timestamp")
    )
    offsets = tensors["history.offsets"].numpy()
    everyone = Lists(as_rows(item, rating, timestamp), offsets)
    history = History(everyone.owners(), everyone.rows, len(items))
    history.lowest, history.highest = record["lowest"], record["highest"]
    return Fitted(users, items, history)


def _ids_record(ids: IdMap, name: str, tensors: dict[str, Tensor]) -> str:
    """The kind of the ids; int64 ones are numbers, others are texts, one behind the other."""
    listed = list(ids)
    array = id_array(listed)
    if array.dtype == np.int64:
        tensors[f"{name}.ids"] = torch.from_numpy(array)
        return "int64"
    texts = [str(one).encode("utf-8", "surrogatepass") for one in listed]
    tensors[f"{name}.ends"] = torch.from_numpy(np.cumsum([len(one) for one in texts]))
    tensors[f"{name}.ids"] = torch.frombuffer(bytearray(b"".join(texts) or b" "), dtype=torch.uint8)
    return "string" if isinstance(listed[0], str) else "integer"


def _ids(kind: str, name: str, tensors: Mapping[str, Tensor]) -> list[Any]:
    if kind == "int64":
        return list(tensors[f"{name}.ids"].tolist())
    joined, ends = tensors[f"{name}.ids"].numpy().tobytes(), tensors[f"{name}.ends"].tolist()
    texts = [
        joined[start:end].decode("utf-8", "surrogatepass")
        for start, end in zip([0, *ends], ends, strict=False)
    ]
    return texts if kind == "string" else [int(one) for one in texts]


def _signed(body: dict[str, Any]) -> bytes:
    """The JSON text of a model, with the checksum of the rest in it."""
    signed = body | {"checksum": disk.checksum(_canonical(body))}
    return (json.dumps(signed, indent=1, allow_nan=False) + "\n").encode()


def _canonical(body: dict[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _body(folder: Path) -> dict[str, Any]:
    """What model.json says, checked."""
    path = folder / _MODEL
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelFormatError(f"there is no model in {folder}: it has no {_MODEL}") from error
    try:
        body = json.loads(text)
        named = body.pop("format"), body.pop("version")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ModelFormatError(f"{path} is damaged or not a model's: {error!r}") from error
    if named[0] != FORMAT:
        raise ModelFormatError(f"{path} has the format {named[0]!r}; expected {FORMAT!r}")
    if type(named[1]) is not int or named[1] < 1:
        raise ModelFormatError(f"{path} is of version {named[1]!r}; expected 1 to {VERSION}")
    if named[1] > VERSION:
        raise ModelFormatError(
            f"{path} is of version {named[1]!r}, and this llmrec_kernels reads up to {VERSION}: "
            "install a newer one"
        )
    checksum = body.pop("checksum", None)
    with _as_damage(path):
        canonical = _canonical({"format": named[0], "version": named[1]} | body)
    if disk.checksum(canonical) != checksum:
        raise ModelFormatError(f"{path} is damaged: its checksum is not that of its text")
    return dict(body)


def _numbers(folder: Path, record: Mapping[str, Any]) -> dict[str, Tensor]:
    path = folder / str(record["file"])
    if path.parent != folder:
        raise ModelFormatError(f"{folder / _MODEL} names the file {record['file']!r} elsewhere")
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelFormatError(f"{path} is missing, which {_MODEL} names") from error
    if len(data) != record["bytes"] or disk.checksum(data) != record["checksum"]:
        raise ModelFormatError(
            f"{path} is damaged: it has {len(data)} bytes, and not the {record['bytes']} with the "
            f"checksum that {_MODEL} has"
        )
    return dict(read_tensors(data))


@contextlib.contextmanager
def _as_damage(path: Path) -> Iterator[None]:
    """Say of a model that no `save` wrote, though its checksums are right, that it is damaged."""
    try:
        yield
    except ModelFormatError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, SafetensorError) as error:
        raise ModelFormatError(
            f"{path} is damaged, or does not fit its numbers: {error!r}"
        ) from error
