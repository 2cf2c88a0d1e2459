"""What a model has learned, as plain values and tensors, and back.

What is learned is a NamedTuple of tensors, arrays, sparse matrices, packed items, plain numbers
and other such tuples. Plain values go into JSON; everything else becomes tensors under the name of
its field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from llmrec_kernels.encoders import TextEncoder
from llmrec_kernels.ops import PackedItems, pack
from llmrec_kernels.recommenders.answering import UnsupportedError
from llmrec_kernels.recommenders.features import FeatureEncoder


def flattened(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """The plain part of a value; its tensors are added under names that begin with `name`.

    Examples
    --------
    >>> tensors = {}
    >>> flattened({"scale": 2.0, "rows": torch.zeros(3)}, "model", tensors)
    {'is': 'dict', 'scale': 2.0, 'rows': {'is': 'tensor'}}
    >>> list(tensors)
    ['model.rows']
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"is": "tensor"}
    if isinstance(value, np.ndarray):
        tensors[name] = torch.from_numpy(value)
        return {"is": "array"}
    if isinstance(value, PackedItems):
        tensors[name] = value.data
        return {"is": "packed"}
    if isinstance(value, csr_array):
        for part in ("data", "indices", "indptr"):
            tensors[f"{name}.{part}"] = torch.from_numpy(getattr(value, part))
        return {"is": "sparse", "columns": value.shape[1]}
    if hasattr(value, "encode"):
        return _encoder_record(value, name, tensors)
    fields = value._asdict() if hasattr(value, "_asdict") else value
    return {"is": "dict"} | {
        key: flattened(one, f"{name}.{key}", tensors) for key, one in fields.items()
    }


def restored(record: Any, name: str, tensors: Mapping[str, Tensor], encoder: Any = None) -> Any:
    """The value of a plain part; what was a NamedTuple is a dict.

    `encoder` stands in for the one that encoded texts.

    Examples
    --------
    >>> restored({"is": "dict", "rows": {"is": "tensor"}}, "model", {"model.rows": torch.ones(2)})
    {'rows': tensor([1., 1.])}
    """
    if not isinstance(record, dict):
        return record
    kind = record["is"]
    if kind == "tensor":
        return tensors[name]
    if kind == "array":
        return tensors[name].numpy()
    if kind == "packed":
        return pack(tensors[name])
    if kind == "sparse":
        parts = (tensors[f"{name}.{part}"].numpy() for part in ("data", "indices", "indptr"))
        data, indices, indptr = parts
        return csr_array((data, indices, indptr), shape=(len(indptr) - 1, record["columns"]))
    if kind.endswith("encoder"):
        return _encoder(record, name, tensors, encoder)
    return {
        key: restored(one, f"{name}.{key}", tensors, encoder)
        for key, one in record.items()
        if key != "is"
    }


class Absent:
    """Stands for an encoder that could not be had again: it says so when it is asked.

    Parameters
    ----------
    why : str
        What to tell.
    record : dict, optional
        What was saved of the encoder, so that the model can be saved again as it was.
    """

    def __init__(self, why: str, record: Mapping[str, Any] | None = None) -> None:
        self.why, self.record = why, dict(record or {"is": "other encoder", "class": "Absent"})

    def encode(self, texts: Sequence[str]) -> Any:
        """Refuse."""
        raise UnsupportedError(f"{self.why}; load the model with encoder=")


def _encoder_record(encoder: Any, name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    if isinstance(encoder, TextEncoder):
        return {"is": "text encoder", "settings": encoder.settings}
    if isinstance(encoder, FeatureEncoder):
        values, numbers = encoder.state()
        tensors.update({f"{name}.{key}": one for key, one in numbers.items()})
        text = flattened(encoder.text, f"{name}.text", tensors)
        return {"is": "feature encoder", "values": values, "names": list(numbers), "text": text}
    if isinstance(encoder, Absent):
        return encoder.record
    return {"is": "other encoder", "class": type(encoder).__name__}


def _encoder(
    record: Mapping[str, Any], name: str, tensors: Mapping[str, Tensor], given: Any
) -> Any:
    if record["is"] == "feature encoder":
        text = restored(record["text"], f"{name}.text", tensors, given)
        numbers = {key: tensors[f"{name}.{key}"] for key in record["names"]}
        return FeatureEncoder.from_state(record["values"], numbers, text)
    if given is not None:
        return given
    if record["is"] == "other encoder":
        return Absent(f"the texts were encoded by a {record['class']}, which is not saved", record)
    try:
        return TextEncoder.of_settings(record["settings"])
    except (OSError, ImportError) as error:
        return Absent(f"the text encoder of this model is not to be had here ({error})", record)
