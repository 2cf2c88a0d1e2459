"""Threads that search an `ItemIndex` while others change it see whole versions, bit for bit."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from index_faults import bury, interrupted

from llmrec_kernels import ItemIndex, Ragged, cosine_topk, quantize
from llmrec_kernels.index import journal, store

SECONDS = float(os.environ.get("LLMREC_STRESS_SECONDS", "8"))
DIM, MOST = 8, 12_000
IDS = np.unique(np.random.default_rng(0).integers(-(10**6), 10**6, 2 * MOST))[:MOST]
Places = np.ndarray  # of ids in IDS, which ascend: equal scores come by smaller place


@pytest.fixture(autouse=True)
def _many_switches():
    """Threads take turns as often as Python can, and none of torch's own are in their way."""
    interval, threads = sys.getswitchinterval(), torch.get_num_threads()
    sys.setswitchinterval(1e-5)
    torch.set_num_threads(1)
    yield
    sys.setswitchinterval(interval)
    torch.set_num_threads(threads)


class Change(NamedTuple):
    """Rows that come in place of what was there, or, without vectors, go."""

    places: Places
    vectors: torch.Tensor | None
    bias: torch.Tensor | None
    scale: torch.Tensor | None


class Model:
    """What the index holds after its first so many changes; it only goes on to later ones.

    A change is in `history` before it is made, so whoever sees version n finds n changes there.
    """

    def __init__(self, history: Sequence[Change], storage: str, metric: str) -> None:
        self.history, self.storage, self.metric, self.version = history, storage, metric, 0
        self.there = np.zeros(MOST, np.bool_)
        self.vectors = torch.zeros(MOST, DIM)
        self.bias, self.scale = torch.zeros(MOST), torch.ones(MOST)

    def at(self, version: int) -> Model:
        assert self.version <= version <= len(self.history)
        for places, vectors, bias, scale in self.history[self.version : version]:
            self.there[places] = vectors is not None
            if vectors is not None:
                kept = quantize(vectors, "int8").dequantize() if self.storage == "int8" else vectors
                self.vectors[places] = kept
                self.bias[places] = 0.0 if bias is None else bias
                self.scale[places] = 1.0 if scale is None else scale
        self.version = version
        return self

    def live(self) -> Places:
        return self.there.nonzero()[0]

    def search(self, queries, k, exclude=None, allow=None) -> tuple[list, list]:
        """Scores and ids; places are excluded and allowed, by lists for each query."""
        live, rank = self.live(), self.there.cumsum() - 1
        if exclude is not None:
            exclude = [rank[each[self.there[each]]].tolist() for each in exclude]
        if allow is not None:
            allow = [rank[each].tolist() for each in allow]
        scores, found = cosine_topk(
            queries,
            self.vectors[live],
            k,
            metric=self.metric,
            item_bias=self.bias[live],
            item_scale=self.scale[live],
            exclude=exclude,
            allow=allow,
            backend="reference",
        )
        ids = np.append(IDS[live], -1)[found.numpy()]
        return scores.tolist(), ids.tolist()


def answer(topk) -> tuple[list, list]:
    return topk.scores.tolist(), topk.ids.tolist()


def some_vectors(rng, count: int) -> torch.Tensor:
    """Of which many score alike, and a few do not."""
    vectors = rng.integers(-1, 2, (count, DIM)).astype(np.float32)
    vectors[::7] += rng.standard_normal(vectors[::7].shape, dtype=np.float32)
    return torch.from_numpy(vectors)


class Writer:
    """Makes one change after the other; some are interrupted, and then made or not."""

    def __init__(self, index: ItemIndex, history: list[Change], seed: int, broken: float) -> None:
        self.index, self.history, self.broken = index, history, broken
        self.rng, self.there = np.random.default_rng(seed), np.zeros(MOST, np.bool_)

    def change(self) -> None:
        rng = self.rng
        live = int(self.there.sum())
        kind = rng.choice(["add", "update", "remove"], p=self.chances(live))
        among = (self.there if kind != "add" else ~self.there).nonzero()[0]
        most = rng.choice([1, 40, 300, 5_000], p=[0.7, 0.2, 0.08, 0.02])
        places = rng.permutation(among)[: rng.integers(1, most + 1)]
        if kind == "remove":
            self.make(Change(places, None, None, None), lambda ids, *_: self.index.remove(ids))
            return
        vectors = some_vectors(rng, places.shape[0])
        bias, scale = (
            torch.from_numpy(rng.integers(1, 3, places.shape) / 2.0).float() for _ in "bs"
        )
        act = self.index.add if kind == "add" else self.index.update
        # An update keeps what is not given, which the model does not know of.
        given = kind == "update" or rng.integers(2) == 1
        change = Change(places, vectors, *((bias, scale) if given else (None, None)))
        self.make(change, lambda ids, v, b, s: act(ids, v, bias=b, scale=s))

    def chances(self, live: int) -> list[float]:
        if live < 200:
            return [1.0, 0.0, 0.0]
        return [0.3, 0.3, 0.4] if live > 4_000 else [0.4, 0.4, 0.2]

    def make(self, change: Change, act: Callable[..., None]) -> None:
        self.history.append(change)
        stop = contextlib.nullcontext()
        if self.rng.random() < self.broken:
            stop = interrupted(int(self.rng.integers(1, 150)))
        with stop, contextlib.suppress(KeyboardInterrupt):
            act(IDS[change.places], *change[1:])
        if self.index.version < len(self.history):
            self.history.pop()
        else:
            self.there[change.places] = change.vectors is not None
        assert self.index.version == len(self.history)


class Reader:
    """Asks snapshots and the index itself, and compares what they say with the model."""

    def __init__(self, index: ItemIndex, model: Model, seed: int) -> None:
        self.index, self.model, self.rng = index, model, np.random.default_rng(seed)
        self.answers = 0
        self.kept: list[tuple[Any, Any, Any]] = []  # snapshots, questions, and their answers

    def ask(self) -> None:
        getattr(self, self.rng.choice(["ask_a_snapshot", "ask_the_index", "ask_again"]))()
        self.answers += 1

    def ask_a_snapshot(self) -> None:
        rng, snapshot = self.rng, self.index.snapshot()
        model = self.model.at(snapshot.version)
        live = model.live()
        assert len(snapshot) == live.shape[0]
        some = rng.choice(MOST, 50)
        assert [one in snapshot for one in IDS[some].tolist()] == model.there[some].tolist()
        if not live.shape[0]:
            return
        known = rng.choice(live, 30)
        assert torch.equal(torch.from_numpy(snapshot.vectors(IDS[known])), model.vectors[known])
        if rng.random() < 0.2:
            assert list(snapshot) == IDS[live].tolist()
        queries, k = some_vectors(rng, 3), int(rng.integers(1, 40))
        filters, lists = self.drawn_filters(live)
        expected = model.search(queries, k, *lists)
        assert answer(snapshot.search(queries, k, **filters)) == expected
        if rng.random() < 0.1:
            self.kept = [*self.kept[-9:], (snapshot, (queries, k, filters), expected)]

    def drawn_filters(self, live: Places) -> tuple[dict[str, Any], list[Any]]:
        """What to exclude and to allow: as the index takes it, and as the model does."""
        filters, lists = {}, []
        for name, among in (("exclude", np.arange(MOST)), ("allow", live)):
            kind = self.rng.integers(3)
            count = self.rng.integers(0, 60, 3)
            each = [np.unique(self.rng.choice(among, many)) for many in count]
            if kind == 0:
                lists.append(None)
            elif kind == 1:
                filters[name] = IDS[each[0]]
                lists.append([each[0]] * 3)
            else:
                filters[name] = Ragged.of([IDS[one].tolist() for one in each])
                lists.append(each)
        return filters, lists

    def ask_the_index(self) -> None:
        """One version between the start and the end of a search gives the whole answer."""
        queries, k = some_vectors(self.rng, 2), int(self.rng.integers(1, 40))
        first = self.index.version
        found = answer(self.index.search(queries, k))
        last = self.index.version
        # Most often it is the first or the last.
        assert any(self.model.at(v).search(queries, k) == found for v in range(first, last + 1))

    def ask_again(self) -> None:
        for snapshot, (queries, k, filters), expected in self.kept:
            assert answer(snapshot.search(queries, k, **filters)) == expected


def together(acts: Sequence[Callable[[], None]], seconds: float) -> None:
    """Repeat each act in a thread of its own; the first that fails ends all, and the test."""
    stop = threading.Event()
    end = time.monotonic() + seconds

    def repeat(act: Callable[[], None]) -> None:
        try:
            while not stop.is_set() and time.monotonic() < end:
                act()
        finally:
            stop.set()

    with ThreadPoolExecutor(len(acts)) as pool:
        for done in [pool.submit(repeat, act) for act in acts]:
            done.result()


KINDS = {
    # storage, metric, whether there is a journal and mapped files, changes that are interrupted
    "in memory": ("float32", "cosine", False, 0.0),
    "in files": ("int8", "dot", True, 0.0),
    "interrupted": ("float32", "dot", False, 0.1),
    "interrupted, in files": ("float32", "cosine", True, 0.1),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_answer_is_that_of_one_version(tmp_path, kind):
    storage, metric, in_files, broken = KINDS[kind]
    index = ItemIndex(DIM, metric=metric, storage=storage)
    index.save(tmp_path / "index")
    if in_files:
        index = ItemIndex.open(tmp_path / "index", mmap=True)
    history: list[Change] = []
    writer = Writer(index, history, 0, broken)
    readers = [Reader(index, Model(history, storage, metric), seed) for seed in range(3)]
    rng = np.random.default_rng(1)

    def tidy() -> None:
        """Compact, or save, and see what was saved."""
        if rng.random() < 0.3:
            index.compact()
            return
        first = index.version
        index.save(tmp_path / "index")
        last = index.version
        if in_files:
            return  # what load finds is in the journal, and goes on
        saved = ItemIndex.load(tmp_path / "index", mmap=bool(rng.integers(2)))
        assert first <= saved.version <= last
        Reader(saved, Model(history, storage, metric), 0).ask_a_snapshot()

    acts = [writer.change, tidy, *(reader.ask for reader in readers)]
    together(acts, SECONDS / len(KINDS))
    for reader in readers:
        assert reader.answers > 3
        reader.ask_again()
    index.compact()
    for reader in readers:
        reader.ask_a_snapshot()
        reader.ask_again()
    if in_files:
        bury(index)
        with ItemIndex.open(tmp_path / "index") as again:
            assert again.version == len(history)
            Reader(again, Model(history, storage, metric), 0).ask_a_snapshot()


def test_snapshots_keep_their_answers_while_all_rows_change(monkeypatch):
    monkeypatch.setattr(store, "TAIL", 64)
    index, history = ItemIndex(DIM), []
    writer = Writer(index, history, 0, 0.0)
    reader = Reader(index, Model(history, "float32", "cosine"), 0)
    queries, kept = some_vectors(reader.rng, 2), []
    for _ in range(60):
        writer.change()
        model = reader.model.at(index.version)
        kept.append((index.snapshot(), IDS[model.live()].tolist(), model.search(queries, 9)))

    def check() -> None:
        for snapshot, ids, expected in kept:
            assert list(snapshot) == ids
            assert answer(snapshot.search(queries, 9)) == expected

    check()
    index.compact()
    check()
    index.update(list(index), torch.ones(len(index), DIM))
    check()
    index.remove(list(index))
    index.compact()
    check()
    assert len(index) == 0


def test_two_threads_that_change_an_index_lose_nothing(monkeypatch):
    monkeypatch.setattr(store, "TAIL", 64)
    monkeypatch.setattr(store, "FAN", 2)
    index = ItemIndex(DIM)
    held: list[dict[int, torch.Tensor]] = [{}, {}]
    changes = [0, 0]

    def change(number: int) -> Callable[[], None]:
        """Change the ids that leave this remainder."""
        rng = np.random.default_rng(number)

        def act() -> None:
            ids = (2 * rng.choice(300, rng.integers(1, 20), replace=False) + number).tolist()
            mine, vectors = held[number], some_vectors(rng, len(ids))
            there = [one in mine for one in ids]
            known = [one for one, has in zip(ids, there, strict=True) if has]
            new = [one for one in ids if one not in known]
            index.add(new, vectors[: len(new)])
            index.update(known, vectors[len(new) :])
            mine.update(zip([*new, *known], vectors, strict=True))
            gone = ids[::3]
            index.remove(gone)
            for one in gone:
                del mine[one]
            changes[number] += 3

        return act

    together([change(0), change(1), index.compact], min(1.0, SECONDS))
    rows = held[0] | held[1]
    assert index.version == sum(changes)
    assert list(index) == sorted(rows)
    assert torch.equal(
        index.vectors(sorted(rows)), torch.stack([rows[one] for one in sorted(rows)])
    )


@pytest.mark.parametrize("act", ["save", "compact"])
@pytest.mark.parametrize("mmap", [False, True])
def test_a_change_beside_any_step_of_a_save_is_not_lost(monkeypatch, tmp_path, act, mmap):
    monkeypatch.setattr(store, "TAIL", 32)
    monkeypatch.setattr(store, "FAN", 2)
    index = ItemIndex(2)
    index.save(tmp_path)
    index = ItemIndex.open(tmp_path, mmap=mmap)
    for start in (0, 100, 200):
        index.add(range(start, start + 100), torch.ones(100, 2))
        index.save(tmp_path)
    index.remove(range(0, 300, 3))
    index.add(range(400, 420), torch.ones(20, 2))
    ids, others, main = list(index), [], threading.current_thread()
    changed = iter(ids)

    def publish(self, *args, real=store.Store._publish):
        if threading.current_thread() is main:
            one = next(changed)
            change = threading.Thread(target=index.update, args=([one], -torch.ones(1, 2)))
            others.append(change)
            others[-1].start()
            others[-1].join(0.1)  # or, where it waits for this one, not
        real(self, *args)

    monkeypatch.setattr(store.Store, "_publish", publish)
    version = index.version
    index.save(tmp_path) if act == "save" else index.compact()
    for other in others:
        other.join()
    assert others
    assert index.version == version + len(others)
    assert list(index) == ids
    vectors = torch.ones(len(ids), 2)
    vectors[: len(others)] *= -1
    assert torch.equal(index.vectors(ids), vectors)


def test_sync_waits_for_the_journal_that_a_save_ends(monkeypatch, tmp_path):
    ItemIndex(2).save(tmp_path)
    index = ItemIndex.open(tmp_path)
    index.add([1], torch.ones(1, 2))
    begun, saved = threading.Event(), threading.Event()

    def sync(self, real=journal.Journal.sync):
        if threading.current_thread() is other:
            begun.set()
            saved.wait(0.3)  # or, where the save waits for this one, not
        real(self)

    monkeypatch.setattr(journal.Journal, "sync", sync)
    errors = []

    def act() -> None:
        try:
            index.sync()
        except OSError as error:
            errors.append(error)

    other = threading.Thread(target=act)
    other.start()
    assert begun.wait(10)
    index.save(tmp_path)
    saved.set()
    other.join()
    assert not errors
