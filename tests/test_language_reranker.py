"""LMReranker on SmolLM2, beside likelihoods that transformers gives one text at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from language_models import smollm

from llmrec_kernels.encoders import TextEncoder, bundled_encoder_path
from llmrec_kernels.language import LanguageModel, LMReranker
from llmrec_kernels.recommenders.results import Recommendations

TITLES = {
    1: "Aliens (1986)",
    2: "The Silence of the Lambs (1991)",
    3: "Été 東京 (2001)",
    4: "Up",
}
HISTORIES = {
    "ann": ["Heat (1995)", "Alien (1979)", "The Terminator (1984)"],
    "bob": ["Babe (1995)"],
}
OPENING = "Films that one person watched and liked, one after the other:\n"
ANN = OPENING + "Alien (1979)\nThe Terminator (1984)\n"
BOB = OPENING + "Babe (1995)\n"
NOBODY = OPENING


def lists(**of: list[tuple[int, float]]) -> Recommendations:
    rows = [
        (user, item, score, rank)
        for user, ranked in of.items()
        for rank, (item, score) in enumerate(ranked, 1)
    ]
    user, item, score, rank = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Recommendations(
        np.array(user, dtype=object),
        np.array(item, dtype=np.int64),
        np.array(score, dtype=np.float32),
        np.array(rank, dtype=np.int64),
        ("bob",),
    )


BOTH = lists(ann=[(2, 4.0), (1, 3.0), (3, 2.0), (4, 1.0)], bob=[(4, 2.0), (1, 1.0)])


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tests run side by side: small batches on more threads than cores wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return smollm()


def log_probabilities(prompt: str, continuation: str = "") -> torch.Tensor:
    """Of each next token [L + M, V], by one pass over the whole text: no cache, no batch."""
    loaded = smollm()._loaded
    ids = [*loaded.tokenizer(prompt).input_ids, *loaded.tokenizer(continuation).input_ids]
    with torch.no_grad():
        return loaded.model(torch.tensor([ids])).logits[0].log_softmax(-1)


@lru_cache
def likelihood(prompt: str, continuation: str) -> tuple[float, int]:
    """Sum of log p over the tokens of the continuation, and how many they are."""
    tokens = smollm()._loaded.tokenizer(continuation).input_ids
    said = log_probabilities(prompt, continuation)[-len(tokens) - 1 : -1]
    return said[torch.arange(len(tokens)), tokens].sum().item(), len(tokens)


def expected_score(prompt: str, title: str, normalise: str) -> float:
    score, tokens = likelihood(prompt, f"{title}\n")
    if normalise == "per token":
        return score / tokens
    return score - likelihood(NOBODY, f"{title}\n")[0] if normalise == "prior-corrected" else score


@pytest.mark.parametrize("normalise", ["sum", "per token", "prior-corrected"])
def test_scores_are_the_likelihoods_of_the_titles_after_each_history(
    model: LanguageModel, normalise: Any
) -> None:
    reranker = LMReranker(model, history=2, normalise=normalise)
    found = reranker.scores(BOTH, HISTORIES, TITLES)
    prompts = {"ann": ANN, "bob": BOB}
    expected = [
        expected_score(prompts[user], TITLES[item], normalise)
        for user, item in zip(BOTH.user, BOTH.item, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert reranker.scores(BOTH, HISTORIES, TITLES).tolist() == found.tolist()


def test_a_sequel_owes_more_to_the_first_part_than_to_another_film(model: LanguageModel) -> None:
    sequel = lists(ann=[(1, 1.0)], bob=[(1, 1.0)])
    after_alien, after_babe = LMReranker(model).scores(sequel, HISTORIES, TITLES)
    assert after_alien > after_babe


def test_preferences_are_the_share_of_yes_among_yes_and_no(model: LanguageModel) -> None:
    examples = [("Alien (1979)", True), ("Babe (1995)", False)]
    found = LMReranker(model).prefer(examples, ["Aliens (1986)", "A  Bug's\nLife"])
    prompt = (
        "Films that one person liked or did not like.\n\n"
        "Title: Alien (1979)\nLiked: yes\n\nTitle: Babe (1995)\nLiked: no\n\nTitle:"
    )
    yes, no = (smollm()._loaded.tokenizer(end).input_ids[0] for end in (" yes", " no"))
    for title, one in zip(["Aliens (1986)", "A Bug's Life"], found.tolist(), strict=True):
        last = log_probabilities(prompt, f" {title}\nLiked:")[-1].exp()
        assert one == pytest.approx((last[yes] / (last[yes] + last[no])).item(), abs=1e-4)


# What is made of likelihoods: the model says what a test wants.


@pytest.fixture
def said(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """What the model is asked; it finds short continuations likely, whatever is before them."""
    asked: list[tuple[str, list[str]]] = []

    def log_likelihoods(prompt: str, continuations: list[str]) -> torch.Tensor:
        asked.append((prompt, list(continuations)))
        return torch.tensor([-float(len(one)) for one in continuations])

    monkeypatch.setattr(model, "log_likelihoods", log_likelihoods)
    return asked


def test_the_likeliest_title_comes_first_and_k_of_each_list_stay(
    model: LanguageModel, said: list[Any]
) -> None:
    found = LMReranker(model, normalise="sum").rerank(BOTH, HISTORIES, TITLES, k=3)
    assert found.user.tolist() == ["ann"] * 3 + ["bob"] * 2
    assert found.item.tolist() == [4, 1, 3, 4, 1]
    assert found.rank.tolist() == [1, 2, 3, 1, 2]
    assert found.score.tolist() == [-(len(TITLES[item]) + 1.0) for item in found.item]
    assert found.score.dtype == np.float32
    assert found.unknown_users == ("bob",)


def test_equal_scores_keep_the_order_there_was(model: LanguageModel, said: list[Any]) -> None:
    for normalise in ("prior-corrected", "sum"):
        alike = dict.fromkeys(TITLES, "Same")
        found = LMReranker(model, normalise=normalise).rerank(BOTH, HISTORIES, alike)
        assert found.item.tolist() == BOTH.item.tolist()


def test_each_history_is_asked_about_once_and_each_title_s_prior_once(
    model: LanguageModel, said: list[Any]
) -> None:
    reranker = LMReranker(model, history=2)
    reranker.rerank(BOTH, HISTORIES, TITLES)
    assert [prompt for prompt, _ in said] == [NOBODY, ANN, BOB]
    assert said[0][1] == said[1][1] == [f"{TITLES[item]}\n" for item in (2, 1, 3, 4)]


def test_the_weight_blends_standardised_scores(model: LanguageModel, said: list[Any]) -> None:
    def standardised(scores: list[float]) -> np.ndarray:
        return (np.array(scores) - np.mean(scores)) / np.std(scores)

    had = standardised([4.0, 3.0, 2.0, 1.0])
    new = standardised([-float(len(TITLES[item])) for item in (2, 1, 3, 4)])
    expected = dict(zip((2, 1, 3, 4), 0.25 * new + 0.75 * had, strict=True))
    found = LMReranker(model, normalise="sum", weight=0.25).rerank(BOTH, HISTORIES, TITLES)
    assert found.item[:4].tolist() == sorted(expected, key=lambda item: -expected[item])
    np.testing.assert_allclose(found.score[:4], sorted(expected.values())[::-1], atol=1e-6)
    unmoved = LMReranker(model, weight=0.0).rerank(BOTH, HISTORIES, TITLES)
    assert unmoved.item.tolist() == BOTH.item.tolist()
    assert unmoved.score.tolist() == BOTH.score.tolist()


def test_other_forms_of_a_prompt_have_the_blank_before_the_title_with_the_title(
    model: LanguageModel, said: list[Any]
) -> None:
    one = LMReranker(model, opening="", line="{title};", normalise="sum")
    assert one.prompt(["A {b}", "C\nD"]) == "A {b};C D;"
    two = LMReranker(model, opening="Seen: ", line="* {title} *", normalise="sum")
    assert two.prompt(["A"]) == "Seen: * A **"
    two.scores(lists(bob=[(4, 1.0)]), HISTORIES, TITLES)
    assert said == [("Seen: * Babe (1995) **", [" Up *"])]


def test_no_recommendations_give_none(model: LanguageModel, said: list[Any]) -> None:
    assert len(LMReranker(model).rerank(lists(), {}, {})) == 0
    assert LMReranker(model).prefer([("Alien", True)], []).shape == (0,)


# Bad input


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"history": 0}, ValueError, "history is 0; expected at least 1"),
        ({"normalise": "mean"}, ValueError, "normalise is 'mean'; expected one of 'sum', 'per tok"),
        ({"weight": 1.5}, ValueError, r"weight is 1\.5; expected a number from 0 to 1"),
        ({"weight": math.nan}, ValueError, "weight is nan; expected a finite number"),
        ({"line": "- title"}, ValueError, r"line is '- title'; expected a text with \{title\} in"),
        ({"opening": 7}, TypeError, r"opening\[0\] must be a string, got 7"),
    ],
)
def test_an_option_out_of_its_range_is_refused(
    model: LanguageModel, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        LMReranker(model, **options)


def test_a_model_that_says_no_likelihoods_is_refused() -> None:
    with pytest.raises(TypeError, match="model is a TextEncoder; expected a LanguageModel"):
        LMReranker(TextEncoder(bundled_encoder_path()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"titles": {1: "Aliens"}}, IndexError, "titles lacks item 2, which is recommended"),
        ({"titles": {**TITLES, 3: None}}, TypeError, r"titles\[2\] must be a string, got None"),
        ({"histories": {"ann": ["Heat"]}}, IndexError, "histories lacks user 'bob', to whom"),
        ({"histories": {**HISTORIES, "bob": []}}, ValueError, r"histories\['bob'\] is empty; exp"),
        ({"histories": {**HISTORIES, "bob": "Babe"}}, TypeError, "must be a sequence of strings"),
        ({"k": 0}, ValueError, "k is 0; expected at least 1"),
        ({"k": 2.5}, TypeError, r"k is 2\.5; expected an integer of at least 1"),
        ({"recommendations": [1, 2]}, TypeError, "is a list; expected Recommendations"),
    ],
)
def test_bad_input_is_refused_before_the_model_is_asked(
    model: LanguageModel,
    said: list[Any],
    arguments: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    given = {"recommendations": BOTH, "histories": HISTORIES, "titles": TITLES} | arguments
    with pytest.raises(error, match=message):
        LMReranker(model).rerank(**given)
    assert said == []


def test_a_user_of_an_integer_id_is_named_as_an_integer(model: LanguageModel) -> None:
    one = Recommendations(np.array([7]), np.array([1]), np.ones(1, np.float32), np.array([1]), ())
    with pytest.raises(IndexError, match="histories lacks user 7, to whom"):
        LMReranker(model).rerank(one, {}, TITLES)


def test_scores_that_are_no_numbers_are_not_blended(model: LanguageModel, said: list[Any]) -> None:
    wrong = lists(ann=[(1, math.inf), (2, 1.0)])
    with pytest.raises(ValueError, match="has a score that is not finite"):
        LMReranker(model, weight=0.5).rerank(wrong, HISTORIES, TITLES)


@pytest.mark.parametrize(
    ("examples", "error", "message"),
    [
        ([], ValueError, "examples is empty; expected a title or more"),
        ([("Alien", 4.0)], TypeError, r"examples\[0\] has 4\.0 .* compare ratings with a bound"),
        ([("Alien", True), "Babe"], TypeError, r"examples\[1\] is 'Babe'; expected \(title, wheth"),
    ],
)
def test_examples_of_another_kind_are_refused(
    model: LanguageModel, examples: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        LMReranker(model).prefer(examples, ["Heat"])


def test_a_prompt_beyond_what_the_model_reads_is_refused(model: LanguageModel) -> None:
    long = {"ann": ["word " * 9000], "bob": ["Babe"]}
    with pytest.raises(ValueError, match="reads at most 8192"):
        LMReranker(model).rerank(BOTH, long, TITLES)
