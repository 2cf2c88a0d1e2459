"""`llmrec-kernels demo` and `info`: what this is, and what it finds here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from llmrec_kernels.cli.app import app, errors_as_sentences


@app.command()
def demo(
    users: Annotated[
        int, typer.Option(min=1, help="For how many people to show recommendations.")
    ] = 3,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of MovieLens-100K; found or downloaded when left out."),
    ] = None,
) -> None:
    """Recommend films from real ratings with real text embeddings, and show what it cost.

    Loads MovieLens-100K, encodes the films' titles and genres with a sentence encoder, recommends
    for a few people and says why, compares with popularity on held-out ratings, and prints the
    time, operations and bytes of each step.
    """
    with errors_as_sentences():
        from llmrec_kernels.demo import run

        run(people=users, data=data)


@app.command()
def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show versions, devices, which backend each operator takes and why, and what is missing."""
    with errors_as_sentences():
        from llmrec_kernels.info import collect, render

        found = collect()
        typer.echo(json.dumps(found, indent=2) if as_json else render(found))
