"""`llmrec-kernels evaluate`: models on one's own ratings, and the page of studies."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from llmrec_kernels.cli import app
from llmrec_kernels.datasets import DatasetNotFoundError
from llmrec_kernels.studies import Picture, Study, Table, page


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """Ratings of twelve people for twenty things, in files of the current folder."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(3)
    rows = [(u, int(i)) for u in range(12) for i in draw.choice(20, 8, replace=False)]
    ratings = pd.DataFrame(rows, columns=["user", "item"])
    ratings = ratings.assign(rating=draw.integers(1, 6, len(rows)), timestamp=range(len(rows)))
    ratings.to_csv("ratings.csv", index=False)
    things = pd.DataFrame({"item": range(20), "title": [f"thing {one}" for one in range(20)]})
    things.to_csv("items.csv", index=False)
    return ratings


OWN = ("evaluate", "--ratings", "ratings.csv", "--items", "items.csv")


def test_popularity_on_ones_own_ratings_is_what_counting_says(shop):
    result = run(*OWN, "--model", "popularity", "-k", 3, "--out", "table.csv")
    assert result.exit_code == 0, result.output
    hits = []
    for user, rows in shop.groupby("user"):
        last = rows.sort_values("timestamp").item.iloc[-1]
        train = shop.drop(shop[shop.timestamp.isin(shop.groupby("user").timestamp.max())].index)
        seen = set(train.item[train.user == user])
        counts = Counter(train.item)
        ranked = sorted(set(range(20)) - seen, key=lambda item: (-counts[item], item))
        hits.append(last in ranked[:3])
    found = pd.read_csv("table.csv").set_index("metric")
    assert found.loc["HR@3", "mean"] == pytest.approx(np.mean(hits))


@pytest.mark.parametrize("split", ["last", "ratio", "time", "random"])
def test_models_are_compared_with_the_first_on_each_split(shop, split):
    result = run(*OWN, "--model", "ease", "--model", "item-knn", "--split", split)
    assert result.exit_code == 0, result.output
    assert "metrics\n" in result.stdout
    assert "less ease\n" in result.stdout
    assert "NDCG@10" in result.stdout
    assert "head" in result.stdout  # whose places in the lists


def test_metrics_come_by_group_of_users_with_the_largest_gap(shop):
    users = pd.DataFrame({"user": range(12), "kind": ["new", "old"] * 6})
    users.to_csv("users.csv", index=False)
    options = ("--model", "popularity", "--metric", "ndcg", "--users", "users.csv")
    result = run(*OWN, *options, "--group", "kind", "--out", "table.json")
    assert result.exit_code == 0, result.output
    gap = json.loads(Path("table.json").read_text())["largest gap between groups by kind"][0]
    assert {gap["highest"], gap["lowest"]} == {"new", "old"}
    assert gap["low"] <= gap["difference"] <= gap["high"]


def test_models_that_read_no_text_need_no_items(shop):
    result = run("evaluate", "--ratings", "ratings.csv", "--metric", "ndcg")
    assert result.exit_code == 0, result.output
    models = {line.split()[0] for line in result.stdout.splitlines() if "NDCG@10" in line}
    assert models == {"popularity", "item-knn", "user-knn", "ease", "als"}


def test_a_table_can_be_a_page_or_json(shop):
    for ending in ("md", "json"):
        result = run(*OWN, "--model", "popularity", "--out", f"table.{ending}")
        assert result.exit_code == 0, result.output
    assert "| popularity | HR@10 |" in Path("table.md").read_text()
    assert json.loads(Path("table.json").read_text())["metrics"][0]["model"] == "popularity"


BAD = {
    "a file that is not there": (
        ("evaluate", "--ratings", "no.csv", "--items", "items.csv"),
        "no.csv",
    ),
    "items alone": (("evaluate", "--items", "items.csv"), "are for your own --ratings"),
    "a part of the page without a page": (
        ("evaluate", "--study", "ratings"),
        "--study makes a part of the page; give --out",
    ),
    "a group without users": ((*OWN, "--group", "kind"), "--users and --group go together"),
    "a metric that there is not": ((*OWN, "--metric", "magic"), "metrics must be among"),
    "texts that are not there": (
        ("evaluate", "--ratings", "ratings.csv", "--model", "content"),
        "there are no --items, whose texts content reads",
    ),
    "a study that there is not": (
        ("evaluate", "--study", "magic", "--out", "page.md"),
        "--study is 'magic'; expected one of known-items",
    ),
    "a page that is no page": (
        ("evaluate", "--study", "ratings", "--out", "page.pdf"),
        "--out is page.pdf; expected a name that ends in .md",
    ),
    "a folder that is not there": (
        ("evaluate", "--study", "ratings", "--out", "no/page.md"),
        "there is no folder no",
    ),
    "studies on one's own ratings": ((*OWN, "--study", "ratings"), "--study is on public data"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_done_is_a_sentence(shop, case):
    arguments, message = BAD[case]
    result = run(*arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not Path("page.md").exists()


def drawn() -> Any:
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot([1, 2])
    return figure


def found() -> Study:
    frame = pd.DataFrame({"NDCG@10": [0.25, -0.5], "users": [1200, 7]}, index=["a", "b"])
    picture = Picture("line", "a line", drawn)
    return Study("A question", "How it was put.", [Table("A table.", frame)], [picture], "So.")


def absent() -> Study:
    raise DatasetNotFoundError("ml-none is not here")


def test_the_page_has_each_study_its_pictures_and_what_was_left_out(shop, monkeypatch):
    monkeypatch.setattr(page, "STUDIES", {"one": found, "two": absent})
    result = run("evaluate", "--out", "results.md")
    assert result.exit_code == 0, result.output
    text = Path("results.md").read_text(encoding="utf-8")
    assert "## A question" in text
    assert "| a | .250 | 1,200 |" in text
    assert "| b | -.500 | 7 |" in text
    assert "![a line](results/line.svg)" in text
    assert "two: left out; ml-none is not here" in result.stderr
    first = Path("results/line.svg").read_bytes()
    assert b"<svg" in first
    assert run("evaluate", "--study", "one", "--out", "results.md").exit_code == 0
    assert Path("results/line.svg").read_bytes() == first


def test_a_study_takes_its_place_on_the_page_and_the_others_stay(shop, monkeypatch):
    def other(text):
        return lambda: Study("Another question", text, [])

    monkeypatch.setattr(page, "STUDIES", {"one": other("It was so."), "two": found})
    assert run("evaluate", "--study", "two", "--out", "results.md").exit_code == 0
    assert run("evaluate", "--study", "one", "--out", "results.md").exit_code == 0
    first = Path("results.md").read_text(encoding="utf-8")
    assert first.index("## Another question") < first.index("## A question")
    monkeypatch.setattr(page, "STUDIES", {"one": other("It is else."), "two": found})
    assert run("evaluate", "--study", "one", "--out", "results.md").exit_code == 0
    again = Path("results.md").read_text(encoding="utf-8")
    assert again == first.replace("It was so.", "It is else.")
    assert again.count("Made on") == 2
    assert run("evaluate", "--out", "whole.md").exit_code == 0
    assert Path("whole.md").read_text(encoding="utf-8") == again.replace("results/", "whole/")


def test_no_page_is_written_where_no_study_could_be_run(shop, monkeypatch):
    monkeypatch.setattr(page, "STUDIES", {"two": absent})
    result = run("evaluate", "--out", "results.md")
    assert result.exit_code == 1
    assert "no study could be run: two: ml-none is not here" in result.stderr
    assert not Path("results.md").exists()
