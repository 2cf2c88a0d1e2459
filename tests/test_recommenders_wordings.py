"""Two towers that learn from other wordings of the items' texts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recommender_cases import N_ITEMS, Letters, features, make_interactions, make_items, name, table

from llmrec_kernels.encoders.augment import TokenDropout
from llmrec_kernels.recommenders import (
    FeatureEncoder,
    Recommender,
    TwoTowerRecommender,
    tower_items,
)
from llmrec_kernels.recommenders.history import History, as_rows
from llmrec_kernels.recommenders.towers import Shape, Towers
from llmrec_kernels.recommenders.wordings import Wordings, wordings
from llmrec_kernels.training import Training

EVERY = torch.ones(N_ITEMS, dtype=torch.bool)
SHORT = Training(epochs=2, batch_size=3)


class Given:
    """Wordings that are given."""

    def __init__(self, *views):
        self.given = list(views)

    def views(self, texts):
        return [self.given for _ in texts]


def towers(encoder=None, **options):
    model = TwoTowerRecommender(encoder or Letters(), dim=4, training=SHORT, **options)
    return model.fit(make_interactions(name), make_items(name))


def test_own_vectors_and_other_wordings_are_drawn_alike_often():
    others = Wordings(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([0, 0, 2]))
    vectors = torch.tensor([[10.0], [20.0], [30.0]])
    torch.manual_seed(0)
    drawn = torch.stack([others.drawn(vectors, torch.tensor([0, 1, 2, 0])) for _ in range(3000)])
    for column, values in enumerate(([10.0, 1, 2], [20.0], [30.0, 3], [10.0, 1, 2])):
        counts = [int((drawn[:, column] == value).sum()) for value in values]
        assert sum(counts) == 3000
        np.testing.assert_allclose(counts, 3000 / len(values), rtol=0.12)


def test_no_other_wording_or_the_same_one_changes_no_model():
    plain = towers()
    assert table(towers(augment=Given()).recommend([name(1)])) == table(plain.recommend([name(1)]))
    texts = make_items(name)["text"].tolist()

    class Same:
        def views(self, texts):
            return [[text] for text in texts]

    others = wordings(Same(), make_items(name), EVERY, plain._learned.reader)
    own = torch.cat([plain._learned.reader.place(text) for text in texts])
    assert others is not None
    torch.testing.assert_close(others.vectors, own)
    assert others.owners.tolist() == list(range(len(texts)))


def test_wordings_that_say_the_same_leave_the_map_from_texts_as_it_is():
    """A row that comes several times, with λ for as many more, is the same regression."""
    torch.manual_seed(0)
    network = Towers(Shape(5, 3, None, N_ITEMS, 0), None).eval().requires_grad_(False)
    network.beyond.normal_()
    vectors, some = torch.randn(N_ITEMS, 5), torch.tensor([0, 3, 4, 7])
    rows = as_rows(some.numpy(), np.ones(4), np.zeros(4))
    history = History(np.zeros(4, dtype=np.int64), rows, N_ITEMS)
    owners = some.repeat_interleave(3)
    options = {"loss": "contrastive", "regularization": 2.0}
    plain = tower_items.placed(network, vectors, None, history, **options)
    worded = tower_items.placed(
        network, vectors, Wordings(vectors[owners], owners), history, **options
    )
    for one, other in zip(plain, worded, strict=True):
        torch.testing.assert_close(one, other)


def test_other_wordings_change_what_texts_say():
    plain, more = towers(), towers(augment=TokenDropout(0.5, copies=3))
    # A text of letters is one word, which always stays; so the wordings are given here.
    other = towers(augment=Given("fffffff", "eeeeeee"))
    assert table(more.recommend([name(1)])) != table(other.recommend([name(1)]))
    assert not torch.equal(plain._learned.slope, other._learned.slope)


def test_items_that_nobody_took_are_not_worded():
    plain, known = towers(), EVERY.clone()
    known[3] = False
    others = wordings(Given("ab", "cd"), make_items(name), known, plain._learned.reader)
    assert others is not None
    expected = [item for item in range(N_ITEMS) if item != 3]
    assert others.owners.tolist() == [item for item in expected for _ in range(2)]


def test_features_stand_beside_each_wording():
    model = TwoTowerRecommender(features(), dim=4, training=SHORT, augment=Given("ab ba"))
    model.fit(make_interactions(name), make_items(name))
    reader = model._learned.reader
    others = wordings(Given("ab ba"), make_items(name), EVERY, reader)
    assert others is not None
    reworded = make_items(name).assign(text="ab ba")
    expected = torch.nn.functional.normalize(reader.encoder.transform(reworded), dim=1)
    torch.testing.assert_close(others.vectors, expected)


def test_a_saved_model_needs_no_other_wordings(tmp_path):
    model = towers(augment=TokenDropout())
    model.save(tmp_path / "model")
    again = Recommender.load(tmp_path / "model", encoder=Letters())
    assert again.augment is None
    assert table(again.recommend([name(1), name(2)])) == table(model.recommend([name(1), name(2)]))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"augment": "dropout"}, TypeError, "augment is 'dropout'; expected an object with views"),
        (
            {"augment": TokenDropout(), "encoder": None, "embeddings": np.eye(12)},
            ValueError,
            "there is no encoder for them",
        ),
        (
            {"augment": TokenDropout(), "encoder": FeatureEncoder(categories=["kind"])},
            ValueError,
            "there is no encoder for them",
        ),
        (
            {"augment": TokenDropout(), "embeddings": np.eye(12)},
            ValueError,
            "but embeddings are given",
        ),
    ],
)
def test_wordings_that_teach_nothing_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        TwoTowerRecommender(**{"encoder": Letters()} | options)


class Gives:
    """What is no list of wordings for each text."""

    def __init__(self, views):
        self.given = views

    def views(self, texts):
        return self.given


@pytest.mark.parametrize(
    ("views", "error", "message"),
    [
        ([["a"]], ValueError, "augment.views gave 1 entries for 12 texts"),
        (
            ["abc"] * 12,
            TypeError,
            "augment.views gave 'abc' for text 0; expected a list of strings",
        ),
        ([[0.5]] * 12, TypeError, r"augment.views gave \[0.5\] for text 0"),
        (None, ValueError, "augment.views gave None for 12 texts"),
    ],
)
def test_what_are_no_wordings_is_told(views, error, message):
    with pytest.raises(error, match=message):
        towers(augment=Gives(views))


def test_a_language_model_that_is_trained_reads_the_texts_themselves():
    from llmrec_kernels.encoders import TextEncoder, bundled_encoder_path

    encoder = TextEncoder(bundled_encoder_path())
    with pytest.raises(ValueError, match="augment is for tune='frozen'"):
        TwoTowerRecommender(encoder, tune="full", augment=TokenDropout())
