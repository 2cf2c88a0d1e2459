"""Modelled times are the least that a datasheet allows, and say that they are modelled."""

from __future__ import annotations

from typing import Any

import pytest

from llmrec_kernels.profiler import CostCounter, CostModel, hardware, predict
from llmrec_kernels.profiler.shapes import SHAPES, call_of

SEARCH = {"B": 256, "N": 1_000_000, "d": 384, "k": 100}
SIZES = {
    "cosine_topk": {"B": 3, "N": 40, "d": 8, "k": 5},
    "candidate_scores": {"B": 3, "L": 4, "N": 40, "d": 8},
    "embedding_bag": {"B": 3, "L": 4, "V": 40, "D": 8},
    "quantize": {"V": 40, "D": 8},
    "pack": {"N": 40, "d": 8},
}


def test_a_search_of_few_queries_waits_for_memory() -> None:
    (found,) = predict("cosine_topk", SEARCH | {"B": 1}, "H100-SXM")
    codes, rows = 1_000_000 * (384 + 8), 100 * (4 * 384 + 8)
    size = 4 * 384 + codes + rows + 100 * 12
    assert found.bound == "memory"
    assert found.seconds == pytest.approx(size / 3350e9)


def test_a_search_of_many_queries_waits_for_int8_products() -> None:
    (found,) = predict("cosine_topk", SEARCH | {"B": 4096}, "H100-SXM")
    assert (found.bound, found.kind) == ("compute", "int8")
    assert found.seconds == pytest.approx(2 * 4096 * 1_000_000 * 384 / 1979e12)


def test_energy_and_money_are_those_of_the_least_time_and_say_so() -> None:
    cost = CostModel(grid="FRA", pue=1.2, usd_per_kwh=0.1)
    (found,) = predict("cosine_topk", SEARCH, "T4", cost=cost, prices={"t4": 0.5})
    assert found.energy.value == pytest.approx(70 * found.seconds)
    assert found.energy.quality == "modelled"
    million = found.costs[1]
    assert million.seconds == pytest.approx(found.seconds / 256 * 1e6)
    assert million.instance_money.value == pytest.approx(million.seconds / 3600 * 0.5)
    joules = 70 * found.seconds / 256 * 1e6
    assert million.energy.value == pytest.approx(joules / 3.6e6 * 1.2)
    assert million.energy_money.value == pytest.approx(joules / 3.6e6 * 1.2 * 0.1)
    labels = {million.energy.quality, million.carbon.quality, million.instance_money.quality}
    assert labels == {"modelled"}


def test_without_a_price_there_is_no_money() -> None:
    for found in predict("cosine_topk", SEARCH):
        assert found.costs[1].instance_money.value is None
        assert found.costs[1].energy_money.value is None


def test_every_gpu_of_the_table_is_there_by_default_the_quickest_first() -> None:
    found = predict("cosine_topk", SEARCH)
    assert {each.gpu for each in found} == set(hardware.gpus())
    able = [each for each in found if each.unsupported is None]
    assert [each.seconds for each in able] == sorted(each.seconds for each in able)


def test_gpus_are_ranked_by_what_is_asked_for() -> None:
    prices = {"T4": 0.1, "H100-SXM": 100.0}
    by = {
        what: [e.gpu for e in predict("cosine_topk", SEARCH, list(prices), prices=prices, by=what)]
        for what in ("time", "money", "energy")
    }
    assert by["time"] == ["H100-SXM", "T4"]
    assert by["money"] == ["T4", "H100-SXM"]
    watts = {name: hardware.gpu(name) for name in prices}
    cheapest = min(watts, key=lambda name: watts[name].watts / watts[name].bandwidth)
    assert by["energy"][0] == cheapest


def test_what_a_gpu_has_no_arithmetic_for_comes_last_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = hardware.gpu("B200")
    poor = row.model_copy(update={"peaks": {"float32": 1e12}})
    monkeypatch.setattr(hardware, "gpu", lambda name: poor if name == "B200" else known(name))
    found = predict("cosine_topk", SEARCH, ["B200", "T4"])
    assert [each.gpu for each in found] == ["T4", "B200"]
    assert found[1].unsupported == "the table has no peak of int8"


known = hardware.gpu


@pytest.mark.parametrize("op", SHAPES)
def test_what_is_predicted_from_sizes_is_what_is_counted_of_a_real_call(op: str) -> None:
    for storage in SHAPES[op].storages:
        call, units, unit = call_of(op, SIZES[op], storage)
        with CostCounter() as counter:
            call()
        (found,) = predict(op, SIZES[op], "A10", storage=storage)
        peaks = hardware.gpu("A10").peaks
        least = sum(
            max(op.cost.bytes / 600e9, op.cost.flops / peaks[op.kind])
            for op in counter.by_op.values()
        )
        assert found.seconds == pytest.approx(least)
        assert units == SIZES[op][SHAPES[op].units]
        assert found.costs[0].amount == f"1 {unit}"


def test_nothing_is_allocated_to_predict() -> None:
    sizes = {"B": 1, "N": 10**12, "d": 1024, "k": 10}
    (found,) = predict("cosine_topk", sizes, "B200")
    assert found.seconds > 100


@pytest.mark.parametrize(
    ("arguments", "options", "why"),
    [
        (("cosine_top", SEARCH), {}, "op is 'cosine_top'; expected one of cosine_topk, "),
        (("cosine_topk", {"N": 5}), {}, "shape has no 'd'; cosine_topk takes B, N, d, k"),
        (("cosine_topk", SEARCH | {"B": -1}), {}, "B of shape is -1; expected a positive integer"),
        (("cosine_topk", SEARCH | {"B": 1.5}), {}, "B of shape is 1.5"),
        (("cosine_topk", SEARCH | {"L": 5}), {}, "shape has 'L'; cosine_topk takes B, N, d, k"),
        (("cosine_topk", SEARCH, "H10"), {}, "gpu is 'H10'; .* nearest: H100-PCIe, H100-SXM"),
        (("cosine_topk", SEARCH), {"storage": "int5"}, "storage is 'int5'; expected one of packed"),
        (("cosine_topk", SEARCH, "T4"), {"prices": {"T4": -1}}, "prices has -1 for T4; expected"),
        (("cosine_topk", SEARCH, "T4"), {"prices": {"T5": 1}}, "gpu is 'T5'"),
        (("cosine_topk", SEARCH, "T4"), {"by": "money"}, "prices has no USD an hour for T4"),
        (("cosine_topk", SEARCH, "T4"), {"by": "luck"}, "by is 'luck'; expected 'time', "),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(arguments: Any, options: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        predict(*arguments, **options)
