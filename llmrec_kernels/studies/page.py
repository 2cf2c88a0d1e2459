"""The studies by name, and the page that they make."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Callable, Iterable
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch

from llmrec_kernels import datasets
from llmrec_kernels._files import write_text
from llmrec_kernels.encoders import ModelNotFoundError
from llmrec_kernels.info import cpu_model
from llmrec_kernels.studies import (
    augmentation,
    cold_items,
    compression,
    exposure,
    few_shot,
    known_items,
    language_ranking,
    ratings,
    reduction,
    replay,
    shilling,
    text_ratings,
    training_cost,
    tuning,
    writing,
)
from llmrec_kernels.studies.study import Study

STUDIES: dict[str, Callable[[], Study]] = {
    "known-items": partial(known_items.leave_last, "ml-100k"),
    "known-items-latest-small": partial(known_items.leave_last, "ml-latest-small"),
    "known-items-u1": known_items.official_split,
    "ratings": ratings.five_folds,
    "cold-items": cold_items.cold_items,
    "few-shot": partial(few_shot.few_shot, "ml-latest-small"),
    "few-shot-online-retail": partial(few_shot.few_shot, "online-retail"),
    "text-ratings": text_ratings.text_ratings,
    "reranked-lists": language_ranking.reranked_lists,
    "guessed-likes": language_ranking.guessed_likes,
    "writing": writing.writing,
    "tuning": tuning.tuning,
    "training-cost": training_cost.training_cost,
    "augmentation": augmentation.augmentation,
    "compression": compression.compression,
    "reduction": reduction.reduction,
    "replay": replay.replay,
    "shilling": lambda: shilling.shilling(datasets.movielens_100k()),
    "exposure": lambda: exposure.exposure(datasets.movielens_100k()),
}


def run(names: Iterable[str], out: Path, told: Callable[[str], None]) -> list[str]:
    """Run studies and write what each found into a page, when it is found.

    A section of a study that the page has already is replaced, and the others stay as they are.
    Pictures go into a folder beside the page that has its name. Studies whose data or models are
    not here are left out, with the reason.

    Parameters
    ----------
    names : iterable of str
        Of `STUDIES`.
    out : Path
        The page.
    told : callable
        Is told how it goes.

    Returns
    -------
    list of str
        What was left out, and why.
    """
    left_out = []
    for name in names:
        begun = time.perf_counter()
        told(f"{name} ...")
        study, why = _attempt(name)
        if study is None:
            left_out.append(f"{name}: {why}")
            told(f"{name}: left out; {why}")
        else:
            _put(name, study, out)
            told(f"{name}: {time.perf_counter() - begun:.0f} s")
    return left_out


def _put(name: str, study: Study, out: Path) -> None:
    """Write the section of a study where it belongs on the page."""
    if study.pictures:
        folder = out.parent / out.stem
        folder.mkdir(exist_ok=True)
        study.write_pictures(folder)
    sections = _sections(out) | {name: f"{study.markdown(f'{out.stem}/')}\n\n{_made()}"}
    order = [*STUDIES, *(one for one in sections if one not in STUDIES)]
    parts = [f"{_mark(one)}\n\n{sections[one]}" for one in order if one in sections]
    write_text("\n\n".join([_HEAD, *parts]) + "\n", out)


def _sections(out: Path) -> dict[str, str]:
    """What a page has of each study, by name."""
    if not out.exists():
        return {}
    parts = re.split(r"^<!-- study: (.+) -->$", out.read_text(encoding="utf-8"), flags=re.M)
    return {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def _mark(name: str) -> str:
    return f"<!-- study: {name} -->"


def _attempt(name: str) -> tuple[Study | None, str]:
    try:
        return STUDIES[name](), ""
    except (datasets.DatasetNotFoundError, ModelNotFoundError, ImportError) as error:
        return None, str(error)


def _made() -> str:
    return (
        f"*Made on {date.today().isoformat()} with llmrec_kernels {version('llmrec_kernels')}, "
        f"torch {torch.__version__}, Python {platform.python_version()}, on {cpu_model()} with "
        f"{torch.get_num_threads()} threads.*"
    )


_HEAD = """# Results

`llmrec-kernels evaluate` makes this page, and `llmrec-kernels evaluate --study cold-items --out
cold.md` a part of it, which takes its place where the page is there. Each part says what was done,
so that anyone can do it again, and when and where it was; it names the seeds where chance has a
part. Intervals are 95% bootstrap intervals over users, unless it says otherwise.

MovieLens data: F. M. Harper and J. A. Konstan, *The MovieLens Datasets: History and Context*, ACM
TiiS 5(4), 2015. GroupLens calls ml-latest-small a development set: its numbers are to compare
models here, not with other publications. Online Retail: D. Chen, UCI Machine Learning Repository,
CC BY 4.0."""
