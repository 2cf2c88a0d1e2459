"""What a small language model writes of films, and how much of it the facts support."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from llmrec_kernels.datasets import movielens_100k
from llmrec_kernels.language import (
    Explainer,
    ItemDescriber,
    LanguageModel,
    Writing,
    bundled_language_model_path,
)
from llmrec_kernels.language.writing import rows_of, told
from llmrec_kernels.recommenders import EASERecommender
from llmrec_kernels.studies.study import Study, Table

_SHOWN = 5  # texts of each writer on the page

_COLUMNS = ["title", "year", "genres", "directors", "cast", "plot"]


class _Run(NamedTuple):
    """What a writer was told and wrote."""

    facts: list[str]
    written: list[Writing]
    seconds: float


def writing(texts: int = 40) -> Study:
    """Descriptions of films and reasons for recommendations, by SmolLM2, checked.

    Parameters
    ----------
    texts : int, default 40
        How many of each.
    """
    data = movielens_100k(plots=True)
    items = _without_marks(data.items)
    model = LanguageModel(bundled_language_model_path())
    model.token_counts(["load"])  # before the clock runs
    runs = {
        "ItemDescriber": _described(model, items, texts),
        "Explainer": _explained(model, data.interactions, items, texts),
    }
    rates = pd.DataFrame([_rates(run) for run in runs.values()], list(runs), dtype=object)
    outputs = pd.concat([_shown(name, run) for name, run in runs.items()])
    return Study(
        "What a language model writes, and what is left of it",
        _PROTOCOL.format(texts=texts),
        [
            Table("How much of it stands.", rates, 2),
            Table(_CAPTION, outputs.set_index("writer")),
        ],
    )


def _described(model: LanguageModel, items: pd.DataFrame, texts: int) -> _Run:
    describer = ItemDescriber(model, noun="film", columns=_COLUMNS, cache_dir=False, progress=False)
    rows = np.random.default_rng(0).choice(len(items), texts, replace=False)
    chosen = items.iloc[rows]
    begun = time.perf_counter()
    frame = describer.describe(chosen)
    seconds = time.perf_counter() - begun
    columns = [frame[name] for name in ("description", "described_by", "completion", "refused")]
    written = [Writing(*one) for one in zip(*columns, strict=True)]
    return _Run([told(describer.facts(row)) for row in rows_of(chosen)], written, seconds)


def _explained(
    model: LanguageModel, interactions: pd.DataFrame, items: pd.DataFrame, texts: int
) -> _Run:
    recommender = EASERecommender().fit(interactions, items)
    users = np.random.default_rng(0).choice(recommender.user_ids, texts, replace=False)
    best = recommender.recommend(users, k=1)
    pairs = zip(best.user.tolist(), best.item.tolist(), strict=True)
    reasons = [recommender.explain(user, item) for user, item in pairs]
    # Histories have what was rated low, too.
    explainer = Explainer(
        model, items, noun="film", verb="watched", cache_dir=False, progress=False
    )
    begun = time.perf_counter()
    written = explainer.explain_all(reasons)
    seconds = time.perf_counter() - begun
    return _Run([told(explainer.facts(one)) for one in reasons], written, seconds)


def _without_marks(items: pd.DataFrame) -> pd.DataFrame:
    """The plots without the marks of IMDb's cross-references, such as _Apollo 13_ (qv)."""
    plots = items["plot"].str.replace(r"[_'](\S[^_']*)[_'] \(qv\)", r"\1", regex=True)
    return items.assign(plot=plots)


def _rates(run: _Run) -> dict[str, Any]:
    def share(stands: Callable[[Writing], bool]) -> float:
        return float(np.mean([stands(one) for one in run.written]))

    return {
        "texts": len(run.written),
        "all stands": share(_whole),
        "a part stands": share(lambda one: one.source == "model" and not _whole(one)),
        "template": share(lambda one: one.source == "template"),
        "seconds a text": run.seconds / len(run.written),
    }


def _whole(one: Writing) -> bool:
    return one.source == "model" and not one.refused


def _shown(name: str, run: _Run) -> pd.DataFrame:
    """The first text that was refused, the first that was in part, and then those that stand."""
    kinds: dict[str, list[int]] = {"template": [], "part": [], "whole": []}
    for row, one in enumerate(run.written):
        kind = "whole" if _whole(one) else "template" if one.source == "template" else "part"
        kinds[kind].append(row)
    chosen = [*kinds["template"][:1], *kinds["part"][:1]]
    chosen = (chosen + kinds["whole"] + kinds["part"][1:] + kinds["template"][1:])[:_SHOWN]
    return pd.DataFrame(
        {
            "writer": name,
            "facts": [_cell(run.facts[row]) for row in chosen],
            "the model wrote": [_cell(run.written[row].completion) for row in chosen],
            "verdict": [_verdict(run.written[row]) for row in chosen],
            "used": [_used(run.written[row]) for row in chosen],
        }
    )


def _verdict(one: Writing) -> str:
    if _whole(one):
        return "stands"
    kind = "refused" if one.source == "template" else "refused in part"
    return f"{kind}: {_cell(_listed(one.refused))}" if one.refused else f"{kind}: unfinished"


def _listed(refused: Sequence[str]) -> str:
    return ", ".join(f"*{word}*" for word in refused)


def _used(one: Writing) -> str:
    if one.text == one.completion:
        return "the same"
    return _cell(f"the template: {one.text}" if one.source == "template" else one.text)


def _cell(text: str) -> str:
    """A text within a cell of Markdown."""
    return text.replace("|", "\\|").replace("\n", "<br>")


_PROTOCOL = (
    "SmolLM2-135M-Instruct from its wheel, on ml-100k with plots. {texts} films drawn with seed 0 "
    "are described by `ItemDescriber`, and the first recommendation of EASE for {texts} users "
    "drawn with seed 0 is explained by `Explainer`. A text stands whole, in part (its sentences "
    "that stand are used), or not at all: then the template is used. Seconds are of this machine, "
    "without those that the model takes to load."
)
_CAPTION = (
    "Ten of these: of each writer the first that was refused, the first that was refused in part, "
    "if there are any, and then the first that stand whole."
)
