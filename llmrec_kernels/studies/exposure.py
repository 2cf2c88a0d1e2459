"""Who is shown, and who is served: exposure of items by popularity, and gaps between user groups.

A recommender shares out two things. Items get places in lists, their exposure: with the items
taken from the most popular on, the head makes up the first third of all interactions, the mid the
second and the tail the last, so that lists in proportion to what people took would give each a
third,

    exposure of group g = mean over users of |{i among the first ten: i in g}| / 10.

And users get lists that fit them, more or less: the gap between two groups of users is the
difference of their mean NDCG@10. Lists may be reordered for more of the tail (`rerank.quota`) or
more diversity (`rerank.mmr`); what each costs is measured over the same users.

Sources: A. Singh and T. Joachims, Fairness of exposure in rankings, KDD 2018; H. Abdollahpouri,
R. Burke and B. Mobasher, Managing popularity bias in recommender systems with personalized
re-ranking, FLAIRS 2019; M. Ekstrand et al., All the cool kids, how do they fit in?, FAT* 2018.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from llmrec_kernels.datasets import Dataset
from llmrec_kernels.evaluation import (
    POPULARITY_GROUPS,
    Report,
    compare_paired,
    evaluate,
    leave_last_out,
    popularity_groups,
)
from llmrec_kernels.recommenders import Recommendations, rerank
from llmrec_kernels.studies import models
from llmrec_kernels.studies.study import Study, Table, interval, short, signed

K = 10
CANDIDATES = 100  # what is reordered
TRADE_OFFS = (0.9, 0.7, 0.5)
LEAST_TAIL = (0.1, 0.2, 0.3, 0.5)
AGES = {"under 25": 25, "25 to 34": 35, "35 to 49": 50, "50 and over": np.inf}  # years, below
ACTIVITY = ("short", "middle", "long")
MADE: dict[str, models.Make] = models.BASELINES | {"hybrid": models.hybrid}
_NDCG = f"NDCG@{K}"
_EXPOSURE = [f"Exposure {group}@{K}" for group in POPULARITY_GROUPS]

_PROTOCOL = f"""\
Data: {{name}}, {{users}} users, all interactions positive. Each user's last interaction is the \
test (leave-last-out), the others are train; all items that a user has not in train are ranked. \
Models have the settings of `studies.models.BASELINES` and `models.hybrid()`, and ALS begins with \
the seed 0.

Items: {{sizes}}: in the order of their interactions in train, the most popular first, those that \
begin within the first third of all interactions are the head, within the second third the mid, \
the others the tail. Exposure is the share of the first {K} places, a mean over users.

Users: gender; age ({", ".join(AGES)} years); activity, a third of the users each by the number \
of interactions in train (equal ones by user id): {{activity}}. The gap is between the groups with \
the highest and the lowest mean NDCG@{K}, with a 95% bootstrap interval, each group resampled by \
itself. The interval does not know that the two are the extremes of several groups.

Reordered are the first {CANDIDATES} of the {{reranked}}: by `rerank.quota` so that at least a \
share of the {K} is of the tail, and by `rerank.mmr` with a trade-off (1 leaves the order as it \
is). Diversity is 1 less the mean cosine of the pairs of items in a list, of {{vectors}}, less \
their mean."""


class Held(NamedTuple):
    """Lists asked for once, which `evaluate` may read as often as it likes."""

    lists: Recommendations

    def recommend(
        self,
        users: Any,
        k: int = K,
        *,
        filter_seen: bool = True,
        allow: Any = None,
        exclude: Any = None,
    ) -> Recommendations:
        """Give the lists, whoever asks."""
        return self.lists


def exposure(
    data: Dataset,
    made: Mapping[str, models.Make] = MADE,
    *,
    vectors: NDArray[np.float32] | None = None,
    reranked: str = "hybrid",
) -> Study:
    """Measure who is shown and who is served, by each recommender and after reordering.

    Parameters
    ----------
    data : Dataset
        With gender and age of the users, such as `movielens_100k()`.
    made : mapping of str to callable, optional
        What makes each recommender, by the name to show.
    vectors : float32 [N, d], optional
        One for each row of the items, for diversity; by default MiniLM's of their texts.
    reranked : str, optional
        The recommender whose lists are reordered.

    Returns
    -------
    Study
        Tables of exposure, of the groups of users, and of reordered lists.

    Raises
    ------
    ValueError
        Gender or age of the users is not known, or no recommender has the name ``reranked``.

    Examples
    --------
    >>> from llmrec_kernels.recommenders import PopularityRecommender
    >>> log = pd.DataFrame({"user": [1, 1, 2, 2, 3, 3], "item": [7, 8, 7, 9, 8, 6]})
    >>> data = Dataset(
    ...     "six",
    ...     log.assign(rating=4.0, timestamp=range(6)),
    ...     pd.DataFrame({"item": [6, 7, 8, 9]}),
    ...     pd.DataFrame({"user": [1, 2, 3], "age": [20, 30, 40], "gender": ["F", "M", "M"]}),
    ... )
    >>> made = {"popularity": PopularityRecommender}
    >>> study = exposure(data, made, vectors=np.eye(4, dtype=np.float32), reranked="popularity")
    >>> study.tables[1].frame.columns.tolist()
    ['F', 'M', 'highest, lowest', 'difference', '95% interval']
    """
    if reranked not in made:
        raise ValueError(f"reranked is {reranked!r}; expected one of {', '.join(made)}")
    train, test = leave_last_out(data.interactions)
    of_users = user_groups(data, train)
    of_items = item_groups(data.items, train)
    described = "MiniLM's vectors of their texts" if vectors is None else "the vectors given"
    if vectors is None:
        vectors = models.text_encoder().encode(data.items["text"].tolist()).numpy()
    judge = Judge(train, test, data.items["item"], vectors - vectors.mean(axis=0))
    users = test["user"].to_numpy()
    fitted = {name: make().fit(train, data.items) for name, make in made.items()}
    lists = {name: model.recommend(users, k=K) for name, model in fitted.items()}
    candidates = fitted[reranked].recommend(users, k=CANDIDATES)
    reordered = {reranked: lists[reranked], **judge.reordered(candidates, of_items)}
    whole = {name: judge.report(one) for name, one in lists.items()}
    by_group = {
        attribute: {name: judge.report(one, group) for name, one in lists.items()}
        for attribute, group in of_users.items()
    }
    after = {name: judge.report(one) for name, one in reordered.items()}
    taken = of_items[test["item"]].value_counts(normalize=True)
    tables = [
        Table(
            "**Exposure** by recommender. Of the test items "
            + ", ".join(f"{short(taken.get(one, 0.0), 3)} are {one}" for one in POPULARITY_GROUPS)
            + ".",
            pd.DataFrame({name: _shown(one) for name, one in whole.items()}).T,
        ),
        *(
            Table(
                f"**NDCG@{K} by {attribute}** ({_sizes(group)}).", _gaps(by_group[attribute], group)
            )
            for attribute, group in of_users.items()
        ),
        Table(
            f"**Reordered**: {CANDIDATES} of the {reranked} to {K}.", _against(after, reranked), 3
        ),
    ]
    protocol = _PROTOCOL.format(
        name=data.name,
        users=len(users),
        sizes=", ".join(f"{n} {one}" for one, n in of_items.value_counts(sort=False).items()),
        activity=_activity(of_users["activity"], train),
        reranked=reranked,
        vectors=described,
    )
    return Study(
        "Exposure and gaps", protocol, tables, findings=findings(whole, by_group, after, reranked)
    )


def item_groups(items: pd.DataFrame, train: pd.DataFrame) -> pd.Series:
    """Head, mid or tail of each item, by its interactions in train.

    Parameters
    ----------
    items : pandas.DataFrame
        The catalogue.
    train : pandas.DataFrame
        Interactions.

    Returns
    -------
    pandas.Series
        By item id.

    Examples
    --------
    >>> log = pd.DataFrame({"item": [7, 7, 7, 8, 8, 9]})
    >>> item_groups(pd.DataFrame({"item": [9, 8, 7]}), log).to_dict()
    {9: 'tail', 8: 'mid', 7: 'head'}
    """
    counts = train["item"].value_counts().reindex(items["item"], fill_value=0)
    return pd.Series(
        pd.Categorical.from_codes(popularity_groups(counts), pd.Index(POPULARITY_GROUPS)),
        index=counts.index,
    )


def user_groups(data: Dataset, train: pd.DataFrame) -> dict[str, pd.Series]:
    """Gender, age and activity of each user, by user id.

    Parameters
    ----------
    data : Dataset
        With gender and age (years) of the users.
    train : pandas.DataFrame
        Interactions, whose number is a user's activity.

    Returns
    -------
    dict of str to pandas.Series
        By attribute.

    Raises
    ------
    ValueError
        Gender or age is not known.

    Examples
    --------
    >>> users = pd.DataFrame({"user": [1, 2, 3], "age": [20, 40, 70], "gender": ["F", "M", "F"]})
    >>> log = pd.DataFrame({"user": [1, 2, 2, 3, 3, 3]})
    >>> found = user_groups(Dataset("three", log, pd.DataFrame(), users), log)
    >>> found["age"].tolist(), found["activity"].tolist()
    (['under 25', '35 to 49', '50 and over'], ['short', 'middle', 'long'])
    """
    users = pd.DataFrame() if data.users is None else data.users
    missing = {"user", "age", "gender"} - set(users.columns)
    if missing:
        raise ValueError(f"{data.name} knows no {' and no '.join(sorted(missing))} of its users")
    users = users.set_index("user")
    edges = [-np.inf, *AGES.values()]
    age = pd.cut(users["age"], edges, right=False, labels=list(AGES))
    counts = train["user"].value_counts().sort_index().sort_values(kind="stable")
    third = np.arange(len(counts)) * len(ACTIVITY) // len(counts)
    activity = pd.Series(pd.Categorical.from_codes(third, pd.Index(ACTIVITY)), index=counts.index)
    return {"gender": users["gender"].astype("category"), "age": age, "activity": activity}


class Judge(NamedTuple):
    """What lists are measured against."""

    train: pd.DataFrame
    test: pd.DataFrame
    items: pd.Series
    vectors: NDArray[np.float32]  # [N, d], centred

    def report(self, lists: Recommendations, groups: pd.Series | None = None) -> Report:
        """Evaluate lists that were asked for before."""
        return evaluate(
            Held(lists),
            self.train,
            self.test,
            k=K,
            items=self.items,
            metrics=("hit_rate", "ndcg", "exposure", "coverage", "gini", "diversity"),
            vectors=pd.DataFrame(self.vectors, index=self.items.to_numpy()),
            groups=groups,
        )

    def reordered(
        self, candidates: Recommendations, groups: pd.Series
    ) -> dict[str, Recommendations]:
        """The first of the candidates under quotas, and by maximal marginal relevance."""
        found: dict[str, Recommendations] = {}
        for least in LEAST_TAIL:
            quotas = {"tail": (least, 1.0)}
            found[f"tail at least {least:.0%}"] = rerank.quota(
                candidates, groups.to_dict(), quotas, K
            )
        for trade_off in TRADE_OFFS:
            found[f"mmr, trade-off {trade_off:g}"] = rerank.mmr(
                candidates, self.items, self.vectors, K, trade_off=trade_off
            )
        return found


def _shown(report: Report) -> dict[str, float]:
    shares = {name: report[label] for name, label in zip(POPULARITY_GROUPS, _EXPOSURE, strict=True)}
    others = (f"Coverage@{K}", f"Gini@{K}", f"Diversity@{K}", f"NDCG@{K}")
    return shares | {label: report[label] for label in others}


def _sizes(group: pd.Series) -> str:
    return ", ".join(f"{name} {n}" for name, n in group.value_counts(sort=False).items())


def _activity(group: pd.Series, train: pd.DataFrame) -> str:
    counts = train["user"].value_counts()
    ends = counts.groupby(group, observed=True).agg(["min", "max"])
    return ", ".join(f"{name} {low} to {high}" for name, low, high in ends.itertuples())


def _gaps(reports: Mapping[str, Report], group: pd.Series) -> pd.DataFrame:
    """NDCG of each group, and the largest gap."""
    rows = {}
    for name, report in reports.items():
        means, gap = report.groups(_NDCG)["mean"], report.gap(_NDCG)
        rows[name] = {one: means[one] for one in group.cat.categories if one in means} | {
            "highest, lowest": f"{gap.highest}, {gap.lowest}",
            "difference": gap.difference,
            "95% interval": interval(gap.low, gap.high, 3),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _against(reports: Mapping[str, Report], base: str) -> pd.DataFrame:
    """Exposure, diversity and accuracy of reordered lists, and what they cost."""
    rows = {}
    for name, report in reports.items():
        rows[name] = _shown(report) | {"difference": "", "95% interval": ""}
        if name != base:
            cost = compare_paired(report, reports[base], _NDCG)
            rows[name]["difference"] = signed(cost.difference, 3)
            rows[name]["95% interval"] = interval(cost.low, cost.high, 3)
    return pd.DataFrame.from_dict(rows, orient="index")


def findings(
    whole: Mapping[str, Report],
    by_group: Mapping[str, Mapping[str, Report]],
    after: Mapping[str, Report],
    reranked: str,
) -> str:
    """Say what the numbers say, whatever they are.

    Parameters
    ----------
    whole : mapping of str to Report
        Of each recommender.
    by_group : mapping of str to mapping of str to Report
        The same with groups of users, by attribute.
    after : mapping of str to Report
        Of the lists that are reordered, and of those that are not, by the name ``reranked``.
    reranked : str
        The recommender whose lists are reordered.
    """
    tail = {name: report[f"Exposure tail@{K}"] for name, report in whole.items()}
    least, most = min(tail, key=tail.__getitem__), max(tail, key=tail.__getitem__)
    lines = [
        f"The tail has {short(tail[least], 3)} of the places with {least}, "
        f"{short(tail[most], 3)} with {most}."
    ]
    for attribute, reports in by_group.items():
        gaps = {name: report.gap(_NDCG) for name, report in reports.items()}
        sure = [f"{name} ({gap.highest})" for name, gap in gaps.items() if gap.low > 0]
        lines.append(
            f"By {attribute}, {len(sure)} of {len(gaps)} gaps have an interval above 0"
            + (f" (the group served best): {', '.join(sure)}." if sure else ".")
        )
    alike = []
    for name, report in after.items():
        cost = compare_paired(report, after[reranked], _NDCG)
        if cost.low > 0 or cost.high < 0:
            verb = "gains" if cost.difference > 0 else "costs"
            told = short(abs(cost.difference), 3)
            lines.append(f"Reordered, {name} {verb} {told} of {_NDCG}.")
        elif name != reranked:
            alike.append(name)
    if alike:
        lines.append(
            f"The {_NDCG} of the lists reordered by {'; '.join(alike)} cannot be told from that of "
            f"the {reranked}."
        )
    lines.append(
        "Who has a long history has taken more of what is popular, and one test item among many "
        "others liked is hard to find: gaps by activity are also of the protocol."
    )
    return "\n".join(f"- {line}" for line in lines)
