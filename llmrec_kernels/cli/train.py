"""`llmrec-kernels train`: models that are trained in epochs, watched, stopped and gone on with."""

from __future__ import annotations

import json
import shutil
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmrec_kernels.cli import folders, options, tables
from llmrec_kernels.cli.app import app, errors_as_sentences
from llmrec_kernels.cli.making import Model, Words, recommender

if TYPE_CHECKING:
    from llmrec_kernels.training import TrainingReport


class Trained(str, Enum):
    """What is trained in epochs."""

    two_tower = "two-tower"
    sequence = "sequence"
    text_ratings = "text-ratings"


@app.command()
def train(
    ratings: options.Ratings,
    out: options.Out,
    items: Annotated[
        Path | None,
        typer.Option(help=tables.ITEMS + " Those rated when left out, for sequence alone."),
    ] = None,
    users: options.Users = None,
    model: Annotated[Trained, typer.Option(help="What is trained.")] = Trained.two_tower,
    settings: options.Settings = None,
    encoder: options.Encoder = None,
    feature: options.Feature = None,
    epochs: Annotated[int | None, typer.Option(help="Most passes over the examples.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples taken together.")] = None,
    accumulate: Annotated[
        int | None, typer.Option(help="Batches whose gradients are one step.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of AdamW.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Of AdamW.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Epochs without a better validation; 0: never stop early.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="float32, bfloat16, or auto: bfloat16 where it is fast.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of all that is drawn.")] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where training goes on from, should it be interrupted; OUT.checkpoint when left "
            "out, and gone once the model is saved.",
        ),
    ] = None,
) -> None:
    """Train a recommender on files of ratings and items, and save it as a folder.

    Loss and time left are on standard error. Ctrl-C stops at the next step and keeps a checkpoint:
    the same command goes on from there, to the same result. What has no option of its own here is
    the recommender's default.

    Examples: llmrec-kernels train --items items.csv --ratings ratings.csv --out films

    llmrec-kernels train --ratings ratings.csv --model sequence --set network=gru --epochs 30
    --out films

    torchrun --standalone --nproc-per-node 2 -m llmrec_kernels train --items items.csv
    --ratings ratings.csv --out films
    """
    from llmrec_kernels.training.checkpoint import begun
    from llmrec_kernels.training.processes import first_process

    with errors_as_sentences():
        folders.check_new(out)
        folder = out.with_name(out.name + ".checkpoint") if checkpoint is None else checkpoint
        given: dict[str, Any] = {
            "epochs": epochs,
            "batch_size": batch_size,
            "accumulate": accumulate,
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "precision": precision,
            "seed": seed,
        }
        training = {name: value for name, value in given.items() if value is not None}
        if patience is not None:
            training["patience"] = patience or None
        training |= {"checkpoint": str(folder), "progress": True}
        words = Words(
            Model(model.value),
            [*(settings or []), f"training={json.dumps(training)}"],
            [],
            False,
            encoder,
            feature or [],
        )
        files = tables.read(ratings, items, users)
        made: Any = recommender(words, files.items)
        first = first_process()  # of several, one tells and saves
        if first:
            tables.note(f"training {model.value} on {len(files.interactions):,} ratings")
        try:
            made.fit(files.interactions, files.items, files.users)
        except KeyboardInterrupt:
            tables.note(
                f"stopped; what was learned is in {folder}: the same command goes on from there"
                if begun(folder)
                else "stopped before anything was learned"
            )
            raise typer.Exit(130) from None
        if first:
            folders.save(made, out, folders.titles_of(files.items))
            if checkpoint is None:
                shutil.rmtree(folder, ignore_errors=True)
            tables.note(_told(made.training_report))
            typer.echo(folders.told(made, out))


def _told(report: TrainingReport | None) -> str:
    """How training went, in one line."""
    if report is None or not report.epochs:
        return "nothing to train on: answered by what is popular"
    best = report.epochs[report.best_epoch - 1]
    validation = "" if best.validation is None else f", validation {best.validation:.4f}"
    early = ", stopped early" if report.stopped_early else ""
    return (
        f"trained: {len(report.epochs)} epochs in {report.seconds:.1f} s{early}; "
        f"the best is epoch {report.best_epoch}: loss {best.loss:.4f}{validation}"
    )
