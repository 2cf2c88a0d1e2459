"""Every recommender with its important options, and small data to ask all of them the same."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from llmrec_kernels.recommenders import (
    AlignedRecommender,
    ALSRecommender,
    ContentRecommender,
    EASERecommender,
    HybridRecommender,
    ItemKNNRecommender,
    PopularityRecommender,
    SequenceRecommender,
    TextRatingRegressor,
    TwoTowerRecommender,
    UserKNNRecommender,
)
from llmrec_kernels.recommenders.features import FeatureEncoder
from llmrec_kernels.recommenders.privacy import GaussianProfile

N_ITEMS, N_USERS = 12, 6
VECTORS = np.random.default_rng(7).normal(size=(N_ITEMS, 5))
SECRET = bytes(range(16))


class Letters:
    """A text encoder: how often each letter comes."""

    def encode(self, texts):
        return torch.tensor([[float(text.count(letter)) for letter in "abcdef"] for text in texts])


def features():
    """A text encoder with categories and numbers beside it."""
    return FeatureEncoder(
        Letters(), categories=["kind"], numbers=["price"], weights={"kind": 0.5, "price": 0.25}
    )


def profile_noise():
    return GaussianProfile(20.0, 1e-5, secret=SECRET)


def hybrid_of_everything(**options):
    return HybridRecommender(
        {
            "popular": PopularityRecommender(),
            "content": ContentRecommender(features(), interests=2),
            "items": ItemKNNRecommender(5, 1.0),
            "users": UserKNNRecommender(3, 1.0),
            "ratings": UserKNNRecommender(3, 1.0, feedback="ratings"),
            "ease": EASERecommender(1.0, half_life=3),
            "als": ALSRecommender(3, 0.5),
            "aligned": AlignedRecommender(Letters(), factors=3),
        },
        **options,
    )


RECOMMENDERS = {
    "popularity": PopularityRecommender,
    "content from texts": lambda: ContentRecommender(Letters()),
    "content, mean": lambda: ContentRecommender(embeddings=VECTORS, pooling="mean"),
    "content, liked": lambda: ContentRecommender(embeddings=VECTORS, min_rating=4),
    "content, recency": lambda: ContentRecommender(embeddings=VECTORS, pooling="recency"),
    "content, uncentred": lambda: ContentRecommender(embeddings=VECTORS, centre=False),
    "content, interests": lambda: ContentRecommender(embeddings=VECTORS, interests=2),
    "content, user bias": lambda: ContentRecommender(embeddings=VECTORS, user_bias=True),
    "content, features": lambda: ContentRecommender(features()),
    "content, private": lambda: ContentRecommender(embeddings=VECTORS, privacy=profile_noise()),
    "item knn": lambda: ItemKNNRecommender(5, 1.0),
    "item knn, ratings": lambda: ItemKNNRecommender(5, 1.0, feedback="ratings"),
    "item knn, recency": lambda: ItemKNNRecommender(half_life=2),
    "user knn": lambda: UserKNNRecommender(3, 1.0),
    "user knn, ratings": lambda: UserKNNRecommender(3, 1.0, feedback="ratings"),
    "ease": lambda: EASERecommender(1.0),
    "ease, recency": lambda: EASERecommender(1.0, half_life=2),
    "als": lambda: ALSRecommender(3, 0.5),
    "aligned": lambda: AlignedRecommender(embeddings=VECTORS, factors=3),
    "aligned from texts": lambda: AlignedRecommender(Letters(), factors=3),
    "aligned, features": lambda: AlignedRecommender(features(), factors=3),
    "text ratings": lambda: TextRatingRegressor(
        embeddings=VECTORS, dim=3, training={"epochs": 2, "batch_size": 3}
    ),
    "text ratings, features": lambda: TextRatingRegressor(
        features(), dim=3, hidden=4, training={"epochs": 2}
    ),
    "towers": lambda: TwoTowerRecommender(
        embeddings=VECTORS, dim=4, training={"epochs": 2, "batch_size": 4}
    ),
    "towers, features": lambda: TwoTowerRecommender(
        features(), dim=4, hidden=3, training={"epochs": 2}
    ),
    "towers, ratings": lambda: TwoTowerRecommender(
        Letters(), dim=4, loss="rating", training={"epochs": 2}
    ),
    "sequence": lambda: SequenceRecommender(
        embeddings=VECTORS, dim=4, layers=1, max_length=5, training={"epochs": 2}
    ),
    "sequence from texts": lambda: SequenceRecommender(
        Letters(), network="gru", objective="sampled", dim=8, negatives=4, training={"epochs": 2}
    ),
    "sequence, ids": lambda: SequenceRecommender(
        network="lstm", dim=4, layers=1, training={"epochs": 2}
    ),
    "hybrid": lambda: HybridRecommender(
        {"ease": EASERecommender(1.0), "content": ContentRecommender(Letters())}
    ),
    "hybrid, ranks": lambda: HybridRecommender(
        {"users": UserKNNRecommender(3), "popular": PopularityRecommender()}, fusion="ranks"
    ),
    "hybrid, adaptive": lambda: HybridRecommender(
        {"items": ItemKNNRecommender(5), "popular": PopularityRecommender()}, adaptive=True
    ),
    "hybrid, everything": lambda: hybrid_of_everything(weights={"ease": 2.0, "ratings": 0.0}),
    "hybrid, everything, ranks": lambda: hybrid_of_everything(fusion="ranks"),
    "hybrid of a hybrid": lambda: HybridRecommender(
        {"both": hybrid_of_everything(adaptive=True), "content": ContentRecommender(Letters())}
    ),
}
# Their lists follow from what others took too, and so move when others' histories do: popularity,
# neighbours among users, the mean of all ratings, and weights that learn.
SHARED = {
    "popularity",
    "content, user bias",
    "user knn",
    "user knn, ratings",
    "hybrid, ranks",
    "hybrid, adaptive",
    "hybrid, everything",
    "hybrid, everything, ranks",
    "hybrid of a hybrid",
}
READ_TEXT = {
    "content from texts",
    "content, features",
    "aligned from texts",
    "aligned, features",
    "text ratings, features",
    "towers, features",
    "towers, ratings",
    "sequence from texts",
    "hybrid",
    "hybrid, everything",
    "hybrid, everything, ranks",
    "hybrid of a hybrid",
}
# They learn what makes ratings differ, and so refuse those that are all alike.
DIFFERING = {"text ratings", "text ratings, features", "towers, ratings"}


def name(code):
    """The id of the user or the item of a number."""
    return f"id {code}"


def ids(values):
    """A column of ids of any kind: pandas' own columns of strings hold no half characters."""
    fits = all(isinstance(one, int) and abs(one) < 2**63 for one in values)
    return pd.Series(values, dtype=np.int64 if fits else object)


def make_items(name):
    """Of each item the id, a text, a category and a number."""
    draw = np.random.default_rng(1)
    letters = draw.choice(list("abcdef"), size=(N_ITEMS, 9))
    return pd.DataFrame(
        {
            "item": ids([name(code) for code in range(N_ITEMS)]),
            "text": ["".join(row) for row in letters],
            "kind": draw.choice(["film", "book", "film|book"], size=N_ITEMS),
            "price": draw.integers(1, 20, size=N_ITEMS),
        }
    )


def make_interactions(name, n_users=N_USERS):
    """User 0 took everything, user u the fewer the greater u is."""
    pairs = [(0, item) for item in range(N_ITEMS)]
    pairs += [(u, (u * 5 + 3 * j) % N_ITEMS) for u in range(1, n_users) for j in range(7 - u)]
    users, items = zip(*pairs, strict=True)
    return pd.DataFrame(
        {
            "user": ids([name(one) for one in users]),
            "item": ids([name(one) for one in items]),
            "rating": [float(3 + (u + i // 2) % 3) for u, i in pairs],
            "timestamp": np.arange(len(pairs)),
        }
    )


def learnable(which, interactions):
    """Whether a recommender can be fitted: not where ratings are to differ and do not."""
    if which not in DIFFERING or interactions.empty:
        return True
    if "timestamp" in interactions:
        interactions = interactions.sort_values("timestamp", kind="stable")
    return interactions.drop_duplicates(["user", "item"], keep="last").rating.nunique() > 1


def lists(recommendations):
    """User -> items in order."""
    answer: dict = {}
    for user, item in zip(recommendations.user, recommendations.item, strict=True):
        answer.setdefault(user, []).append(item)
    return answer


def seen_by(interactions, user):
    return set(interactions.item[interactions.user == user])


def table(answer):
    """All that is in an answer, to compare it exactly."""
    return answer.to_pandas().to_dict("list")


def everything(model, name, users=range(N_USERS + 1)):
    """All that a model says of some users and of each item, to compare it exactly."""
    users = [name(user) for user in users]
    best = model.recommend(users, k=N_ITEMS, filter_seen=False)
    told = {
        "unseen": table(model.recommend(users, k=5)),
        "all": table(best),
        "unknown": best.unknown_users,
        "history": table(model.recommend_from_history([name(1), name(4)], [5.0, 3.0])),
        "similar": _answer(lambda: table(model.similar_items([name(3), name(0)], 4))),
        "text": _answer(lambda: table(model.recommend_from_text("abba fed", liked=[name(2)]))),
        "scores": _answer(lambda: model.score([users[2]] * 3, [name(i) for i in (8, 1, 5)])),
        "ratings": _answer(lambda: model.predict([users[2]] * 3, [name(i) for i in (8, 1, 5)])),
        "why": _answer(lambda: _explanation(model.explain(users[2], name(8)))),
    }
    if hasattr(model, "current_weights"):
        told["weights"] = model.current_weights
    return told


def _answer(ask):
    """What is answered, or the kind of the refusal."""
    try:
        answer = ask()
    except (TypeError, IndexError, ValueError) as error:
        return [type(error).__name__]
    return answer.tolist() if isinstance(answer, np.ndarray) else answer


def _explanation(why):
    return [table(why), why.score, why.blocks]
