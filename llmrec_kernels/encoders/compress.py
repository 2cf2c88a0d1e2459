"""A smaller and faster network of the same model: fewer layers, fewer heads, int8 products.

- Layers: the ones kept are spread evenly from the first to the last, so that the last one, whose
  output was trained to be the answer, stays.
- Heads: of each layer those stay that can move its output most, by |W_O W_V| (Frobenius) of the
  head: no data are needed for it.
- int8: weights are rounded once, a scale a row; inputs of a product when it is made, a scale a
  token (dynamic quantization). The table of words is rounded too, a scale a word. By torchao.

What each costs in quality is for a measurement to say, on the task at hand; docs/results.md has
one.

Sources: P. Michel, O. Levy and G. Neubig, Are sixteen heads really better than one?, NeurIPS 2019;
H. Sajjad et al., On the effect of dropping layers of pre-trained transformer models, Computer
Speech & Language 77, 2023.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_KINDS = ("bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta")
# Where the parts of an attention layer are: query, key, value, and what joins the heads.
_ATTENTIONS = (
    ("self.query", "self.key", "self.value", "output.dense"),  # BERT, RoBERTa, ELECTRA
    ("q_lin", "k_lin", "v_lin", "out_lin"),  # DistilBERT
)


class Compression(NamedTuple):
    """What is left of a network.

    Parameters
    ----------
    layers : int, optional
        Transformer layers that stay.
    heads : int, optional
        Attention heads that stay in each layer.
    int8 : bool
        Whether products are made of int8 numbers (on the CPU; needs torchao).

    Examples
    --------
    >>> from llmrec_kernels.encoders import TextEncoder, bundled_encoder_path
    >>> small = TextEncoder(
    ...     bundled_encoder_path(), compression=Compression(layers=3, heads=6), cache_dir=False
    ... )
    >>> small.encode(["a space opera"]).shape
    torch.Size([1, 384])
    """

    layers: int | None = None
    heads: int | None = None
    int8: bool = False

    @staticmethod
    def of(compression: Compression | Mapping[str, Any] | None) -> Compression | None:
        """As given, checked; None where nothing is left out."""
        if compression is None:
            return None
        if isinstance(compression, Mapping):
            for name in compression:
                if name not in Compression._fields:
                    raise TypeError(f"compression has {name!r}; expected layers, heads or int8")
            compression = Compression(**compression)
        if not isinstance(compression, Compression):
            raise TypeError(f"compression is {compression!r}; expected a Compression")
        for name in ("layers", "heads"):
            count = getattr(compression, name)
            if count is not None and (type(count) is not int or count < 1):
                raise ValueError(f"compression has {name} {count!r}; expected an integer from 1")
        if not isinstance(compression.int8, bool):
            raise TypeError(f"compression has int8 {compression.int8!r}; expected True or False")
        if compression.int8 and importlib.util.find_spec("torchao") is None:
            raise ImportError(
                "int8 needs torchao: pip install 'llmrec-kernels[compress]'", name="torchao"
            )
        return None if compression == Compression() else compression


def compressed(model: Any, compression: Compression, name: str) -> Any:
    """The network, smaller in place; `name` is what messages call it.

    Raises
    ------
    ValueError
        It has fewer layers or heads than are to stay, or its heads cannot be told apart.
    """
    if compression.layers is not None:
        _keep_layers(model, compression.layers, name)
    if compression.heads is not None:
        _keep_heads(model, compression.heads, name)
    if compression.int8:
        _round(model)
    return model


def parameter_bytes(model: nn.Module) -> int:
    """Bytes of the weights, as they lie in memory.

    Examples
    --------
    >>> parameter_bytes(nn.Linear(10, 2))
    88
    """
    return sum(_bytes(one) for one in [*model.parameters(), *model.buffers()])


def _bytes(tensor: Tensor) -> int:
    """Of a tensor, or of those that a quantized one is made of."""
    names = getattr(tensor, "tensor_data_names", None)
    if names is None:
        return tensor.numel() * tensor.element_size()
    return sum(_bytes(getattr(tensor, name)) for name in names)


def _keep_layers(model: Any, count: int, name: str) -> None:
    owner, attribute = _layers(model, name)
    layers = getattr(owner, attribute)
    if count > len(layers):
        raise ValueError(f"compression keeps {count} layers, but model {name!r} has {len(layers)}")
    kept = torch.linspace(0, len(layers) - 1, count).round().long() if count > 1 else [-1]
    setattr(owner, attribute, nn.ModuleList(layers[int(one)] for one in kept))


def _layers(model: Any, name: str) -> tuple[nn.Module, str]:
    """What has the list of the layers, and under which name: the longest list there is."""
    found = [
        (len(one), path) for path, one in model.named_modules() if isinstance(one, nn.ModuleList)
    ]
    if not found:
        raise ValueError(f"compression finds no layers in model {name!r}")
    owner, _, attribute = max(found, key=lambda one: one[0])[1].rpartition(".")
    return model.get_submodule(owner), attribute


def _keep_heads(model: Any, count: int, name: str) -> None:
    found = [
        (module, paths)
        for module in model.modules()
        for paths in _ATTENTIONS
        if all(_has(module, path) for path in paths)
    ]
    if not found or model.config.model_type not in _KINDS:
        raise ValueError(
            f"compression knows no way to drop heads of model {name!r} "
            f"({type(model).__name__}); expected one of {', '.join(_KINDS)}"
        )
    for module, paths in found:
        query, key, value, out = (module.get_submodule(path) for path in paths)
        size = _head_size(module)
        n_heads = query.weight.shape[0] // size
        if count > n_heads:
            raise ValueError(f"compression keeps {count} heads, but model {name!r} has {n_heads}")
        by_head = value.weight.view(n_heads, size, -1), out.weight.view(-1, n_heads, size)
        moves = torch.stack(
            [(by_head[1][:, head] @ by_head[0][head]).norm() for head in range(n_heads)]
        )
        kept = moves.argsort(descending=True, stable=True)[:count].sort().values
        rows = (kept[:, None] * size + torch.arange(size)).flatten()
        for one in (query, key, value):
            one.weight = nn.Parameter(one.weight[rows].contiguous(), requires_grad=False)
            one.bias = nn.Parameter(one.bias[rows].contiguous(), requires_grad=False)
            one.out_features = len(rows)
        out.weight = nn.Parameter(out.weight[:, rows].contiguous(), requires_grad=False)
        out.in_features = len(rows)


def _has(module: nn.Module, path: str) -> bool:
    try:
        return isinstance(module.get_submodule(path), nn.Linear)
    except AttributeError:
        return False


def _head_size(module: Any) -> int:
    inner = getattr(module, "self", module)
    return int(inner.attention_head_size)


def _round(model: Any) -> None:
    from torchao.quantization import (
        Int8DynamicActivationInt8WeightConfig,
        IntxWeightOnlyConfig,
        PerAxis,
        quantize_,
    )

    quantize_(model, Int8DynamicActivationInt8WeightConfig())
    words = model.get_input_embeddings()
    quantize_(
        model,
        IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0)),
        filter_fn=lambda module, _: module is words,
    )
