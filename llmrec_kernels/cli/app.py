"""The command itself, and what all of its verbs share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

app = typer.Typer(
    name="llmrec-kernels",
    help="Recommend with LLM embeddings, exactly and fast, and see what it costs.",
    epilog="Begin with: llmrec-kernels demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """Report what the user can mend as one sentence and exit code 1, without a traceback."""
    try:
        yield
    except typer.Exit:  # a RuntimeError, and said already
        raise
    except BrokenPipeError:  # whoever read the output has read enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (
        ArithmeticError,
        ImportError,
        LookupError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        typer.echo(f"llmrec-kernels: {_sentence(error)}", err=True)
        raise typer.Exit(1) from error


def _sentence(error: Exception) -> str:
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        return f"there is no file {os.fsdecode(error.filename)}"
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


def checked_output(option: str, output: Path, endings: tuple[str, ...]) -> None:
    """Refuse a file that could not be written, before anything is worked out for it."""
    if output.suffix not in endings:
        raise ValueError(
            f"{option} is {output}; expected a name that ends in {' or '.join(endings)}"
        )
    if not output.absolute().parent.is_dir():
        raise ValueError(f"{option} is {output}, but there is no folder {output.parent}")
