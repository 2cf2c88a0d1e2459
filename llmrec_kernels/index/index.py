"""`ItemIndex`: vectors with external ids, searched exactly while they change."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from llmrec_kernels.index.encode import STORAGES, encode
from llmrec_kernels.index.segment import Entries, Ids, Segment
from llmrec_kernels.index.snapshot import Snapshot
from llmrec_kernels.index.stats import IndexStats
from llmrec_kernels.index.store import LARGEST, Store
from llmrec_kernels.index.version import Places
from llmrec_kernels.ops import TopK, checks, contents
from llmrec_kernels.ops.cosine_topk import METRICS

__all__ = ["STORAGES", "ItemIndex"]


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
        self.dim = checks.positive_int("dim", dim)
        self.device = torch.device(device)
        self._store = Store(encode(torch.empty(0, dim, device=self.device), storage))
        self._changing = threading.RLock()

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
        new, order = _unique(ids)
        rows = self._vectors(vectors, new.shape[0])
        biases = self._numbers("bias", bias, new.shape[0])
        scales = self._numbers("scale", scale, new.shape[0])
        entries = self._entries(new, order, rows, biases, scales)
        with self._changing:
            self._store.make_room(new.shape[0])
            there = self._store.version.find(new).part >= 0
            if there.any():
                raise ValueError(
                    f"ids holds {new[there.argmax()]}, which is in the index already; "
                    "update changes it"
                )
            self._store.change(entries, None)
            self._store.tidy()

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
        changed, order = _unique(ids)
        count = changed.shape[0]
        given = (
            None if vectors is None else self._vectors(vectors, count),
            self._numbers("bias", bias, count),
            self._numbers("scale", scale, count),
        )
        with self._changing:
            self._store.make_room(count)
            places = self._store.version.known("ids", changed)
            self._store.change(self._changed(changed, places, order, *given), places)
            self._store.tidy()

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
        removed, _ = _unique(ids)
        with self._changing:
            self._store.make_room(0)
            self._store.change([], self._store.version.known("ids", removed))
            self._store.tidy()

    def stats(self) -> IndexStats:
        """Counts and bytes.

        An item takes the bytes of its row in the storage (4 d in float32, 2 d in float16 and
        bfloat16, d + 8 in int8, ceil(d / 2) + 4 in int4), 4 ceil(d / 4) for the int8 codes that a
        search reads, 16 for what goes with those and its inverse norm, 8 for its id, and 4 each
        for a bias and a scale where any was given. Up to 4,096 items that were added last take
        about 150 more.

        Examples
        --------
        >>> index = ItemIndex(384, storage="int8")
        >>> index.add(range(10_000), torch.randn(10_000, 384))
        >>> round(index.stats().bytes_per_item)
        800
        """
        return self._store.stats(journal_bytes=0)

    def compact(self) -> None:
        """Write the rows anew, in the order of their ids and without those that were removed.

        A search then reads as little as it can, and the space of what was removed is free. It is
        never needed: the index does as much by itself when a quarter of the rows of a segment were
        removed. Searches go on meanwhile; changes wait. Beside the index as it was, the new one is
        in memory until the end.

        Examples
        --------
        >>> index = ItemIndex(1)
        >>> index.add(range(100), torch.ones(100, 1))
        >>> index.remove(range(10))
        >>> index.compact()
        >>> index.stats().removed
        0
        """
        with self._changing:
            self._store.compact(Segment)

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

    def _vectors(self, vectors: Any, count: int) -> Tensor:
        tensor = checks.float_array("vectors", vectors, "[n, dim]")
        if tensor.shape != (count, self.dim):
            raise ValueError(
                f"vectors has shape {list(tensor.shape)}; expected [{count}, {self.dim}], "
                "a row for each id"
            )
        return tensor.detach()

    def _numbers(self, name: str, values: Any, count: int) -> Tensor | None:
        if values is None:
            return None
        tensor = checks.float_array(name, values, "[n]").detach().to(self.device)
        checks.vector(name, tensor, count, "[n]", self.device)
        contents.finite(name, tensor.float())
        return tensor.float()

    def _entries(
        self, ids: Ids, order: Tensor, vectors: Tensor, bias: Tensor | None, scale: Tensor | None
    ) -> list[Entries]:
        """Rows as they are kept, in the order of their ids, as many at a time as a segment has."""
        entries = []
        for start in range(0, ids.shape[0], LARGEST):
            part = slice(start, start + LARGEST)
            numbers = order[part]
            rows = encode(_rows(vectors, numbers).to(self.device).float(), self.storage, numbers)
            numbers = numbers.to(self.device)
            of_part = (None if each is None else each[numbers] for each in (bias, scale))
            entries.append(Entries(ids[part], rows, *of_part))
        return entries

    def _changed(
        self,
        ids: Ids,
        places: Places,
        order: Tensor,
        vectors: Tensor | None,
        bias: Tensor | None,
        scale: Tensor | None,
    ) -> list[Entries]:
        """Items that are there, with what is given in place of what they had."""
        changed = []
        for start in range(0, ids.shape[0], LARGEST):
            part = slice(start, start + LARGEST)
            old = Places(places.part[part], places.position[part])
            if vectors is None:
                new = self._store.version.entries(old)
            else:
                new = self._entries(ids[part], order[part], vectors, None, None)[0]
                had = self._store.version.numbers(old)
                new = Entries(new.ids, new.rows, *had)
            numbers = order[part].to(self.device)
            if bias is not None:
                new = new._replace(bias=bias[numbers])
            if scale is not None:
                new = new._replace(scale=scale[numbers])
            changed.append(new)
        return changed


def _rows(vectors: Tensor, numbers: Tensor) -> Tensor:
    """These rows: without a copy where they lie as they should."""
    first, count = int(numbers[0]), numbers.shape[0]
    if torch.equal(numbers, torch.arange(first, first + count)):
        return vectors[first : first + count]
    return vectors.index_select(0, numbers.to(vectors.device))


def _unique(ids: Any) -> tuple[Ids, Tensor]:
    """Ids in ascending order, and where each was."""
    values = checks.id_array("ids", ids, "[n]").cpu().numpy()
    order = values.argsort(kind="stable")
    values = values[order]
    twice = values[1:] == values[:-1]
    if twice.any():
        raise ValueError(
            f"ids holds {values[twice.argmax()]} more than once; expected each id once"
        )
    return values, torch.from_numpy(order)
