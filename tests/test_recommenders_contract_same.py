"""What changes no answer of any recommender: ids, chance, the order of rows, and the caller."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import pytest
import torch
from recommender_cases import (
    RECOMMENDERS,
    Letters,
    everything,
    ids,
    make_interactions,
    make_items,
    name,
    table,
)

from llmrec_kernels.recommenders import ALSRecommender, ContentRecommender
from llmrec_kernels.recommenders.privacy import GaussianProfile


@pytest.fixture(params=RECOMMENDERS)
def which(request):
    return request.param


@pytest.fixture
def model(which):
    return RECOMMENDERS[which]()


STRANGE = ["", " ", "é", "e\u0301", "日本語", "عربي", "🎬", "\ud83c", "\udfac\ud83c", "\0"]
STRANGE += ["nan", "None", "1", "01", "1.0", "a" * 9999]
OTHER_IDS = {
    "negative": lambda code: -1 - code,
    "of both ends": lambda code: code - 2**63 if code % 2 else 2**63 - 1 - code,
    "beyond int64": lambda code: (2**63 - 6 + code) * (-1) ** code,
    "strange strings": STRANGE.__getitem__,
}


@pytest.mark.parametrize("kind", OTHER_IDS)
def test_the_answers_are_the_same_whatever_the_ids_are(which, kind):
    other = OTHER_IDS[kind]
    codes = {other(code): code for code in range(len(STRANGE))}

    def back(told):
        """The same with plain numbers for ids."""
        if isinstance(told, dict):
            return {key: back(one) for key, one in told.items() if key != "rank"}
        if isinstance(told, list | tuple):
            return type(told)(back(one) for one in told)
        return codes.get(told, told) if isinstance(told, int | str) else told

    assert back(_answers(which, other)) == _answers(which, int)


@functools.cache
def _answers(which, kind):
    model = RECOMMENDERS[which]().fit(make_interactions(kind), make_items(kind))
    news = make_interactions(kind)[-2:].reset_index().assign(user=ids([kind(9)] * 2))
    told = everything(model.update(news), kind, (0, 2, 5, 9, 13))
    return _without_ranks(told) if kind is int else told


def _without_ranks(told):
    """Ranks are small integers too, and would be read as ids."""
    if isinstance(told, list):
        return [_without_ranks(one) for one in told]
    if not isinstance(told, dict):
        return told
    return {key: _without_ranks(one) for key, one in told.items() if key != "rank"}


def test_the_frames_of_the_caller_stay_as_they_are(model):
    seen, items = make_interactions(name), make_items(name)
    users = pd.DataFrame({"user": [name(50)]})
    model.fit(seen, items, users).update(seen[3:5])
    pd.testing.assert_frame_equal(seen, make_interactions(name))
    pd.testing.assert_frame_equal(items, make_items(name))
    before = everything(model, name)
    seen["item"], seen["rating"] = seen.item.to_numpy()[::-1].copy(), 0.0
    items["text"], users["user"] = "f", name(1)
    assert everything(model, name) == before


def test_the_order_of_rows_counts_only_among_equal_times(model):
    seen = make_interactions(name)
    whole = everything(model.fit(seen, make_items(name)), name)
    # Users are numbered as they come, so each user's rows stay where the user's rows are.
    mixed = pd.concat([rows[::-1] for _, rows in seen.groupby("user", sort=False)])
    assert everything(model.fit(mixed, make_items(name)), name) == whole


def test_of_repeated_interactions_the_last_counts(model):
    first = make_interactions(name)
    older = first.assign(rating=1.0, timestamp=-1)
    users = [name(u) for u in range(6)]
    again = pd.concat([first, older])
    scale = first[:1].assign(user=name(9), rating=1.0)  # keeps the scale of ratings the same
    wanted = table(model.fit(pd.concat([first, scale]), make_items(name)).recommend(users))
    assert table(model.fit(pd.concat([again, scale]), make_items(name)).recommend(users)) == wanted


def test_no_answer_depends_on_the_global_random_state_or_moves_it(which):
    found = []
    for seed in (1, 2):
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        before = _random_state()
        model = RECOMMENDERS[which]().fit(make_interactions(int), make_items(int))
        found.append(everything(model, int))
        assert _random_state() == before
    assert found[0] == found[1]


def _random_state():
    return np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002


CHANCE = {
    "als": lambda seed: ALSRecommender(3, 0.5, sweeps=2, seed=seed),
    "content, private": lambda seed: ContentRecommender(
        Letters(), privacy=GaussianProfile(1.0, 1e-5, secret=bytes([seed] * 16))
    ),
}


@pytest.mark.parametrize("made", CHANCE)
def test_another_seed_or_secret_is_another_chance_and_the_same_is_the_same(made):
    one, again, other = (
        everything(CHANCE[made](seed).fit(make_interactions(int), make_items(int)), int)
        for seed in (3, 3, 4)
    )
    assert one == again
    assert one["all"] != other["all"]
