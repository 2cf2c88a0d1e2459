"""`ItemIndex` against a dictionary, through any history of changes, files, kills and failures."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from index_faults import Killed, bury, faults
from index_model import (
    CONSTANTS,
    METRICS,
    PROBES,
    REFUSED,
    SELF,
    Contents,
    Model,
    State,
    columns_of,
    counted,
    lowered,
    pairs,
    row_of,
    state_of,
)

from llmrec_kernels import ItemIndex, Ragged
from llmrec_kernels.index import STORAGES, journal, manifest

row = st.integers(0, 255).map(row_of)
external_id = st.integers(-20, 20) | st.sampled_from([-(2**63), 2**63 - 1])
queries = st.lists(row, max_size=3).map(
    lambda rows: torch.tensor([vector for vector, _, _ in rows]).reshape(-1, 2)
)
few_ids = st.lists(external_id, max_size=6)
change = st.sampled_from(["add", "update", "remove"])
file = st.sampled_from(["save", "save", "compact"])
columns = st.sets(st.sampled_from(["vectors", "bias", "scale"]), min_size=1)


def full() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


class Saved(NamedTuple):
    """What is in a folder."""

    rows: Contents
    version: int


class Act(NamedTuple):
    """What is done to an index, the rows that it then has, and the folder that it saves to."""

    call: Callable[[ItemIndex], None]
    rows: Contents
    changes: int
    folder: Path | None = None

    @property
    def name(self) -> str:
        return "change" if self.changes else self.call.__qualname__.split(".")[1]


class IndexAgainstModel(RuleBasedStateMachine):
    happened: ClassVar[Counter[str]] = Counter()  # what the rules led to, over all runs
    least = 1  # rows of a change, but for one rule

    @initialize(
        metric=st.sampled_from(METRICS),
        storage=st.sampled_from(STORAGES),
        count=st.sampled_from([0, 30]),
        data=st.data(),
    )
    def start(self, metric, storage, count, data):
        self.metric, self.storage = metric, storage
        self.top = Path(tempfile.mkdtemp())
        # What may be in each folder: more than one thing after a save that was broken off.
        self.folders: dict[Path, list[Saved | None]] = {self.top / n: [None] for n in "ab"}
        self.snapshots: list[tuple[Any, State]] = []
        self.rows: Contents
        self.begin(count)
        if data.draw(st.sampled_from([True, True, False])):
            act = self.save(data)
            act.call(self.index)
            self.done(act)
            self.come_back(data)

    def begin(self, count: int):
        """Have a new index, with a few rows that cost no drawing."""
        self.index = ItemIndex(2, metric=self.metric, storage=self.storage)
        self.rows, self.version = {one: row_of(37 * one) for one in range(count)}, 0
        self.live: Path | None = None  # the folder whose journal has every change
        if count:
            vectors, bias, scale = columns_of(self.rows)
            self.index.add(list(self.rows), vectors, bias=bias, scale=scale)
            self.version = 1

    def teardown(self):
        if hasattr(self, "top"):
            bury(self.index)
            shutil.rmtree(self.top)

    def state(self) -> State:
        return Model(self.metric, self.storage, self.rows).state(self.version)

    # What can be done.

    def drawn(self, data, kind) -> Act:
        return getattr(self, kind)(data)

    def add(self, data) -> Act:
        ids = data.draw(st.lists(external_id, min_size=self.least, max_size=24, unique=True))
        new = {one: data.draw(row) for one in ids if one not in self.rows}
        given = data.draw(columns)
        vectors, bias, scale = columns_of(new)
        numbers = {n: v for n, v in (("bias", bias), ("scale", scale)) if n in given}
        kept = {
            one: (v, b if "bias" in given else 0.0, s if "scale" in given else 1.0)
            for one, (v, b, s) in new.items()
        }
        return Act(lambda i: i.add(list(new), vectors, **numbers), {**self.rows, **kept}, 1)

    def update(self, data) -> Act:
        new = {one: data.draw(row) for one in data.draw(self.some_ids(6, self.least))}
        given = data.draw(columns)
        named = dict(zip(("vectors", "bias", "scale"), columns_of(new), strict=True))
        named = {name: column for name, column in named.items() if name in given}
        kept = {}
        for one, values in new.items():
            old = zip(("vectors", "bias", "scale"), values, self.rows[one], strict=True)
            kept[one] = tuple(value if name in given else had for name, value, had in old)
        return Act(lambda i: i.update(list(new), **named), {**self.rows, **kept}, 1)

    def remove(self, data) -> Act:
        gone = data.draw(self.some_ids(12, self.least))
        left = {one: kept for one, kept in self.rows.items() if one not in gone}
        return Act(lambda i: i.remove(gone), left, 1)

    def save(self, data) -> Act:
        folder = data.draw(st.sampled_from(sorted(self.folders)))
        return Act(lambda i: i.save(folder), self.rows, 0, folder)

    def compact(self, data) -> Act:
        return Act(lambda i: i.compact(), self.rows, 0)

    def some_ids(self, most: int, least: int = 0):
        if not self.rows:
            return st.just([])
        known = st.sampled_from(sorted(self.rows))
        return st.lists(known, min_size=min(least, len(self.rows)), max_size=most, unique=True)

    def done(self, act: Act, *, swept: bool = True):
        self.rows, self.version = act.rows, self.version + act.changes
        if act.folder is not None:
            self.folders[act.folder] = [Saved(self.rows, self.version)]
            if swept:
                self.no_file_is_left_over(act.folder)

    def no_file_is_left_over(self, folder: Path):
        found = manifest.read(folder)
        assert {path.name for path in folder.iterdir()} == found.files
        assert (found.journal is not None) == (folder == self.live)
        if folder == self.live:
            assert self.index.stats().journal_bytes == journal.HEADER.size

    # It is done: as it should be, or while the system fails, or the process ends.

    @rule(data=st.data(), kind=change)
    def do_a_change(self, data, kind):
        self.do(data, kind)

    @rule(data=st.data(), kind=change)
    def do_a_change_of_nothing_or_a_little(self, data, kind):
        self.least = 0
        self.do(data, kind)
        del self.least

    @rule(data=st.data(), kind=st.sampled_from(["add", "save", "compact"]))
    def do(self, data, kind):
        act = self.drawn(data, kind)
        act.call(self.index)
        self.done(act)

    @precondition(lambda self: self.live)
    @rule(data=st.data(), kind=change, first=st.integers(1, 9), count=st.integers(1, 3))
    def change_while_the_system_fails(self, data, kind, first, count):
        self.do_while_the_system_fails(data, kind, first, count)

    @rule(data=st.data(), kind=file, first=st.integers(1, 30), count=st.integers(1, 3))
    def do_while_the_system_fails(self, data, kind, first, count):
        act = self.drawn(data, kind)
        with faults(full, first=first, last=first + count - 1) as calls:
            try:
                act.call(self.index)
            except OSError:
                failed = True
            else:
                failed = False
        if not failed:
            self.done(act, swept=len(calls) < first)
            return
        if len(calls) >= first:
            self.happened[f"{act.name} failed"] += 1
        if act.folder is None:
            return
        new = Saved(self.rows, self.version)
        self.folders[act.folder] += [new]
        if act.folder != self.live:  # of which the journal is asked when the index is let go
            self.found(act.folder, mmap=False, opened=False)

    @precondition(lambda self: self.live)
    @rule(data=st.data(), kind=change, first=st.integers(1, 9))
    def die_in_a_change(self, data, kind, first):
        self.die_meanwhile(data, kind, first)

    @rule(data=st.data(), kind=file, first=st.integers(1, 30))
    def die_meanwhile(self, data, kind, first):
        act = self.drawn(data, kind)
        old = Saved(self.rows, self.version)
        new = Saved(act.rows, self.version + act.changes)
        killed = False
        with faults(Killed, first=first):
            try:
                act.call(self.index)
            except Killed:
                killed = True
                self.happened[f"{act.name} killed"] += 1
        bury(self.index)
        if act.folder is not None and act.folder != self.live:
            self.folders[act.folder] = [*self.folders[act.folder], new] if killed else [new]
        if self.live is not None:
            self.folders[self.live] = [old, new] if killed else [new]
        self.come_back(data)

    @rule(data=st.data(), kill=st.booleans())
    def let_go_and_come_back(self, data, kill):
        if kill:
            bury(self.index)
        else:
            self.index.close()
            assert state_of(self.index) == self.state()
            acts = (lambda i: i.remove([])), (lambda i: i.save(self.top / "a")), ItemIndex.compact
            for refused in acts:
                with pytest.raises(ValueError, match="the index is closed"):
                    refused(self.index)
        if self.live is not None:
            self.folders[self.live] = [Saved(self.rows, self.version)]
        self.come_back(data)

    def come_back(self, data):
        """Forget the index, and take what is in one of the folders."""
        there = [f for f in sorted(self.folders) if self.folders[f] != [None]]
        self.begin(0 if there else 30)
        if not there:
            return
        folder = data.draw(st.sampled_from(there))
        mmap, opened = data.draw(st.booleans()), data.draw(st.sampled_from([True, True, False]))
        if opened and data.draw(st.booleans()):
            self.die_while_opening(folder, data.draw(st.integers(1, 6)), mmap)
        index = self.found(folder, mmap=mmap, opened=opened)
        if index is None:
            self.begin(30)
            return
        self.index, (self.rows, self.version) = index, self.folders[folder][0]
        self.live = folder if opened else None

    def die_while_opening(self, folder, first, mmap):
        with faults(Killed, first=first), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            try:
                bury(ItemIndex.open(folder, mmap=mmap))
            except (Killed, FileNotFoundError):
                self.happened["open killed"] += 1

    def found(self, folder: Path, *, mmap: bool, opened: bool) -> ItemIndex | None:
        """What is in a folder must be one of what may be there; from then on it alone may."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*not written whole: it is dropped")
            try:
                index = ItemIndex.open(folder, mmap=mmap, journal=opened)
            except FileNotFoundError:
                assert None in self.folders[folder]
                self.folders[folder] = [None]
                return None
        state = state_of(index)
        may = [each for each in self.folders[folder] if each is not None]
        states = [Model(self.metric, self.storage, r).state(version) for r, version in may]
        assert state in states
        self.folders[folder] = [may[states.index(state)]]
        return index

    # What is asked.

    @rule(name=st.sampled_from(sorted(REFUSED)), known=external_id, new=external_id)
    def be_refused(self, name, known, new):
        if known not in self.rows or new in self.rows:
            return
        change, error = REFUSED[name]
        with pytest.raises(error):
            change(self.index, known, new)

    @rule(queries=queries, k=st.integers(1, 6), exclude=st.none() | few_ids, data=st.data())
    def search(self, queries, k, exclude, data):
        allow = data.draw(st.none() | self.some_ids(6))
        found = self.index.search(queries, k, exclude=exclude, allow=allow)
        lists = [None if one is None else [one] * len(queries) for one in (exclude, allow)]
        model = Model(self.metric, self.storage, self.rows)
        assert pairs(found) == model.search(queries, k, *lists)

    @rule(queries=queries, k=st.integers(1, 6), data=st.data())
    def search_with_lists(self, queries, k, data):
        count = len(queries)
        exclude = data.draw(st.lists(few_ids, min_size=count, max_size=count))
        allow = data.draw(st.none() | st.lists(self.some_ids(6), min_size=count, max_size=count))
        found = self.index.search(
            queries,
            k,
            exclude=Ragged.of(exclude),
            allow=None if allow is None else Ragged.of(allow),
        )
        model = Model(self.metric, self.storage, self.rows)
        assert pairs(found) == model.search(queries, k, exclude, allow)

    @precondition(lambda self: len(self.snapshots) < 4)
    @rule()
    def keep_a_snapshot(self):
        self.snapshots.append((self.index.snapshot(), self.state()))

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data())
    def drop_a_snapshot(self, data):
        self.snapshots.pop(data.draw(st.integers(0, len(self.snapshots) - 1)))

    @invariant()
    def it_holds_what_the_model_holds(self):
        if not hasattr(self, "index"):
            return
        assert state_of(self.index) == self.state()
        assert len(self.index) == len(self.rows)
        assert all(one in self.index for one in self.rows)
        assert 99 not in self.index
        stats = self.index.stats()
        assert (stats.items, stats.version) == (len(self.rows), self.version)
        assert stats.memory_bytes + stats.mapped_bytes > 0 or not self.rows
        assert (stats.journal_bytes > 0) == (self.live is not None)

    @invariant()
    def snapshots_hold_what_they_held(self):
        for snapshot, state in getattr(self, "snapshots", ()):
            assert state_of(snapshot) == state


EXAMPLES = 80


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Without disks and threads that wait: no power is cut here."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("constants", CONSTANTS)
def test_any_history_gives_the_answers_of_brute_force(monkeypatch, constants):
    lowered(monkeypatch, constants)
    happened = IndexAgainstModel.happened
    happened.clear()
    counted(monkeypatch, happened)
    run_state_machine_as_test(
        IndexAgainstModel,
        settings=settings(max_examples=EXAMPLES, stateful_step_count=30, deadline=None),
    )
    # What happens in any hundred histories; the rest is seen to in the next test.
    expected = {"save failed", "save killed", "open killed", "merge", "seal", "rewrite"}
    expected |= set() if constants == "as they are" else {"split"}
    assert expected <= {what for what, times in happened.items() if times}


@pytest.mark.parametrize("constants", ["small", "odd"])
def test_all_that_an_index_does_by_itself_happens_with_these_constants(monkeypatch, constants):
    lowered(monkeypatch, constants)
    happened: Counter[str] = Counter()
    counted(monkeypatch, happened)
    index, rows = ItemIndex(2), {}
    for number in range(120):
        new = [one for one in range(number % 30, number % 30 + number % 23) if one not in rows]
        rows |= {one: row_of(37 * (one + number)) for one in new}
        vectors, bias, scale = columns_of({one: rows[one] for one in new})
        index.add(new[::-1], vectors.flip(0), bias=bias.flip(0), scale=scale.flip(0))
        index.update(new[:2], vectors[:2])
        gone = sorted(rows)[number % 3 :: 2 + number % 4]
        index.remove(gone)
        rows = {one: row for one, row in rows.items() if one not in gone}
        for k in (1, 2):
            found = index.search(PROBES, k)
            assert pairs(found) == Model("cosine", "float32", rows).search(PROBES, k)
        if number % 40 == 39:
            index.compact()
    assert {what for what, times in happened.items() if times} == set(SELF)
