"""The verbs that write: describe, and explain with --lm, by the real SmolLM2."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from cli_files import done, fit, run, write_files

from llmrec_kernels.encoders import bundled_encoder_path
from llmrec_kernels.language import LanguageModel, bundled_language_model_path, unsupported

pytest.importorskip("pyarrow", reason="pyarrow is not installed")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files, and it is the current one."""
    try:
        LanguageModel(bundled_language_model_path())
    except (OSError, ImportError) as error:
        pytest.skip(str(error))
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_described_items_are_a_file_of_items_whose_texts_say_only_what_the_columns_say(
    files: Path,
) -> None:
    two = pd.read_csv("items.csv").head(2)
    two.to_csv("two.csv", index=False)
    done("describe", "--items", "two.csv", "--noun", "film", "--output", "described.csv")
    described = pd.read_csv("described.csv")
    assert described.item.tolist() == two.item.tolist()
    assert described.genres.tolist() == two.genres.tolist()
    for row in described.itertuples():
        facts = {"title": row.title, "year": row.year, "genres": row.genres, "kind": "film"}
        assert unsupported(row.text.replace("Genres:", ""), facts) == []
    assert set(described.described_by) <= {"model", "template"}
    assert described.completion.str.len().min() > 0
    done("fit", "--items", "described.csv", "--ratings", "ratings.csv", "--model", "ease",
         "--out", "model")  # fmt: skip


def test_a_template_needs_no_model(files: Path) -> None:
    done("describe", "--items", "items.csv", "--noun", "film", "--template", "--output", "by.json")
    described = pd.read_json("by.json")
    assert set(described.described_by) == {"template"}
    assert "Toy Story is a film of 1995." in described.text[0]


def test_an_explanation_is_told_in_a_sentence_of_its_facts(files: Path) -> None:
    fit("content")
    ask = ("explain", "--from", "model", "--user", 4, "--item", 20, "--lm", "--noun", "film")
    said = done(*ask, "--verb", "watched", "--items", "items.csv").stdout.splitlines()[0]
    assert "Heat" in said
    assert said.endswith(("(model)", "(template)"))
    facts = {"recommended": "Heat", "watched": "GoldenEye", "shared genres": "Action"}
    assert unsupported(said.rsplit("  (", 1)[0], facts) == []


MISTAKES = [
    (("describe", "--items", "none.csv", "--output", "o.csv"), "there is no file none.csv"),
    (("describe", "--items", "items.csv", "--output", "o.txt"), "expected a name that ends in"),
    (
        ("describe", "--items", "items.csv", "--output", "o.csv", "--column", "colour"),
        "columns has 'colour'",
    ),
    (
        ("describe", "--items", "items.csv", "--output", "o.csv", "--language-model", "./none"),
        "none",
    ),
    (
        ("explain", "--from", "model", "--user", 4, "--item", 20, "--items", "items.csv"),
        "--items is for --lm; give that too",
    ),
    (
        ("explain", "--from", "model", "--user", 4, "--item", 20, "--lm", "--output", "o.csv"),
        "--output with --lm is o.csv; expected a name that ends in .json",
    ),
    (
        ("explain", "--from", "model", "--user", 4, "--item", 20, "--lm", "--verb", "ate"),
        "--verb is 'ate'; expected one of bought, chose",
    ),
]


@pytest.mark.parametrize(("words", "told"), MISTAKES, ids=[one[1] for one in MISTAKES])
def test_a_mistake_is_a_sentence(files: Path, words, told) -> None:
    result = run(*words)
    assert result.exit_code == 1
    assert told in result.stderr
    assert not Path("o.csv").exists()


def test_an_encoder_is_not_asked_to_write(files: Path) -> None:
    words = ("describe", "--items", "items.csv", "--output", "o.csv", "--language-model")
    result = run(*words, bundled_encoder_path())
    assert result.exit_code == 1
    assert "causal" in result.stderr
    assert not Path("o.csv").exists()
