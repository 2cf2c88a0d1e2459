"""What is known of items beside their texts: categories, numbers and vectors, as blocks of one row.

Each feature of an item becomes a block of length sqrt(w), w its weight, or of length 0 where it is
not known; the blocks side by side are the item's vector. The product of two items is then a sum
over the features b that both have, and so is their cosine,

    cos(x, y) = sum over b of w_b s_b(x, y) / sqrt(W_x W_y),   W_x the sum of x's weights,

with s_b the cosine of the two blocks. What each feature gives to a score can be read from it. This
is the weighted mean of similarities of J. C. Gower, "A general coefficient of similarity and some
of its properties", Biometrics 27 (1971), where nothing is missing. What a block is made of:

- *Texts and other vectors*: as they are.
- *Categories*: ones at the item's categories. Then the cosine of two sets A and B is
  |A and B| / sqrt(|A| |B|) (A. Ochiai, 1957).
- *Numbers*: one number of length 1 would have nothing but a sign. So a number is told by how near
  it is to each of 16 centres, exp(-(u - c)^2 / (2 h^2)), radial basis functions (D. S. Broomhead
  and D. Lowe, 1988) of width h = 0.1. The cosine of two numbers is then about
  exp(-(u - v)^2 / (4 h^2)): near prices are alike, others are not. Here u is the rank, the share of
  the catalogue below a number, which is linear between the values seen. Ranks (W. J. Conover and
  R. L. Iman, "Rank transformations as a bridge between parametric and nonparametric statistics",
  1981) need no unit, no logarithm for prices that are skewed, and a price a thousand times too high
  does no harm.

Each block is scaled to length 1, the mean of the catalogue's blocks is taken away, and it is scaled
again, as `ContentRecommender` does with texts alone: all films are films and most are dramas, and
what an item is alike by is what sets it apart. Block by block, so that a text says nothing of a
price; the whole needs no centring any more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from typing_extensions import Self

from llmrec_kernels.ops import checks
from llmrec_kernels.recommenders.feature_blocks import (
    Categories,
    Dense,
    Number,
    is_missing,
    text_vectors,
)

if TYPE_CHECKING:
    import pandas as pd

TEXT = "text"  # the block, and the column


class Encodes(Protocol):
    """Anything that turns texts into vectors, such as `TextEncoder`."""

    def encode(self, texts: Sequence[str]) -> Any:
        """Vectors [n, d] of n texts."""


class FeatureEncoder:
    """Turn texts, categories, numbers and vectors of items into one vector each.

    Parameters
    ----------
    text : object with `encode(texts) -> [n, d]`, optional
        Such as `TextEncoder`. Encodes the column `text`, as the block of that name.
    categories : sequence of str
        Columns of strings or integers, one for an item, or several: in a list or tuple, or in one
        string as in "crime|drama". A block is as wide as there are categories.
    numbers : sequence of str
        Columns of numbers.
    vectors : sequence of str
        Columns with a vector in each row, such as of images: ``items["image"] = list(array)``.
    weights : mapping of str to float, optional
        How much each block counts; 1 where none is given. Only their ratios matter for cosines.

    Raises
    ------
    TypeError, ValueError
        If there is no column and no text encoder, a column comes twice, or a weight is negative,
        is no number, or belongs to no block.

    Examples
    --------
    >>> import pandas as pd
    >>> films = pd.DataFrame(
    ...     {
    ...         "item": ["heat", "ronin", "up"],
    ...         "genres": [("crime", "drama"), ("crime",), ("family",)],
    ...         "price": [3.0, 9.0, None],
    ...     }
    ... )
    >>> encoder = FeatureEncoder(
    ...     categories=["genres"], numbers=["price"], weights={"genres": 1.0, "price": 0.25}
    ... )
    >>> heat, ronin, up = encoder.fit_transform(films)
    >>> encoder.blocks
    {'genres': slice(0, 3, None), 'price': slice(3, 19, None)}

    The cosine is the sum of what each block gives to it:

    >>> cosine = float(torch.cosine_similarity(heat, ronin, dim=0))
    >>> lengths = heat.norm() * ronin.norm()
    >>> shares = {name: float(heat[b] @ ronin[b] / lengths) for name, b in encoder.blocks.items()}
    >>> {name: round(share, 2) for name, share in shares.items()}
    {'genres': 0.14, 'price': -0.2}
    >>> abs(sum(shares.values()) - cosine) < 1e-6
    True

    The price weighs 0.25 of 1.25, and the two are on opposite sides of the mean. Of the third film
    no price is known:

    >>> bool(up[encoder.blocks["genres"]].any()), bool(up[encoder.blocks["price"]].any())
    (True, False)
    """

    def __init__(
        self,
        text: Encodes | None = None,
        *,
        categories: Sequence[str] = (),
        numbers: Sequence[str] = (),
        vectors: Sequence[str] = (),
        weights: Mapping[str, float] | None = None,
    ) -> None:
        # A string has a method of that name too.
        if isinstance(text, str) or not (text is None or hasattr(text, "encode")):
            raise TypeError(
                f"text is {text!r}; expected an object with encode(texts), such as a TextEncoder"
            )
        self.text = text
        self.categories = _names("categories", categories)
        self.numbers = _names("numbers", numbers)
        self.vectors = _names("vectors", vectors)
        self._arrange([TEXT] if text is not None else [], weights or {})
        self._learned: dict[str, Any] = {}

    def fit(self, items: pd.DataFrame) -> Self:
        """Learn the categories, the ranks of numbers and the means of vectors.

        Parameters
        ----------
        items : DataFrame
            With the columns of the encoder; what is not known is None, NaN, an empty string or an
            empty list.

        Returns
        -------
        FeatureEncoder
            The encoder itself.

        Raises
        ------
        ValueError, TypeError
            If a column is missing or holds something else than it should, or there are no rows.
            The encoder stays as it was.

        Examples
        --------
        >>> import pandas as pd
        >>> films = pd.DataFrame({"year": [1995, 1999, 2009]})
        >>> FeatureEncoder(numbers=["year"]).fit(films).blocks
        {'year': slice(0, 16, None)}
        """
        self.fit_transform(items)
        return self

    def fit_transform(self, items: pd.DataFrame) -> Tensor:
        """As `fit` and then `transform` of the same items, with each text encoded once.

        Parameters
        ----------
        items : DataFrame
            As for `fit`.

        Returns
        -------
        Tensor, [N, d] float32

        Raises
        ------
        ValueError, TypeError
            As for `fit`.

        Examples
        --------
        >>> import pandas as pd
        >>> FeatureEncoder(categories=["kind"]).fit_transform(pd.DataFrame({"kind": ["b", "a"]}))
        tensor([[-0.7071,  0.7071],
                [ 0.7071, -0.7071]])
        """
        columns = self._read(items)
        if not len(items):
            raise ValueError("items has no rows; there is nothing to learn from")
        learned = {
            name: self._kind(name).learn(f"items column {name}", column)
            for name, column in columns.items()
        }
        result = self._joined(learned, columns, len(items))
        self._learned = learned
        return result

    def transform(self, items: pd.DataFrame) -> Tensor:
        """The vectors of items, also of others than those of `fit`.

        Parameters
        ----------
        items : DataFrame
            With the columns of the encoder. Categories that `fit` did not see are left out;
            numbers beyond those it saw are as the nearest of them.

        Returns
        -------
        Tensor, [n, d] float32
            Zeros where nothing is known.

        Raises
        ------
        RuntimeError
            If nothing was fitted.
        ValueError, TypeError
            As for `fit`.

        Examples
        --------
        >>> import pandas as pd
        >>> encoder = FeatureEncoder(categories=["kind"]).fit(pd.DataFrame({"kind": ["b", "a"]}))
        >>> encoder.transform(pd.DataFrame({"kind": ["a|c", "c", None]}))
        tensor([[ 0.7071, -0.7071],
                [ 0.0000,  0.0000],
                [ 0.0000,  0.0000]])
        """
        return self._joined(self._ready(), self._read(items), len(items))

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Where texts are among the items: their text block, and zeros for all else.

        Parameters
        ----------
        texts : sequence of str
            Such as what someone says to look for.

        Returns
        -------
        Tensor, [n, d] float32

        Raises
        ------
        RuntimeError
            If nothing was fitted.
        ValueError
            If the encoder has no text encoder.
        TypeError
            If the texts are no list of strings.

        Examples
        --------
        >>> import pandas as pd
        >>> class Letters:  # stands in for a TextEncoder
        ...     def encode(self, texts):
        ...         return torch.tensor([[float(text.count(c)) for c in "abc"] for text in texts])
        >>> films = pd.DataFrame({"text": ["aab", "bbc"], "year": [1995, 2009]})
        >>> encoder = FeatureEncoder(Letters(), numbers=["year"]).fit(films)
        >>> place = encoder.encode(["a"])
        >>> place[:, encoder.blocks["text"]].round(decimals=2)
        tensor([[ 0.6200, -0.7500, -0.2500]])
        >>> bool(place[:, encoder.blocks["year"]].any())
        False
        """
        learned = self._ready()
        if isinstance(texts, str):
            raise TypeError(f"texts is {texts!r}; expected a list of strings")
        listed = list(texts)
        return self._joined(learned, {TEXT: self._texts("texts", listed)}, len(listed))

    @property
    def blocks(self) -> dict[str, slice]:
        """Which columns of a vector are which feature.

        Raises
        ------
        RuntimeError
            If nothing was fitted.
        """
        ends = accumulate((one.mean.shape[0] for one in self._ready().values()), initial=0)
        return {
            name: slice(*pair) for name, pair in zip(self._learned, pairwise(ends), strict=True)
        }

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What to save: values for JSON, and tensors; the text encoder is not in them.

        Raises
        ------
        RuntimeError
            If nothing was fitted.

        Examples
        --------
        >>> import pandas as pd
        >>> films = pd.DataFrame({"kind": ["b", "a"], "year": [1995, 2009]})
        >>> encoder = FeatureEncoder(categories=["kind"], numbers=["year"]).fit(films)
        >>> values, tensors = encoder.state()
        >>> values["categories"], sorted(tensors)
        ({'kind': ['a', 'b']}, ['kind.mean', 'year.levels', 'year.mean', 'year.values'])
        """
        learned = self._ready()
        values = {
            "text": TEXT in learned,
            "categories": {name: learned[name].names for name in self.categories},
            "numbers": list(self.numbers),
            "vectors": list(self.vectors),
            "weights": dict(self.weights),
        }
        tensors = {
            f"{name}.{key}": tensor
            for name, one in learned.items()
            for key, tensor in one._asdict().items()
            if isinstance(tensor, Tensor)
        }
        return values, tensors

    @classmethod
    def from_state(
        cls, values: Mapping[str, Any], tensors: Mapping[str, Tensor], text: Encodes | None = None
    ) -> Self:
        """The encoder that `state` was asked of.

        Parameters
        ----------
        values, tensors : mapping
            As `state` gave them.
        text : object with `encode(texts) -> [n, d]`, optional
            The text encoder; without it the encoder knows its blocks, and encodes no texts.

        Raises
        ------
        ValueError
            If the state lacks something.

        Examples
        --------
        >>> import pandas as pd
        >>> films = pd.DataFrame({"kind": ["b", "a"]})
        >>> saved = FeatureEncoder(categories=["kind"]).fit(films).state()
        >>> FeatureEncoder.from_state(*saved).transform(films)
        tensor([[-0.7071,  0.7071],
                [ 0.7071, -0.7071]])
        """
        try:
            names = {kind: list(values[kind]) for kind in ("categories", "numbers", "vectors")}
            encoder = cls.__new__(cls)
            encoder.text = text
            encoder.categories, encoder.numbers, encoder.vectors = map(tuple, names.values())
            encoder._arrange([TEXT] if values["text"] else [], values["weights"])
            held: dict[str, Any] = dict(tensors)
            held |= {f"{name}.names": list(one) for name, one in values["categories"].items()}
            encoder._learned = {}
            for name in encoder.weights:
                kind = encoder._kind(name)
                encoder._learned[name] = kind(*(held[f"{name}.{key}"] for key in kind._fields))
        except KeyError as error:
            raise ValueError(f"the saved FeatureEncoder has no {error.args[0]}") from None
        return encoder

    def _arrange(self, text: list[str], weights: Mapping[str, float]) -> None:
        """Put the blocks in order, each with its weight."""
        columns = [*self.categories, *self.numbers, *self.vectors]
        names = [*text, *columns]
        if not names:
            raise ValueError("there are no features; give a text encoder, or columns")
        if TEXT in columns:
            raise ValueError(f"{TEXT} is the name of the text encoder's block; rename the column")
        for place, name in enumerate(names):
            if name in names[:place]:
                raise ValueError(f"{name} is the name of two blocks; give each column once")
        for name, weight in weights.items():
            if name not in names:
                raise ValueError(f"weights has {name!r}; the blocks are {', '.join(names)}")
            if checks.finite_number(f"weights[{name!r}]", weight) < 0:
                raise ValueError(f"weights[{name!r}] is {weight}; expected at least 0")
        self.weights = {name: float(weights.get(name, 1.0)) for name in names}

    def _kind(self, name: str) -> Any:
        if name in self.categories:
            return Categories
        return Number if name in self.numbers else Dense

    def _ready(self) -> dict[str, Any]:
        if not self._learned:
            raise RuntimeError("this FeatureEncoder is not fitted; call fit first")
        return self._learned

    def _read(self, items: pd.DataFrame) -> dict[str, Any]:
        """Each column of a frame, checked."""
        if not hasattr(items, "columns") or not hasattr(items, "iloc"):
            raise TypeError(f"items is a {type(items).__name__}; expected a pandas DataFrame")
        columns: dict[str, Any] = {}
        for name in self.weights:
            held = list(items.columns)
            if held.count(name) != 1:
                listed = ", ".join(map(str, held)) or "none"
                raise ValueError(
                    f"items has {held.count(name) or 'no'} columns {name}, expected one; its "
                    f"columns are {listed}"
                )
            where, column = f"items column {name}", items[name]
            if name == TEXT:
                texts = ["" if is_missing(text) else text for text in column.tolist()]
                columns[name] = self._texts(where, texts)
            else:
                columns[name] = self._kind(name).read(where, column)
        return columns

    def _texts(self, where: str, texts: list[Any]) -> Tensor:
        if self.text is None:
            raise ValueError("this FeatureEncoder has no text encoder; make or load it with one")
        return text_vectors(where, texts, self.text)

    def _joined(self, learned: dict[str, Any], columns: dict[str, Any], n: int) -> Tensor:
        parts = [
            one.place(f"items column {name}", columns[name]) * math.sqrt(self.weights[name])
            if name in columns
            else torch.zeros(n, one.mean.shape[0])
            for name, one in learned.items()
        ]
        return torch.cat(parts, dim=1)


def _names(argument: str, names: Any) -> tuple[str, ...]:
    if isinstance(names, str):
        raise TypeError(f"{argument} is {names!r}; expected a list of columns, such as [{names!r}]")
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"{argument} holds {name!r}; expected names of columns")
    return tuple(names)
