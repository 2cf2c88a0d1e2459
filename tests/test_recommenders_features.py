"""Features as blocks of a vector: the similarities that the papers define, and what is refused."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmrec_kernels.recommenders.features import FeatureEncoder


class Words:
    """A text encoder: which of a few words come, beside a part that all texts have."""

    words = ("space", "crime", "love", "war", "dog")

    def __init__(self):
        self.seen = []

    def encode(self, texts):
        self.seen.extend(texts)
        rows = [[text.split().count(word) for word in self.words] for text in texts]
        return np.array(rows, dtype=np.float64).reshape(len(rows), -1) + 0.5


FILMS = pd.DataFrame(
    {
        "item": [1, 2, 3, 4, 5],
        "text": ["space war", "crime love", "dog", "", "love love war"],
        "genres": [("sf", "action"), ("crime",), (), None, ("crime", "action")],
        "country": ["us", "fr", None, "us", "jp"],
        "price": [3.0, 12.0, np.nan, 5.0, 3.0],
        "image": [[1.0, 0.0, 2.0], [0.0, 1.0, 1.0], None, [1.0, 1.0, 1.0], [3.0, 0.0, 0.0]],
    }
)
WEIGHTS = {"text": 1.0, "genres": 0.3, "country": 0.2, "price": 0.1, "image": 0.5}
COLUMNS = {"categories": ["genres", "country"], "numbers": ["price"], "vectors": ["image"]}


def encoder(**changes):
    return FeatureEncoder(Words(), **{**COLUMNS, "weights": WEIGHTS, **changes})


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def bumps(numbers, asked):
    """How near the ranks of numbers are to the centres 0, 1/15 .. 1, in widths of 0.1."""
    known = [one for one in numbers if not np.isnan(one)]
    ranks = np.array([scipy.stats.percentileofscore(known, one, "mean") for one in asked]) / 100
    return scipy.stats.norm.pdf(ranks[:, None], np.linspace(0, 1, 16), 0.1)


def of_films(cell):
    """Which of the films' genres and countries a cell names."""
    names = ["action", "crime", "sf", "fr", "jp", "us"]
    held = [cell] if isinstance(cell, str) else cell
    return np.array([float(name in held) for name in names])


def raw_blocks():
    """What each block of each film is made of, by the definitions; None where it is not known."""
    prices = FILMS.price.to_numpy()
    return {
        "text": [Words().encode([one])[0] if one else None for one in FILMS.text],
        "genres": [of_films(one) if one else None for one in FILMS.genres],
        "country": [of_films(one) if isinstance(one, str) else None for one in FILMS.country],
        "price": [None if np.isnan(one) else bumps(prices, [one])[0] for one in prices],
        "image": [None if one is None else np.array(one) for one in FILMS.image],
    }


def block_similarities(left, right):
    """What each block of two films is alike by: the cosine about the mean of those known."""
    result = {}
    for name, cells in raw_blocks().items():
        mean = unit(np.array([one for one in cells if one is not None])).mean(0)
        pair = [cells[left], cells[right]]
        if any(one is None for one in pair):
            result[name] = None
        else:
            a, b = (unit(unit(one) - mean) for one in pair)
            result[name] = a @ b
    return result


@pytest.mark.parametrize("left", range(5))
@pytest.mark.parametrize("right", range(5))
def test_products_are_weighted_sums_of_the_similarities_of_blocks(left, right):
    made = encoder()
    rows = made.fit_transform(FILMS)
    for name, alike in block_similarities(left, right).items():
        block = made.blocks[name]
        got = float(rows[left, block] @ rows[right, block])
        assert got == pytest.approx(WEIGHTS[name] * (alike or 0.0), abs=1e-6), name
        length = rows[left, block].norm().item()
        known = block_similarities(left, left)[name] is not None
        assert length == pytest.approx(math.sqrt(WEIGHTS[name]) if known else 0.0, abs=1e-6)


def test_blocks_come_as_text_categories_numbers_and_vectors_and_fill_the_row():
    made = encoder()
    rows = made.fit_transform(FILMS)
    assert rows.dtype == torch.float32
    assert list(made.blocks) == ["text", "genres", "country", "price", "image"]
    ends = [0, 5, 8, 11, 27, 30]
    assert list(made.blocks.values()) == [slice(*pair) for pair in pairwise(ends)]
    assert rows.shape == (5, 30)


def test_fitting_and_transforming_at_once_is_the_same_and_encodes_each_text_once():
    once = encoder()
    rows = once.fit_transform(FILMS)
    assert once.text.seen == [text for text in FILMS.text if text]
    assert torch.equal(rows, encoder().fit(FILMS).transform(FILMS))


def test_some_rows_are_transformed_as_all_are():
    made = encoder()
    rows = made.fit_transform(FILMS)
    some = FILMS.iloc[[4, 2]].set_index(pd.Index([70, 71]))
    assert torch.equal(made.transform(some), rows[[4, 2]])


def test_an_item_of_which_nothing_is_known_is_zero():
    nothing = pd.DataFrame(
        {"text": [None], "genres": [""], "country": [np.nan], "price": [None], "image": [None]}
    )
    made = encoder().fit(FILMS)
    assert made.transform(nothing).tolist() == [[0.0] * 30]
    assert made.transform(FILMS.iloc[:0]).shape == (0, 30)


@pytest.mark.parametrize(
    "cells",
    [
        ["a|b", "c", "", "b| a |"],
        [("a", "b"), ("c",), (), ("b", "a")],
        [["a", "b", "a"], ["c", None], None, np.array(["b", "a"])],
        [{"a", "b"}, {"c"}, np.nan, frozenset("ab")],
    ],
)
def test_several_categories_are_written_in_any_of_these_ways(cells):
    rows = FeatureEncoder(categories=["g"]).fit_transform(pd.DataFrame({"g": pd.Series(cells)}))
    np.testing.assert_allclose(
        rows, centred([[1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 1, 0]]), atol=1e-6
    )


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([7, 3, None]),
        pd.Series([7, 3, None], dtype="Int64"),
        pd.Series([7, 3, None], dtype=object),
        pd.Series([7, 3, None], dtype="category"),
        pd.Series(["7", "3", None]),
        pd.Series(["7", "3", None], dtype="category"),
        pd.Series([True, False, None], dtype=object),
    ],
)
def test_categories_may_be_integers_strings_or_bools(column):
    rows = FeatureEncoder(categories=["kind"]).fit_transform(pd.DataFrame({"kind": column}))
    np.testing.assert_allclose(rows, centred([[0, 1], [1, 0], [0, 0]]), atol=1e-6)


def test_categories_not_seen_before_are_left_out():
    made = FeatureEncoder(categories=["g"])
    a, b = made.fit_transform(pd.DataFrame({"g": ["a", "b"]}))
    rows = made.transform(pd.DataFrame({"g": ["a|z", "z", "b"]}))
    assert torch.equal(rows, torch.stack([a, torch.zeros(2), b]))


def centred(rows):
    """Rows at length 1, about the mean of those that are not zero."""
    rows = np.array(rows, dtype=np.float64)
    known = rows.any(axis=1)
    if not known.any():
        return rows
    moved = unit(rows[known]) - unit(rows[known]).mean(axis=0)
    lengths = np.linalg.norm(moved, axis=1, keepdims=True)
    rows[known] = np.divide(moved, lengths, out=np.zeros_like(moved), where=lengths > 1e-6)
    return rows


NUMBERS = st.floats(-1e6, 1e6) | st.integers(-3, 3).map(float) | st.just(np.nan)


@given(st.lists(NUMBERS, min_size=1, max_size=30))
def test_numbers_are_alike_by_the_nearness_of_their_ranks(numbers):
    rows = FeatureEncoder(numbers=["x"]).fit_transform(pd.DataFrame({"x": numbers}))
    raw = np.nan_to_num(bumps(numbers, numbers))
    np.testing.assert_allclose(rows, centred(raw), atol=1e-4)


@given(st.lists(st.floats(0.01, 1000), min_size=40, max_size=60, unique=True))
def test_near_numbers_are_alike_and_others_are_not(numbers):
    numbers = sorted(numbers)
    rows = FeatureEncoder(numbers=["x"]).fit_transform(pd.DataFrame({"x": numbers}))
    alike = rows @ rows.T
    apart = np.abs(np.subtract.outer(np.arange(len(numbers)), np.arange(len(numbers))))
    assert (alike[torch.from_numpy(apart == 1)] > 0.9).all()
    assert (alike[torch.from_numpy(apart > 0.4 * len(numbers))] < 0.1).all()


def test_numbers_beyond_those_seen_are_as_the_nearest_of_them():
    made = FeatureEncoder(numbers=["x"]).fit(pd.DataFrame({"x": [1, 2, 3]}))
    rows = made.transform(pd.DataFrame({"x": [-100.0, 1, 3, 1e9]}))
    assert torch.equal(rows[0], rows[1])
    assert torch.equal(rows[2], rows[3])


def test_ranks_of_many_numbers_are_kept_well_enough():
    numbers = np.random.default_rng(0).lognormal(size=20_000)
    made = FeatureEncoder(numbers=["x"])
    rows = made.fit_transform(pd.DataFrame({"x": numbers}))
    ranks = (scipy.stats.rankdata(numbers) - 0.5) / len(numbers)
    exact = centred(scipy.stats.norm.pdf(ranks[:, None], np.linspace(0, 1, 16), 0.1))
    assert (rows * torch.from_numpy(exact)).sum(dim=1).min() > 0.9999
    assert len(made.state()[1]["x.values"]) < 2000


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1, 2, None], dtype="Int64"),
        pd.Series([1, 2, None], dtype="Float32"),
        pd.Series([1, 2, None], dtype=object),
        pd.Series([Decimal("1.5"), Decimal("2.5"), None], dtype=object),
        pd.Series([False, True, None], dtype="boolean"),
    ],
)
def test_numbers_may_be_of_any_kind(column):
    rows = FeatureEncoder(numbers=["x"]).fit_transform(pd.DataFrame({"x": column}))
    raw = [*bumps([1.0, 2.0], [1.0, 2.0]), np.zeros(16)]
    np.testing.assert_allclose(rows, centred(raw), atol=1e-6)


def test_a_text_fills_its_block_alone_and_as_that_text_of_an_item_would():
    made = encoder()
    rows = made.fit_transform(FILMS)
    asked = made.encode(["space war", "", "dog"])
    block = made.blocks["text"]
    assert torch.equal(asked[[0, 2], block], rows[[0, 2], block])
    asked[[0, 2], block] = 0.0
    assert not asked.any()
    assert made.encode([]).shape == (0, 30)


@pytest.mark.parametrize(
    ("kind", "cells"),
    [
        ("vectors", [np.array([0.1, 0.7, 0.3]) * scale for scale in (1, 3, 7, 11, 0.3)]),
        ("categories", [("a", "b", "c")] * 7),
        ("numbers", [3.3] * 7),
    ],
)
def test_what_all_items_share_says_nothing(kind, cells):
    frame = pd.DataFrame({"same": pd.Series(cells)})
    assert not FeatureEncoder(**{kind: ["same"]}).fit_transform(frame).any()


@pytest.mark.parametrize("kind", ["categories", "numbers"])
def test_a_column_with_nothing_in_it_is_an_empty_block(kind):
    frame = pd.DataFrame({"none": pd.Series([None, np.nan], dtype=object), "year": [1, 2]})
    columns = {"numbers": ["year"]}
    columns[kind] = [*columns.get(kind, []), "none"]
    made = FeatureEncoder(**columns)
    rows = made.fit_transform(frame)
    assert not rows[:, made.blocks["none"]].any()
    some = made.transform(frame.assign(none=[5, 6]))
    assert torch.equal(some, rows)


def test_a_weight_of_zero_leaves_an_empty_block():
    made = encoder(weights={**WEIGHTS, "price": 0})
    rows = made.fit_transform(FILMS)
    assert not rows[:, made.blocks["price"]].any()
    assert made.weights["price"] == 0.0


def test_blocks_weigh_one_where_nothing_is_said():
    assert encoder(weights=None).weights == dict.fromkeys(WEIGHTS, 1.0)


def test_an_encoder_is_the_same_after_saving():
    made = encoder()
    rows = made.fit_transform(FILMS)
    values, tensors = made.state()
    again = FeatureEncoder.from_state(json.loads(json.dumps(values)), tensors, Words())
    assert torch.equal(again.transform(FILMS), rows)
    assert again.blocks == made.blocks
    assert again.state()[0] == values


def test_an_encoder_loaded_without_its_text_encoder_knows_its_blocks_and_reads_no_text():
    made = encoder().fit(FILMS)
    again = FeatureEncoder.from_state(*made.state())
    assert again.blocks == made.blocks
    for use in (lambda: again.encode(["dog"]), lambda: again.transform(FILMS)):
        with pytest.raises(ValueError, match="no text encoder; make or load it with one"):
            use()


def test_a_saved_state_that_lacks_something_is_refused():
    values, tensors = encoder().fit(FILMS).state()
    for key in values:
        rest = {name: value for name, value in values.items() if name != key}
        with pytest.raises(ValueError, match=f"the saved FeatureEncoder has no {key}"):
            FeatureEncoder.from_state(rest, tensors)
    for key in tensors:
        left = {name: tensor for name, tensor in tensors.items() if name != key}
        with pytest.raises(ValueError, match=f"the saved FeatureEncoder has no {key}"):
            FeatureEncoder.from_state(values, left)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({}, ValueError, "there are no features; give a text encoder, or columns"),
        ({"text": "minilm"}, TypeError, "text is 'minilm'; expected an object with encode"),
        ({"numbers": "price"}, TypeError, r"numbers is 'price'; expected a list .* \['price'\]"),
        ({"numbers": [3]}, TypeError, "numbers holds 3; expected names of columns"),
        ({"numbers": ["a"], "vectors": ["a"]}, ValueError, "a is the name of two blocks"),
        ({"categories": ["text"]}, ValueError, "text is the name of the text encoder's block"),
        ({"numbers": ["a"], "weights": {"b": 1}}, ValueError, "weights has 'b'; the blocks are a"),
        ({"numbers": ["a"], "weights": {"a": -1}}, ValueError, r"weights\['a'\] is -1; expected"),
        ({"numbers": ["a"], "weights": {"a": math.nan}}, ValueError, r"weights\['a'\] is nan"),
        ({"numbers": ["a"], "weights": {"a": "1"}}, TypeError, r"weights\['a'\] is '1'; expected"),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        FeatureEncoder(**arguments)


@pytest.mark.parametrize(
    ("column", "cells", "error", "sentence"),
    [
        ("text", ["a", 3], TypeError, "items column text holds 3 in row 1; expected strings"),
        ("text", ["", None], ValueError, "items column text has nothing in any row; leave it out"),
        ("genres", ["a", 3], TypeError, "items column genres has categories of two kinds"),
        ("genres", [1.5, 2], TypeError, r"items column genres holds 1\.5 in row 0; expected strin"),
        ("genres", [{"a": 1}, "b"], TypeError, "items column genres holds {'a': 1} in row 0"),
        ("genres", [[["a"]], "b"], TypeError, r"items column genres holds \['a'\] in row 0"),
        ("price", ["3.5", "4"], TypeError, r"items column price holds '3\.5' in row 0; expected n"),
        ("price", [1, "4"], TypeError, "items column price holds '4' in row 1; expected numbers"),
        ("price", [1j, 2], TypeError, "items column price holds 1j in row 0; expected numbers"),
        ("price", [1, np.inf], ValueError, "items column price holds inf in row 1; expected finit"),
        ("image", [[1.0], [1.0, 2.0]], ValueError, "image holds 2 numbers in row 1 and 1 in row 0"),
        ("image", [[1.0], ["a"]], TypeError, r"image holds \['a'\] in row 1; expected a vector"),
        ("image", [[1.0], ["2"]], TypeError, r"image holds \['2'\] in row 1; expected a vector"),
        ("image", [1.0, 2.0], TypeError, r"image holds 1\.0 in row 0; expected a vector"),
        ("image", [[1.0], []], TypeError, r"image holds \[\] in row 1; expected a vector"),
        ("image", [None, [np.nan]], ValueError, "image holds NaN or Inf in row 1; expected finite"),
        ("image", [None, None], ValueError, "items column image has nothing in any row; leave it"),
    ],
)
def test_cells_of_another_kind_are_refused_and_the_encoder_stays_as_it_was(
    column, cells, error, sentence
):
    made = encoder()
    rows = made.fit_transform(FILMS)
    frame = FILMS.iloc[:2].assign(**{column: pd.Series(cells)})
    with pytest.raises(error, match=sentence):
        made.fit(frame)
    assert torch.equal(made.transform(FILMS), rows)


def test_a_timestamp_is_no_number():
    frame = pd.DataFrame({"x": pd.to_datetime(["2020-01-01"])})
    with pytest.raises(
        TypeError, match=r"items column x holds Timestamp.* in row 0; expected numb"
    ):
        FeatureEncoder(numbers=["x"]).fit(frame)


def test_other_kinds_and_widths_than_those_fitted_are_refused():
    made = encoder().fit(FILMS)
    frame = FILMS.iloc[:1]
    with pytest.raises(TypeError, match=r"genres holds 3 in row 0; expected a category of the kin"):
        made.transform(frame.assign(genres=[3]))
    with pytest.raises(ValueError, match="items column image has vectors of 2; expected 3"):
        made.transform(frame.assign(image=[[1.0, 2.0]]))


def test_frames_that_are_not_what_is_expected_are_refused():
    with pytest.raises(TypeError, match="items is a dict; expected a pandas DataFrame"):
        encoder().fit({"text": []})
    with pytest.raises(
        ValueError, match="items has no columns price, expected one; its columns ar"
    ):
        encoder().fit(FILMS.drop(columns="price"))
    with pytest.raises(ValueError, match="items has 2 columns price, expected one"):
        encoder().fit(pd.concat([FILMS, FILMS[["price"]]], axis=1))
    with pytest.raises(ValueError, match="items has no rows; there is nothing to learn from"):
        encoder().fit(FILMS.iloc[:0])


def test_a_text_encoder_that_loses_texts_or_gives_no_numbers_is_refused():
    class Short:
        def encode(self, texts):
            return np.ones((len(texts) - 1, 2))

    class Broken:
        def encode(self, texts):
            return np.full((len(texts), 2), np.nan)

    with pytest.raises(ValueError, match="the text encoder's result has 3 rows for 4 texts"):
        FeatureEncoder(Short()).fit(FILMS)
    with pytest.raises(ValueError, match="the text encoder's result holds NaN or Inf in row 0"):
        FeatureEncoder(Broken()).fit(FILMS)


def test_an_encoder_is_fitted_before_it_is_used():
    made = encoder()
    uses = (
        lambda: made.transform(FILMS),
        lambda: made.encode([]),
        lambda: made.blocks,
        made.state,
    )
    for use in uses:
        with pytest.raises(RuntimeError, match="this FeatureEncoder is not fitted; call fit first"):
            use()


def test_texts_are_a_list_of_strings():
    made = encoder().fit(FILMS)
    with pytest.raises(TypeError, match="texts is 'dog'; expected a list of strings"):
        made.encode("dog")
    with pytest.raises(TypeError, match="texts holds None in row 0; expected strings"):
        made.encode([None])
