"""Models in folders, with the titles of their items beside them.

A model knows ids alone. Titles are for those who read its answers, so they are in `titles.json`, a
file of the command line's own that the model's loading does not look at: `{"id": "title", ...}`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from llmrec_kernels._files import write_text

if TYPE_CHECKING:
    import pandas as pd

    from llmrec_kernels.recommenders import Recommender

From = Annotated[Path, typer.Option("--from", metavar="FOLDER", help="A model that fit saved.")]
Part = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Ask this part of a hybrid, such as ease."),
]

_MODEL, _TITLES = "model.json", "titles.json"


class Ids(NamedTuple):
    """The ids of users or of items."""

    ids: list[Any]
    what: str  # "users" or "items"
    where: str  # such as "the ratings"

    def named(self, option: str, given: Sequence[str]) -> list[Any]:
        """The ids that the command line names, as the data spell them."""
        known = {str(one): one for one in self.ids}
        for one in given:
            if one not in known:
                some = ", ".join(list(known)[:5]) + (", ..." if len(known) > 5 else "")
                raise ValueError(
                    f"{option} {one} is not in {self.where}, "
                    f"of which the {len(known):,} {self.what} are {some}"
                )
        return [known[one] for one in given]


class Source(NamedTuple):
    """What there is to ask, known before there is a model: it may take long to fit."""

    users: Ids
    items: Ids
    titles: dict[str, str]  # by the ids as texts
    model: Callable[[], Recommender[Any]]


def source(folder: Path, encoder: str | None = None) -> Source:
    """A saved model, with a text encoder instead of its own where one is named."""
    model = _loaded(folder, encoder)
    users, items = (
        Ids(ids.tolist(), what, str(folder))
        for ids, what in ((model.user_ids, "users"), (model.item_ids, "items"))
    )
    return Source(users, items, _titles(folder), lambda: model)


def part(model: Recommender[Any], name: str | None) -> Recommender[Any]:
    """The model, or the part of a hybrid that is asked for."""
    if name is None:
        return model
    parts: dict[str, Recommender[Any]] = getattr(model, "parts", {})
    if name not in parts:
        kind, held = type(model).__name__, ", ".join(parts) or "none"
        raise ValueError(f"--part is {name!r}; the parts of this {kind} are {held}")
    return parts[name]


def check_new(folder: Path) -> None:
    """Refuse a folder that a model cannot be saved in, before anything is worked out for it."""
    if not folder.absolute().parent.is_dir():
        raise ValueError(f"--out is {folder}, but there is no folder {folder.parent}")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out is {folder}, which is a file; expected a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _MODEL).exists():
        raise ValueError(
            f"--out is {folder}, which has files but no model; expected a new folder, an empty "
            "one, or one with a model to replace"
        )


def save(model: Recommender[Any], folder: Path, titles: Mapping[str, str]) -> None:
    """Write a model and the titles of its items; a model that was there is replaced."""
    model.save(folder)
    write_text(json.dumps(dict(titles), indent=1, ensure_ascii=False) + "\n", folder / _TITLES)


def titles_of(items: pd.DataFrame | None) -> dict[str, str]:
    """The titles of an items frame, by the ids as texts."""
    if items is None:
        return {}
    return dict(zip(map(str, items["item"].tolist()), items["title"].tolist(), strict=True))


def titled(titles: Mapping[str, str], items: Iterable[Any]) -> list[str | None]:
    """The title of each of these items, None where it is not known."""
    return [titles.get(str(one)) for one in items]


def told(model: Recommender[Any], folder: Path) -> str:
    """What was saved where, in one line."""
    parts = getattr(model, "current_weights", {})
    weights = ", ".join(f"{name} {weight:.3g}" for name, weight in parts.items())
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    return (
        f"saved: {folder} ({type(model).__name__}{f' of {weights}' if parts else ''}: "
        f"{len(model.user_ids):,} users, {len(model.item_ids):,} items, {size / 1e6:.1f} MB)"
    )


def _loaded(folder: Path, encoder: str | None) -> Recommender[Any]:
    from llmrec_kernels.cli.making import text_encoder
    from llmrec_kernels.recommenders import Recommender

    if encoder is None:
        return Recommender.load(folder)
    model: Recommender[Any] = Recommender.load(folder, encoder=text_encoder(encoder))
    if not model.reads_text:
        raise ValueError(f"--encoder is {encoder}, but the model in {folder} reads no texts")
    return model


def _titles(folder: Path) -> dict[str, str]:
    """The titles beside a model; none where there is no such file."""
    path = folder / _TITLES
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}; mend or delete it") from error
    if not isinstance(found, dict) or not all(isinstance(one, str) for one in found.values()):
        raise ValueError(f"{path} is no object of titles by id; mend or delete it")
    return found
