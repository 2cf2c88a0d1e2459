"""What tests have other processes do with recommenders: `python recommender_processes.py NAME ...`.

Each says what it found as one line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from recommender_cases import Letters, everything, make_interactions, name, profile_noise

from llmrec_kernels.recommenders import (
    AlignedRecommender,
    ALSRecommender,
    ContentRecommender,
    EASERecommender,
    HybridRecommender,
    ItemKNNRecommender,
    PopularityRecommender,
    Recommender,
    UserKNNRecommender,
)

NOBODY = 65534


def told_by(*arguments):
    """What another process finds; its threads are one, so that a part of it can be forked."""
    process = subprocess.run(
        [sys.executable, __file__, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert not process.returncode, process.stderr
    return json.loads(process.stdout)


def answers(folder):
    """What each saved model says, before and after an update."""
    found = {}
    for path in sorted(Path(folder).iterdir()):
        model = Recommender.load(path, encoder=Letters(), privacy=profile_noise())
        before = everything(model, name)
        model.update(make_interactions(name)[:3].assign(user=name(7)))
        found[path.name] = [before, everything(model, name)]
    return found


def save_as_nobody(folder):
    """Save into folders of others, as a user who may not write there."""
    seen = make_interactions(name)
    model = PopularityRecommender().fit(seen)
    model.save(Path(folder) / "model")
    before = {path.name: path.read_bytes() for path in (Path(folder) / "model").iterdir()}
    if os.getuid() == 0:
        with contextlib.suppress(OSError):  # a container may have no other user
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
    model.update(seen[:5].assign(user="new"))
    refused = [_refusal(model, Path(folder) / path) for path in ("model", "new")]
    after = {path.name: path.read_bytes() for path in (Path(folder) / "model").iterdir()}
    same = after == before and not (Path(folder) / "new").exists()
    return {"root": os.getuid() == 0, "refused": refused, "as before": same}


def _refusal(model, path):
    try:
        model.save(path)
    except OSError as error:
        return str(error)
    return ""


MADE = {
    "popularity": PopularityRecommender,
    "content": lambda: ContentRecommender(embeddings=_vectors()),
    "content, interests": lambda: ContentRecommender(embeddings=_vectors(), interests=3),
    "item knn": lambda: ItemKNNRecommender(20),
    "item knn, ratings": lambda: ItemKNNRecommender(20, feedback="ratings"),
    "user knn": lambda: UserKNNRecommender(20),
    "ease": EASERecommender,
    "als": lambda: ALSRecommender(8, sweeps=1),
    "aligned": lambda: AlignedRecommender(embeddings=_vectors(), factors=8),
    "hybrid": lambda: HybridRecommender(
        {
            "items": ItemKNNRecommender(20),
            "content": ContentRecommender(embeddings=_vectors()),
            "popular": PopularityRecommender(),
        }
    ),
}
USERS = dict.fromkeys(MADE, 12_000) | {"user knn": 10_000}
N_ITEMS = 4000


def _vectors():
    return np.random.default_rng(1).normal(size=(N_ITEMS, 16)).astype(np.float32)


def memory():
    """How much memory each model needs on top of itself to answer every one of its users.

    As a part of what a float32 for each user and item would take.
    """
    return {which: _part_of_all(make, USERS[which]) for which, make in MADE.items()}


def _part_of_all(make, n_users):
    draw = np.random.default_rng(0)
    seen = pd.DataFrame(
        {
            "user": np.repeat(np.arange(n_users), 5),
            "item": draw.integers(0, N_ITEMS, size=5 * n_users),
            "rating": draw.integers(1, 6, size=5 * n_users),
        }
    )
    items = pd.DataFrame({"item": np.arange(N_ITEMS)})
    model = make().fit(seen, items)
    return _grown(lambda: model.recommend(np.arange(n_users))) / (4 * n_users * N_ITEMS)


def _grown(act):
    """The growth of the most memory that was held: measured in a fork, which begins with what
    there is now and not with the most there ever was."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        act()
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        os.write(writer, str(grown * 1024).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        return int(pipe.read())


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])) + "\n")
