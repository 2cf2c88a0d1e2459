"""Which items may be recommended to whom: the caller's `allow` and `exclude`, and what was seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmrec_kernels._ids import IdMap, id_list
from llmrec_kernels.index.filters import Positions
from llmrec_kernels.recommenders.history import Lists


class Filters(NamedTuple):
    """As `cosine_topk` takes them, for B users."""

    exclude: Positions | None  # a list for each user
    allow: Tensor | Positions | None  # [N] bool, or a list for each user

    @staticmethod
    def of(items: IdMap, count: int, allow: Any, exclude: Any) -> Filters:
        """Check and number the caller's filters."""
        permitted = torch.ones(len(items), dtype=torch.bool)
        hidden: Positions | None = None
        shown: Tensor | Positions | None = None
        if allow is not None and not _is_nested(allow):
            permitted[:] = False
            permitted[torch.from_numpy(items.known_codes("allow", id_list("allow", allow)))] = True
            shown = permitted
        if exclude is not None and not _is_nested(exclude):
            codes = _codes(items, "exclude", exclude)
            permitted[torch.from_numpy(codes[codes >= 0])] = False
            shown = permitted
        elif exclude is not None:
            listed = _id_lists("exclude", exclude, count)
            lists = [_codes(items, f"exclude[{row}]", ids) for row, ids in enumerate(listed)]
            hidden = _joined([codes[codes >= 0] for codes in lists])
        if allow is not None and _is_nested(allow):
            lists = [
                items.known_codes(f"allow[{row}]", ids)
                for row, ids in enumerate(_id_lists("allow", allow, count))
            ]
            shown = _joined([codes[permitted.numpy()[codes]] for codes in lists])
        return Filters(hidden, shown)

    def hiding(self, seen: Lists) -> Filters:
        """The same, without what each user has seen."""
        hidden = _positions(seen.rows["item"], seen.offsets)
        if self.exclude is not None:
            hidden = _merged([hidden, self.exclude])
        return Filters(hidden, self.allow)

    def of_users(self, users: Tensor) -> Filters:
        """The filters of some of the users."""
        allow = self.allow
        return Filters(
            None if self.exclude is None else self.exclude.of_queries(users),
            allow.of_queries(users) if isinstance(allow, Positions) else allow,
        )

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of `cosine_topk`."""
        return {
            "exclude": None if self.exclude is None else self.exclude.argument(),
            "allow": self.allow.argument() if isinstance(self.allow, Positions) else self.allow,
        }


def _is_nested(ids: Any) -> bool:
    """Whether there is a list of ids for each user, told by the first entry."""
    if not isinstance(ids, Sequence) or isinstance(ids, str | bytes) or not len(ids):
        return False
    return hasattr(ids[0], "__len__") and not isinstance(ids[0], str | bytes)


def _id_lists(name: str, lists: Sequence[Any], count: int) -> list[list[Any]]:
    if len(lists) != count:
        raise ValueError(f"{name} has {len(lists)} lists but there are {count} users")
    return [id_list(f"{name}[{row}]", ids) for row, ids in enumerate(lists)]


def _codes(items: IdMap, name: str, ids: Any) -> NDArray[np.int64]:
    """The numbers of ids, -1 for those that are not known; ids of another kind are refused."""
    listed = id_list(name, ids)
    items.check_kind(listed)
    return items.codes(listed)


def _positions(codes: NDArray[np.int64], offsets: NDArray[np.int64]) -> Positions:
    return Positions(torch.from_numpy(np.ascontiguousarray(codes)), torch.from_numpy(offsets))


def _joined(lists: list[NDArray[np.int64]]) -> Positions:
    offsets = np.cumsum([0, *map(len, lists)], dtype=np.int64)
    return _positions(np.concatenate([*lists, np.empty(0, dtype=np.int64)]), offsets)


def _merged(lists: list[Positions]) -> Positions:
    """One list for each user of several."""
    bounds = [one.offsets for one in lists if one.offsets is not None]
    owner = torch.cat([torch.arange(len(b) - 1).repeat_interleave(b.diff()) for b in bounds])
    values = torch.cat([one.values for one in lists])
    return Positions(values[owner.argsort(stable=True)], torch.stack(bounds).sum(0))
