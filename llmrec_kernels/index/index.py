"""`ItemIndex`: vectors with external ids, searched exactly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from llmrec_kernels.index.filters import Positions
from llmrec_kernels.index.storage import STORAGES, Storage
from llmrec_kernels.index.ties import Search
from llmrec_kernels.ops import TopK, checks, contents
from llmrec_kernels.ops.arrays import returner
from llmrec_kernels.ops.cosine_topk import METRICS, PRECISIONS

__all__ = ["STORAGES", "ItemIndex"]


class ItemIndex:
    """Vectors under ids of your own, which can be added, changed, removed and searched.

    A search is an exact brute force (`cosine_topk`), so there is nothing to train and a change
    shows at once. A change costs in proportion to the rows it changes, not to the rows there are.
    The index is not to be changed in one thread while another one searches it.

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
        self._rows = Storage(checks.positive_int("dim", dim), storage, torch.device(device))
        self._positions: dict[int, int] = {}

    @property
    def dim(self) -> int:
        """Elements in a vector."""
        return self._rows.dim

    @property
    def device(self) -> torch.device:
        """Where the vectors are."""
        return self._rows.device

    def __len__(self) -> int:
        return self._rows.count

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._positions

    def __repr__(self) -> str:
        return f"<ItemIndex: {len(self):,} vectors of {self.dim}, {self.metric}, {self.storage}>"

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
        new = self._unique(ids)
        for one in new:
            if one in self._positions:
                raise ValueError(
                    f"ids holds {one}, which is in the index already; update changes it"
                )
        rows = self._vectors(vectors, len(new))
        biases = self._numbers("bias", bias, len(new), 0.0)
        scales = self._numbers("scale", scale, len(new), 1.0)
        # In the order of their ids: an index filled once is then in that order throughout, and
        # equal scores come out right with no further work.
        added, order = torch.tensor(new, dtype=torch.int64, device=self.device).sort()
        encoded = self._rows.encode(rows[order])
        start = len(self)
        self._rows.append(added, encoded, biases[order], scales[order])
        self._positions.update(zip(added.tolist(), range(start, len(self)), strict=True))
        self._rows.biased |= bias is not None
        self._rows.scaled |= scale is not None

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
        changed = self._unique(ids)
        positions = self._lookup(changed)
        encoded = None
        if vectors is not None:
            encoded = self._rows.encode(self._vectors(vectors, len(changed)))
        columns = {}
        if bias is not None:
            columns["item_bias"] = self._numbers("bias", bias, len(changed), 0.0)
        if scale is not None:
            columns["item_scale"] = self._numbers("scale", scale, len(changed), 1.0)
        if encoded is not None:
            self._rows.items.replace(positions, encoded)
        self._rows.write(positions, **columns)
        self._rows.biased |= bias is not None
        self._rows.scaled |= scale is not None

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
        removed = self._unique(ids)
        moved, places = self._rows.drop(self._lookup(removed))
        for one in removed:
            del self._positions[one]
        self._positions.update(zip(moved.tolist(), places.tolist(), strict=True))

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
        wanted = checks.id_array("ids", ids, "[n]").tolist()
        return returner(ids)(self._rows.items.rows().widen(self._lookup(wanted)))

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
        vectors = checks.float_array("queries", queries, "[B, dim]")
        if vectors.shape[1] != self.dim:
            raise ValueError(f"queries has {vectors.shape[1]} columns but the index has {self.dim}")
        if vectors.device != self.device:
            raise ValueError(f"queries is on {vectors.device} but the index is on {self.device}")
        checks.choice("precision", precision, PRECISIONS)
        search = Search(
            vectors.detach().float(),
            checks.positive_int("k", k),
            self._filter("exclude", exclude, vectors.shape[0]),
            self._filter("allow", allow, vectors.shape[0]),
            self.metric,
            precision,
        )
        scores, ids = search.best(self._rows)
        back = returner(queries)
        return TopK(back(scores), back(ids))

    def _unique(self, ids: Any) -> list[int]:
        listed: list[int] = checks.id_array("ids", ids, "[n]").tolist()
        if len(set(listed)) < len(listed):
            repeated = Counter(listed).most_common(1)[0][0]
            raise ValueError(f"ids holds {repeated} more than once; expected each id once")
        return listed

    def _lookup(self, ids: Iterable[int]) -> Tensor:
        try:
            places = [self._positions[one] for one in ids]
        except KeyError as error:
            raise IndexError(f"ids holds {error.args[0]}, which is not in the index") from None
        return torch.tensor(places, dtype=torch.int64, device=self.device)

    def _vectors(self, vectors: Any, count: int) -> Tensor:
        tensor = checks.float_array("vectors", vectors, "[n, dim]")
        if tensor.shape != (count, self.dim):
            raise ValueError(
                f"vectors has shape {list(tensor.shape)}; expected [{count}, {self.dim}], "
                "a row for each id"
            )
        return tensor.detach().to(self.device).float()

    def _numbers(self, name: str, values: Any, count: int, default: float) -> Tensor:
        if values is None:
            return torch.full((count,), default, dtype=torch.float32, device=self.device)
        tensor = checks.float_array(name, values, "[n]").detach().to(self.device)
        checks.vector(name, tensor, count, "[n]", self.device)
        contents.finite(name, tensor.float())
        return tensor.float()

    def _filter(self, name: str, ids: Any, count: int) -> Positions | None:
        if ids is None:
            return None
        return Positions.of(name, ids, count, self._positions, self.device)
