"""Users described by text: the column `text` of the users frame, in the order of users' numbers.

What is said of users ("a librarian of 38") is about another matter than the texts of items, so it
is centred by itself: what tells is how a user differs from the average one who is described.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmrec_kernels._ids import id_list
from llmrec_kernels.recommenders import space
from llmrec_kernels.recommenders.feature_blocks import is_missing
from llmrec_kernels.recommenders.features import Encodes, FeatureEncoder

if TYPE_CHECKING:
    from llmrec_kernels.recommenders.answering import Given


def described(given: Given, encoder: Any) -> Tensor:
    """The vectors of what is said of users, [U, d] float32; d is 0 where nothing is.

    Raises
    ------
    ValueError
        If a user comes twice, or a text is no string.
    """
    texts = listed(given)
    if isinstance(encoder, FeatureEncoder):
        encoder = encoder.text
    if texts is None or encoder is None:
        named = 0 if given.user_ids is None else len(given.user_ids)
        return torch.zeros(max(named, given.history.n_users), 0)
    return placed(texts, encoder)


def listed(given: Given) -> list[str] | None:
    """The text of each user, "" where there is none; None where the users frame has no texts.

    Raises
    ------
    ValueError
        If a user comes twice, or a text is no string.
    """
    users = given.users
    if users is None or given.user_ids is None or "text" not in users.columns:
        return None
    ids = id_list("users column user", users["user"])
    repeated, times = Counter(ids).most_common(1)[0] if ids else (None, 1)
    if times > 1:
        raise ValueError(
            f"users has user {repeated!r} {times} times; expected each user with a text once"
        )
    found = [""] * len(given.user_ids)
    for row, (code, text) in enumerate(
        zip(given.user_ids.codes(ids).tolist(), users["text"].tolist(), strict=True)
    ):
        if is_missing(text):
            continue
        if not isinstance(text, str):
            raise ValueError(
                f"users has {text!r} for text in row {row}; expected a string, '' where nothing "
                "is known"
            )
        found[code] = text
    return found


def placed(texts: list[str], encoder: Encodes) -> Tensor:
    """Where texts are, [U, d] float32: of length 1, centred; zeros for none, d = 0 if all are."""
    vectors = space.encoded(encoder, texts) if any(texts) else None
    if vectors is None:
        return torch.zeros(len(texts), 0)
    return space.placed(vectors, True, None)[0]


def of_users(vectors: Tensor, users: NDArray[np.int64] | None, count: int) -> Tensor:
    """The vectors of users by their numbers, [count, d]; zeros for whom nothing is known."""
    if users is None:
        return vectors.new_zeros(count, vectors.shape[1])
    known = (users >= 0) & (users < len(vectors))
    if not known.any():
        return vectors.new_zeros(len(users), vectors.shape[1])
    places = torch.from_numpy(np.where(known, users, 0))
    return vectors[places].masked_fill(~torch.from_numpy(known)[:, None], 0.0)
