"""A pack that is appended to, overwritten and cut is the pack of what it then holds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import oracle
import pytest
import torch
from cases import STORAGES, random, stored
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_kernels import PackedItems, Ragged, candidate_scores, cosine_topk, pack

OPS = ("pack", "cosine_topk", "candidate_scores", "quantize")


@pytest.mark.parametrize("storage", STORAGES)
@settings(max_examples=15)
@given(data=st.data(), dim=st.sampled_from([1, 4, 7]), first=st.integers(0, 40))
def test_a_pack_that_changed_is_the_pack_of_what_it_holds(
    backend: str, storage: str, data: st.DataObject, dim: int, first: int
) -> None:
    largest = 6e4 if storage in ("float16", "int4", "int4-symmetric") else 1e37
    pool = random(30, dim) * torch.logspace(-45, 38, 30)[:, None]  # the first ones are zeros
    pool = torch.cat([pool, random(30, dim, seed=1)]).clamp(-largest, largest)
    vectors = pool[torch.arange(first) % len(pool)]
    packed = pack(stored(vectors, storage), backend=backend)
    for _ in range(data.draw(st.integers(1, 6))):
        change = data.draw(st.sampled_from(["append", "replace", "remove"]))
        if change == "append":
            new = pool[data.draw(picks(len(pool)))]
            packed.append(stored(new, storage), backend=backend)
            vectors = torch.cat([vectors, new])
        else:
            places = data.draw(picks(len(vectors), unique=True))
            if change == "replace":
                new = pool[data.draw(picks(len(pool), count=len(places)))]
                packed.replace(places, stored(new, storage), backend=backend)
                vectors[places] = new
            else:
                left = sorted(set(range(len(vectors))) - set(places.tolist()))
                moved, where = packed.remove(places)
                order = torch.arange(len(vectors))
                order[where] = moved
                assert sorted(order[: len(left)].tolist()) == left
                assert moved.shape[0] <= places.shape[0]
                vectors = vectors[order[: len(left)]]
        oracle.assert_same_pack(packed, pack(stored(vectors, storage), backend=backend))
    some = data.draw(picks(len(vectors)))
    oracle.assert_same_pack(
        packed.take(some), pack(stored(vectors[some], storage), backend=backend)
    )


def picks(length: int, *, count: int | None = None, unique: bool = False) -> Any:
    """Positions below `length`: up to 40 of them, or `count`."""
    least, most = (0, 40 if length else 0) if count is None else (count, count)
    place = st.integers(0, max(0, length - 1))
    found = st.lists(place, min_size=least, max_size=min(most, length) if unique else most,
                     unique=unique)  # fmt: skip
    return found.map(lambda places: torch.tensor(places, dtype=torch.int64))


@pytest.mark.parametrize("sketched", [True, False])
def test_what_is_packed_is_appended_too_even_to_itself(backend: str, sketched: bool) -> None:
    rows = random(21, 6)
    items, packed = pack(rows[:13], backend=backend), pack(rows, backend=backend)
    if not sketched:
        items = PackedItems(items.data, None, None, 0, 6, items.inverse_norms)
    packed.append(items, backend=backend)
    packed.append(packed, backend=backend)
    packed.remove([60])
    packed.append(packed.take([3]), backend=backend)
    packed.replace(torch.arange(67, -1, -1), packed, backend=backend)
    twice = torch.cat([rows, rows[:13]])
    held = torch.cat([twice, twice])
    held[60] = held[67]
    held[67] = held[3]
    oracle.assert_same_pack(packed, pack(held.flip(0), backend=backend))


def test_a_pack_built_without_a_sketch_gets_one_at_its_first_change(backend: str) -> None:
    rows, queries = random(40, 6), random(3, 6, seed=1)
    given = pack(rows, backend=backend)
    changes: list[Callable[[PackedItems], Any]] = [
        lambda p: p.append(rows[:3], backend=backend),
        lambda p: p.replace([3, 1], rows[:2], backend=backend),
        lambda p: p.remove([2]),
    ]
    for change in changes:
        built = PackedItems(given.data, None, None, 0, 6, given.inverse_norms)
        top, want = (cosine_topk(queries, items, 5, backend=backend) for items in (built, given))
        assert torch.equal(top.ids, want.ids)
        assert built.sketch is None
        assert built.take([1]).sketch is None
        change(built)
        oracle.assert_same_pack(built, pack(built.data, backend=backend))
        assert torch.equal(given.data, rows)  # what it was built from stays as it was


BAD_CHANGES: dict[str, tuple[Callable[[PackedItems, str], Any], type[Exception], str]] = {
    "other columns": (
        lambda p, b: p.append(torch.ones(1, 5), backend=b),
        ValueError,
        "items has 5 columns but the pack has 4",
    ),
    "other floats": (
        lambda p, b: p.append(torch.ones(1, 4).half(), backend=b),
        ValueError,
        "items is float16 but the pack is float32; expected the same",
    ),
    "codes": (
        lambda p, b: p.append(stored(torch.ones(1, 4), "int8-symmetric"), backend=b),
        ValueError,
        "items is int8 codes without a bias but the pack is float32",
    ),
    "packed codes": (
        lambda p, b: p.append(pack(stored(torch.ones(1, 4), "int4"), backend=b), backend=b),
        ValueError,
        "items is int4 codes with a bias but the pack is float32",
    ),
    "another device": (
        lambda p, b: p.append(torch.ones(1, 4, device="meta"), backend=b),
        ValueError,
        "items is on meta but the pack is on cpu",
    ),
    "NaN": (
        lambda p, b: p.append(torch.tensor([[0.0] * 4, [torch.nan] * 4]), backend=b),
        ValueError,
        "items holds NaN or Inf in row 1",
    ),
    "a list": (lambda p, b: p.append([[1.0] * 4], backend=b), TypeError, "items is a list"),
    "one dimension": (lambda p, b: p.append(torch.ones(4), backend=b), ValueError, r"shape \[4\]"),
    "replacing with NaN": (
        lambda p, b: p.replace([0, 1], torch.tensor([[0.0] * 4, [torch.nan] * 4]), backend=b),
        ValueError,
        "items holds NaN or Inf in row 1",
    ),
    "a position too far": (
        lambda p, b: p.replace([0, 3], torch.ones(2, 4), backend=b),
        IndexError,
        "positions holds 3 at entry 1; expected 0 to 2",
    ),
    "a negative position": (
        lambda p, b: p.replace([-1], torch.ones(1, 4), backend=b),
        IndexError,
        "positions holds -1 at entry 0; expected 0 to 2",
    ),
    "a position twice": (
        lambda p, b: p.replace([2, 0, 2], torch.ones(3, 4), backend=b),
        ValueError,
        "positions holds 2 more than once; expected each once",
    ),
    "other numbers": (
        lambda p, b: p.replace([2, 0], torch.ones(1, 4), backend=b),
        ValueError,
        "items has 1 rows but there are 2 positions",
    ),
    "positions in floats": (
        lambda p, b: p.replace(torch.ones(1), torch.ones(1, 4), backend=b),
        ValueError,
        "positions has dtype torch.float32; expected int64",
    ),
    "removing too far": (lambda p, b: p.remove([0, 3]), IndexError, "positions holds 3 at entry 1"),
    "removing twice": (lambda p, b: p.remove([1, 1]), ValueError, "positions holds 1 more than"),
    "taking too far": (lambda p, b: p.take([1, 1, 3]), IndexError, "positions holds 3 at entry 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_CHANGES)
@pytest.mark.parametrize("sketched", [True, False])
def test_a_refused_change_leaves_the_pack_as_it_was(
    backend: str, name: str, sketched: bool
) -> None:
    change, error, message = BAD_CHANGES[name]
    rows = random(3, 4)
    packed = pack(rows, backend=backend)
    if not sketched:
        packed = PackedItems(packed.data, None, None, 0, 4, packed.inverse_norms)
    with pytest.raises(error, match=message):
        change(packed, backend)
    assert (packed.sketch is not None) == sketched
    assert torch.equal(packed.data, rows)
    packed.append(torch.ones(1, 4), backend=backend)
    oracle.assert_same_pack(packed, pack(torch.cat([rows, torch.ones(1, 4)]), backend=backend))


def test_a_change_moves_no_row_that_stays(backend: str) -> None:
    packed = pack(random(100, 4), backend=backend)
    places = set()
    for seed in range(1000):
        packed.append(random(1, 4, seed=seed), backend=backend)
        packed.replace([seed], random(1, 4, seed=seed), backend=backend)
        places.add(tuple(part.data_ptr() for part in oracle.parts(packed)))
    assert len(places) == 4  # room for 200, 400, 800 and 1600
    assert len(packed) == 1100
    packed.remove(range(1, 1100))
    assert packed.nbytes <= 16 * (4 * 4 + 8 + 4 + 8)


def test_a_copy_of_a_pack_changes_by_itself(backend: str) -> None:
    rows = random(20, 4)
    packed = pack(rows, backend=backend)
    packed.append(rows[:1], backend=backend)  # now with room
    other = copy.deepcopy(packed)
    other.append(rows[5:9], backend=backend)
    packed.append(rows[:4], backend=backend)
    for got, last in ((packed, rows[:4]), (other, rows[5:9])):
        oracle.assert_same_pack(got, pack(torch.cat([rows, rows[:1], last]), backend=backend))


def test_a_pack_changes_in_and_out_of_inference_mode(backend: str) -> None:
    rows, weights = random(9, 4), torch.ones(4, requires_grad=True)
    with torch.inference_mode():
        packed = pack(rows[:5], backend=backend)
    packed.append(rows[:0], backend=backend)
    packed.replace([1], rows[:1], backend=backend)
    packed.append(rows[5:6], backend=backend)
    with torch.inference_mode():
        packed.append(rows[6:], backend=backend)
        packed.remove([0])
        packed.append(rows.repeat(3, 1), backend=backend)
    packed.replace([1], rows[1:2], backend=backend)
    (packed.data * weights).sum().backward()  # no tensor of inference mode is kept for this
    want = torch.cat([rows[8:], rows[1:2], rows[2:8], rows, rows, rows])
    oracle.assert_same_pack(packed, pack(want, backend=backend))


def test_a_gradient_of_what_was_replaced_is_refused(backend: str) -> None:
    queries, packed = random(1, 4).requires_grad_(), pack(random(3, 4), backend=backend)
    scores = candidate_scores(queries, packed, Ragged.of([[0, 2]]), backend=backend)
    packed.replace([2], torch.ones(1, 4), backend=backend)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        scores.sum().backward()
