"""What is easily meant otherwise: events without a time or a rating, dates, ids of another kind."""

from __future__ import annotations

import pandas as pd
import pytest
from recommender_cases import (
    RECOMMENDERS,
    VECTORS,
    make_interactions,
    make_items,
    name,
    table,
)

from llmrec_kernels.recommenders import (
    ContentRecommender,
    EASERecommender,
    HybridRecommender,
    ItemKNNRecommender,
    PopularityRecommender,
    UserKNNRecommender,
)

OTHER_KIND = "3" if isinstance(name(1), int) else 3


@pytest.fixture(params=RECOMMENDERS)
def fitted(request):
    return RECOMMENDERS[request.param]().fit(make_interactions(name), make_items(name))


def test_events_without_a_time_come_last_and_without_a_rating_were_liked(fitted):
    if fitted._needs_ratings:
        pytest.skip("it refuses events without ratings")
    fresh = pd.DataFrame({"user": [name(2)], "item": [name(0)]})
    dated = fresh.assign(timestamp=10**6, rating=make_interactions(name).rating.max())
    fitted.update(fresh)
    answer = table(fitted.recommend([name(u) for u in range(6)]))
    again = fitted.fit(make_interactions(name), make_items(name)).update(dated)
    assert answer == table(again.recommend([name(u) for u in range(6)]))


def test_dates_are_seconds_whatever_their_unit_and_a_missing_one_is_refused():
    seconds = make_interactions(name).assign(timestamp=lambda f: 10**9 + f.timestamp)
    dates = seconds.assign(timestamp=pd.to_datetime(seconds.timestamp, unit="s"))
    coarse = dates.assign(timestamp=dates.timestamp.astype("datetime64[s]"))
    zoned = dates.assign(
        timestamp=dates.timestamp.dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo")
    )
    model = ContentRecommender(embeddings=VECTORS, pooling="recency")
    wanted = table(model.fit(seconds, make_items(name)).recommend([name(3)]))
    for frame in (dates, coarse, zoned):
        assert table(model.fit(frame, make_items(name)).recommend([name(3)])) == wanted
    holed = dates.assign(timestamp=dates.timestamp.where(dates.index != 4))
    with pytest.raises(
        ValueError, match="has nan for timestamp in row 4; expected a finite number"
    ):
        model.fit(holed, make_items(name))


def test_ids_of_another_kind_hide_no_missed_match(fitted):
    for ask in (
        lambda: fitted.recommend([OTHER_KIND]),
        lambda: fitted.recommend([name(1)], exclude=[OTHER_KIND]),
        lambda: fitted.recommend([name(1)], exclude=[[OTHER_KIND]]),
    ):
        with pytest.raises(TypeError, match="ids are both integers and strings"):
            ask()
    with pytest.raises(TypeError, match="users is a frame; expected a list of ids"):
        fitted.recommend(make_interactions(name)[["user"]])


def test_a_part_is_changed_by_its_hybrid_alone():
    part = EASERecommender(1.0)
    parts = {"ease": part, "popular": PopularityRecommender()}
    hybrid = HybridRecommender(parts).fit(make_interactions(name), make_items(name))
    before = table(hybrid.recommend([name(2)]))
    with pytest.raises(RuntimeError, match="is a part of a hybrid and shares its history; fit the"):
        part.fit(make_interactions(name), make_items(name))
    with pytest.raises(RuntimeError, match="update the hybrid"):
        part.update(make_interactions(name))
    assert table(hybrid.recommend([name(2)])) == before
    other = HybridRecommender(parts).fit(make_interactions(name)[:9], make_items(name))
    assert len(other.recommend([name(0)], k=1)) == 1
    with pytest.raises(
        RuntimeError, match="the part 'ease' was fitted as a part of another hybrid"
    ):
        hybrid.recommend([name(2)])


@pytest.mark.parametrize("make", [ItemKNNRecommender, UserKNNRecommender])
def test_ratings_of_zero_are_ratings(make):
    seen = pd.DataFrame({"user": [1, 2, 2], "item": [1, 2, 1], "rating": 0.0})
    answer = make(feedback="ratings").fit(seen).recommend([1, 2, 3], filter_seen=False)
    assert answer.unknown_users == (3,)
    assert set(answer.score[answer.user != 3]) == {0.0}
