"""Other wordings of texts: words left out at random, and a language model's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from language_models import smollm

from llmrec_kernels.encoders import TextEncoder, bundled_encoder_path
from llmrec_kernels.encoders.augment import TokenDropout
from llmrec_kernels.language.paraphraser import Paraphraser

WORDS = [f"w{number}" for number in range(400)]


def test_words_go_at_the_rate_and_the_rest_keep_their_order():
    (views,) = TokenDropout(0.25, copies=50).views([" ".join(WORDS)])
    assert len(views) == 50
    for view in views:
        kept = [WORDS.index(word) for word in view.split()]
        assert kept == sorted(set(kept))
    share = np.mean([len(view.split()) for view in views]) / len(WORDS)
    assert share == pytest.approx(0.75, abs=0.01)
    assert len(set(views)) == 50


def test_one_word_always_stays_and_a_blank_text_has_no_other_wording():
    views = TokenDropout(0.99, copies=30).views(["a b", "  ", "alone"])
    assert all(len(view.split()) >= 1 for view in views[0])
    assert views[1:] == [[], ["alone"] * 30]


def test_a_seed_draws_the_same_again():
    texts = [" ".join(WORDS[:30])] * 3
    assert TokenDropout(seed=1).views(texts) == TokenDropout(seed=1).views(texts)
    assert TokenDropout(seed=1).views(texts) != TokenDropout(seed=2).views(texts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": 0}, "rate is 0; expected more than 0 and less than 1"),
        ({"rate": 1.0}, "rate is 1.0; expected more than 0 and less than 1"),
        ({"copies": 0}, "copies"),
        ({"seed": -1}, "seed is -1; expected at least 0"),
    ],
)
def test_what_cannot_be_left_out_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TokenDropout(**arguments)


class Writes:
    """Stands in for a language model: it writes what it is told to."""

    def __init__(self, *completions: str) -> None:
        self.completions = list(completions)

    def generate(self, prompts, **options):
        return self.completions[: len(prompts)]


def test_wordings_that_are_far_from_their_text_or_the_text_itself_do_not_count():
    text = "Alien (1979). Genres: Horror, Science Fiction. A crew meets a monster in space."
    like = "Alien, from 1979, is a science fiction horror film: a space crew meets a monster."
    far = "The tax law of 1979 was changed by the parliament."
    encoder = TextEncoder(bundled_encoder_path(), cache_dir=False)
    paraphraser = Paraphraser(Writes(like, far, text), encoder)  # type: ignore[arg-type]
    assert paraphraser.views([text, "", text, text]) == [[like], [], [], []]


def test_a_real_model_says_it_in_other_words():
    text = "8 1/2 (1963). Genres: Drama. A director has memories. Directed by Federico Fellini."
    encoder = TextEncoder(bundled_encoder_path(), cache_dir=False)
    (views,) = Paraphraser(smollm(), encoder, likeness=0.5, max_new_tokens=30).views([text])
    assert len(views) == 1
    assert views[0] != text
    cosine = torch.nn.functional.cosine_similarity(*encoder.encode([text, views[0]]), dim=0)
    assert cosine >= 0.5


def test_likeness_is_a_cosine():
    encoder = TextEncoder(bundled_encoder_path())
    with pytest.raises(ValueError, match="likeness is 2; expected -1 to 1"):
        Paraphraser(Writes(), encoder, likeness=2)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="model is 5; expected a LanguageModel"):
        Paraphraser(5, encoder)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="encoder is 6; expected an object with encode"):
        Paraphraser(Writes(), 6)  # type: ignore[arg-type]
