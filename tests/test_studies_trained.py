"""The studies of what is trained and of smaller encoders, on small pieces of their work."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from small_histories import real

from llmrec_kernels.datasets import Dataset, movielens_100k
from llmrec_kernels.encoders import Compression
from llmrec_kernels.evaluation import Report
from llmrec_kernels.recommenders import TwoTowerRecommender
from llmrec_kernels.studies import augmentation, cold_items, compression, models, training_cost


@pytest.fixture(scope="module")
def few() -> Dataset:
    """The ratings of 60 films."""
    films = real(lambda: movielens_100k(plots=True))
    items = films.items.head(60)
    known = films.interactions["item"].isin(items["item"])
    return replace(films, interactions=films.interactions[known], items=items)


def report(values: dict[str, float]) -> Report:
    frame = pd.DataFrame({"NDCG@10": list(values.values())}, index=list(values))
    return Report(10, frame, {}, 0)


def test_a_user_of_several_draws_is_one_and_not_several():
    together = cold_items.by_user([report({"a": 1.0, "b": 0.0}), report({"a": 0.0, "c": 0.5})])
    assert together.per_user["NDCG@10"].to_dict() == {"a": 0.5, "b": 0.0, "c": 0.5}


def test_operations_of_further_epochs_are_those_of_the_second(few):
    def make(training):
        small = {"batch_size": 64, **training}
        embeddings = np.random.default_rng(0).normal(size=(len(few.items), 8))
        return TwoTowerRecommender(embeddings=embeddings, dim=4, training=small)

    one, two, three = (training_cost._flops(make, few, epochs) for epochs in (1, 2, 3))
    assert 0 < one < two < three
    assert three - two == pytest.approx(two - one, rel=0.02)
    row = training_cost.measured(make, few)
    epochs = int(row["epochs"])
    assert 1 <= int(row["the best"]) <= epochs
    assert float(row["TFLOP"]) == pytest.approx(
        (one + (epochs - 1) * (two - one)) / 1e12, abs=0.005
    )
    assert row["kJ"].endswith(("(estimated)", "(measured)"))


def test_a_smaller_encoder_is_measured_before_and_after(few, monkeypatch):
    new = few.interactions["item"] >= 50
    parts = few.interactions[~new], few.interactions[new]
    draw = cold_items.Draw(*parts, list(range(50, 61)))
    monkeypatch.setattr(compression, "draws", lambda data: [draw])
    whole = compression.measured(few, torch.float32, Compression())
    small = compression.measured(few, torch.float32, Compression(layers=2, heads=4))
    assert small.megabytes < whole.megabytes - 25
    for one in (whole, small):
        assert one.seconds > 0
        assert 0 < one.content[0]["NDCG@10"] <= 1
        assert 0 < one.aligned[0]["NDCG@10"] <= 1
    difference, _ = cold_items.less(small.content, whole.content, 4)
    expected = small.content[0]["NDCG@10"] - whole.content[0]["NDCG@10"]
    assert float(difference) == pytest.approx(expected, abs=1e-4)


def test_paraphrases_are_made_once():
    remembered = augmentation.Remembered({"a": ["b", "c"]})
    assert remembered.views(["x", "a", "a"]) == [[], ["b", "c"], ["b", "c"]]


def test_the_hybrid_with_sequences_has_the_parts_of_the_one_without():
    hybrid = models.CHOSEN.with_sequence(models.WITH_SEQUENCE)
    assert list(hybrid.parts) == ["ease", "items", "sequence"]
    assert hybrid.weights == {"ease": 1.0, **models.WITH_SEQUENCE}
    assert list(models.hybrid().parts) == ["ease", "items"]
