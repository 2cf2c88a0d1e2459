"""What two towers have learned, and where they put the items in the end."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from llmrec_kernels.ops import PackedItems
from llmrec_kernels.recommenders import tower_data
from llmrec_kernels.recommenders.history import History
from llmrec_kernels.recommenders.ridge import ridge
from llmrec_kernels.recommenders.space import Reader
from llmrec_kernels.recommenders.towers import Towers
from llmrec_kernels.recommenders.wordings import Wordings

_PRIOR = 1.0  # interactions that a text is worth


class TowerItems(NamedTuple):
    """What is learned of items, users and texts."""

    items: PackedItems  # [N, dim] float32: z
    level: Tensor  # [N] float32: l
    users: Tensor  # [U, dim] float32: what is said of users; no rows where nothing is
    mean: float  # of the ratings
    tower: dict[str, Tensor]  # of the user tower; none where there was nothing to learn from
    body: dict[str, Tensor]  # of the item tower's hidden layer
    slope: Tensor  # [width + hidden, dim + 1] float32: W
    shift: Tensor  # [dim + 1] float32: c
    reader: Reader  # with the encoder as it came
    tuned: dict[str, Tensor]  # weights of the language model


class Placed(NamedTuple):
    """Where items are, and how a text is put among them."""

    places: Tensor  # [N, dim + 1] float32: z and l
    slope: Tensor
    shift: Tensor


def placed(
    network: Towers,
    vectors: Tensor,
    others: Wordings | None,
    history: History,
    *,
    loss: str,
    regularization: float,
) -> Placed:
    """Where items are: by what was taken of them, else by what their vectors say.

    In the regression another wording is a row as the item's own is, and λ counts for as many more.
    """
    count = torch.from_numpy(history.popularity)
    features = network.body(vectors)
    own = network.items(vectors, torch.arange(len(vectors)))
    if loss != "rating":
        own[:, -1] = tower_data.popularity(history)
    rows, whose = features, torch.arange(len(vectors))
    if others is not None:
        rows = torch.cat([features, network.body(others.vectors)])
        whose = torch.cat([whose, others.owners])
    known = count[whose] > 0
    strength = regularization * int(known.sum()) / max(int((count > 0).sum()), 1)
    slope, shift = ridge(rows.double(), own[whose].double(), known, strength)
    told = (features.double() @ slope + shift).float()
    places = torch.where((count > 0)[:, None], own, told)
    if loss != "rating":
        trust = count / (count + _PRIOR)
        places[:, -1] = trust * own[:, -1] + (1 - trust) * told[:, -1]
    return Placed(places, slope.float().contiguous(), shift.float())
