"""`QuantizedEmbeddingBag` stands in for `torch.nn.EmbeddingBag`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import random

from llmrec_kernels import embedding_bag, quantize
from llmrec_kernels.nn import QuantizedEmbeddingBag

INDICES, OFFSETS = torch.tensor([1, 4, 4, 0, 2, 2, 5]), torch.tensor([0, 3, 3])
DTYPES = ("int8", "int4", "fp8_e4m3", "float16", "bfloat16")


def module_of(**options: Any) -> torch.nn.EmbeddingBag:
    module = torch.nn.EmbeddingBag(9, 6, **options)
    module.weight.data.copy_(random(9, 6))
    return module


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_it_is_the_float_module_up_to_the_rounding_of_rows(mode: str, dtype: str) -> None:
    module = module_of(mode=mode, padding_idx=4)
    ours = QuantizedEmbeddingBag.from_float(module, dtype=dtype)
    rounded = module_of(mode=mode, padding_idx=4)
    rounded.weight.data.copy_(ours.table.dequantize())
    torch.testing.assert_close(ours(INDICES, OFFSETS), rounded(INDICES, OFFSETS))
    grid = INDICES[:6].view(2, 3)
    torch.testing.assert_close(ours(grid), rounded(grid))
    torch.testing.assert_close(ours(grid), module(grid), atol=0.5, rtol=0)


def test_offsets_and_weights_are_torchs_own() -> None:
    module = module_of(mode="sum", include_last_offset=True)
    ours = QuantizedEmbeddingBag.from_float(module)
    module.weight.data.copy_(ours.table.dequantize())
    bounds, weights = torch.tensor([0, 3, 3, 7]), random(7, seed=1)
    torch.testing.assert_close(
        ours(INDICES, bounds, per_sample_weights=weights),
        module(INDICES, bounds, per_sample_weights=weights),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scheme", ["affine", "symmetric"])
def test_a_state_dict_goes_into_a_new_module(dtype: str, scheme: str, tmp_path: Any) -> None:
    first = QuantizedEmbeddingBag.from_float(module_of(mode="sum"), dtype=dtype, scheme=scheme)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = QuantizedEmbeddingBag(9, 6, mode="sum", dtype=dtype, scheme=scheme)
    assert not torch.equal(second(INDICES, OFFSETS), first(INDICES, OFFSETS))
    second.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert torch.equal(second(INDICES, OFFSETS), first(INDICES, OFFSETS))


def test_normalized_and_narrow_results() -> None:
    table = quantize(random(9, 6))
    module = QuantizedEmbeddingBag.from_table(
        table, mode="sum", normalize=True, out_dtype=torch.float16
    )
    want = embedding_bag(table, INDICES, OFFSETS, normalize=True, out_dtype=torch.float16)
    assert torch.equal(module(INDICES, OFFSETS), want)
    assert module.codes.data_ptr() == table.codes.data_ptr()
    assert "int8" in repr(module)


@pytest.mark.parametrize("dtype", ["int8", "int4", "float16"])
def test_it_compiles_to_one_graph_and_exports(dtype: str) -> None:
    module = QuantizedEmbeddingBag.from_float(module_of(mode="sum"), dtype=dtype)
    want = module(INDICES, OFFSETS)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(INDICES, OFFSETS), want)
    program = torch.export.export(module, (INDICES, OFFSETS))
    assert torch.equal(program.module()(INDICES, OFFSETS), want)


def test_what_cannot_be_kept_is_refused() -> None:
    with pytest.raises(ValueError, match=r"module has max_norm 1.0.*expected None"):
        QuantizedEmbeddingBag.from_float(module_of(max_norm=1.0))
    with pytest.raises(TypeError, match=r"module is a Linear; expected a torch.nn.EmbeddingBag"):
        QuantizedEmbeddingBag.from_float(torch.nn.Linear(2, 2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"mode is 'median'; expected one of"):
        QuantizedEmbeddingBag(9, 6, mode="median")
    with pytest.raises(ValueError, match=r"num_embeddings is 0; expected at least 1"):
        QuantizedEmbeddingBag(0, 6)
    with pytest.raises(IndexError, match=r"indices holds 9 .*expected 0 to 8"):
        QuantizedEmbeddingBag(9, 6)(torch.tensor([[9]]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_cast_of_the_model_leaves_the_table_alone(dtype: str) -> None:
    module = QuantizedEmbeddingBag.from_float(module_of(mode="sum"), dtype=dtype)
    model = torch.nn.Sequential(module, torch.nn.Linear(6, 2))
    before = module(INDICES, OFFSETS)
    for cast in (model.half, model.bfloat16, model.double, lambda: model.to(torch.float16)):
        cast()
        assert torch.equal(module(INDICES, OFFSETS), before)
    assert model[1].weight.dtype == torch.float16


def test_a_state_dict_of_another_format_is_refused_and_nothing_is_loaded() -> None:
    module = QuantizedEmbeddingBag.from_float(module_of(), dtype="int8", scheme="symmetric")
    before = module.codes.clone()
    for dtype, dim in (("fp8_e4m3", 6), ("int4", 6), ("int8", 6), ("int8", 5)):
        other = QuantizedEmbeddingBag(9, dim, dtype=dtype)
        with pytest.raises(RuntimeError, match=r"codes are .* of \d dimensions; expected int8"):
            module.load_state_dict(other.state_dict())
        assert torch.equal(module.codes, before)


def test_tensors_of_a_state_dict_share_no_memory() -> None:
    state = QuantizedEmbeddingBag.from_float(module_of()).state_dict()
    assert len({part.untyped_storage().data_ptr() for part in state.values()}) == len(state)
    assert all(part.is_contiguous() for part in state.values())


def test_bad_options_are_refused_when_the_module_is_made() -> None:
    with pytest.raises(IndexError, match="padding_idx is 7; expected -5 to 4"):
        QuantizedEmbeddingBag(5, 3, padding_idx=7)
    with pytest.raises(IndexError, match="padding_idx is 9; expected -9 to 8"):
        QuantizedEmbeddingBag.from_table(quantize(random(9, 6)), padding_idx=9)
    with pytest.raises(ValueError, match=r"out_dtype is torch\.int8; expected float32"):
        QuantizedEmbeddingBag(5, 3, out_dtype=torch.int8)
