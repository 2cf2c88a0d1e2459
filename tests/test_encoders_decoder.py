"""TextEncoder on a real decoder: SmolLM2-135M-Instruct, a GGUF file of four-bit weights."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path

import pytest
import torch

from llmrec_kernels.encoders import ModelNotFoundError, TextEncoder, bundled_encoder_path
from llmrec_kernels.encoders.models import find_model
from llmrec_kernels.encoders.network import _limit
from llmrec_kernels.language import bundled_language_model_path

TEXTS = [
    "Toy Story (1995). Genres: Animation, Children's, Comedy.",
    "Alien (1979)",
    "",
    "A crew wakes from sleep to answer a signal. " * 4,
    "x",
]
DIM = 576
NEAR = {"atol": 2e-4, "rtol": 1e-4}  # float32 through 30 layers


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tests run side by side: small batches on more threads than cores wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def smollm_path() -> Path:
    try:
        return find_model(bundled_language_model_path()).weights()[0]
    except (ModelNotFoundError, ImportError) as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def decoder(smollm_path: Path) -> TextEncoder:
    """Loaded once, which takes seconds; tests change what is done with its hidden states."""
    encoder = TextEncoder(smollm_path, pooling="last", normalize=False, cache_dir=False)
    assert encoder.dim == DIM
    assert "_network" not in vars(encoder)  # the configuration says it: no weight is read
    said = io.StringIO()
    with redirect_stderr(said):
        encoder.encode(["x"])
    assert "GGUF" not in said.getvalue()  # the bar of the conversion
    return encoder


@pytest.fixture(scope="module")
def states(decoder: TextEncoder) -> list[torch.Tensor]:
    """Hidden states of each text alone, [L_i, d]: no batch, no padding, no mask."""
    network, found = decoder._network, []
    with torch.no_grad():
        for text in TEXTS:
            ids = torch.tensor([network.tokenizer(text).input_ids], dtype=torch.long)
            # A decoder has no special tokens: an empty text has none at all.
            found.append(network.model(ids).last_hidden_state[0] if text else torch.zeros(1, DIM))
    return found


def test_the_weights_are_those_of_the_model_that_knows_what_comes_next(
    decoder: TextEncoder,
) -> None:
    words = decoder._network.model.get_input_embeddings().weight  # also those of its head
    scores = decoder.encode(["The capital of France is", "One, two, three, four,"]) @ words.T
    best = [decoder._network.tokenizer.decode([token]) for token in scores.argmax(1).tolist()]
    assert best == [" Paris", " five"]


def test_the_last_token_s_hidden_state_is_the_vector_whatever_else_is_in_the_batch(
    decoder: TextEncoder, states: list[torch.Tensor]
) -> None:
    expected = torch.stack([tokens[-1] for tokens in states])
    torch.testing.assert_close(decoder.encode(TEXTS), expected, **NEAR)
    torch.testing.assert_close(decoder.encode(TEXTS[1:2]), expected[1:2], **NEAR)


def test_mean_pooling_is_the_mean_of_a_decoder_s_tokens(
    decoder: TextEncoder, states: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "pooling", "mean")
    expected = torch.stack([tokens.mean(0) for tokens in states])
    torch.testing.assert_close(decoder.encode(TEXTS), expected, **NEAR)


def test_a_text_is_cut_after_max_length_tokens(
    decoder: TextEncoder, states: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = decoder._network
    assert network.max_length == 8192
    monkeypatch.setitem(vars(decoder), "_network", dataclasses.replace(network, max_length=3))
    torch.testing.assert_close(decoder.encode(TEXTS[:1])[0], states[0][2], **NEAR)


def test_more_tokens_than_the_model_reads_are_refused(decoder: TextEncoder) -> None:
    network = decoder._network
    with pytest.raises(ValueError, match=r"max_length is 9000, .* at most 8192 tokens"):
        _limit(decoder._files, network.tokenizer, network.model.config, 9000)


def test_a_saved_model_finds_the_bundled_decoder_wherever_it_is_installed(
    smollm_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = TextEncoder(smollm_path, pooling="last", max_length=64).settings
    assert settings["model"] == "bundled language model"
    assert TextEncoder.of_settings(settings).settings == settings
    elsewhere = tmp_path / "elsewhere.gguf"
    elsewhere.symlink_to(smollm_path)
    monkeypatch.setattr("llmrec_kernels.language.models._bundled", lambda: elsewhere)
    assert TextEncoder.of_settings(settings)._files.weights() == [elsewhere]
    assert TextEncoder(smollm_path).settings["model"] == str(smollm_path)
    assert TextEncoder(bundled_encoder_path()).settings["model"] == "bundled"


def gguf(path: Path, content: bytes = b"") -> Path:
    path.write_bytes(b"GGUF" + content)
    return path


def test_a_gguf_file_is_known_by_its_content_not_by_its_place(tmp_path: Path) -> None:
    one, copy, other = (
        gguf(tmp_path / name, content)
        for name, content in zip("abc", (b"1", b"1", b"2"), strict=True)
    )
    assert find_model(one).identity() == hashlib.sha256(b"GGUF1").hexdigest()
    assert find_model(copy).identity() == find_model(one).identity()
    assert find_model(other).identity() != find_model(one).identity()


def test_what_lies_beside_a_gguf_file_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("no list of modules")
    assert TextEncoder(gguf(tmp_path / "model.gguf")).pooling == "mean"


def test_a_broken_gguf_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"could not be loaded"):
        TextEncoder(gguf(tmp_path / "model.gguf", bytes(60)), cache_dir=False).encode(["text"])


@pytest.mark.parametrize("package", ["gguf", "accelerate"])
def test_without_what_reads_a_gguf_file_it_is_named(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"needs {package}: pip install gguf accelerate"):
        TextEncoder(gguf(tmp_path / "model.gguf"))
