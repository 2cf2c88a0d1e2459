"""The command line as its users meet it: real files, real exit codes, sentences for mistakes."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest
from typer.testing import CliRunner

from llmrec_kernels.cli import app

ITEMS = """item,title,genres
toy,Toy Story (1995),Animation|Comedy
heat,Heat (1995),Action|Crime
gold,GoldenEye (1995),Action|Thriller
babe,Babe (1995),Children|Comedy
casino,Casino (1995),Crime|Drama
"""
RATINGS = """user,item,rating,timestamp
ann,toy,5,1
ann,heat,1,2
bob,heat,5,1
bob,casino,4,2
cy,heat,4,3
"""


@pytest.fixture
def files(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LLMREC_CACHE", str(tmp_path_factory.mktemp("cache")))
    (tmp_path / "items.csv").write_text(ITEMS)
    (tmp_path / "ratings.csv").write_text(RATINGS)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def recommend(files, *more):
    return run(
        "recommend", "--items", files / "items.csv", "--ratings", files / "ratings.csv", *more
    )


@pytest.mark.parametrize(
    "command", [(), ("demo",), ("info",), ("recommend",), ("profile",), ("bench",)]
)
def test_help_is_there_for_every_command(command):
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_info_prints_json_when_asked():
    result = run("info", "--json")
    assert result.exit_code == 0
    assert "cosine_topk" in json.loads(result.output)["backends"]


def test_recommend_ranks_unseen_items_for_everyone(files):
    result = recommend(files, "--model", "popularity", "-k", 2, "--output", files / "out.csv")
    assert result.exit_code == 0, result.output
    ranked = pd.read_csv(files / "out.csv")
    assert ranked.columns.tolist() == ["user", "rank", "item", "title", "score"]
    assert ranked.user.unique().tolist() == ["ann", "bob", "cy"]
    assert ranked.groupby("user")["rank"].apply(list).tolist() == [[1, 2]] * 3
    rated = pd.read_csv(files / "ratings.csv")
    assert not len(ranked.merge(rated, on=["user", "item"]))
    assert ranked[ranked.user == "ann"].item.tolist()[0] == "casino"
    assert ranked[ranked.user == "ann"].title.tolist()[0] == "Casino (1995)"


def test_recommend_from_texts_writes_json_for_one_user(files):
    result = recommend(files, "--user", "bob", "-k", 3, "--output", files / "out.json")
    assert result.exit_code == 0, result.output
    ranked = json.loads((files / "out.json").read_text())
    assert [row["user"] for row in ranked] == ["bob"] * 3
    assert {row["item"] for row in ranked} == {"toy", "gold", "babe"}
    assert ranked[0]["item"] == "gold"  # the action thriller is nearest to Heat and Casino
    assert ranked[0]["score"] >= ranked[1]["score"] >= ranked[2]["score"]


def test_recommend_prints_csv_without_an_output(files):
    result = recommend(files, "--model", "popularity", "--user", "cy", "-k", 1)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "user,rank,item,title,score"
    assert result.stdout.splitlines()[1].startswith("cy,1,toy,Toy Story (1995),")


def test_ratings_of_items_that_are_not_listed_are_left_out_and_counted(files):
    with (files / "ratings.csv").open("a") as ratings:
        ratings.write("cy,sold out,5,9\n")
    result = recommend(files, "--model", "popularity", "--user", "cy", "-k", 1)
    assert result.exit_code == 0, result.output
    assert "1 ratings of items not in" in result.stderr
    assert result.stdout.splitlines()[1].startswith("cy,1,toy,")


def test_seen_items_come_back_when_asked_for(files):
    result = recommend(files, "--model", "popularity", "--user", "cy", "-k", 1, "--seen")
    assert result.stdout.splitlines()[1].startswith("cy,1,heat,")


# The arguments that are wrong, and words that the sentence must hold.
MISTAKES = {
    "a column that differs in its capitals": (("--ratings", "capitals.csv"), "no column rating"),
    "a rating that is no number": (("--ratings", "words.csv"), "line 2"),
    "a file that is not there": (("--items", "none.csv"), "none.csv"),
    "a user that nobody knows": (("--user", "zoe"), "--user zoe is not in the ratings"),
    "an output of no known kind": (("--output", "out.xml"), ".csv or .json"),
    "an output in no folder": (("--output", "no/out.csv"), "no folder"),
    "a model that does not exist": (("--encoder", "./no-model"), "no-model"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_and_a_non_zero_exit(files, mistake, monkeypatch):
    monkeypatch.chdir(files)
    (files / "capitals.csv").write_text("user,item,Rating\nann,toy,5\n")
    (files / "words.csv").write_text("user,item,rating\nann,toy,good\n")
    arguments, words = MISTAKES[mistake]
    before = sorted(path.name for path in files.iterdir())
    result = recommend(files, *arguments)
    assert result.exit_code == 1
    sentence = result.stderr.strip()
    assert sentence.startswith("llmrec-kernels: ")
    assert words in sentence
    assert "Traceback" not in result.output
    assert sorted(path.name for path in files.iterdir()) == before, "something was half written"


def test_a_failed_write_leaves_the_old_file(files, monkeypatch):
    output = files / "out.csv"
    output.write_text("old")
    monkeypatch.setattr(pd.DataFrame, "to_csv", lambda *a, **k: 1 / 0)
    result = recommend(files, "--model", "popularity", "--output", output)
    assert result.exit_code != 0
    assert output.read_text() == "old"
    assert not list(files.glob(".out.csv.*"))


def test_the_installed_command_exits_as_it_says(files):
    command = [sys.executable, "-c", "from llmrec_kernels.cli import main; main()"]
    bad = subprocess.run(
        [*command, "recommend", "--items", "none.csv", "--ratings", str(files / "ratings.csv")],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert bad.returncode == 1
    assert bad.stdout == ""
    assert "none.csv" in bad.stderr
    assert "Traceback" not in bad.stderr
