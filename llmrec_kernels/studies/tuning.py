"""Whether it pays to train the language model under two towers with them."""

from __future__ import annotations

import time

import pandas as pd

from llmrec_kernels.datasets import movielens_100k
from llmrec_kernels.encoders import TextEncoder, bundled_encoder_path
from llmrec_kernels.evaluation import Report, pool
from llmrec_kernels.recommenders import TwoTowerRecommender
from llmrec_kernels.studies.cold_items import draws, less
from llmrec_kernels.studies.study import Study, Table

_EPOCHS = 5
_FROZEN = "frozen"
_WAYS = (_FROZEN, "lora", "full")


def tuning() -> Study:
    """NDCG@10 on cold items by texts alone, with MiniLM frozen, with LoRA, and trained whole."""
    data = movielens_100k(plots=True)
    reports: dict[str, list[Report]] = {way: [] for way in _WAYS}
    seconds = dict.fromkeys(_WAYS, 0.0)
    drawn = list(draws(data))
    for draw in drawn:
        for way in _WAYS:
            encoder = TextEncoder(bundled_encoder_path())
            model = TwoTowerRecommender(encoder, tune=way, training={"epochs": _EPOCHS})
            begun = time.perf_counter()
            model.fit(draw.train, data.items)
            seconds[way] += time.perf_counter() - begun
            reports[way].append(draw.ndcg(model))
    rows = {
        way: {
            "NDCG@10": pool(found)["NDCG@10"],
            **{f"seed {seed}": one["NDCG@10"] for seed, one in enumerate(found)},
            "s a fit": f"{seconds[way] / len(drawn):.0f}",
            "less frozen": "" if way == _FROZEN else " ".join(less(found, reports[_FROZEN])),
        }
        for way, found in reports.items()
    }
    table = Table("Mean of five draws, and each.", pd.DataFrame(rows).T)
    return Study("Training the language model too: ml-100k", _PROTOCOL, [table])


_PROTOCOL = (
    "The protocol of *Cold items* with plots (five draws), by texts alone: `TwoTowerRecommender` "
    f"over MiniLM with its defaults, but {_EPOCHS} epochs for all three, so that they can be "
    "compared: the language model frozen, with adapters of rank 8 in its linear layers (LoRA), and "
    "trained whole. Differences are of each user's mean over the draws."
)
