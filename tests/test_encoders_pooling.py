"""Pooling of token vectors, the files that name it, and the batches that the tokens come in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmrec_kernels.encoders.pooling import POOLINGS, Pooling, pool, pooling_of
from llmrec_kernels.encoders.text import _batches

REDUCE = {
    "mean": lambda tokens: tokens.sum(0) / len(tokens),
    "cls": lambda tokens: tokens[0],
    "last": lambda tokens: tokens[-1],
    "max": lambda tokens: tokens.max(0).values,
}


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    left=st.booleans(),
    pooling=st.sampled_from(POOLINGS),
    seed=st.integers(0, 2**32 - 1),
)
def test_padding_never_counts_on_either_side_whatever_it_holds(
    lengths: list[int], left: bool, pooling: Pooling, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    texts = [torch.randn(length, 3, generator=random) for length in lengths]
    longest = max(lengths)
    hidden = torch.full((len(texts), longest, 3), torch.nan)
    mask = torch.zeros(len(texts), longest, dtype=torch.int64)
    for row, text in enumerate(texts):
        place = slice(longest - len(text), longest) if left else slice(0, len(text))
        hidden[row, place] = text
        mask[row, place] = 1
    expected = torch.stack([REDUCE[pooling](text) for text in texts])
    torch.testing.assert_close(pool(hidden, mask, pooling), expected)


def sentence_transformers_folder(folder: Path, pooling: dict[str, Any], *more: str) -> Path:
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    types = [("", "Transformer"), ("1_Pooling", "Pooling"), *((f"2_{name}", name) for name in more)]
    modules = [{"path": p, "type": f"sentence_transformers.models.{name}"} for p, name in types]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"word_embedding_dimension": 8, "pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode_max_tokens": True, "include_prompt": True}, "max"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": "lasttoken"}, "last"),
    ],
)
def test_pooling_is_read_from_the_sentence_transformers_files(
    tmp_path: Path, config: dict[str, Any], expected: str
) -> None:
    assert pooling_of(sentence_transformers_folder(tmp_path, config)) == expected


def test_pooling_is_the_mean_where_no_file_says_otherwise(tmp_path: Path) -> None:
    assert pooling_of(tmp_path) == "mean"


def test_pooling_of_a_kind_not_offered_is_refused_with_the_choices(tmp_path: Path) -> None:
    both = {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}
    with pytest.raises(ValueError, match=r"mean \+ max.*pass pooling= one of 'mean', 'cls'"):
        pooling_of(sentence_transformers_folder(tmp_path, both))


def test_a_dense_layer_that_is_not_applied_is_told(tmp_path: Path) -> None:
    folder = sentence_transformers_folder(tmp_path, {"pooling_mode_mean_tokens": True}, "Dense")
    with pytest.warns(UserWarning, match="Dense, which TextEncoder does not apply"):
        assert pooling_of(folder) == "mean"


# Batches


@given(
    lengths=st.lists(st.integers(0, 20_000), max_size=50),
    batch_size=st.integers(1, 70),
)
def test_batches_hold_each_text_once_within_size_and_token_budget(
    lengths: list[int], batch_size: int
) -> None:
    batches = list(_batches(lengths, batch_size))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[i] for i in batch)
        assert len(batch) <= batch_size
        assert len(batch) == 1 or len(batch) * longest <= 16_384
