"""`ItemIndex`: vectors with external ids, searched exactly while they change."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from llmrec_kernels.index import disk
from llmrec_kernels.index.encode import STORAGES
from llmrec_kernels.index.errors import IndexFormatError
from llmrec_kernels.index.home import Home, keeping, save
from llmrec_kernels.index.intake import Intake, unique
from llmrec_kernels.index.journal import Change, Journal, Reader
from llmrec_kernels.index.layout import Kind
from llmrec_kernels.index.manifest import Manifest, read
from llmrec_kernels.index.saved import Save, open_parts
from llmrec_kernels.index.segment import Entries, Ids, Segment
from llmrec_kernels.index.snapshot import Snapshot
from llmrec_kernels.index.stats import IndexStats
from llmrec_kernels.index.store import Store
from llmrec_kernels.index.turns import Turns
from llmrec_kernels.index.version import Places
from llmrec_kernels.ops import TopK, checks
from llmrec_kernels.ops.cosine_topk import METRICS

__all__ = ["STORAGES", "ItemIndex"]

TRIES = 5  # to open what another process saves meanwhile


class ItemIndex:
    """Vectors under ids of your own, which can be added, changed, removed and searched.

    A search is an exact brute force (`cosine_topk`), so there is nothing to train and a change
    shows at once. A change costs in proportion to the rows it changes, not to the rows there are.

    Any number of threads may search while others change the index: a search sees one version, all
    of a change or nothing of it, and waits for nobody. Changes wait for each other.

    Parameters
    ----------
    dim : int
        Elements in a vector.
    metric : "cosine" or "dot"
        Cosine with a zero vector is 0.
    storage : "float32", "float16", "bfloat16", "int8" or "int4"
        How vectors are kept. The narrow ones are rounded when they are added (`quantize` says by
        how much), and the search is exact over what is kept.
    device : str or torch.device
        Where the vectors are kept and searched. What is added is moved there; queries must be
        there already.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or not one of those named.

    Examples
    --------
    >>> index = ItemIndex(2)
    >>> index.add([70, 50, -3], torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]))
    >>> index.search(torch.tensor([[2.0, 0.0]]), k=2).ids
    tensor([[70, 50]])
    >>> index.remove([70])
    >>> len(index), 70 in index, 50 in index
    (2, False, True)
    """

    def __init__(
        self,
        dim: int,
        *,
        metric: str = "cosine",
        storage: str = "float32",
        device: torch.device | str = "cpu",
    ) -> None:
        checks.choice("metric", metric, METRICS)
        checks.choice("storage", storage, STORAGES)
        self.metric, self.storage = metric, storage
        self.dim, self.device = checks.positive_int("dim", dim), torch.device(device)
        self._intake = Intake(self.dim, storage, self.device)
        self._store = Store(self._intake.empty().rows)
        self._changing = Turns("changed")  # and what must not fall between two changes
        self._saving = Turns("saved")
        self._home: Home | None = None
        self._closed = False

    @property
    def version(self) -> int:
        """How many changes it has seen: each `add`, `update` and `remove` is one."""
        return self._store.version.number

    def __len__(self) -> int:
        return self._store.version.live

    def __contains__(self, item_id: object) -> bool:
        return item_id in self.snapshot()

    def __iter__(self) -> Iterator[int]:
        """The ids of one version, ascending."""
        return iter(self.snapshot())

    def __repr__(self) -> str:
        return f"<ItemIndex: {len(self):,} vectors of {self.dim}, {self.metric}, {self.storage}>"

    def snapshot(self) -> Snapshot:
        """What the index holds now, for several questions about one version.

        Examples
        --------
        >>> index = ItemIndex(1)
        >>> index.add([4], torch.ones(1, 1))
        >>> now = index.snapshot()
        >>> index.update([4], torch.zeros(1, 1))
        >>> now.vectors([4]).tolist(), index.vectors([4]).tolist()
        ([[1.0]], [[0.0]])
        """
        return Snapshot(self._store.version, self.dim, self.metric, self.device)

    def add(self, ids: Any, vectors: Any, *, bias: Any = None, scale: Any = None) -> None:
        """Add vectors under new ids: all of them, or, where anything is wrong, none.

        Parameters
        ----------
        ids : array or list of int, [n]
            Any int64, each once and none that is there already.
        vectors : array, [n, dim] float32, float16, bfloat16 or float64
            Finite. Float64 is read as float32.
        bias, scale : array, [n], optional
            score = similarity * scale + bias; 1 and 0 where they are not given.

        Raises
        ------
        TypeError
            If an argument is of the wrong kind.
        ValueError
            If an id comes twice or is there already, a shape or dtype is wrong, or a number is
            NaN, Inf or too large for the storage.

        Examples
        --------
        >>> index = ItemIndex(1, metric="dot")
        >>> index.add([1, 2], torch.ones(2, 1), bias=torch.tensor([0.0, 3.0]))
        >>> index.search(torch.ones(1, 1), k=2)
        TopK(scores=tensor([[4., 1.]]), ids=tensor([[2, 1]]))
        >>> index.add([2], torch.ones(1, 1))
        Traceback (most recent call last):
            ...
        ValueError: ids holds 2, which is in the index already; update changes it
        """
        given = self._intake.given(ids, vectors, bias, scale)
        entries = self._intake.added(given)
        with self._changing.next():
            self._store.make_room(given.ids.shape[0])
            there = self._store.version.find(given.ids).part >= 0
            if there.any():
                raise ValueError(
                    f"ids holds {given.ids[there.argmax()]}, which is in the index already; "
                    "update changes it"
                )
            self._change(entries, None)

    def update(self, ids: Any, vectors: Any = None, *, bias: Any = None, scale: Any = None) -> None:
        """Change vectors, biases or scales that are there: all of them or none.

        What is not given stays as it is.

        Parameters
        ----------
        ids : array or list of int, [n]
            Each once.
        vectors : array, [n, dim], optional
        bias, scale : array, [n], optional
            As for `add`.

        Raises
        ------
        IndexError
            If an id is not in the index.
        TypeError, ValueError
            As `add`, and if there is nothing to change.

        Examples
        --------
        >>> index = ItemIndex(2)
        >>> index.add([5], torch.tensor([[1.0, 0.0]]))
        >>> index.update([5], torch.tensor([[0.0, 1.0]]))
        >>> index.vectors([5])
        tensor([[0., 1.]])
        """
        if vectors is None and bias is None and scale is None:
            raise ValueError("update has nothing to change; give vectors, bias or scale")
        given = self._intake.given(ids, vectors, bias, scale)
        with self._changing.next():
            self._store.make_room(given.ids.shape[0])
            version = self._store.version
            places = version.known("ids", given.ids)
            self._change(self._intake.changed(given, version, places), places)

    def remove(self, ids: Any) -> None:
        """Remove ids: all of them or none.

        Parameters
        ----------
        ids : array or list of int, [n]
            Each once.

        Raises
        ------
        IndexError
            If an id is not in the index.
        TypeError, ValueError
            If it is no list of integers, or an id comes twice.

        Examples
        --------
        >>> index = ItemIndex(1)
        >>> index.add([1, 2], torch.ones(2, 1))
        >>> index.remove([3])
        Traceback (most recent call last):
            ...
        IndexError: ids holds 3, which is not in the index
        """
        removed, _ = unique(ids)
        with self._changing.next():
            self._store.make_room(0)
            self._change((), self._store.version.known("ids", removed), removed)

    def stats(self) -> IndexStats:
        """Counts and bytes.

        An item takes the bytes of its row in the storage (4 d in float32, 2 d in float16 and
        bfloat16, d + 8 in int8, ceil(d / 2) + 4 in int4), 4 ceil(d / 4) for the int8 codes that a
        search reads, 16 for what goes with those and its inverse norm, 8 for its id, and 4 each
        for a bias and a scale where any was given. Up to 4,096 items that were added last take
        some 160 more, and there is room for as many again beside them. A segment of which rows
        were removed holds 4 more for each of its rows and up to 8 for each removed one.

        Examples
        --------
        >>> index = ItemIndex(384, storage="int8")
        >>> index.add(range(10_000), torch.randn(10_000, 384))
        >>> round(index.stats().bytes_per_item)
        800
        """
        journal = None if self._home is None else self._home.journal
        return self._store.stats(0 if journal is None else journal.nbytes)

    def compact(self) -> None:
        """Write the rows anew, in the order of their ids and without those that were removed.

        A search then reads as little as it can, and the space of what was removed is free. It is
        never needed: the index does as much by itself when a quarter of the rows of a segment were
        removed. Searches go on meanwhile; changes wait. Beside the index as it was, the new one is
        in memory until the end. Where the index is mapped (`load`), what is written anew goes to
        new files in its folder, a million rows of it at a time in memory, and `save` makes them
        the index's own.

        Examples
        --------
        >>> index = ItemIndex(1)
        >>> index.add(range(100), torch.ones(100, 1))
        >>> index.remove(range(10))
        >>> index.compact()
        >>> index.stats().removed
        0
        """
        with self._saving.next(), self._changing.next():
            self._refuse_closed()
            if self._home is None or not self._home.mapped:
                self._store.compact(Segment)
                return
            folder = self._home.folder
            with (
                disk.sentences(folder),
                self._home.writing(folder),
                Save(folder, self._kind) as saving,
            ):
                self._store.compact(keeping(saving))

    def vectors(self, ids: Any) -> Any:
        """The vectors as they are kept and scored, rounding included, [n, dim] float32.

        Parameters
        ----------
        ids : array or list of int, [n]
            In any order, also repeated.

        Returns
        -------
        Tensor
            On the index's device; NumPy or CuPy when the ids came so.

        Raises
        ------
        IndexError
            If an id is not in the index.

        Examples
        --------
        >>> index = ItemIndex(3, storage="int4")
        >>> index.add([1], torch.tensor([[0.0, 0.5, 1.0]]))
        >>> index.vectors([1])
        tensor([[0.0000, 0.5332, 0.9998]])
        """
        return self.snapshot().vectors(ids)

    def search(
        self,
        queries: Any,
        k: int,
        *,
        exclude: Any = None,
        allow: Any = None,
        precision: str = "exact",
    ) -> TopK:
        """Find the k best items of each query, under their external ids.

        Parameters
        ----------
        queries : array, [B, dim] float32, float16, bfloat16 or float64
            On the index's device.
        k : int
            At least 1; more than there are items gives a padded tail.
        exclude : external ids, optional
            Never returned. One-dimensional ids for all queries, or a list for each query
            (`Ragged`, list of lists, CSR). Ids that are not in the index are ignored.
        allow : external ids, optional
            The only ones returned; in the same forms. A mask has no meaning here: rows have no
            order.
        precision : "exact" or "fast"
            As for `cosine_topk`.

        Returns
        -------
        TopK
            Scores descending, equal ones by smaller external id, also at the cut. Score -inf (and
            id -1, which may be one of your own ids) fills a row with fewer than k items. On the
            device of `queries`; NumPy or CuPy when the queries came so.

        Raises
        ------
        IndexError
            If `allow` holds an id that is not in the index.
        TypeError, ValueError
            As `cosine_topk` does.

        Examples
        --------
        >>> index = ItemIndex(2)
        >>> index.add([9, 4, 6], torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
        >>> index.search(torch.tensor([[1.0, 0.0]]), k=2).ids
        tensor([[4, 9]])
        >>> index.search(torch.tensor([[1.0, 0.0]]), k=2, exclude=[4], allow=[4, 6]).ids
        tensor([[ 6, -1]])
        """
        return self.snapshot().search(queries, k, exclude=exclude, allow=allow, precision=precision)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Put the index into a folder, whole or not at all.

        Whatever happens meanwhile, a kill or a power cut, the folder holds the index that was
        there before or the new one. Only what is not there yet is written: segments that an
        earlier `save` wrote, or `load` read, stay as they are, and are not read again. Searches
        and changes go on; what is saved is the version of the moment.

        Parameters
        ----------
        path : str or path
            A folder: new, empty, or with an index in it, which is replaced.

        Raises
        ------
        OSError
            If the folder cannot be written to, the disk is full, or another process has the index
            open for changes (`BlockingIOError`). What was there is as it was.
        ValueError
            If the folder holds something else, or (`IndexFormatError`) a damaged index.

        Examples
        --------
        >>> import tempfile
        >>> index = ItemIndex(2)
        >>> index.add([5, 9], torch.eye(2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     index.save(folder)
        ...     list(ItemIndex.load(folder))
        [5, 9]
        """
        folder = Path(path).absolute()
        with self._saving.next(), disk.sentences(folder):
            self._refuse_closed()
            home = self._home or Home(folder, mapped=False)
            save(folder, home, self._store, self._changing, self._kind, self.metric)

    @staticmethod
    def load(
        path: str | os.PathLike[str], *, mmap: bool = False, device: torch.device | str = "cpu"
    ) -> ItemIndex:
        """Read an index from a folder, with the changes of its journal where there is one.

        Parameters
        ----------
        path : str or path
            Where `save` put it.
        mmap : bool
            Leave the rows in their files, which the system reads when they are used, and forgets
            when memory is short: an index may be larger than memory. It opens at once. A search
            then reads through the files' codes, and takes of memory its results and workspace
            alone (`cosine_topk`), and where rows were removed, for one segment at a time, a byte
            for each of its rows (at most 1,048,576) and 8 for each removed one. The index itself
            holds 9 bytes for each 65,536 of the files, and where rows were removed 4 for each row
            of the segment and up to 8 for each removed one. Changes are in memory until `save`
            writes them to the same folder; it also writes segments anew of which a quarter was
            removed, one at a time in memory, and changes wait for that. Each segment keeps its
            file open. The files must not be cut or written by others.
        device : str or torch.device
            Where it is searched.

        Raises
        ------
        FileNotFoundError
            If there is no index.
        IndexFormatError
            If it is truncated, damaged, or of something else. Mapped rows are compared with their
            checksums, one for each 65,536 bytes, before they are used: those of a segment when it
            is first searched, or the few that `vectors` asks for. So these may raise it, too.

        Warns
        -----
        RuntimeWarning
            If the journal ends in the middle of a change, as after a kill; that change is dropped.
        """
        return _opened(Path(path).absolute(), mmap, torch.device(device)).made

    @staticmethod
    def open(
        path: str | os.PathLike[str],
        *,
        journal: bool = True,
        mmap: bool = False,
        device: torch.device | str = "cpu",
    ) -> ItemIndex:
        """Load an index, and write each change to a journal beside it before it shows.

        What was changed survives a kill of the process at once, and a power cut from the next
        `sync` or `save` on. `save` to the same folder empties the journal. No other process can
        open or save the index there until `close`, or the end of this one.

        Parameters
        ----------
        path : str or path
            Where `save` put it.
        journal : bool
            Without it, this is `load`.
        mmap, device
            As for `load`.

        Raises
        ------
        FileNotFoundError, IndexFormatError
            As `load` does.
        OSError
            If the folder cannot be written to, or the index is open for changes elsewhere
            (`BlockingIOError`).

        Examples
        --------
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> ItemIndex(2).save(folder)
        >>> with ItemIndex.open(folder) as index:
        ...     index.add([3], torch.ones(1, 2))
        >>> list(ItemIndex.load(folder))
        [3]
        """
        folder, there = Path(path).absolute(), torch.device(device)
        if not journal:
            return _opened(folder, mmap, there).made
        home = Home(folder, mapped=mmap)
        with disk.sentences(folder):
            read(folder)  # says whether there is an index
            home.lock()
            try:
                opened = _opened(folder, mmap, there)
                home.go_on(opened.reader, opened.manifest)
            except BaseException:
                home.close()
                raise
        opened.made._home = home
        return opened.made

    def sync(self) -> None:
        """Wait until the disk has all changes that the journal holds; without one, do nothing.

        Examples
        --------
        >>> ItemIndex(2).sync()
        """
        with self._changing.next():
            if self._home is not None and self._home.journal is not None:
                self._refuse_closed()
                self._home.journal.sync()

    def close(self) -> None:
        """Let go of the folder and the journal: no change and no save can follow.

        Examples
        --------
        >>> index = ItemIndex(2)
        >>> index.close()
        >>> index.add([1], torch.ones(1, 2))
        Traceback (most recent call last):
            ...
        ValueError: the index is closed; open it again to change it
        """
        with self._saving.next(), self._changing.next():
            self._closed = True
            if self._home is not None:
                self._home.close()

    def __enter__(self) -> ItemIndex:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def _kind(self) -> Kind:
        return Kind(self.dim, self.storage)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise ValueError("the index is closed; open it again to change it")
        if self._home is not None and self._home.journal is not None and self._home.forked:
            raise ValueError(
                "the index was opened by the process that this one was forked from, which goes on "
                "with it; load it here"
            )

    def _change(
        self, added: Sequence[Entries], gone: Places | None, removed: Ids | None = None
    ) -> None:
        """Make a change, and have it in the journal: both, or neither where anything fails."""
        self._refuse_closed()
        number = self._store.version.number + 1
        log = None if self._home is None else self._home.journal
        whole = 0 if log is None else log.nbytes

        def certain() -> None:
            if log is None or self._home is None:
                return
            with disk.sentences(self._home.folder):
                write(log)

        def write(log: Journal) -> None:
            if removed is not None:
                log.remove(number, removed)
            else:
                log.put(number, added)

        try:
            self._store.change(added, gone, certain)
        except BaseException:
            if log is not None and self.version < number:
                log.cut(whole)
            raise
        self._store.tidy()

    def _replay(self, change: Change) -> None:
        """Make a change that a journal holds."""
        self._store.make_room(change.ids.shape[0])
        version = self._store.version
        if change.columns is None:
            self._store.change((), version.known("ids", change.ids))
        else:
            found = version.find(change.ids)
            there = found.part >= 0
            self._store.change(
                self._intake.stored(change.ids, change.columns, change.bias, change.scale),
                Places(found.part[there], found.position[there]),
            )
        self._store.tidy()


class _Opened(NamedTuple):
    """An index as it was saved, with what the journals hold."""

    made: ItemIndex
    manifest: Manifest
    reader: Reader


def _opened(folder: Path, mapped: bool, device: torch.device) -> _Opened:
    """What is in a folder, of which another process may make something else meanwhile."""
    if mapped and device.type != "cpu":
        raise ValueError(f"mmap leaves rows in files, which {device} cannot read; expected cpu")
    found = read(folder)
    for _ in range(TRIES):
        try:
            opened = _built(folder, found, mapped, device)
        except FileNotFoundError as error:
            missing = error
        except IsADirectoryError as error:
            raise IndexFormatError(f"{error.filename} is a folder; expected a file") from error
        else:
            return opened
        before, found = found, read(folder)
        if found == before:
            raise IndexFormatError(
                f"{folder} has an index that names {missing.filename}, which is missing"
            ) from missing
    raise OSError(f"{folder} has another index each time that it is read; try again")


def _built(folder: Path, found: Manifest, mapped: bool, device: torch.device) -> _Opened:
    index = ItemIndex(found.dim, metric=found.metric, storage=found.storage, device=device)
    parts = open_parts(folder, found, mapped=mapped, device=device)
    index._store = Store(index._intake.empty().rows, parts, found.changes)
    index._home = Home(folder, mapped=mapped)
    reader = Reader(folder, found.journal, found.kind, found.changes)
    try:
        for change in reader:
            index._replay(change)
    except IndexFormatError:
        raise
    except (IndexError, ValueError) as error:
        raise IndexFormatError(f"{folder}: a journal cannot be followed: {error}") from error
    return _Opened(index, found, reader)
