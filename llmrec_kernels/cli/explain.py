"""`llmrec-kernels explain`: what the score of an item is the sum of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmrec_kernels._files import write_text
from llmrec_kernels.cli import folders, tables
from llmrec_kernels.cli.app import app, checked_output, errors_as_sentences
from llmrec_kernels.cli.describe import LanguageModelName, Noun, named_model

if TYPE_CHECKING:
    from llmrec_kernels.language import Writing
    from llmrec_kernels.recommenders import Explanation


@app.command()
def explain(
    folder: folders.From,
    user: Annotated[str, typer.Option(help="For this user.")],
    item: Annotated[str, typer.Option(help="Why this item.")],
    part: folders.Part = None,
    lm: Annotated[
        bool,
        typer.Option("--lm", help="Also in a sentence or two, by a language model, checked."),
    ] = False,
    items: Annotated[
        Path | None,
        typer.Option(help="With --lm: items with more than titles, to name what they share."),
    ] = None,
    noun: Noun = "item",
    verb: Annotated[
        str,
        typer.Option(help="With --lm: what people did with items, such as watched, read, bought."),
    ] = "chose",
    language_model: LanguageModelName = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="File to write, .csv or .json (with --lm .json); a table to read when left out."
        ),
    ] = None,
) -> None:
    """Say what the score of an item for a user is made of: history, other users, or parts.

    Where the items are known by several features, it also says what each of these gives.

    Examples: llmrec-kernels explain --from films --user 7 --item 50

    llmrec-kernels explain --from films --user 7 --item 50 --lm --noun film --verb watched
    """
    with errors_as_sentences():
        if output is not None:
            if lm:
                checked_output("--output with --lm", output, (".json",))
            else:
                checked_output("--output", output, tables.ENDINGS)
        _check_words(lm, items, language_model, verb)
        source = folders.source(folder)
        asked = source.users.named("--user", [user]) + source.items.named("--item", [item])
        why = folders.part(source.model(), part).explain(*asked)
        said = _said(why, source, items, (noun, verb), language_model) if lm else None
        if output is None:
            if said is not None:
                typer.echo(f"{said.text}  ({said.source})\n")
            typer.echo(_table(why, source.titles))
        elif output.suffix == ".json":
            record = _record(why, source.titles)
            if said is not None:
                record |= {
                    "text": said.text,
                    "text_source": said.source,
                    "refused": list(said.refused),
                }
            write_text(json.dumps(record, indent=1) + "\n", output)
        else:
            import pandas as pd

            tables.write(pd.DataFrame(_rows(why, source.titles)), output)


def _check_words(lm: bool, items: Path | None, language_model: str | None, verb: str) -> None:
    """Refuse what is for sentences where none is asked for, and a verb that is none."""
    from llmrec_kernels.language.roles import DONE

    if verb not in DONE:
        raise ValueError(f"--verb is {verb!r}; expected one of {', '.join(sorted(DONE))}")
    if not lm and (items is not None or language_model is not None):
        option = "--items" if items is not None else "--language-model"
        raise ValueError(f"{option} is for --lm; give that too")


def _said(
    why: Explanation,
    source: folders.Source,
    items: Path | None,
    told_as: tuple[str, str],
    name: str | None,
) -> Writing:
    """The explanation in a sentence or two."""
    import pandas as pd

    from llmrec_kernels.datasets.tables import read_items
    from llmrec_kernels.language import Explainer

    if items is not None:
        frame = read_items(items)
        frame["item"] = tables.spelt_as(frame["item"], source.items.ids)
    elif source.titles:
        titles = [source.titles.get(str(one), str(one)) for one in source.items.ids]
        frame = pd.DataFrame({"item": source.items.ids, "title": titles})
    else:
        raise ValueError("the model was saved without titles; give --items, which have them")
    noun, verb = told_as
    return Explainer(named_model(name), frame, noun=noun, verb=verb).explain(why)


def _rows(why: Explanation, titles: Mapping[str, str]) -> list[dict[str, Any]]:
    """The sources and then the blocks; each of the two sums to the score."""
    sources = why.source.tolist()
    columns = sources, why.weight.tolist(), why.share.tolist()
    known = titles if why.kind == "history" else {}
    rows = [
        {"kind": why.kind, "source": one, "title": known.get(str(one)), "weight": w, "share": share}
        for one, w, share in zip(*columns, strict=True)
    ]
    return rows + [
        {"kind": "block", "source": name, "title": None, "weight": None, "share": share}
        for name, share in why.blocks.items()
    ]


def _record(why: Explanation, titles: Mapping[str, str]) -> dict[str, Any]:
    return {
        "user": why.user,
        "item": why.item,
        "title": titles.get(str(why.item)),
        "score": why.score,
        "shares": _rows(why, titles),
    }


def _table(why: Explanation, titles: Mapping[str, str]) -> str:
    """The same for people: the largest first, what it is behind the numbers."""
    lines = [f"{_name(why.item, titles)} for {why.user}: score {why.score:.4f}"]
    kind = ""
    for row in _rows(why, titles):
        if row["kind"] != kind:
            kind = row["kind"]
            lines += ["", f"{'share':>9} {'' if kind == 'block' else 'weight':>9}  {kind}"]
        weight = "" if row["weight"] is None else f"{row['weight']:.4f}"
        name = row["source"] if row["title"] is None else _name(row["source"], titles)
        lines.append(f"{row['share']:9.4f} {weight:>9}  {name}")
    return "\n".join(lines)


def _name(item: Any, titles: Mapping[str, str]) -> str:
    """The id of an item, and its title where it is known."""
    title = titles.get(str(item))
    return str(item) if title is None else f"{item} {title}"
