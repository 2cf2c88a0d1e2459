"""Several profiles for one user: spherical k-means over the items of a history.

Who reads cookery books and thrillers is badly served by their mean. The items of each history are
divided into m clusters, so that each is nearest, by cosine, to the weighted mean of its own:

    assign:  c(h) = argmax_c cos(p_c, x_h)        move:  p_c = Σ_{h: c(h) = c} w_h x_h

for all users at once, with the candidate scorer for the first step and a pooled lookup for the
second. Clusters begin at the item of the greatest weight, then at the item least like those chosen
so far (no chance, so the same history always gives the same interests).

Sources: I. Dhillon and D. Modha, Concept decompositions for large sparse text data using
clustering, Machine Learning 42, 2001; T. Gonzalez, Clustering to minimize the maximum intercluster
distance, TCS 38, 1985 (where they begin).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmrec_kernels.ops import PackedItems, candidate_scores
from llmrec_kernels.ragged import Ragged
from llmrec_kernels.recommenders.profiles import Bags

_SWEEPS = 10


def interests_of(items: PackedItems, bags: Bags, count: int) -> Bags:
    """Divide each bag into `count` bags, one after the other.

    Parameters
    ----------
    items : PackedItems, [N, d]
        Each row of length 1, or 0.
    bags : Bags
        B of them; places of weight 0 fall away.
    count : int
        At least 1. Where a history has fewer clusters, the first one stands in for the others.

    Returns
    -------
    Bags
        B * count of them.

    Examples
    --------
    >>> from llmrec_kernels import pack
    >>> items = pack(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]))
    >>> one = Bags(np.array([0, 1, 2]), np.array([0.4, 0.3, 0.3]), np.array([0, 3]))
    >>> two = interests_of(items, one, 2)
    >>> two.of(0)[0].tolist(), two.of(1)[0].tolist()
    ([0, 1], [2])
    """
    counts = np.diff(bags.offsets)
    owner = np.repeat(np.arange(len(counts)), counts)
    kept = bags.weights != 0
    places, weight, owner = bags.places[kept], bags.weights[kept], owner[kept]
    starts = _starts(items, places, weight, owner, len(counts), count)
    similar = [_cosines(items, items.data[one.clip(0)], places, owner) for one in starts]
    cluster = _argmax(similar, starts, owner)
    moving = np.ones(len(counts), dtype=bool)  # users whose clusters are not settled yet
    for _ in range(_SWEEPS):
        part = np.flatnonzero(moving[owner])
        if not len(part):
            break
        moved = _reassigned(items, places[part], weight[part], owner[part], cluster[part], count)
        moving[:] = False
        moving[owner[part][moved != cluster[part]]] = True
        cluster[part] = moved
    return _repeated(_bags(places, weight, owner * count + cluster, len(counts) * count), count)


def _reassigned(
    items: PackedItems,
    places: NDArray[np.int64],
    weight: NDArray[np.float64],
    owner: NDArray[np.int64],
    cluster: NDArray[np.int64],
    count: int,
) -> NDArray[np.int64]:
    """The nearest cluster of each place, by the centres that the clusters have now."""
    users, owner = np.unique(owner, return_inverse=True)
    bags = _bags(places, weight, owner * count + cluster, len(users) * count)
    centres = bags.pooled(items.data).view(len(users), count, -1)
    filled = np.diff(bags.offsets).reshape(-1, count) > 0
    similar = [_cosines(items, centres[:, one], places, owner) for one in range(count)]
    return _argmax(similar, np.where(filled, 0, -1).T, owner)


def _starts(
    items: PackedItems,
    places: NDArray[np.int64],
    weight: NDArray[np.float64],
    owner: NDArray[np.int64],
    users: int,
    count: int,
) -> NDArray[np.int64]:
    """Where the clusters of each user begin, [count, users]; -1 where there is nothing left."""
    starts = np.full((count, users), -1, dtype=np.int64)
    # A cluster may begin at an item of which nothing is known only where there is no other.
    known = items.data.any(dim=1).numpy()[places]
    nearest = np.where(known, -np.inf, np.inf)
    for turn in range(count):
        wish = weight * known if turn == 0 else -nearest
        order = np.lexsort((np.arange(len(places)), -wish, owner))
        first = order[np.unique(owner[order], return_index=True)[1]]
        fresh = first if turn == 0 else first[nearest[first] < 1 - 1e-6]
        starts[turn, owner[fresh]] = places[fresh]
        chosen = items.data[starts[turn].clip(0)]
        cosine = _cosines(items, chosen, places, owner)
        nearest = np.maximum(nearest, np.where(starts[turn][owner] >= 0, cosine, -np.inf))
    return starts


def _cosines(
    items: PackedItems, centres: Tensor, places: NDArray[np.int64], owner: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The cosine of each place with the centre of its owner, [nnz]."""
    offsets = np.searchsorted(owner, np.arange(len(centres) + 1))
    pairs = Ragged(torch.from_numpy(places), torch.from_numpy(offsets))
    cosines: Tensor = candidate_scores(centres.contiguous(), items, pairs)
    return cosines.double().numpy()


def _argmax(
    similar: list[NDArray[np.float64]], starts: NDArray[np.int64], owner: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The nearest cluster of each place among those that there are; the first of equals."""
    table = np.stack(similar)
    table[starts[:, owner] < 0] = -np.inf
    return np.asarray(table.argmax(axis=0), dtype=np.int64)


def _bags(
    places: NDArray[np.int64], weight: NDArray[np.float64], bag: NDArray[np.int64], count: int
) -> Bags:
    order = np.argsort(bag, kind="stable")
    offsets = np.searchsorted(bag[order], np.arange(count + 1))
    return Bags(places[order], weight[order], offsets)


def _repeated(bags: Bags, count: int) -> Bags:
    """The first cluster of each user in the place of empty ones: a maximum does not notice."""
    sizes = np.diff(bags.offsets).reshape(-1, count)
    source = np.arange(sizes.size).reshape(sizes.shape)
    first = source[np.arange(len(sizes)), (sizes > 0).argmax(axis=1)]
    bag = np.where(sizes > 0, source, first[:, None]).ravel()
    lengths = np.diff(bags.offsets)[bag]
    offsets = np.concatenate([[0], lengths.cumsum()])
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    taken = np.repeat(bags.offsets[bag], lengths) + within
    return Bags(bags.places[taken], bags.weights[taken], offsets)
