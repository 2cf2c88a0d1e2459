"""The studies by name, and the page that they make."""

from __future__ import annotations

import platform
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
    "training-cost": training_cost.training_cost,
    "augmentation": augmentation.augmentation,
    "compression": compression.compression,
    "reduction": reduction.reduction,
    "replay": replay.replay,
    "shilling": lambda: shilling.shilling(datasets.movielens_100k()),
    "exposure": lambda: exposure.exposure(datasets.movielens_100k()),
}


def run(names: Iterable[str], told: Callable[[str], None]) -> tuple[list[Study], list[str]]:
    """Run studies; those whose data or models are not here are left out, with the reason.

    Parameters
    ----------
    names : iterable of str
        Of `STUDIES`.
    told : callable
        Is told how it goes.

    Returns
    -------
    list of Study, list of str
        What was found, and what was left out and why.
    """
    found, left_out = [], []
    for name in names:
        begun = time.perf_counter()
        told(f"{name} ...")
        study, why = _attempt(name)
        if study is None:
            left_out.append(f"{name}: {why}")
            told(f"{name}: left out; {why}")
        else:
            found.append(study)
            told(f"{name}: {time.perf_counter() - begun:.0f} s")
    return found, left_out


def write(studies: list[Study], left_out: list[str], out: Path) -> None:
    """Write the page, and its pictures into a folder beside it that has its name."""
    folder = out.parent / out.stem
    if any(study.pictures for study in studies):
        folder.mkdir(exist_ok=True)
        for study in studies:
            study.write_pictures(folder)
    sections = [_head(left_out), *(study.markdown(f"{out.stem}/") for study in studies)]
    write_text("\n\n".join(sections) + "\n", out)


def _attempt(name: str) -> tuple[Study | None, str]:
    try:
        return STUDIES[name](), ""
    except (datasets.DatasetNotFoundError, ModelNotFoundError, ImportError) as error:
        return None, str(error)


def _head(left_out: list[str]) -> str:
    lines = [
        "# Results",
        "`llmrec-kernels evaluate` makes this page; "
        "`llmrec-kernels evaluate --study cold-items --out cold.md` a part of it. Each says what "
        "was done, so that anyone can do it again, and names the seeds where chance has a part. "
        "Intervals are 95% bootstrap intervals over users, unless it says otherwise.",
        f"Made on {date.today().isoformat()} with llmrec_kernels {version('llmrec_kernels')}, "
        f"torch {torch.__version__}, Python {platform.python_version()}, on {cpu_model()} with "
        f"{torch.get_num_threads()} threads.",
        "MovieLens data: F. M. Harper and J. A. Konstan, *The MovieLens Datasets: History and "
        "Context*, ACM TiiS 5(4), 2015. GroupLens calls ml-latest-small a development set: its "
        "numbers are to compare models here, not with other publications. Online Retail: D. Chen, "
        "UCI Machine Learning Repository, CC BY 4.0.",
    ]
    lines += [f"Left out, {reason}" for reason in left_out]
    return "\n\n".join(lines)
