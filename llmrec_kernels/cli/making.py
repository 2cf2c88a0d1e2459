"""From the words of a command line to a recommender: its kind, its settings, its parts, its texts.

A setting is an argument of the recommender's constructor, checked against its signature, so that
the command line takes what Python takes. What is no plain value has an option of its own.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

    from llmrec_kernels.recommenders import Recommender


class Model(str, Enum):
    """What ranks the items."""

    content = "content"
    aligned = "aligned"
    popularity = "popularity"
    item_knn = "item-knn"
    user_knn = "user-knn"
    ease = "ease"
    als = "als"
    two_tower = "two-tower"
    sequence = "sequence"
    text_ratings = "text-ratings"
    hybrid = "hybrid"


_CLASSES = {
    Model.content: "ContentRecommender",
    Model.aligned: "AlignedRecommender",
    Model.popularity: "PopularityRecommender",
    Model.item_knn: "ItemKNNRecommender",
    Model.user_knn: "UserKNNRecommender",
    Model.ease: "EASERecommender",
    Model.als: "ALSRecommender",
    Model.two_tower: "TwoTowerRecommender",
    Model.sequence: "SequenceRecommender",
    Model.text_ratings: "TextRatingRegressor",
    Model.hybrid: "HybridRecommender",
}
READERS = (Model.content, Model.aligned, Model.two_tower, Model.text_ratings)
TRAINED = (Model.two_tower, Model.sequence, Model.text_ratings)
READS_IF_THERE = Model.sequence  # the texts of the items, where they are given
# The hybrid that nobody chose. On the second-last item of each user of MovieLens-100K its HR@10 is
# .244, without content .240, of ease alone .231, and without the half-lives .158.
_PARTS = {Model.ease: 1.0, Model.item_knn: 0.5, Model.content: 0.25}
_PART_SETTINGS = {"ease.regularization": "500", "ease.half_life": "5", "item-knn.half_life": "5"}
# Arguments that are no plain values, or that an option of the command line stands for.
_NO_SETTINGS = ("encoder", "embeddings", "privacy", "parts", "weights", "adaptive", "augment")


class Words(NamedTuple):
    """What the command line says of a model."""

    model: Model
    settings: list[str]
    parts: list[str]
    adaptive: bool
    encoder: str | None
    features: list[str]


def recommender(words: Words, items: pd.DataFrame | None) -> Recommender[Any]:
    """The recommender that the command line describes, not fitted yet.

    Parameters
    ----------
    words : Words
        As given.
    items : DataFrame or None
        The items that there will be, whose columns say what kind of feature each is.

    Raises
    ------
    ValueError, TypeError
        If a word is unknown, a setting out of its range, or an option belongs to another model.
    OSError, ImportError
        If the text encoder is not to be had.
    """
    settings = dict(_pair("--set", "NAME=VALUE", one) for one in _once("--set", words.settings))
    weights = _weights(words)
    if words.model is Model.hybrid and not words.parts:
        weights, settings = dict(_PARTS), _PART_SETTINGS | settings
    kinds = list(weights) or [words.model]
    _check_settings(words.model, kinds, settings)
    encoder = _encoder(words, [kind for kind in kinds if reads_items(kind, items)], items)
    own = _values(settings)
    if words.model is not Model.hybrid:
        return _made(words.model, own, encoder)
    from llmrec_kernels.recommenders import HybridRecommender

    parts = {
        kind.value: _made(kind, _values(settings, f"{kind.value}."), encoder) for kind in kinds
    }
    given = {kind.value: weight for kind, weight in weights.items()}
    return HybridRecommender(parts, weights=given, adaptive=words.adaptive, **own)


def text_encoder(name: str | None) -> Any:
    """The text encoder of that name, or the one that needs no network."""
    from llmrec_kernels.encoders import TextEncoder, bundled_encoder_path

    if name is None:
        return TextEncoder(bundled_encoder_path())
    folder = Path(name)  # in full, as a saved model is asked from other folders too
    return TextEncoder(folder.resolve() if folder.is_dir() else name)


def _weights(words: Words) -> dict[Model, float]:
    """The parts that were chosen for a hybrid, and how much each counts."""
    if words.model is not Model.hybrid:
        if words.parts or words.adaptive:
            option = "--part" if words.parts else "--adaptive"
            raise ValueError(f"{option} is for --model hybrid; got --model {words.model.value}")
        return {}
    weights = {}
    for name, text in (
        _pair("--part", "MODEL=WEIGHT", one) for one in _once("--part", words.parts)
    ):
        known = [kind.value for kind in Model if kind is not Model.hybrid]
        if name not in known:
            raise ValueError(f"--part is {name!r}; expected one of {', '.join(known)}")
        weights[Model(name)] = _number("--part", name, text)
    return weights


def _check_settings(model: Model, kinds: list[Model], settings: Mapping[str, str]) -> None:
    """Refuse settings that nothing takes, with a sentence that lists what there is."""
    known = _settable(model)
    if model is Model.hybrid:
        for kind in kinds:
            known |= {f"{kind.value}.{name}": default for name, default in _settable(kind).items()}
    for name in settings:
        if name not in known:
            listed = [f"{one}={json.dumps(default)}" for one, default in known.items()]
            raise ValueError(
                f"--set has {name!r}; {model.value} takes {', '.join(listed) or 'no settings'}"
            )
        if isinstance(known[name], bool) and not isinstance(_value(settings[name]), bool):
            raise ValueError(f"--set {name} is {settings[name]!r}; expected true or false")


def _settable(model: Model) -> dict[str, Any]:
    """The settings of a recommender and their defaults."""
    parameters = inspect.signature(_class(model)).parameters
    return {name: one.default for name, one in parameters.items() if name not in _NO_SETTINGS}


def _class(model: Model) -> Callable[..., Recommender[Any]]:
    from llmrec_kernels import recommenders

    found: Callable[..., Recommender[Any]] = getattr(recommenders, _CLASSES[model])
    return found


def _made(model: Model, options: dict[str, Any], encoder: Any) -> Recommender[Any]:
    reads = model in READERS or model is READS_IF_THERE
    return _class(model)(**({"encoder": encoder} if reads else {}), **options)


def _values(settings: Mapping[str, str], prefix: str = "") -> dict[str, Any]:
    """The settings whose names are the prefix and a plain name, by that name."""
    named = {
        name[len(prefix) :]: text for name, text in settings.items() if name.startswith(prefix)
    }
    return {name: _value(text) for name, text in named.items() if "." not in name}


def reads_items(kind: Model, items: pd.DataFrame | None) -> bool:
    """Whether a model needs the texts of the items, or takes them where they are."""
    return kind in READERS or (kind is READS_IF_THERE and items is not None)


def _encoder(words: Words, readers: list[Model], items: pd.DataFrame | None) -> Any:
    """What encodes the items, for the models that read them."""
    if not readers:
        if words.encoder is not None or words.features:
            option = "--encoder" if words.encoder is not None else "--feature"
            if words.model is READS_IF_THERE:
                raise ValueError(f"{option} is for texts of items, but there are no --items")
            able = ", ".join(kind.value for kind in (*READERS, READS_IF_THERE))
            raise ValueError(
                f"{option} is for models that read the items, {able}; {words.model.value} does not"
            )
        return None
    if items is None:
        raise ValueError(f"there are no --items, whose texts {readers[0].value} reads; give them")
    weights = dict(
        _pair("--feature", "COLUMN=WEIGHT", one) for one in _once("--feature", words.features)
    )
    encoder = text_encoder(words.encoder)
    if not weights:
        return encoder
    from llmrec_kernels.recommenders.features import FeatureEncoder

    numbers, categories = _kinds(items, [name for name in weights if name != "text"])
    return FeatureEncoder(
        encoder,
        categories=categories,
        numbers=numbers,
        weights={name: _number("--feature", name, text) for name, text in weights.items()},
    )


def _kinds(items: pd.DataFrame, names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Which columns are numbers, and which are words; whole numbers, as years, count as words."""
    numbers: list[str] = []
    categories: list[str] = []
    for name in names:
        if name not in items.columns or name == "item":
            held = ", ".join(one for one in items.columns if one != "item")
            raise ValueError(f"--feature is {name!r}; the items have {held}")
        (numbers if items[name].dtype.kind == "f" else categories).append(name)
    return numbers, categories


def _pair(option: str, form: str, given: str) -> tuple[str, str]:
    """A name and what is said of it; a weight that is left out is 1."""
    name, equals, text = given.partition("=")
    if not name or (form == "NAME=VALUE" and not equals) or (equals and not text):
        raise ValueError(f"{option} is {given!r}; expected {form}")
    return name, text or "1"


def _once(option: str, given: list[str]) -> list[str]:
    """What was given, unless something is given twice."""
    names = [one.partition("=")[0] for one in given]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{option} has {name} twice; give it once")
    return given


def _value(text: str) -> Any:
    """What JSON makes of it; what is no JSON is a string."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _number(option: str, name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{option} {name} has the weight {text!r}; expected a number") from error
