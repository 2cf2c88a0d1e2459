"""Small files of ratings and items for tests of the command line, and the ways to call it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from typer.testing import CliRunner

from llmrec_kernels.cli import app

TITLES = {
    10: "Toy Story (1995)",
    20: "Heat (1995)",
    30: "GoldenEye (1995)",
    40: "Babe (1995)",
    50: "Casino (1995)",
}
GENRES = ["Animation|Comedy", "Action|Crime", "Action|Thriller", "Children|Comedy", "Crime|Drama"]
RATINGS = [(1, 10, 5), (1, 20, 1), (2, 20, 5), (2, 50, 4), (3, 20, 4), (3, 10, 2), (4, 30, 5)]
LATER = [(5, 40, 5), (1, 40, 4)]


def ratings_frame(rows: list[tuple[int, int, int]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["user", "item", "rating"])
    return frame.assign(timestamp=range(1, len(rows) + 1))


def write_files(folder: Path) -> None:
    """Items, users, ratings and later ratings, in both formats."""
    items = pd.DataFrame({"item": list(TITLES), "title": list(TITLES.values()), "genres": GENRES})
    items["price"] = [3.5, 4.0, 4.0, 2.0, np.nan]
    for name, frame in {
        "items": items,
        "ratings": ratings_frame(RATINGS),
        "later": ratings_frame(LATER),
        "all": ratings_frame(RATINGS + LATER),
        "users": pd.DataFrame({"user": [1, 2, 3, 4, 9]}),
    }.items():
        frame.to_csv(folder / f"{name}.csv", index=False)
        frame.to_parquet(folder / f"{name}.parquet")


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def done(*arguments: Any) -> Any:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def table(*arguments: Any) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(done(*arguments).stdout))


def fit(model: str, *more: Any, out: str = "model", ending: str = "csv") -> Any:
    files = ("--items", f"items.{ending}", "--ratings", f"ratings.{ending}")
    return done("fit", *files, "--model", model, "--out", out, *more)
