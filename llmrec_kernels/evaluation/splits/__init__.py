"""Divide interactions into train and test.

Each part has the rows, the index and the order of the input; the parts are disjoint, and together
the whole where the split does not say otherwise. Time is the column ``timestamp``; of interactions
at the same time, the later row is the later interaction. Which split answers which question:

- `leave_last_out`, `ratio_split`: what will a known user take next? One moment for each user, so
  that train can hold what other users did later than a user's test.
- `time_split`: the same with one moment for all, as in production: nothing of train is later than
  anything of test.
- `random_split`, `k_fold`: how well are missing ratings filled in? Time does not count.
- `cold_item_split`, `cold_user_split`: what of items nobody took, and of users who just came?
"""

from llmrec_kernels.evaluation.splits.by_chance import k_fold, random_split
from llmrec_kernels.evaluation.splits.by_time import time_split
from llmrec_kernels.evaluation.splits.by_user import leave_last_out, ratio_split
from llmrec_kernels.evaluation.splits.cold import cold_item_split, cold_user_split

__all__ = [
    "cold_item_split",
    "cold_user_split",
    "k_fold",
    "leave_last_out",
    "random_split",
    "ratio_split",
    "time_split",
]
