"""Profiles that push one item into the lists of everybody else: for the study `shilling`.

Who sells an item can make up users who love it: a shilling attack. A profile that pushes item t
gives it the highest rating, and is otherwise made to look like anyone, so that it comes near many
genuine users. The rating of item i in it is

    r_t = r_max,   r_i = r_max for the p most popular items,   r_i = mean rating of i for fillers,

with fillers until the profile is as long as the mean user's. Where these are drawn at random it is
the average attack joined to the bandwagon attack; where they are the next most popular items, the
popular attack, which shares more with everyone.

Sources: S. Lam and J. Riedl, Shilling recommender systems for fun and profit, WWW 2004;
B. Mobasher, R. Burke, R. Bhaumik and C. Williams, Toward trustworthy recommender systems: an
analysis of attack models and algorithm robustness, ACM TOIT 7(4), 2007; M. O'Mahony, N. Hurley and
G. Silvestre, Recommender systems: attack types and strategies, AAAI 2005.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from llmrec_kernels.ops import checks

SHARE = 0.01  # profiles for each genuine user
POPULAR = 5
KINDS = ("unpopular", "middling")  # targets: of the lowest and of the middle third of the items
FILLERS = ("random", "popular")


class Attack(NamedTuple):
    """One target and the profiles that push it."""

    fillers: str  # of FILLERS
    kind: str  # of KINDS
    target: Any
    profiles: pd.DataFrame


def attacks_of(train: pd.DataFrame, targets: int, seed: int) -> list[Attack]:
    """Draw targets of each kind, and make the profiles that push each.

    Parameters
    ----------
    train : pandas.DataFrame
        The genuine interactions: user, item, rating and timestamp.
    targets : int
        Of each kind.
    seed : int
        Of targets and fillers.

    Returns
    -------
    list of Attack
        Two for each target: one with each kind of fillers.

    Raises
    ------
    ValueError
        A third of the items has fewer than ``targets``.
    """
    targets = checks.positive_int("targets", targets)
    rng = np.random.default_rng(seed)
    counts = train["item"].value_counts().sort_index().sort_values(kind="stable")
    third = len(counts) // 3
    if targets > third:
        raise ValueError(f"targets is {targets}; expected at most {third}, a third of the items")
    return [
        Attack(fillers, kind, target, profiles_for(train, target, fillers, rng))
        for number, kind in enumerate(KINDS)
        for target in rng.choice(counts.index[number * third :][:third], targets, replace=False)
        for fillers in FILLERS
    ]


def profiles_for(
    train: pd.DataFrame, target: Any, fillers: str, rng: np.random.Generator
) -> pd.DataFrame:
    """Make up users who push an item.

    Parameters
    ----------
    train : pandas.DataFrame
        The genuine interactions: user, item, rating and timestamp.
    target : id
        The item to push.
    fillers : "random" or "popular"
        How the other items are chosen.
    rng : numpy.random.Generator
        Draws random fillers.

    Returns
    -------
    pandas.DataFrame
        The columns of train, for new users; their time is the last of train.
    """
    others = train[train["item"] != target].groupby("item")["rating"].agg(["size", "mean"])
    # The most popular first, of equal ones the lower id.
    others = others.sort_values("size", ascending=False, kind="stable")
    loved = pd.DataFrame(
        {"item": [target, *others.index[:POPULAR]], "rating": train["rating"].max()}
    )
    rest = others.iloc[POPULAR:]
    count = min(n_fillers(train), len(rest))
    made = []
    for user in _new_users(train["user"]):
        random = fillers == "random"
        places = rng.choice(len(rest), count, replace=False) if random else range(count)
        taken = rest.iloc[places]
        ratings = np.rint(taken["mean"].to_numpy())
        made += [
            loved.assign(user=user),
            pd.DataFrame({"item": taken.index, "rating": ratings, "user": user}),
        ]
    profiles = pd.concat(made, ignore_index=True).assign(timestamp=train["timestamp"].max())
    return profiles[["user", "item", "rating", "timestamp"]]


def n_fillers(train: pd.DataFrame) -> int:
    """How many fillers make a profile as long as the mean user's history in train."""
    return max(0, round(len(train) / train["user"].nunique()) - POPULAR - 1)


def _new_users(users: pd.Series) -> list[Any]:
    """Ids that sort behind all others."""
    n_profiles, last = max(1, round(SHARE * users.nunique())), users.max()
    if isinstance(last, str):
        return [f"{last}+{number}" for number in range(n_profiles)]
    return [int(last) + 1 + number for number in range(n_profiles)]
