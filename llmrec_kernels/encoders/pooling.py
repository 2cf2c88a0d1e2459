"""From one vector per token to one vector per text."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Pooling = Literal["mean", "cls", "last", "max"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)

# How the 1_Pooling/config.json of sentence-transformers spells the modes that are offered here.
_SENTENCE_TRANSFORMERS_MODES: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
    "pooling_mode_max_tokens": "max",
}


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Reduce token vectors to one vector per text, padding left out on whichever side it stands.

    Parameters
    ----------
    hidden : Tensor
        Last hidden states, [B, L, d], any float type.
    mask : Tensor
        1 for a token, 0 for padding, [B, L]; at least one token in each row.
    pooling : {"mean", "cls", "last", "max"}
        Mean of the tokens, the first token, the last token, or the greatest value in each
        dimension.

    Returns
    -------
    Tensor
        [B, d] float32.

    Examples
    --------
    >>> hidden = torch.tensor([[[1.0], [3.0], [99.0]]])
    >>> mask = torch.tensor([[1, 1, 0]])
    >>> [pool(hidden, mask, mode).item() for mode in POOLINGS]
    [2.0, 1.0, 3.0, 3.0]
    """
    hidden = hidden.float()
    is_token = mask.bool()
    if pooling == "mean":
        # Padding is set to zero, not multiplied by zero: a NaN there must not spread.
        total = hidden.masked_fill(~is_token.unsqueeze(-1), 0.0).sum(dim=1)
        return total / is_token.sum(dim=1, keepdim=True)
    if pooling == "max":
        return hidden.masked_fill(~is_token.unsqueeze(-1), -torch.inf).amax(dim=1)
    # argmax of a 0/1 mask is the place of its first 1.
    if pooling == "cls":
        place = mask.argmax(dim=1)
    else:
        place = mask.shape[1] - 1 - mask.flip(1).argmax(dim=1)
    return hidden[torch.arange(len(hidden), device=hidden.device), place]


def pooling_of(folder: Path) -> Pooling:
    """Pooling that a model's sentence-transformers files ask for; "mean" where it has none.

    Parameters
    ----------
    folder : Path
        Model folder. `modules.json` names the pooling module, whose `config.json` names the mode.

    Raises
    ------
    ValueError
        When the files ask for a pooling that is not offered here.

    Examples
    --------
    >>> from llmrec_kernels.encoders import bundled_encoder_path
    >>> pooling_of(bundled_encoder_path())
    'mean'
    """
    modules_file = folder / "modules.json"
    if not modules_file.is_file():
        return "mean"
    modules = read_json(modules_file, list)
    try:
        paths = {str(m["type"]).rpartition(".")[2]: folder / m["path"] for m in modules}
    except (TypeError, KeyError) as error:
        raise ValueError(f"{modules_file} is no list of modules with type and path") from error
    unused = sorted(paths.keys() - {"Transformer", "Pooling", "Normalize"})
    if unused:
        warnings.warn(
            f"the sentence-transformers pipeline in {folder} also has {', '.join(unused)}, which "
            "TextEncoder does not apply: its vectors are the pooled hidden states.",
            stacklevel=3,
        )
    if "Pooling" not in paths:
        return "mean"
    config = read_json(paths["Pooling"] / "config.json", dict)
    modes = _modes(config)
    for offered in POOLINGS:
        if modes == [offered]:
            return offered
    raise ValueError(
        f"{paths['Pooling'] / 'config.json'} asks for pooling {' + '.join(modes) or 'none'}, which "
        f"is not offered; pass pooling= one of {', '.join(map(repr, POOLINGS))}."
    )


def read_json(path: Path, kind: type[Any]) -> Any:
    """A list or dict from a file of the model; a ValueError names a file that holds none.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "modules.json"
    >>> _ = path.write_text("no")
    >>> read_json(path, list)
    Traceback (most recent call last):
        ...
    ValueError: ...modules.json cannot be read as a JSON list: Expecting value...
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a JSON {kind.__name__}: {error}") from error
    if not isinstance(found, kind):
        raise ValueError(f"{path} holds a {type(found).__name__}; expected a {kind.__name__}")
    return found


def _modes(config: dict[str, Any]) -> list[str]:
    """Modes that a pooling config switches on: newer files name one, older have a flag for each."""
    named = config.get("pooling_mode")
    if named is not None:
        return ["last" if named == "lasttoken" else str(named)]
    flags = [key for key, on in config.items() if key.startswith("pooling_mode_") and on]
    return [_SENTENCE_TRANSFORMERS_MODES.get(key, key) for key in flags]
