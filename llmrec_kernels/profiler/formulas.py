"""What one call of any torch operator costs, and whether that is known.

Our operators have registered formulas (`llmrec_kernels.cost`). The operations of all others are
counted by PyTorch's own formulas (`torch.utils.flop_counter`), and by ours for the few products
that it leaves out. Its convention is that of the field: products, convolutions and attention
count; what is in proportion to the elements (additions, activations, sums, norms, lookups, copies)
does not. An operator that is neither is *uncounted*, and a report lists it.

Bytes are compulsory: the arguments once and the results once. A view moves nothing, a lookup the
rows that it names, an allocation nothing until somebody writes there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from llmrec_kernels import cost
from llmrec_kernels.cost import Cost

Count = Callable[..., int]
Bytes = Callable[[tuple[Any, ...], dict[str, Any], Any], int]
aten = torch.ops.aten


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


ALLOCATIONS = _names(
    "empty empty_like empty_permuted empty_strided new_empty new_empty_strided resize"
)
# (source, ...): rows or elements of the first argument, as many as come out.
LOOKUPS = _names("embedding index index_select gather take masked_select")
# (target, ...), in place: writes as many elements as the last tensor has.
UPDATES = _names("index_add_ index_copy_ index_put_ scatter_ scatter_add_ scatter_reduce_")
# (target, ...), in place: what was there is not read.
OVERWRITES = _names(
    "copy_ fill_ zero_ normal_ uniform_ random_ bernoulli_ exponential_ log_normal_ "
)
# In proportion to their elements, and marked by torch neither as pointwise nor as a reduction.
LINEAR = (
    ALLOCATIONS
    | LOOKUPS
    | {name.removesuffix("_") for name in UPDATES}
    | _names(
        """
        _amp_foreach_non_finite_check_and_unscale _aminmax _assert_async _assert_tensor_metadata
        _batch_norm_no_update _batch_norm_with_update _embedding_bag _embedding_bag_backward
        _embedding_bag_dense_backward _embedding_bag_forward_only
        _embedding_bag_per_sample_weights_backward _fused_adagrad _fused_adam _fused_adamw
        _fused_dropout _fused_rms_norm _fused_rms_norm_backward _fused_sgd _index_put_impl
        _local_scalar_dense _log_softmax _log_softmax_backward_data _masked_scale _masked_softmax
        _native_batch_norm_legit _native_batch_norm_legit_functional
        _native_batch_norm_legit_no_training _pin_memory _prelu_kernel _prelu_kernel_backward
        _resize_output _safe_softmax _softmax _softmax_backward_data _stack
        _thnn_fused_gru_cell _thnn_fused_gru_cell_backward _thnn_fused_lstm_cell
        _thnn_fused_lstm_cell_backward_impl _to_copy _unique _unique2 _unsafe_index
        _unsafe_index_put _unsafe_view _weight_norm_interface _weight_norm_interface_backward all
        allclose amax amin aminmax any arange argmax argmin bernoulli binary_cross_entropy
        binary_cross_entropy_backward bincount bucketize cat clone complex constant_pad_nd
        copy count_nonzero cummax cummin cumprod cumsum dequantize detach diag_embed
        diagonal_backward dist elu_backward embedding_dense_backward equal exponential eye fill flip
        full full_like gelu_backward glu glu_backward hardsigmoid_backward hardswish_backward
        hardtanh_backward histc huber_loss huber_loss_backward index_fill index_reduce
        is_same_size isin kthvalue leaky_relu_backward lift lift_fresh linspace log_normal
        log_sigmoid_backward log_sigmoid_forward log_softmax logcumsumexp logsumexp masked_fill
        masked_scatter max mean median min mode mse_loss mse_loss_backward multinomial nanmedian
        nansum native_batch_norm native_batch_norm_backward native_dropout
        native_dropout_backward native_group_norm native_group_norm_backward native_layer_norm
        native_layer_norm_backward new_full new_ones new_zeros nll_loss_backward nll_loss_forward
        nonzero nonzero_static norm normal ones ones_like prod put quantize_per_channel
        quantize_per_tensor rand rand_like randint randint_like randn randn_like random randperm
        record_stream repeat repeat_interleave roll scalar_tensor searchsorted segment_reduce
        select_backward select_scatter set silu_backward slice_backward slice_scatter
        smooth_l1_loss smooth_l1_loss_backward softplus_backward sort stack std std_mean sum
        threshold_backward tanh_backward sigmoid_backward topk trace tril tril_indices triu
        triu_indices uniform unique_consecutive unique_dim var var_mean vector_norm
        linalg_vector_norm zero zeros zeros_like where
        """
    )
)


def _attention(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **kwargs: Any) -> int:
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))


def _attention_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **kwargs: Any
) -> int:
    return int(sdpa_backward_flop_count(grad.shape, query.shape, key.shape, value.shape))


def _stored(tensor: Tensor) -> int:
    """Elements that are there: all, or those of a sparse tensor."""
    return tensor.numel() if tensor.layout is torch.strided else int(tensor._nnz())


def _matrix_vector(matrix: Tensor, vector: Tensor, **kwargs: Any) -> int:
    return 2 * _stored(matrix)


def _added_matrix_vector(
    start: Tensor, matrix: Tensor, vector: Tensor, *rest: Any, **kwargs: Any
) -> int:
    return 2 * _stored(matrix)


def _dot(left: Tensor, right: Tensor, **kwargs: Any) -> int:
    return 2 * left.numel()


def _matrix_matrix(left: Tensor, right: Tensor, *rest: Any, **kwargs: Any) -> int:
    if right.layout is not torch.strided:  # each of its elements meets the rows of the other
        return 2 * _stored(left) * _stored(right) // max(1, right.shape[-2])
    return 2 * _stored(left) * right.shape[-1]


def _added_matrix_matrix(
    start: Tensor, left: Tensor, right: Tensor, *rest: Any, **kwargs: Any
) -> int:
    return _matrix_matrix(left, right)


# What torch's registry leaves out: the attention of CPUs, products with vectors and of int8. And
# plain products, which torch's own formulas take longer to count than some take to do.
OURS: dict[Any, Count] = {
    aten.mm: _matrix_matrix,
    aten.bmm: _matrix_matrix,
    aten.addmm: _added_matrix_matrix,
    aten.baddbmm: _added_matrix_matrix,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    aten.mv: _matrix_vector,
    aten.addmv: _added_matrix_vector,
    aten.dot: _dot,
    aten.vdot: _dot,
    aten._int_mm: _matrix_matrix,
}
_IN_PLACE = {
    getattr(aten, f"{name}_"): getattr(aten, name) for name in ("addmm", "baddbmm", "addmv")
}

# The place of the argument that names rows.
_LOOKUP = {
    aten.embedding: 1,
    aten._embedding_bag: 1,
    aten._embedding_bag_forward_only: 1,
    aten.index_select: 2,
}
_BACKEND = re.compile("_(reference|triton|nvrtc)$")


def count_of(packet: Any) -> Count | None:
    """Our formula of an operator's operations, or PyTorch's, to which users may have added."""
    packet = _IN_PLACE.get(packet, packet)
    return OURS.get(packet) or flop_registry.get(packet)


@dataclass(frozen=True)
class Rule:
    """How the calls of one operator are counted.

    Parameters
    ----------
    name
        As reports have it: a backend that is an operator of its own has the operator's one name.
    composite
        It is made of others, which are counted in its stead.
    formula
        The registered one, which tells everything; None: the others tell.
    count
        Operations of a call, where they have a formula.
    counted
        Whether they have one, or are in proportion to its elements and count none.
    read, written
        Bytes of a call, from its arguments, options and result.
    lookup
        The place of the argument that names rows, if there is one.
    """

    name: str
    composite: bool
    formula: cost.Formula | None
    count: Count | None
    counted: bool
    read: Bytes
    written: Bytes
    lookup: int | None

    def cost(self, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Cost:
        """The work of one call, as far as it is known."""
        if self.formula is not None:
            return self.formula.count(*args, out=out, **kwargs)
        read, written = self.read(args, kwargs, out), self.written(args, kwargs, out)
        if self.count is None:
            return Cost(0, 0, read, written)
        operations = int(self.count(*args, **kwargs, out_val=out))
        if _kind_of(args) == "int8":
            return Cost(0, operations, read, written)
        return Cost(operations, 0, read, written)

    def kind(self, args: tuple[Any, ...]) -> str:
        """The arithmetic whose peak bounds it: the registered one, or that of its arguments.

        Work without operations has none, and is under "float32".
        """
        if self.formula is not None:
            return self.formula.kind
        return "float32" if self.count is None else _kind_of(args)


_rules: dict[Any, tuple[int, Rule]] = {}


def rule_of(func: Any) -> Rule:
    """The rule of an operator, found once, and again where formulas were registered since."""
    known, generation = _rules.get(func), len(flop_registry) + cost.registered()
    if known is not None and known[0] == generation:
        return known[1]
    rule = _rule(func)
    _rules[func] = generation, rule
    return rule


def _rule(func: Any) -> Rule:
    packet = func._overloadpacket
    formula, count = cost.formula(packet), count_of(packet)
    has_formula = formula is not None or count is not None
    key = "CompositeImplicitAutograd"
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key)
    read, written = _movement(func)
    return Rule(
        name=_BACKEND.sub("", str(packet)),
        composite=composite and not has_formula,
        formula=formula,
        count=count,
        counted=has_formula or _is_linear(func),
        read=read,
        written=written,
        lookup=_LOOKUP.get(packet) if formula is None else formula.lookup,
    )


def _is_linear(func: Any) -> bool:
    """Whether an operator's work is in proportion to its elements, which is not counted."""
    if func.namespace not in ("aten", "prims"):
        return False
    tags = {torch.Tag.pointwise, getattr(torch.Tag, "reduction", torch.Tag.pointwise)}
    name = _plain_name(func)
    # An operator in place has no tag of its own, and that of its other form.
    other = getattr(aten, name, None)
    others = [getattr(other, overload) for overload in other.overloads()] if other else []
    return bool(
        func.is_view
        or name in LINEAR
        or name.startswith("_foreach_")
        or any(tags & set(each.tags) for each in (func, *others) if hasattr(each, "tags"))
    )


def _movement(func: Any) -> tuple[Bytes, Bytes]:
    """What is read and what is written."""
    name = func._overloadpacket.__name__
    if func.is_view or _plain_name(func) in ALLOCATIONS:
        return _nothing, _nothing
    if func.namespace != "aten":
        return _all_read, _result
    if name in ("_embedding_bag", "_embedding_bag_forward_only"):
        return _bag_read, _result
    if _plain_name(func) in LOOKUPS:
        return _lookup_read, _result
    if name in UPDATES:
        return _rest_read, _last_argument
    return (_rest_read if name in OVERWRITES else _all_read), _result


def _nothing(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    return 0


def _all_read(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    read = _nbytes(args)
    return (
        read + _nbytes([each for name, each in kwargs.items() if name != "out"]) if kwargs else read
    )


def _rest_read(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    return _all_read(args[1:], kwargs, out)


def _lookup_read(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    return _rest_read(args, kwargs, out) + _result(args, kwargs, out)


def _bag_read(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    table, indices = args[:2]
    row = table.shape[1] * table.element_size()
    return _rest_read(args, kwargs, out) + int(indices.numel() * row)


def _result(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    return _nbytes((out,))


def _last_argument(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    return _nbytes([leaf for leaf in tree_leaves(args[1:]) if isinstance(leaf, Tensor)][-1:])


def _nbytes(values: Iterable[Any]) -> int:
    """Of the tensors among the values, and in lists of them."""
    total = 0
    for value in values:
        if isinstance(value, Tensor):
            total += cost.nbytes(value)
        elif isinstance(value, list | tuple):
            total += _nbytes(value)
    return total


def _kind_of(args: tuple[Any, ...]) -> str:
    """Of the first floating-point tensor; integers of any width are under the roof of int8."""
    for leaf in tree_leaves(args):
        if isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex()):
            return _float_kind(leaf)
    return "int8"


def _float_kind(tensor: Tensor) -> str:
    name = str(tensor.dtype).removeprefix("torch.")
    if name.startswith("float8"):
        return "fp8"
    if name == "float32":
        if tensor.is_cuda and torch.get_float32_matmul_precision() != "highest":
            return "tf32"
        if not tensor.is_cuda and torch.get_float32_matmul_precision() == "medium":
            return "bfloat16"
    return name if name in ("float64", "float32", "float16", "bfloat16") else "float32"


def _plain_name(func: Any) -> str:
    name: str = func._overloadpacket.__name__
    return name.removesuffix("_") if not name.endswith("__") else name
