"""Files of ratings and items in, tables out."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from llmrec_kernels._files import write_text

if TYPE_CHECKING:
    import pandas as pd

ENDINGS = (".csv", ".json")
RATINGS = "CSV or Parquet of ratings: columns user, item; rating and timestamp if there are any."
ITEMS = "CSV or Parquet of items: column item, and title or text; genres (a|b) if there are any."
_WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,18}")  # as Python writes those of int64

Output = Annotated[
    Path | None,
    typer.Option(help="File to write, .csv or .json; standard output as CSV when left out."),
]


class Files(NamedTuple):
    """What there is to fit a model on."""

    interactions: pd.DataFrame
    items: pd.DataFrame | None
    users: pd.DataFrame | None


def read(ratings: Path, items: Path | None, users: Path | None = None) -> Files:
    """Read the files; ratings of items that are not listed are left out and counted."""
    from llmrec_kernels.datasets import read_dataset, read_ratings, read_users

    if items is not None:
        data = read_dataset(ratings, items, users)
        listed = data.interactions["item"].isin(data.items["item"])
        if not listed.all():
            note(f"{(~listed).sum()} ratings of items not in {items} are left out")
        return Files(data.interactions[listed], data.items, data.users)
    interactions = read_ratings(ratings)
    known = None if users is None else read_users(users)
    if known is not None and known["user"].dtype != interactions["user"].dtype:
        # As `read_dataset` has it: nothing is lost on the way from an integer to a string.
        known["user"] = known["user"].astype(str)
        interactions["user"] = interactions["user"].astype(str)
    return Files(interactions, None, known)


def spelt_as(column: pd.Series[Any], ids: Sequence[Any]) -> pd.Series[Any]:
    """Ids of a file in the kind of the model's: strings or integers.

    A file of nothing but whole numbers reads as integers, and any other id in it makes strings of
    all. Among integers, None stands for a string that is no whole number.
    """
    if len(ids) and isinstance(ids[0], str):
        return column.astype(str)
    if not len(ids) or column.dtype.kind == "i":
        return column
    numbers = [int(one) if _WHOLE_NUMBER.fullmatch(one) else None for one in column]
    return column.__class__(numbers, index=column.index, dtype=object)


def write(frame: pd.DataFrame, output: Path | None) -> None:
    """Write a table whole or not at all."""
    if output is None:
        frame.to_csv(sys.stdout, index=False)
        return
    as_json = output.suffix == ".json"
    text = frame.to_json(orient="records", indent=1) if as_json else frame.to_csv(index=False)
    write_text(text, output)


def note(sentence: str) -> None:
    """Tell on standard error what is not the answer."""
    typer.echo(sentence, err=True)
