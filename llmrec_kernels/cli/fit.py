"""`llmrec-kernels fit` and `update`: models that learn from files, saved as folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmrec_kernels.cli import folders, options, tables
from llmrec_kernels.cli.app import app, errors_as_sentences
from llmrec_kernels.cli.making import Model, Words, recommender


@app.command()
def fit(
    ratings: options.Ratings,
    out: options.Out,
    items: Annotated[
        Path | None,
        typer.Option(help=tables.ITEMS + " Those rated when left out, for models without texts."),
    ] = None,
    users: options.Users = None,
    model: Annotated[Model, typer.Option(help="What ranks the items.")] = Model.content,
    settings: options.Settings = None,
    part: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL=WEIGHT",
            help="Part of a hybrid; repeat for more. "
            "ease=1, item-knn=0.5 and content=0.25 when left out, with "
            "ease.regularization=500 and a half_life of 5 for the first two.",
        ),
    ] = None,
    adaptive: Annotated[
        bool,
        typer.Option(
            "--adaptive", help="Let update move a hybrid's weights to parts that predict better."
        ),
    ] = False,
    encoder: options.Encoder = None,
    feature: options.Feature = None,
) -> None:
    """Fit a recommender on files of ratings and items, and save it as a folder.

    Examples: llmrec-kernels fit --items items.csv --ratings ratings.csv --out films

    llmrec-kernels fit --ratings ratings.parquet --model ease --set regularization=500 --out films

    llmrec-kernels fit --items items.csv --ratings ratings.csv --model hybrid --part ease=2
    --part content=1 --set ease.half_life=5 --adaptive --out films
    """
    with errors_as_sentences():
        folders.check_new(out)
        words = Words(model, settings or [], part or [], adaptive, encoder, feature or [])
        files = tables.read(ratings, items, users)
        made = recommender(words, files.items)
        tables.note(f"fitting {model.value} on {len(files.interactions):,} ratings")
        fitted = made.fit(files.interactions, files.items, files.users)
        folders.save(fitted, out, folders.titles_of(files.items))
        typer.echo(folders.told(fitted, out))


@app.command()
def update(
    folder: folders.From,
    ratings: options.Ratings,
) -> None:
    """Take more ratings into a saved model, of old and new users, and save it again.

    Without timestamp they are the newest, and without rating as high as the highest known.

    Example: llmrec-kernels update --from films --ratings today.csv
    """
    with errors_as_sentences():
        from llmrec_kernels.datasets.tables import read_events

        source = folders.source(folder)
        taken = read_events(ratings)
        taken["item"] = tables.spelt_as(taken["item"], source.items.ids)
        taken["user"] = tables.spelt_as(taken["user"], source.users.ids)
        listed = taken["item"].isin(source.items.ids)
        if not listed.any():
            raise ValueError(
                f"no item of {ratings} is among the {len(source.items.ids):,} of the model; "
                "fit a new one"
            )
        if not listed.all():
            tables.note(
                f"{(~listed).sum()} ratings of items that the model does not know are left out; "
                "fit takes them in"
            )
        named = taken["user"].notna()
        if (listed & ~named).any():
            tables.note(
                f"{(listed & ~named).sum()} ratings of users whose ids are no whole numbers, as "
                "the model's are, are left out; fit takes them in"
            )
        taken = taken[listed & named]
        if taken.empty:
            raise ValueError(f"nothing of {ratings} is left to take in; fit a new model")
        model = source.model().update(taken)
        folders.save(model, folder, source.titles)
        tables.note(f"taken in: {len(taken):,} ratings of {taken.user.nunique():,} users")
        if not model.update_is_refit:
            tables.note("what it learned of the items stays as it is until the next fit")
        typer.echo(folders.told(model, folder))
