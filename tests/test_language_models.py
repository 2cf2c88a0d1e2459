"""LanguageModel on SmolLM2-135M-Instruct: as transformers itself, one prompt at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from language_models import smollm

from llmrec_kernels.encoders import ModelNotFoundError, bundled_encoder_path
from llmrec_kernels.encoders import gguf as gguf_files
from llmrec_kernels.encoders.models import find_model
from llmrec_kernels.language import LanguageModel, WrongModelError, bundled_language_model_path

PROMPTS = ["What is the capital of France?", "Name a colour.", "Say hi."]
SYSTEM = "You answer in one word."
EXAMPLES = [("What is the capital of Italy?", "Rome.")]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tests run side by side: small batches on more threads than cores wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def written_alone(prompt: str, new: int, system: str | None = None, examples=()) -> str:
    """What transformers' own generation writes, with no batch and nothing kept."""
    loaded = smollm()._loaded
    turns = [{"role": "system", "content": system}] if system else []
    for question, answer in examples:
        turns += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    turns.append({"role": "user", "content": prompt})
    text = loaded.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    inputs = loaded.tokenizer(text, return_tensors="pt", add_special_tokens=False)
    made = loaded.model.generate(**inputs, max_new_tokens=new, do_sample=False)
    row = made[0, inputs["input_ids"].shape[1] :]
    return loaded.tokenizer.decode(row, skip_special_tokens=True).strip()


def test_a_batch_writes_what_transformers_writes_for_each_prompt_alone():
    made = smollm().generate(PROMPTS, max_new_tokens=9)
    assert made == [written_alone(prompt, 9) for prompt in PROMPTS]
    assert made[0] == "The capital of France is Paris."


def test_examples_and_a_system_text_are_turns_before_the_prompt():
    options = {"system": SYSTEM, "examples": EXAMPLES}
    made = smollm().generate(PROMPTS[:1], max_new_tokens=6, **options)
    assert made == [written_alone(PROMPTS[0], 6, **options)]


def test_what_was_read_before_changes_nothing():
    model = smollm()
    first = model.generate(PROMPTS[:2], max_new_tokens=6)
    model.log_likelihoods("A film about", [" love"])
    assert model.generate(PROMPTS[:2], max_new_tokens=6) == first
    assert model.generate(PROMPTS[:1] * 2, max_new_tokens=6) == [first[0]] * 2


def test_a_stop_text_ends_a_completion_and_is_left_out():
    assert smollm().generate(PROMPTS[:1], max_new_tokens=9, stop=[" France"]) == ["The capital of"]


def test_nothing_is_written_for_no_prompt():
    assert smollm().generate([]) == []
    assert smollm().log_likelihoods("a", []).shape == (0,)
    assert smollm().token_counts([]) == []


def test_likelihoods_are_sums_over_the_tokens_of_each_continuation():
    model, prompt = smollm(), "The capital of France is"
    continuations = [" Paris.", " the city of Rome", "", " x", " Lyon, I think"]
    found = model.log_likelihoods(prompt, continuations)
    loaded, wanted = model._loaded, []
    given = loaded.tokenizer(prompt)["input_ids"]
    for one in continuations:
        tokens = loaded.tokenizer(one, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = loaded.model(torch.tensor([given + tokens])).logits[0].log_softmax(-1)
        wanted.append(sum(logits[len(given) - 1 + n, t] for n, t in enumerate(tokens)))
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float32), atol=2e-3, rtol=0)
    assert found[2] == 0
    assert found.argmax() == 2
    assert found[0] > found[4]


def test_a_likelihood_needs_no_prompt():
    assert smollm().log_likelihoods("", [" Paris"]).isfinite().all()


def test_token_counts_are_the_tokenizers():
    tokenizer = smollm()._loaded.tokenizer
    texts = ["", "Paris", "The capital of France"]
    wanted = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    assert smollm().token_counts(texts) == wanted


def test_settings_make_the_same_model_wherever_the_wheel_is():
    settings = smollm().settings
    assert settings["model"] == "bundled"
    assert LanguageModel.of_settings(settings).identity() == smollm().identity()
    assert LanguageModel.of_settings(settings | {"dtype": "bfloat16"}).identity() != (
        smollm().identity()
    )


# Models of another kind, and none


def test_an_encoder_that_is_asked_to_write_is_refused_by_its_kind():
    with pytest.raises(WrongModelError, match=r"is a BertModel, which cannot write text"):
        LanguageModel(bundled_encoder_path())


@pytest.mark.parametrize("config", ["{}", '{"model_type": "llama"}', '{"architectures": null}'])
def test_a_model_that_does_not_say_what_it_is_is_refused(tmp_path: Path, config: str):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(WrongModelError, match="without a head, which cannot write text"):
        LanguageModel(tmp_path)


def test_a_masked_encoder_is_no_language_model(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"architectures": ["BertForMaskedLM"]}')
    with pytest.raises(WrongModelError, match="is a BertForMaskedLM"):
        LanguageModel(tmp_path)


def test_weights_without_a_part_of_the_model_are_refused(tmp_path: Path):
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=64, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    weights = {name: one for name, one in model.state_dict().items() if "lm_head" not in name}
    model.save_pretrained(tmp_path, state_dict=weights)
    AutoTokenizer.from_pretrained(bundled_encoder_path()).save_pretrained(tmp_path)
    with pytest.raises(WrongModelError, match=r"lack 1 tensors \(lm_head.weight\)"):
        LanguageModel(tmp_path).generate(["a"])


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("nowhere.gguf", r"there is no folder or file .*nowhere\.gguf"),
        (Path("nowhere"), r"there is no folder or file .*nowhere"),
        ("/nowhere", "this is not a hub name"),
    ],
)
def test_a_model_that_is_not_there_is_named(model, reason):
    with pytest.raises(ModelNotFoundError, match=reason):
        LanguageModel(model)


def test_a_file_of_another_format_is_refused(tmp_path: Path):
    other = tmp_path / "model.gguf"
    other.write_bytes(b"PK")
    with pytest.raises(ModelNotFoundError, match="is a file that is not in the GGUF format"):
        LanguageModel(other)


def test_a_revision_is_for_hub_models():
    with pytest.raises(ValueError, match=r"revision='main' is for hub models, .* is a file"):
        LanguageModel(bundled_language_model_path(), revision="main")


# Arguments


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"dtype": torch.int8}, "dtype must be one of"),
        ({"batch_size": 0}, "batch_size is 0; expected at least 1"),
        ({"max_length": -1}, "max_length is -1; expected at least 1"),
    ],
)
def test_settings_out_of_range_are_named(options, reason):
    with pytest.raises(ValueError, match=reason):
        LanguageModel(bundled_language_model_path(), **options)


def test_prompts_must_be_strings():
    with pytest.raises(TypeError, match=r"prompts must be a sequence of strings, got one string"):
        smollm().generate("a")
    with pytest.raises(TypeError, match=r"prompts\[1\] must be a string, got None"):
        smollm().generate(["a", None])
    with pytest.raises(TypeError, match=r"continuations\[0\] must be a string, got 3"):
        smollm().log_likelihoods("a", [3])
    with pytest.raises(ValueError, match=r"prompts\[0\] is not valid Unicode"):
        smollm().generate(["\ud83c"])
    with pytest.raises(ValueError, match="max_new_tokens is 0; expected at least 1"):
        smollm().generate(["a"], max_new_tokens=0)


def test_a_prompt_beyond_the_models_length_is_named():
    with pytest.raises(ValueError, match=r"prompts\[1\] makes .* tokens .* at most 8192; shorten"):
        smollm().generate(["a", "word " * 9000])
    with pytest.raises(ValueError, match=r"continuations\[0\] makes .* at most 8192"):
        smollm().log_likelihoods("a", ["word " * 9000])


# GGUF files


def test_an_unpacked_file_is_a_folder_in_the_cache_and_stays_the_same_model():
    files = find_model(bundled_language_model_path())
    folder = gguf_files.unpacked(files)
    assert (folder.name, folder.gguf) == (files.name, None)
    assert (folder.folder / "model.safetensors").is_file()
    assert gguf_files.unpacked(folder) == folder


def test_a_cache_without_room_costs_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LLMREC_CACHE", str(tmp_path / "file"))
    files = find_model(bundled_language_model_path())
    with pytest.warns(UserWarning, match="is read from its GGUF file each time"):
        assert gguf_files.unpacked(files) == files


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_unpacking_leaves_nothing(tmp_path: Path, monkeypatch, error):
    def interrupted(files, folder):
        (folder / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setenv("LLMREC_CACHE", str(tmp_path))
    monkeypatch.setattr(gguf_files, "_unpack", interrupted)
    with pytest.raises(error):
        gguf_files.unpacked(find_model(bundled_language_model_path()))
    assert list((tmp_path / "models").iterdir()) == []


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """An empty cache and an unpacking that writes few bytes: the folders that it wrote to."""
    written: list[Path] = []

    def unpack(files, folder):
        written.append(folder)
        (folder / "model.safetensors").write_bytes(b"weights")

    monkeypatch.setenv("LLMREC_CACHE", str(tmp_path))
    monkeypatch.setattr(gguf_files, "_unpack", unpack)
    smollm()
    return written


@pytest.mark.parametrize("damage", [b"weig", None])
def test_a_damaged_unpacked_file_is_unpacked_anew(tiny: list[Path], damage: bytes | None):
    files = find_model(bundled_language_model_path())
    weights = gguf_files.unpacked(files).folder / "model.safetensors"
    weights.unlink() if damage is None else weights.write_bytes(damage)
    assert gguf_files.unpacked(files).folder == weights.parent
    assert weights.read_bytes() == b"weights"
    gguf_files.unpacked(files)
    assert len(tiny) == 2


def test_what_a_killed_unpacking_left_is_removed_after_an_hour(tiny: list[Path], tmp_path: Path):
    old, new = (tmp_path / "models" / f".abc-2.{name}" for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir(parents=True)
    os.utime(old, (0, 0))
    gguf_files.unpacked(find_model(bundled_language_model_path()))
    assert (old.exists(), new.exists()) == (False, True)


def test_a_device_that_is_none_is_named():
    with pytest.raises(ValueError, match=r"device must be a device of torch, .* got 'nodev'"):
        LanguageModel(bundled_language_model_path(), device="nodev")
