"""Smaller networks: what is left out, what stays, and what it is called in caches and models."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from llmrec_kernels.encoders import Compression, TextEncoder, bundled_encoder_path
from llmrec_kernels.encoders.compress import compressed, parameter_bytes

TEXTS = ["a space opera", "tax law for beginners", "a film about stars and ships"]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole() -> TextEncoder:
    return TextEncoder(bundled_encoder_path(), cache_dir=False)


def small(**compression: Any) -> TextEncoder:
    return TextEncoder(
        bundled_encoder_path(), compression=Compression(**compression), cache_dir=False
    )


def test_the_layers_that_stay_are_spread_from_the_first_to_the_last(whole):
    model = copy.deepcopy(whole._network.model)
    layers = list(model.encoder.layer)
    compressed(model, Compression(layers=3), "it")
    assert [layers.index(one) for one in model.encoder.layer] == [0, 2, 5]
    compressed(model, Compression(layers=1), "it")
    assert list(model.encoder.layer) == [layers[5]]


def test_all_layers_and_heads_are_the_network_itself(whole):
    same = small(layers=6, heads=12)
    torch.testing.assert_close(same.encode(TEXTS), whole.encode(TEXTS), rtol=0, atol=1e-6)


def test_a_head_that_is_dropped_is_one_whose_output_counts_for_nothing(whole):
    """Zeroing the same heads in the whole network gives the same vectors."""
    model = copy.deepcopy(whole._network.model)
    by_hand = copy.deepcopy(model)
    compressed(model, Compression(heads=5), "it")
    for layer in by_hand.encoder.layer:
        value, out = layer.attention.self.value, layer.attention.output.dense
        moves = [
            float(torch.linalg.matrix_norm((out.weight[:, rows] @ value.weight[rows]).detach()))
            for rows in (slice(32 * head, 32 * head + 32) for head in range(12))
        ]
        for head in sorted(range(12), key=lambda one: moves[one])[:7]:
            out.weight.data[:, 32 * head : 32 * head + 32] = 0
    inputs = whole._network.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        ours = model(**inputs).last_hidden_state
        expected = by_hand(**inputs).last_hidden_state
    torch.testing.assert_close(ours, expected, rtol=0, atol=2e-5)
    assert parameter_bytes(model) < parameter_bytes(by_hand)


def test_distilbert_loses_heads_too():
    from transformers import DistilBertConfig, DistilBertModel

    torch.manual_seed(0)
    config = DistilBertConfig(vocab_size=50, dim=32, hidden_dim=64, n_layers=2, n_heads=4)
    model = DistilBertModel(config).eval()
    compressed(model, Compression(heads=2), "tiny")
    attention = model.transformer.layer[0].attention
    assert attention.q_lin.weight.shape == (16, 32)
    assert attention.out_lin.weight.shape == (32, 16)
    with torch.no_grad():
        assert model(torch.tensor([[1, 2, 3]])).last_hidden_state.shape == (1, 3, 32)


def test_int8_is_four_times_smaller_and_almost_the_same(whole):
    pytest.importorskip("torchao", reason="torchao is not installed")
    rounded = small(int8=True)
    vectors = rounded.encode(TEXTS)
    likeness = (vectors * whole.encode(TEXTS)).sum(dim=1)
    assert likeness.min() > 0.98
    assert not torch.equal(vectors, whole.encode(TEXTS))
    ratio = parameter_bytes(whole._network.model) / parameter_bytes(rounded._network.model)
    assert 3.5 < ratio < 4.1


def test_bytes_are_those_of_the_weights():
    layer = nn.Linear(10, 4, bias=False)
    assert parameter_bytes(layer) == 160
    assert parameter_bytes(layer.to(torch.bfloat16)) == 80


def test_a_cache_never_mixes_networks(tmp_path: Path):
    options: dict[str, Any] = {"cache_dir": tmp_path}
    whole = TextEncoder(bundled_encoder_path(), **options)
    before = whole.encode(TEXTS)
    cut = TextEncoder(bundled_encoder_path(), compression={"layers": 2}, **options)
    assert not torch.equal(cut.encode(TEXTS), before)
    assert len(list(tmp_path.glob("*.sqlite"))) == 2
    none = TextEncoder(bundled_encoder_path(), compression=Compression(), **options)
    assert torch.equal(none.encode(TEXTS), before)
    assert len(list(tmp_path.glob("*.sqlite"))) == 2


def test_settings_make_the_same_encoder_again():
    encoder = small(layers=2, heads=3)
    again = TextEncoder.of_settings(encoder.settings)
    assert again.compression == encoder.compression
    assert again.settings == encoder.settings


@pytest.mark.parametrize(
    ("compression", "error", "message"),
    [
        ({"layers": 0}, ValueError, "compression has layers 0; expected an integer from 1"),
        ({"heads": True}, ValueError, "compression has heads True; expected an integer from 1"),
        ({"int8": 1}, TypeError, "compression has int8 1; expected True or False"),
        (3, TypeError, "compression is 3; expected a Compression"),
        ({"depth": 3}, TypeError, "compression has 'depth'; expected layers, heads or int8"),
    ],
)
def test_a_wrong_compression_is_refused_at_once(compression, error, message):
    with pytest.raises(error, match=message):
        TextEncoder(bundled_encoder_path(), compression=compression)


@pytest.mark.parametrize(
    ("compression", "message"),
    [
        (Compression(layers=7), "keeps 7 layers, but model '.*' has 6"),
        (Compression(heads=13), "keeps 13 heads, but model '.*' has 12"),
    ],
)
def test_more_than_there_is_cannot_stay(compression, message):
    encoder = TextEncoder(bundled_encoder_path(), compression=compression, cache_dir=False)
    with pytest.raises(ValueError, match=message):
        encoder.encode(TEXTS)


def test_heads_of_a_network_of_another_kind_are_not_guessed_at():
    from transformers import GPT2Config, GPT2Model

    model = GPT2Model(GPT2Config(vocab_size=20, n_embd=16, n_layer=1, n_head=2))
    with pytest.raises(ValueError, match=r"no way to drop heads of model 'gpt' \(GPT2Model\)"):
        compressed(model, Compression(heads=1), "gpt")


def test_heads_that_are_named_alike_but_work_otherwise_are_not_dropped():
    from transformers import RoFormerConfig, RoFormerModel

    config = RoFormerConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"expected one of bert, camembert"):
        compressed(RoFormerModel(config), Compression(heads=1), "roformer")
