"""What most people took: the floor for every other recommender, and the answer where all fail."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from llmrec_kernels.recommenders.answering import Given
from llmrec_kernels.recommenders.base import Recommender
from llmrec_kernels.recommenders.history import Lists
from llmrec_kernels.recommenders.vectors import VectorRecommender


class PopularityRecommender(VectorRecommender[None]):
    """Recommend to everyone what most users took, apart from what they have seen.

    The score of an item is the number of users with an interaction with it. Equal ones come in
    the order of the items frame, and without one in the order of their ids.

    Examples
    --------
    >>> import pandas as pd
    >>> seen = pd.DataFrame({"user": ["ann", "ann", "bob"], "item": [1, 2, 2]})
    >>> model = PopularityRecommender().fit(seen)
    >>> model.recommend(["ann", "bob", "eve"]).to_pandas()
      user  item  score  rank
    0  bob     1    1.0     1
    1  eve     2    2.0     1
    2  eve     1    1.0     2
    """

    update_is_refit = True
    _metric = "dot"

    similar_items = Recommender.similar_items  # all items have a vector of one number

    def _learn(self, given: Given) -> None:
        return None

    @classmethod
    def _as_learned(cls, fields: None) -> None:
        return None

    def _profiles(self, histories: Lists) -> Tensor:
        """The same for everyone who has a history: 1, to multiply the items' counts with."""
        return torch.from_numpy(np.diff(histories.offsets) > 0).float()[:, None]

    def _vectors(self) -> Tensor:
        return torch.from_numpy(self._ready().history.popularity).float()[:, None]
