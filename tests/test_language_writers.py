"""What writers make of completions: those of a stand-in that says what a test wants, and real ones.

The check is the same for both. A stand-in is needed to see a certain wrong sentence refused.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from language_models import smollm

from llmrec_kernels.encoders import TextEncoder, bundled_encoder_path
from llmrec_kernels.language import (
    Explainer,
    ItemDescriber,
    Summarizer,
    SummarizingEncoder,
    unsupported,
)
from llmrec_kernels.recommenders import ContentRecommender, EASERecommender
from llmrec_kernels.recommenders.results import Explanation

FILMS = pd.DataFrame(
    {
        "item": [7, 8, 9],
        "title": ["Alien (1979)", "Usual Suspects, The (1995)", "Aliens (1986)"],
        "genres": [["Horror", "Sci-Fi"], ["Crime", "Thriller"], ["Action", "Sci-Fi"]],
        "directors": [["Ridley Scott"], ["Bryan Singer"], ["James Cameron"]],
        "plot": ["A crew wakes from sleep to answer a signal.", "", None],
    }
)
TRUE = "Alien is a Horror film of 1979. A crew wakes from sleep to answer a signal."
WRONG = "Alien is a Horror film directed by James Cameron in 1986, and won an Oscar."

LONG = "A crew wakes from sleep. " + " ".join(
    f"On day {n} they hear a signal from a moon." for n in range(60)
)


class SaysThis:
    """A stand-in for a language model: it writes what it was told to write, and notes prompts."""

    batch_size = 2

    def __init__(self, *completions: str, stops_after: int | None = None) -> None:
        self.completions, self.asked = completions, []
        self.stops_after = stops_after

    def identity(self) -> str:
        return "stand-in"

    def generate(self, prompts, **options):
        if self.stops_after is not None and len(self.asked) >= self.stops_after:
            raise KeyboardInterrupt
        self.asked += prompts
        return [self.completions[n % len(self.completions)] for n in range(len(prompts))]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tests run side by side: small batches on more threads than cores wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def describer(model, **options):
    return ItemDescriber(model, noun="film", **{"cache_dir": False, **options})


def why(item=9, sources=(7,), shares=(0.5,), kind="history"):
    share = np.array(shares, dtype=float)
    return Explanation(
        "ann", item, share.sum(), kind, np.array(sources), np.ones(len(share)), share
    )


# Descriptions


def test_a_completion_that_the_facts_support_is_used():
    row = describer(SaysThis(TRUE)).describe(FILMS[:1]).iloc[0]
    assert (row["item"], row["text"], row["description"]) == (7, TRUE, TRUE)
    assert (row["described_by"], row["completion"], row["refused"]) == ("model", TRUE, ())


def test_a_wrong_completion_is_refused_and_the_template_used():
    row = describer(SaysThis(WRONG)).describe(FILMS[:1]).iloc[0]
    assert row["described_by"] == "template"
    assert row["completion"] == WRONG
    assert row["refused"] == ("James", "Cameron", "1986", "won", "Oscar")
    assert row["description"] == (
        "Alien is a film of 1979. Genres: Horror, Sci-Fi. Directors: Ridley Scott. "
        "A crew wakes from sleep to answer a signal."
    )


def test_of_a_completion_the_sentences_that_stand_are_used():
    row = describer(SaysThis(f"{TRUE} {WRONG} It is")).describe(FILMS[:1]).iloc[0]
    assert (row["described_by"], row["description"]) == ("model", TRUE)
    assert "Oscar" in row["refused"]


def test_the_description_follows_the_items_own_text():
    frame = describer(SaysThis(TRUE)).describe(FILMS[:1].assign(text="Alien (1979). Horror."))
    assert frame["text"].tolist() == [f"Alien (1979). Horror. {TRUE}"]


def test_titles_are_told_as_people_write_them():
    frame = describer(None).describe(FILMS.set_index(pd.Index(["a", "b", "c"])))
    assert frame.loc["b", "description"].startswith("The Usual Suspects is a film of 1995. Genres:")


def test_only_the_columns_asked_for_are_told():
    model = SaysThis(TRUE)
    describer(model, columns=["title", "genres"], most=1).describe(FILMS[:1])
    assert model.asked == ["Year: 1979\nTitle: Alien\nGenres: Horror"] or model.asked == [
        "Title: Alien\nGenres: Horror\nYear: 1979"
    ]


@given(
    st.fixed_dictionaries(
        {
            "title": st.text(st.characters(categories=["L", "N", "Zs"]), min_size=1).filter(
                str.strip
            ),
            "year": st.integers(0, 2100) | st.none() | st.just(float("nan")),
            "genres": st.lists(st.sampled_from(["Horror", "Sci-Fi", "Film-Noir"]), max_size=4),
            "pages_read": st.integers(0, 10**7),
            "plot": st.sampled_from([LONG, FILMS["plot"][0], "No plot", "Why?", "", None]),
        }
    )
)
def test_a_template_says_nothing_but_the_facts(row):
    maker = describer(None)
    facts = maker.facts(row)
    assert unsupported(maker.template(facts), {"noun": "film", **facts}) == []


def test_a_long_text_is_told_up_to_a_sentence_and_a_longer_sentence_up_to_there():
    told = describer(None).facts({"item": 1, "plot": LONG, "review": "word " * 9000})
    assert len(told["plot"][0]) < 600
    assert LONG.startswith(told["plot"][0])
    assert told["plot"][0].endswith(".")
    assert len(told["review"][0]) == 600


def test_values_of_any_kind_are_told_as_they_are():
    row = {
        "item": 1, "title": "A (1995)", "year": float("nan"), "ean": 12345678901234567,
        "in_stock": False, "since": pd.Timestamp("2020-01-02"), "until": pd.NaT, "pages": 10**400,
    }  # fmt: skip
    made = describer(None).describe(pd.DataFrame([row]))["description"].item()
    assert made.startswith(
        "A is a film of 1995. Ean: 12345678901234567. In stock: no. Since: 2020-01-02. Pages: 10000"
    )


def test_an_article_fits_the_sound_of_the_noun():
    hour = ItemDescriber(None, noun="hour").describe(pd.DataFrame({"item": [1]}))
    assert hour["description"].item() == "This is an hour."


@pytest.mark.parametrize("column", ["described_by", "completion", "refused"])
def test_described_items_are_not_described_again(column):
    with pytest.raises(ValueError, match=f"items has a column '{column}', as described items"):
        describer(None).describe(FILMS.assign(**{column: "anything"}))


def test_a_column_of_ones_own_is_told_whatever_it_is_called():
    items = pd.DataFrame({"item": [1], "source": ["Ann Holt"], "description": ["A red mug."]})
    made = describer(None).describe(items)["description"].item()
    assert made == "This is a film. Source: Ann Holt. A red mug."


def test_no_items_are_no_descriptions():
    frame = describer(SaysThis(TRUE)).describe(FILMS[:0])
    assert list(frame) == ["item", "text", "description", "described_by", "completion", "refused"]
    assert len(frame) == 0


def test_items_without_any_fact_are_described_by_what_they_are():
    frame = describer(SaysThis("It is great.")).describe(pd.DataFrame({"item": [1]}))
    assert frame["description"].tolist() == ["This is a film."]


# What is kept


def test_a_completion_is_written_once_and_kept_on_disk(tmp_path: Path):
    first, second = SaysThis(TRUE), SaysThis("nothing of this")
    made = describer(first, cache_dir=tmp_path).describe(FILMS)
    again = describer(second, cache_dir=tmp_path).describe(FILMS[::-1])
    assert (len(first.asked), second.asked) == (3, [])
    pd.testing.assert_frame_equal(again[::-1], made)


def test_another_prompt_or_model_writes_anew(tmp_path: Path):
    describer(SaysThis(TRUE), cache_dir=tmp_path).describe(FILMS)
    for options in ({"max_new_tokens": 7}, {"most": 1}, {"examples": [({"title": "A"}, "A.")]}):
        model = SaysThis(TRUE)
        describer(model, cache_dir=tmp_path, **options).describe(FILMS[:1])
        assert len(model.asked) == 1
    other = SaysThis(TRUE)
    other.identity = lambda: "another"
    describer(other, cache_dir=tmp_path).describe(FILMS[:1])
    assert len(other.asked) == 1


def test_items_with_the_same_facts_are_written_once():
    model = SaysThis(TRUE)
    frame = describer(model).describe(pd.concat([FILMS[:1]] * 5))
    assert (len(model.asked), len(frame)) == (1, 5)


def test_after_ctrl_c_the_finished_ones_are_kept(tmp_path: Path):
    films = pd.concat([FILMS.assign(item=n, number=n) for n in range(2)])  # six, in batches of two
    stopped, on = SaysThis(TRUE, stops_after=4), SaysThis(TRUE)
    with pytest.raises(KeyboardInterrupt):
        describer(stopped, cache_dir=tmp_path).describe(films)
    describer(on, cache_dir=tmp_path).describe(films)
    assert (len(stopped.asked), len(on.asked)) == (4, 2)
    assert not set(stopped.asked) & set(on.asked)


_KILLED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from test_language_writers import FILMS, TRUE, SaysThis, describer

class Sleeps(SaysThis):
    def generate(self, prompts, **options):
        if self.asked:
            print("second batch", flush=True)
            time.sleep(60)
        return super().generate(prompts, **options)

describer(Sleeps(TRUE), cache_dir=sys.argv[2]).describe(FILMS)
"""


def test_after_a_kill_the_finished_ones_are_kept(tmp_path: Path):
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(Path(__file__).parent), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "second batch\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    on = SaysThis(TRUE)
    describer(on, cache_dir=tmp_path).describe(FILMS)
    assert len(on.asked) == 1


def test_a_damaged_cache_costs_a_warning_and_is_written_again(tmp_path: Path):
    describer(SaysThis(TRUE), cache_dir=tmp_path).describe(FILMS)
    (path,) = tmp_path.iterdir()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE vectors SET vector = ?", (b"It won an Oscar.",))
    database.close()
    model = SaysThis(TRUE)
    with pytest.warns(UserWarning, match="completion cache .* holds 3 damaged completions, which"):
        describer(model, cache_dir=tmp_path).describe(FILMS)
    assert len(model.asked) == 3


def test_a_bar_says_how_far_it_is(capsys: pytest.CaptureFixture[str]):
    describer(SaysThis(TRUE), progress=True).describe(FILMS)
    assert "writing: 100%" in capsys.readouterr().err
    describer(SaysThis(TRUE), progress=False).describe(FILMS)
    assert capsys.readouterr().err == ""


# Reasons


def test_a_reason_names_what_speaks_for_the_item_and_what_they_share():
    facts = Explainer(None, FILMS).facts(why(9, (7, 8), (0.5, 0.25)))
    assert facts == {"chose": ["Alien"], "shared genres": ["Sci-Fi"], "recommended": ["Aliens"]}
    assert Explainer(None, FILMS).facts(why(9, (8, 7), (0.5, -0.25))) == {
        "chose": ["The Usual Suspects"],
        "recommended": ["Aliens"],
    }


@pytest.mark.parametrize(
    "wrong",
    [
        "We recommend Alien because you chose Aliens.",
        "We recommend Aliens because you chose The Usual Suspects.",
        "They share the director James Cameron.",
        "You will love Aliens.",
    ],
)
def test_a_wrong_reason_is_refused_and_the_template_used(wrong):
    made = Explainer(SaysThis(wrong), FILMS, cache_dir=False).explain(why())
    assert (made.source, made.completion) == ("template", wrong)
    assert made.refused
    assert made.text == "We recommend Aliens because you chose Alien. Shared genres: Sci-Fi."


def test_what_people_did_is_said_with_the_word_for_it():
    maker = Explainer(SaysThis("You liked Alien."), FILMS, verb="watched", cache_dir=False)
    made = maker.explain(why())
    assert (made.source, made.refused) == ("template", ("liked",))
    assert made.text == "We recommend Aliens because you watched Alien. Shared genres: Sci-Fi."
    said = "You watched Alien."
    made = Explainer(SaysThis(said), FILMS, verb="watched", cache_dir=False).explain(why())
    assert (made.text, made.source) == (said, "model")


def test_a_reason_has_two_sentences_at_most():
    said = "You chose Alien. They share the genre Sci-Fi. We recommend Aliens."
    made = Explainer(SaysThis(said), FILMS, cache_dir=False).explain(why())
    assert made.text == "You chose Alien. They share the genre Sci-Fi."


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (
            why(kind="neighbour"),
            "We recommend Aliens because people whose histories",
        ),
        (why(kind="part"), "We recommend Aliens."),
        (why(shares=(-1.0,)), "We recommend Aliens."),
        (why(sources=(9,)), "We recommend Aliens."),
    ],
)
def test_without_an_item_to_name_no_model_is_asked(reason, text):
    model = SaysThis("You chose Alien.")
    assert Explainer(model, FILMS, cache_dir=False).explain(reason).text.startswith(text)
    assert model.asked == []


def test_real_explanations_are_put_into_words():
    taken = pd.DataFrame({"user": list("aabbcc"), "item": [7, 9, 7, 9, 7, 8], "rating": 5.0})
    model = EASERecommender(1.0).fit(taken, FILMS)
    made = Explainer(None, FILMS).explain(model.explain("c", 9))
    assert made.text == "We recommend Aliens because you chose Alien. Shared genres: Sci-Fi."


HEATS = pd.DataFrame(
    {"item": [1, 2, 3], "title": ["Heat (1986)", "Heat (1995)", "Heat (1995)"], "tags": "crime"}
)


def test_of_two_items_of_one_title_the_years_are_told_and_one_that_seems_the_same_is_not():
    made = Explainer(None, HEATS).explain(why(2, (1,)))
    assert made.text == (
        "We recommend Heat (1995) because you chose Heat (1986). Shared tags: crime."
    )
    assert Explainer(None, HEATS).explain(why(2, (3,))).text == "We recommend Heat (1995)."
    said = "We recommend Heat (1995) because you chose Heat (1986)."
    assert Explainer(SaysThis(said), HEATS, cache_dir=False).explain(why(2, (1,))).text == said


def test_a_title_may_be_a_number():
    books = pd.DataFrame({"item": [7, 9], "title": [1984, 2666]})
    made = Explainer(None, books, verb="read").explain(why())
    assert made.text == "We recommend 2666 because you read 1984."


# Summaries


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(bundled_encoder_path(), cache_dir=False)


def test_a_text_within_the_window_stays_as_it_is(encoder: TextEncoder):
    model = SaysThis("never asked")
    texts = ["A crew wakes from sleep.", ""]
    made = Summarizer(model, encoder, cache_dir=False).summarize(texts)
    assert [one.text for one in made] == texts
    assert {one.source for one in made} == {"text"}
    assert model.asked == []


@pytest.mark.parametrize(
    "said", [None, "They die.", "A crew wakes.", "On day 3 they hear a signal."]
)
@pytest.mark.parametrize("window", [256, 40])
def test_a_long_text_fits_the_window_whatever_the_model_says(encoder, said, window):
    model = None if said is None else SaysThis(said)
    (made,) = Summarizer(model, encoder, window=window, cache_dir=False).summarize([LONG])
    assert encoder.token_counts([made.text])[0] <= window
    assert made.text
    assert unsupported(made.text, {"text": LONG}) == []
    assert "die" not in made.text


def test_a_sentence_of_the_model_that_the_text_does_not_say_is_refused(encoder: TextEncoder):
    (made,) = Summarizer(SaysThis("They die."), encoder, cache_dir=False).summarize([LONG])
    assert (made.source, made.refused) == ("template", ("die",))


def test_the_encoder_gets_the_summaries(encoder: TextEncoder):
    short = SummarizingEncoder(encoder, None, cache_dir=False)
    summary = short.summarizer.summarize([LONG])[0].text
    found = short.encode(["A crew.", LONG])
    torch.testing.assert_close(found, encoder.encode(["A crew.", summary]), atol=1e-6, rtol=0)


def test_a_recommender_takes_it_as_its_encoder(encoder: TextEncoder):
    films = FILMS.assign(text=["a ship", LONG, "a moon"])
    taken = pd.DataFrame({"user": ["a", "b"], "item": [7, 8], "rating": 5.0})
    model = ContentRecommender(SummarizingEncoder(encoder, None)).fit(taken, films)
    assert len(model.recommend(["a"], k=2)) == 2


# Bad input


@pytest.mark.parametrize(
    ("make", "error", "reason"),
    [
        (lambda: ItemDescriber("smol"), TypeError, "model must be a LanguageModel or None"),
        (lambda: ItemDescriber(None, noun=""), ValueError, "noun must be a word"),
        (lambda: ItemDescriber(None, columns="title"), TypeError, "columns must be a sequence"),
        (lambda: ItemDescriber(None, most=0), ValueError, "most is 0; expected at least 1"),
        (
            lambda: ItemDescriber(None, max_new_tokens=0),
            ValueError,
            "max_new_tokens is 0; expected",
        ),
        (
            lambda: describer(None, columns=["plots"]).describe(FILMS),
            ValueError,
            "columns has 'plots', but the columns of items are",
        ),
        (
            lambda: describer(None).describe(FILMS.drop(columns="item")),
            ValueError,
            "items has no column 'item'",
        ),
        (
            lambda: describer(None).describe(FILMS.assign(plot=object())),
            TypeError,
            "column 'plot' of item 7: a fact must be a text, a number, a date or a sequence",
        ),
        (
            lambda: describer(None).describe(FILMS.assign(plot=[{"a": 1}] * 3)),
            TypeError,
            "column 'plot' of item 7: .* got {'a': 1}",
        ),
        (lambda: describer(None).describe([1]), TypeError, "items must be a pandas DataFrame"),
        (
            lambda: describer(None).describe(pd.concat([FILMS, FILMS[["plot"]]], axis=1)),
            ValueError,
            "items has two columns of one name",
        ),
        (
            lambda: Explainer(None, FILMS.assign(title=float("nan"))).explain(why()),
            ValueError,
            "item 9 has no title in items",
        ),
        (
            lambda: Explainer(None, FILMS.drop(columns="title")),
            ValueError,
            "items has no column 'title'",
        ),
        (lambda: Explainer(None, FILMS, verb="hated"), ValueError, "verb must be one of bought"),
        (
            lambda: Explainer(None, FILMS).explain(why(1)),
            ValueError,
            "items has no item 1, which the explanation names",
        ),
        (lambda: Summarizer(None, object()), TypeError, "encoder must count tokens"),
        (
            lambda: Summarizer(None, TextEncoder(bundled_encoder_path()), window=999).window,
            ValueError,
            "window is 999, but the encoder reads 256 tokens",
        ),
        (
            lambda: Summarizer(None, TextEncoder(bundled_encoder_path())).summarize("a"),
            TypeError,
            "texts must be a sequence of strings, got one string",
        ),
    ],
)
def test_what_cannot_be_is_said(make, error, reason):
    with pytest.raises(error, match=reason):
        make()


# The real model


def test_smollm_describes_a_film_and_says_only_what_is_so():
    maker = describer(smollm(), columns=["title", "genres", "directors", "plot"])
    row = maker.describe(FILMS[:1]).iloc[0]
    assert row["described_by"] == "model"
    facts = {"noun": "film", **maker.facts(FILMS.iloc[0].to_dict())}
    assert unsupported(row["description"], facts) == []
    assert "Alien" in row["description"]


def test_smollm_explains_a_film():
    made = Explainer(smollm(), FILMS, noun="film", cache_dir=False).explain(why())
    assert made.source == "model"
    assert "because you chose Alien" in made.text
