"""What it takes to train the models that are trained: time, operations, energy."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch

from llmrec_kernels.datasets import Dataset, load
from llmrec_kernels.encoders import TextEncoder, bundled_encoder_path
from llmrec_kernels.profiler import CostCounter, EnergyMonitor
from llmrec_kernels.recommenders import (
    SequenceRecommender,
    TextRatingRegressor,
    TwoTowerRecommender,
)
from llmrec_kernels.studies import models
from llmrec_kernels.studies.study import NOTHING, Study, Table

MakeTrained = Callable[[dict[str, Any]], Any]
_TRAINED: dict[str, MakeTrained] = {
    "two towers": lambda training: TwoTowerRecommender(models.text_encoder(), training=training),
    "ratings of texts": lambda training: TextRatingRegressor(
        models.text_encoder(), training=training
    ),
    "sequence": lambda training: SequenceRecommender(models.text_encoder(), training=training),
}
_DATA = {"ml-100k": tuple(_TRAINED), "ml-latest-small": ("two towers", "ratings of texts")}


def training_cost() -> Study:
    """Training on both sets of films, from encoded texts to a model."""
    rows = {}
    for name, labels in _DATA.items():
        data = load(name)
        encoder = TextEncoder(bundled_encoder_path(), cache_dir=False)
        encoder.encode(["loaded before the clock runs"])
        begun = time.perf_counter()
        encoder.encode(data.items["text"].tolist())
        rows[f"{name}: texts encoded"] = {"s": f"{time.perf_counter() - begun:.0f}"}
        for label in labels:
            rows[f"{name}: {label}"] = measured(_TRAINED[label], data)
    frame = pd.DataFrame(rows).T.fillna(NOTHING)
    return Study("What training costs", _protocol(), [Table("", frame)])


def measured(make: MakeTrained, data: Dataset) -> dict[str, str]:
    """Fit once under an energy monitor; and one epoch and two under a counter of operations."""
    model = make({})
    with EnergyMonitor("cpu") as energy:
        begun = time.perf_counter()
        model.fit(data.interactions, data.items)
        seconds = time.perf_counter() - begun
    report = model.training_report
    epochs = len(report.epochs)
    one, two = (_flops(make, data, count) for count in (1, 2))
    joules = energy.readings[-1].gross
    return {
        "s": f"{seconds:.0f}",
        "epochs": str(epochs),
        "the best": str(report.best_epoch),
        "s an epoch": f"{report.seconds / epochs:.1f}",
        "TFLOP": f"{(one + (epochs - 1) * (two - one)) / 1e12:.2f}",
        "GFLOP/s": f"{(one + (epochs - 1) * (two - one)) / 1e9 / seconds:.0f}",
        "kJ": NOTHING if joules.value is None else f"{joules.value / 1e3:.2f} ({joules.quality})",
    }


def _flops(make: MakeTrained, data: Dataset, epochs: int) -> int:
    """Floating-point operations of a fit of so many epochs, forward, backward and optimiser."""
    model = make({"epochs": epochs, "patience": None})
    with CostCounter() as counter:
        model.fit(data.interactions, data.items)
    return counter.total.flops


def _protocol() -> str:
    return (
        "All ratings, the defaults of each class, MiniLM's vectors of title and genres, which are "
        "encoded before (the first time: a cache on disk keeps them). Seconds are those of `fit` "
        f"with {torch.get_num_threads()} threads. Operations are counted in forward, backward and "
        "optimiser, in fits of one epoch and of two, and taken to be as many in each further one. "
        "Energy is that of `EnergyMonitor` over `fit`, from the best source that the machine has; "
        "an estimate goes by the average watts of cloud servers. Sequences, whose loss has each "
        "film of the catalogue in it, are left out on ml-latest-small: an epoch there has six "
        "times the products of one on ml-100k."
    )
