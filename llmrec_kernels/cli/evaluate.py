"""`llmrec-kernels evaluate`: the studies on public data, or models on one's own."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmrec_kernels._files import write_text
from llmrec_kernels.cli.app import app, checked_output, errors_as_sentences
from llmrec_kernels.cli.making import READERS, Model, Words, recommender

if TYPE_CHECKING:
    import pandas as pd

    from llmrec_kernels.recommenders import Recommender


class Split(str, Enum):
    """What is held out of one's own ratings."""

    last = "last"
    ratio = "ratio"
    time = "time"
    random = "random"


@app.command()
def evaluate(
    study: Annotated[
        list[str] | None,
        typer.Option(help="Study to run; repeat for more. All when left out."),
    ] = None,
    ratings: Annotated[
        Path | None,
        typer.Option(help="Your own ratings, CSV or Parquet, instead of the studies."),
    ] = None,
    items: Annotated[
        Path | None, typer.Option(help="Your own items, CSV or Parquet; with --ratings.")
    ] = None,
    model: Annotated[
        list[Model] | None,
        typer.Option(help="With --ratings: what to compare; repeat for more. All when left out."),
    ] = None,
    split: Annotated[
        Split,
        typer.Option(
            help="With --ratings: hold out each user's last, a fifth of each user's, all after a "
            "moment, or a fifth at random."
        ),
    ] = Split.last,
    encoder: Annotated[
        str | None, typer.Option(help="With --ratings: text encoder of content and aligned.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="With --ratings: length of lists.")] = 10,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Page to write: docs/results.md for studies; standard output for your own "
            "ratings, or .csv, .json or .md.",
        ),
    ] = None,
) -> None:
    """Measure how well recommenders predict, and write docs/results.md.

    Example: llmrec-kernels evaluate --study cold-items --out results.md
    Example: llmrec-kernels evaluate --ratings ratings.csv --items items.csv --model ease
    """
    with errors_as_sentences():
        if ratings is None and items is None:
            _studies(study, out or Path("docs/results.md"))
        elif ratings is None or items is None:
            raise ValueError("--ratings and --items go together; give both, or neither")
        elif study:
            raise ValueError("--study is on public data; leave it out, or --ratings and --items")
        else:
            _own(ratings, items, model or list(Model), split, encoder, k, out)


def _studies(names: list[str] | None, out: Path) -> None:
    from llmrec_kernels.studies import page

    checked_output("--out", out, (".md",))
    unknown = [name for name in names or [] if name not in page.STUDIES]
    if unknown:
        raise ValueError(f"--study is {unknown[0]!r}; expected one of {', '.join(page.STUDIES)}")
    studies, left_out = page.run(names or page.STUDIES, lambda line: typer.echo(line, err=True))
    if not studies:
        raise ValueError(f"no study could be run: {left_out[0]}")
    page.write(studies, left_out, out)
    typer.echo(f"wrote {out}", err=True)


def _own(
    ratings: Path,
    items: Path,
    rankers: list[Model],
    split: Split,
    encoder: str | None,
    k: int,
    out: Path | None,
) -> None:
    from llmrec_kernels import evaluation
    from llmrec_kernels.datasets import read_dataset

    if out is not None:
        checked_output("--out", out, (".csv", ".json", ".md"))
    data = read_dataset(ratings, items)
    listed = data.interactions["item"].isin(data.items["item"])
    if not listed.all():
        typer.echo(f"{(~listed).sum()} ratings of items not in {items} are left out", err=True)
    parts: dict[Split, Callable[[pd.DataFrame], tuple[pd.DataFrame, pd.DataFrame]]] = {
        Split.last: evaluation.leave_last_out,
        Split.ratio: evaluation.ratio_split,
        Split.time: lambda frame: evaluation.time_split(frame, test_ratio=0.2),
        Split.random: lambda frame: evaluation.random_split(frame, 0.2),
    }
    train, test = parts[split](data.interactions[listed])
    models: dict[str, Recommender[Any]] = {}
    for ranker in rankers:
        typer.echo(f"{ranker.value} ...", err=True)
        reads = ranker in (*READERS, Model.hybrid)
        words = Words(ranker, [], [], False, encoder if reads else None, [])
        models[ranker.value] = recommender(words, data.items).fit(train, data.items)
    baseline = rankers[0].value if len(rankers) > 1 else None
    table = evaluation.compare(models, train, test, baseline=baseline, k=k, items=data.items)
    _write(table.rename_axis("model").reset_index(), out)


def _write(table: pd.DataFrame, out: Path | None) -> None:
    from llmrec_kernels.studies import Study, Table

    if out is None:
        typer.echo(table.to_string(index=False, float_format=lambda one: f"{one:.4f}"))
    elif out.suffix == ".md":
        frame = table.set_index("model")
        write_text(Study("Models on your own ratings", "", [Table("", frame, 4)]).markdown(), out)
    elif out.suffix == ".csv":
        write_text(table.to_csv(index=False), out)
    else:
        write_text(table.to_json(orient="records", indent=1), out)
