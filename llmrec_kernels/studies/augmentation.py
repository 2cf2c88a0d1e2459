"""Whether other wordings of texts help towers that have little to learn from."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from llmrec_kernels.datasets import movielens_100k
from llmrec_kernels.encoders.augment import Augments, TokenDropout
from llmrec_kernels.evaluation import Report, pool
from llmrec_kernels.language import LanguageModel, bundled_language_model_path
from llmrec_kernels.language.paraphraser import Paraphraser
from llmrec_kernels.recommenders import TwoTowerRecommender
from llmrec_kernels.studies import models
from llmrec_kernels.studies.cold_items import draws, less
from llmrec_kernels.studies.study import Study, Table

_KNOWN, _RATINGS = 120, 0.1  # films, and the part of their ratings, that are learned from
_SEED = 100
_NONE = "texts as they are"


class Remembered:
    """Wordings that are made once: studies train on the same texts often."""

    def __init__(self, views: dict[str, list[str]]) -> None:
        self._views = views

    def views(self, texts: Sequence[str]) -> list[list[str]]:
        """Other wordings of each text, of one that is not known none."""
        return [self._views.get(text, []) for text in texts]


def augmentation() -> Study:
    """NDCG@10 on cold items with few films to learn from, and with other wordings of these."""
    data = movielens_100k(plots=True)
    draw = np.random.default_rng(_SEED)
    known = np.sort(draw.choice(data.items["item"].to_numpy(), _KNOWN, replace=False))
    begun = time.perf_counter()
    paraphrases = _paraphrases(data.items[data.items["item"].isin(known)]["text"].tolist())
    seconds = time.perf_counter() - begun
    ways: dict[str, Augments | None] = {
        _NONE: None,
        "a tenth of the words left out, 4 times": TokenDropout(0.1),
        "a third of the words left out, 4 times": TokenDropout(0.33),
        "paraphrases": Remembered(paraphrases),
    }
    reports: dict[str, list[Report]] = {name: [] for name in ways}
    for one in draws(data):
        few = one.train[one.train["item"].isin(known)].sample(frac=_RATINGS, random_state=_SEED)
        for name, augment in ways.items():
            model = TwoTowerRecommender(models.text_encoder(), augment=augment)
            reports[name].append(one.ndcg(model.fit(few, data.items)))
    rows = {
        name: {
            "NDCG@10": pool(found)["NDCG@10"],
            "less those": "" if name == _NONE else " ".join(less(found, reports[_NONE], 4)),
        }
        for name, found in reports.items()
    }
    accepted = sum(map(len, paraphrases.values()))
    findings = (
        f"SmolLM2 wrote {accepted} paraphrases of {_KNOWN} texts that MiniLM finds like them "
        f"(cosine .8 or more), in {seconds:.0f} s. A difference whose interval has 0 in it may be "
        "chance."
    )
    table = Table("Mean of five draws.", pd.DataFrame(rows).T)
    return Study("Other wordings, for small data: ml-100k", _PROTOCOL, [table], findings=findings)


def _paraphrases(texts: list[str]) -> dict[str, list[str]]:
    model = LanguageModel(bundled_language_model_path(), dtype=torch.bfloat16, batch_size=16)
    views = Paraphraser(model, models.text_encoder(), max_new_tokens=50).views(texts)
    return dict(zip(texts, views, strict=True))


_PROTOCOL = (
    "The protocol of *Cold items* with plots (five draws), but of the films that are not held out "
    f"only those among {_KNOWN} drawn once (seed {_SEED}) are learned from, and of their ratings "
    f"{_RATINGS:.0%} (the same seed): `TwoTowerRecommender` over MiniLM with its defaults. Other "
    "wordings are of the films that are learned from: `TokenDropout`, and `Paraphraser` with "
    "SmolLM2-135M. Differences are of each user's mean over the draws."
)
