"""Mistakes at the verbs of models: one sentence each, and nothing on the disk is changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cli_files import RATINGS, TITLES, ratings_frame, run, write_files

pytest.importorskip("pyarrow", reason="pyarrow is not installed")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files, and it is the current one."""
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# What is wrong, and words that the sentence must hold.
MISTAKES = {
    "fit": [
        (("--out", "new", "--ratings", "none.csv"), "there is no file none.csv"),
        (("--out", "no/new"), "--out is no/new, but there is no folder no"),
        (("--out", "items.csv"), "--out is items.csv, which is a file"),
        (("--out", "."), "which has files but no model"),
        (("--set", "regularisation=5"), "ease takes regularization=200.0, half_life=null"),
        (("--set", "regularization"), "--set is 'regularization'; expected NAME=VALUE"),
        (("--set", "regularization=-5"), "regularization is -5; expected more than 0"),
        (("--set", "regularization=much"), "regularization is 'much'; expected a number"),
        (("--set", "half_life=5", "--set", "half_life=6"), "--set has half_life twice"),
        (("--model", "content", "--set", "centre=1"), "--set centre is '1'; expected true or"),
        (("--part", "als=2"), "--part is for --model hybrid; got --model ease"),
        (("--adaptive",), "--adaptive is for --model hybrid; got --model ease"),
        (("--model", "hybrid", "--part", "als=2"), "parts has 1 recommenders; expected two"),
        (("--model", "hybrid", "--part", "svd"), "--part is 'svd'; expected one of content"),
        (("--model", "hybrid", "--part", "als=x", "--part", "ease"), "als has the weight 'x'"),
        (("--model", "hybrid", "--part", "als=-1", "--part", "ease"), "weights['als'] is -1.0"),
        (("--model", "hybrid", "--set", "als.seed=1"), "--set has 'als.seed'; hybrid takes fusion"),
        (("--encoder", "any"), "--encoder is for models that read the items"),
        (("--feature", "genres"), "--feature is for models that read the items"),
        (("--model", "content", "--encoder", "./none"), "none"),
        (("--model", "content", "--feature", "colour"), "the items have title, year, genres"),
        (("--model", "content", "--feature", "genres=x"), "genres has the weight 'x'"),
    ],
    "recommend": [
        (("--user", 77), "--user 77 is not in model, of which the 4 users are 1, 2, 3, 4"),
        (("--exclude", "A"), "--exclude A is not in model, of which the 5 items are 10, 20"),
        (("--allow", 11), "--allow 11 is not in model"),
        (("--liked", 11), "--liked 11 is not in model"),
        (("--liked", 20, "--user", 1), "--text and --liked are for someone the model does not"),
        (("--text", "crime"), "--text is for a model that reads texts"),
        (("--items", "items.csv"), "--from has a model; leave out --items"),
        (("--encoder", "./none"), "none"),
        (("--output", "best.xml"), ".csv or .json"),
        (("--from", "none"), "there is no model in none"),
    ],
    "similar": [
        (("--item", 11), "--item 11 is not in model"),
        (("--part", "als"), "--part is 'als'; the parts of this EASERecommender are none"),
        (("--output", "no/best.csv"), "there is no folder no"),
        (("--from", "popular"), "PopularityRecommender does not compare items"),
        (("--from", "hybrid"), "a hybrid compares no items; ask one of its parts: --part ease"),
    ],
    "explain": [
        (("--user", 77), "--user 77 is not in model"),
        (("--item", "Heat"), "--item Heat is not in model"),
        (("--from", "hybrid", "--part", "content"), "of this HybridRecommender are ease, als"),
        (("--from", "popular"), "PopularityRecommender does not score by what a user took"),
        (("--output", "why.txt"), ".csv or .json"),
    ],
    "update": [
        (("--ratings", "none.csv"), "there is no file none.csv"),
        (("--ratings", "others.csv"), "no item of others.csv is among the 5 of the model"),
        (("--ratings", "words.csv"), "nothing of words.csv is left to take in"),
        (("--from", "none"), "there is no model in none"),
        (("--from", "damaged"), "is damaged"),
    ],
}  # fmt: skip
# The same without a mistake: what is wrong comes behind it, and the last of an option counts.
RIGHT = {
    "fit": ("--items", "items.csv", "--ratings", "ratings.csv", "--model", "ease", "--out", "new"),
    "recommend": ("--from", "model"),
    "similar": ("--from", "model", "--item", 20),
    "explain": ("--from", "model", "--user", 1, "--item", 50),
    "update": ("--from", "model", "--ratings", "later.csv"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Saved models, made once and copied for each mistake."""
    from llmrec_kernels.recommenders import (
        ALSRecommender,
        EASERecommender,
        HybridRecommender,
        PopularityRecommender,
    )

    folder, items = tmp_path_factory.mktemp("models"), pd.DataFrame({"item": list(TITLES)})
    parts = {"ease": EASERecommender(), "als": ALSRecommender(2)}
    for name, model in {
        "model": EASERecommender(),
        "popular": PopularityRecommender(),
        "hybrid": HybridRecommender(parts),
        "damaged": PopularityRecommender(),
    }.items():
        model.fit(ratings_frame(RATINGS), items).save(folder / name)
    (folder / "damaged" / "titles.json").write_text('{"10": "Toy')
    return folder


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("verb", "wrong", "words"),
    [(verb, wrong, words) for verb, some in MISTAKES.items() for wrong, words in some],
)
def test_a_mistake_is_one_sentence_and_changes_nothing(
    files: Path, models: Path, verb: str, wrong: tuple[Any, ...], words: str
) -> None:
    for path, content in bytes_of(models).items():
        copy = files / Path(path).relative_to(models)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(content)
    (files / "others.csv").write_text("user,item\n1,77\n")
    (files / "words.csv").write_text("user,item\nann,20\n")
    before = bytes_of(files)
    result = run(verb, *RIGHT[verb], *wrong)
    assert result.exit_code == 1, result.output
    sentence = result.stderr.strip().splitlines()[-1]
    assert sentence.startswith("llmrec-kernels: ")
    assert words in sentence
    assert result.stdout == ""
    assert "Traceback" not in result.output
    assert bytes_of(files) == before
    assert not (files / "new").exists()


def test_what_is_missing_from_files_is_said(files: Path) -> None:
    result = run("recommend", "--items", "items.csv")
    assert (result.exit_code, "nothing to recommend from" in result.stderr) == (1, True)
    result = run("fit", "--ratings", "ratings.csv", "--out", "new")
    assert (result.exit_code, "there are no --items, whose texts" in result.stderr) == (1, True)
