"""TextEncoder with its cache: what is kept is found again, and only where it is the same vector."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from llmrec_kernels.encoders import TextEncoder, bundled_encoder_path

MINILM = bundled_encoder_path()
FILMS = [f"film number {n}" for n in range(10)]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tests run side by side: small batches on more threads than cores wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def encoded() -> Iterator[list[int]]:
    """Rows of every forward call of any BertModel while the test runs."""
    rows: list[int] = []

    def hook(module: torch.nn.Module, args: Any, output: Any) -> None:
        if isinstance(module, transformers.BertModel):
            rows.append(len(output.last_hidden_state))

    with torch.nn.modules.module.register_module_forward_hook(hook):
        yield rows


def test_a_second_run_gives_the_same_vectors_and_never_calls_the_model(
    tmp_path: Path, encoded: list[int]
) -> None:
    first = TextEncoder(MINILM, cache_dir=tmp_path).encode(FILMS)
    assert sum(encoded) == 10
    again = TextEncoder(MINILM, cache_dir=tmp_path)
    assert torch.equal(again.encode(FILMS[::-1]), first.flip(0))
    assert again.dim == 384
    assert sum(encoded) == 10


def test_a_run_that_hits_loads_neither_weights_nor_transformers(tmp_path: Path) -> None:
    TextEncoder(MINILM, cache_dir=tmp_path).encode(FILMS)
    program = (
        "import sys\n"
        "from llmrec_kernels.encoders import TextEncoder, bundled_encoder_path\n"
        "encoder = TextEncoder(bundled_encoder_path(), cache_dir=sys.argv[1])\n"
        "assert encoder.encode([f'film number {n}' for n in range(10)]).shape == (10, 384)\n"
        "assert 'transformers' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)


def test_only_the_texts_that_are_new_are_encoded(tmp_path: Path, encoded: list[int]) -> None:
    TextEncoder(MINILM, cache_dir=tmp_path).encode(FILMS[:6])
    mixed = TextEncoder(MINILM, cache_dir=tmp_path).encode(FILMS)
    assert sum(encoded) == 10
    alone = TextEncoder(MINILM, cache_dir=False).encode(FILMS)
    torch.testing.assert_close(mixed, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "setting",
    [
        {"pooling": "max"},
        {"max_length": 3},
        {"normalize": False},
        {"dtype": torch.bfloat16},
    ],
    ids=str,
)
def test_a_setting_that_changes_vectors_changes_the_key(
    tmp_path: Path, encoded: list[int], setting: dict[str, Any]
) -> None:
    TextEncoder(MINILM, cache_dir=tmp_path).encode(FILMS)
    other = TextEncoder(MINILM, cache_dir=tmp_path, **setting).encode(FILMS)
    assert sum(encoded) == 20
    fresh = TextEncoder(MINILM, cache_dir=False, **setting).encode(FILMS)
    torch.testing.assert_close(other, fresh, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("setting", [{"batch_size": 3}, {"progress": False}, {"pooling": "mean"}])
def test_a_setting_that_changes_no_vector_keeps_the_key(
    tmp_path: Path, encoded: list[int], setting: dict[str, Any]
) -> None:
    TextEncoder(MINILM, cache_dir=tmp_path).encode(FILMS)
    TextEncoder(MINILM, cache_dir=tmp_path, **setting).encode(FILMS)
    assert sum(encoded) == 10


def test_a_copy_of_a_model_hits_and_one_changed_in_place_misses(
    tmp_path: Path, encoded: list[int]
) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    cache_dir, model = tmp_path / "cache", tmp_path / "copy"
    original = TextEncoder(MINILM, cache_dir=cache_dir).encode(FILMS)
    shutil.copytree(MINILM, model)
    assert torch.equal(TextEncoder(model, cache_dir=cache_dir).encode(FILMS), original)
    assert sum(encoded) == 10

    weights = model / "model.safetensors"
    before = weights.stat()
    tensors = safetensors.load_file(weights)
    tensors["encoder.layer.5.output.LayerNorm.bias"] += 1.0
    # As the hardest case: same names, same size, same dates.
    safetensors.save_file(tensors, weights, metadata={"format": "pt"})
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    changed = TextEncoder(model, cache_dir=cache_dir).encode(FILMS)
    assert sum(encoded) == 20
    assert (changed - original).abs().max() > 0.01


def test_the_folder_comes_from_the_environment_unless_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMREC_CACHE", str(tmp_path / "elsewhere"))
    TextEncoder(MINILM).encode(FILMS[:1])
    assert len(list((tmp_path / "elsewhere" / "embeddings").iterdir())) == 1


def test_no_cache_writes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoded: list[int]
) -> None:
    monkeypatch.setenv("LLMREC_CACHE", str(tmp_path))
    for _ in range(2):
        TextEncoder(MINILM, cache_dir=False).encode(FILMS[:1])
    assert sum(encoded) == 2
    assert list(tmp_path.iterdir()) == []


def test_the_texts_themselves_are_not_stored(tmp_path: Path) -> None:
    TextEncoder(MINILM, cache_dir=tmp_path).encode(["my private diary"])
    (file,) = tmp_path.iterdir()
    assert b"diary" not in file.read_bytes()


def test_an_interrupted_run_keeps_the_batches_that_were_done(
    tmp_path: Path, encoded: list[int]
) -> None:
    def interrupt(module: torch.nn.Module, args: Any, output: Any) -> None:
        if isinstance(module, transformers.BertModel) and len(encoded) == 3:
            raise KeyboardInterrupt

    with (
        torch.nn.modules.module.register_module_forward_hook(interrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        TextEncoder(MINILM, batch_size=2, cache_dir=tmp_path).encode(FILMS)
    encoded.clear()
    TextEncoder(MINILM, batch_size=2, cache_dir=tmp_path).encode(FILMS)
    assert sum(encoded) == 6  # Two batches of two were stored, the third was interrupted.


def test_a_file_that_is_no_database_is_told_deleted_and_made_anew(
    tmp_path: Path, encoded: list[int]
) -> None:
    first = TextEncoder(MINILM, cache_dir=tmp_path).encode(FILMS)
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"not a database " * 1000)
    with pytest.warns(UserWarning, match=r"sqlite is damaged .* encoded again"):
        again = TextEncoder(MINILM, cache_dir=tmp_path).encode(FILMS)
    torch.testing.assert_close(again, first, atol=1e-5, rtol=0)
    assert sum(encoded) == 20
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(TextEncoder(MINILM, cache_dir=tmp_path).encode(FILMS), again)
    assert sum(encoded) == 20


def test_a_folder_that_cannot_be_made_costs_one_warning_and_no_vector(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    encoder = TextEncoder(MINILM, batch_size=2, cache_dir=tmp_path / "file" / "cache")
    with pytest.warns(UserWarning, match="vectors are computed and not kept") as caught:
        vectors = encoder.encode(FILMS)
    assert len(caught) == 1
    expected = TextEncoder(MINILM, cache_dir=False).encode(FILMS)
    torch.testing.assert_close(vectors, expected, atol=1e-5, rtol=0)
