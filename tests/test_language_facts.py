"""The check of what a language model writes: no word that is not in the facts gets past it."""

from __future__ import annotations

import datetime
import string
from decimal import Decimal

import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llmrec_kernels.language import unsupported
from llmrec_kernels.language.facts import supported_part
from llmrec_kernels.language.values import fact_texts
from llmrec_kernels.language.words import GUARDED, NEUTRAL, forms, sentences, words

TOY_STORY = {
    "noun": "film",
    "title": "Toy Story",
    "year": 1995,
    "genres": ["Animation", "Comedy"],
    "directors": ["John Lasseter"],
    "cast": ["Tom Hanks", "Tim Allen", "Annie Potts"],
    "plot": "A cowboy doll is profoundly threatened and jealous when a new spaceman figure "
    "supplants him as top toy in a boy's room. Two friends never agree.",
}
SAINT = {
    "noun": "film",
    "liked": ["Alien", "Fargo"],
    "shared genres": ["Thriller"],
    "shared directors": ["Paul Orr"],
    "recommended": ["The Saint"],
}
TRUE = [
    "Toy Story is an Animation and Comedy film released in 1995.",
    "Toy Story (1995) is a comedy directed by John Lasseter, starring Tom Hanks and Tim Allen.",
    "It was directed by John Lasseter and stars Tom Hanks.",
    "A cowboy doll is threatened when a spaceman figure supplants him as top toy.",
    "The director is John Lasseter.",
    "The genres are Animation and Comedy.",
    "The 2 friends never agree.",
]
FALSE = {
    "Toy Story is a Drama film.": ["Drama"],
    "Toy Story was released in 1996.": ["1996"],
    "Toy Story was made by Disney.": ["made", "Disney"],
    "It was directed by Tom Hanks.": ["Tom Hanks"],
    "It stars John Lasseter.": ["John Lasseter"],
    "Tom Hanks is the director.": ["Tom Hanks", "director"],
    "A comedy by Tom Hanks.": ["Tom Hanks"],
    "It was directed by Comedy.": ["Comedy"],
    "The genre is Tom Hanks.": ["Tom Hanks"],
    "It stars Tim Hanks.": ["Tim Hanks"],
    "it stars tim hanks.": ["tim hanks"],
    "Toy Story is not a Comedy film.": ["not"],
    "John Lasseter never agreed.": ["never"],
    "Three friends agree.": ["Three"],
    "It is the best film.": ["best"],
    "It was released before 1995.": ["before"],
    "A spaceman figure is threatened when a cowboy doll supplants him.": [
        "threatened",
        "cowboy",
        "doll",
    ],
    "A 1995 film of 100%.": ["100", "%"],
    "A film of the 1995s.": ["1995s"],
    "**Toy Story** is a film.": ["*"],
}
EXPLAINED = [
    "We recommend The Saint because you liked Alien and Fargo. They share the genre Thriller.",
    "Because you liked Alien, we recommend The Saint.",
    "You liked Alien, so we recommend The Saint.",
    "They share the director Paul Orr.",
]
MISEXPLAINED = {
    "We recommend Alien because you liked The Saint.": ["Alien", "The Saint"],
    "We recommend The Saint because you liked Thriller.": ["Thriller"],
    "You liked The Saint.": ["The Saint"],
    "They share the director Fargo.": ["Fargo"],
    "They share the genre Paul Orr.": ["Paul Orr"],
    "We recommend The Saint because you watched Alien.": ["watched"],
}


ALIEN = {
    "title": "Alien",
    "directors": "Ridley Scott",
    "cast": ["Sigourney Weaver", "Tom Skerritt"],
    "plot": "A creature hunts Ellen Ripley and the crew of the Nostromo.",
}
TWO = {"liked": ["Alien", "Heat"], "recommended": "Aliens", "noun": "film"}
ONE = {"watched": "Heat", "recommended": "Ronin", "noun": "film"}
MUSIC = {"title": "Inception", "directors": "Christopher Nolan", "composer": "Hans Zimmer"}
CAMERA = {
    "title": "Camera",
    "text": "The camera is not waterproof and should never be used under water by children.",
}
# Each word of these is a word of the facts: they lie by where it stands, or by what is left out.
LIES = [
    ("Sigourney Weaver, who directed Alien, stars in it.", ALIEN),
    ("Alien stars Sigourney Weaver, who also directed.", ALIEN),
    ("Sigourney Weaver would direct Alien.", ALIEN | {"plot": "They would direct it."}),
    ("Ridley Scott will star.", ALIEN),
    ("Ridley Scott is in the cast of Alien.", ALIEN),
    ("Tom Skerritt, the director, is in Alien.", ALIEN),
    ("The director is the star Tom Skerritt.", ALIEN),
    ("The director and star is Tom Skerritt.", ALIEN),
    ("Sigourney Weaver also stars and directed it.", ALIEN),
    ("Sigourney directed Alien.", ALIEN),
    ("Alien was directed by Sigourney.", ALIEN),
    ("Alien was directed by Ellen Ripley.", ALIEN),
    ("Alien was directed by Ridley Scott and Ellen Ripley.", ALIEN),
    ("Alien directed Ridley Scott.", ALIEN),
    ("Alien stars Nostromo.", ALIEN),
    ("It stars Tom Skerritt and Ridley.", ALIEN),
    ("Sigourney Weaver hunts Ellen Ripley.", ALIEN),
    ("Ridley is a creature.", ALIEN),
    ("Ed Wood was directed by Ed Wood.", {"title": "Ed Wood", "directors": "Tim Burton"}),
    ("It stars Ed Wood.", {"title": "Ed Wood", "directors": "Tim Burton", "cast": "Johnny Depp"}),
    ("Hans Zimmer directed Inception.", MUSIC),
    ("The composer of Inception is Christopher Nolan.", MUSIC),
    ("Inception is by Hans Zimmer.", MUSIC),
    ("Aliens, which you liked, is a film like Heat.", TWO),
    ("We recommend Aliens because Alien and Heat are like it, and you liked it.", TWO),
    ("Aliens will be liked.", TWO),
    ("They liked Alien.", TWO),
    ("They recommend Aliens.", TWO),
    ("We recommend Ronin because you watched it.", ONE),
    ("Heat, which we recommend, is like Ronin.", ONE),
    ("The camera is waterproof.", CAMERA),
    ("Camera should be used under water.", CAMERA),
    ("It should never be used under water.", CAMERA),
    ("The bag is waterproof.", {"title": "Waterproof Bag", "text": "The bag isn't waterproof."}),
    ("Man bites dog.", {"plot": "Dog bites man."}),
    ("White box with red lid.", {"title": "Box", "desc": "Red box with white lid"}),
    ("2001: A Space Odyssey is a film released in 2001.",
     {"title": "2001: A Space Odyssey", "year": 1968, "noun": "film"}),
    ("Alien was released in 2122.",
     {"title": "Alien", "year": 1979, "plot": "In 2122 a crew wakes from sleep."}),
    ("Alien is a 2122 film.",
     {"title": "Alien", "year": 1979, "noun": "film", "plot": "In 2122 a crew wakes from sleep."}),
    ("1984 is a book released in 1984.", {"title": "1984", "year": 1949, "noun": "book"}),
    ("We recommend 1984 because you read 2666.", {"recommended": 2666, "read": 1984}),
    ("1984 is like 2666.", {"recommended": 2666, "read": 1984, "noun": "book"}),
    ("It has 1999 pages.", {"page_count": 300, "year": 1999}),
    ("It is 5 degrees.", {"degrees": -5}),
    ("It is -5 degrees.", {"degrees": 5}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "facts"), LIES, ids=[text for text, _ in LIES])
def test_a_sentence_that_lies_with_the_words_of_the_facts_is_refused(text, facts):
    assert unsupported(text, facts)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("Alien is a film. It was directed by Ridley Scott and stars Tom Skerritt.", ALIEN),
        ("Inception was directed by Christopher Nolan. The composer is Hans Zimmer.", MUSIC),
        ("The camera is not waterproof and should never be used.", CAMERA),
        ("Red box with lid.", {"desc": "Red box with white lid"}),
        ("A young star falls for a director.",
         {"plot": "A young star falls for a director.", "directors": "Ada Holt"}),
        ("Annie was directed by Ann Holt and stars Ann Holt.",
         {"title": "Annie", "directors": "Ann Holt", "cast": "Ann Holt"}),
        ("The cast are Leo Marsh and Ludwig van Holt.", {"cast": "Leo Marsh, Ludwig van Holt"}),
        ("It is -5 degrees.", {"degrees": -5}),
        ("It is a film of 1999 and has 300 pages.", {"pages": 300, "year": 1999}),
        ("1984 is a film released in 1949.", {"title": "1984", "year": 1949}),
        ("We recommend 2666 because you read 1984.", {"recommended": 2666, "read": 1984}),
    ],
)  # fmt: skip
def test_the_same_words_in_their_places_stand(text, facts):
    assert unsupported(text, facts | {"noun": "film"}) == []


def test_facts_of_any_kind_are_told_as_they_are():
    values = [12345678901234567, 10**400, 3.0, False, datetime.date(2020, 1, 2), pd.NaT, Decimal(3)]
    assert [fact_texts(one) for one in values] == [
        ["12345678901234567"], ["1" + "0" * 400], ["3"], ["no"], ["2020-01-02"], [], ["3"]
    ]  # fmt: skip
    with pytest.raises(TypeError, match="a fact must be a text"):
        fact_texts({"key": "value"})


@pytest.mark.parametrize("text", TRUE)
def test_what_the_facts_say_in_other_words_stands(text):
    assert unsupported(text, TOY_STORY) == []


@pytest.mark.parametrize(("text", "bad"), FALSE.items())
def test_what_the_facts_do_not_say_is_refused_by_its_words(text, bad):
    assert unsupported(text, TOY_STORY) == bad


@pytest.mark.parametrize("text", EXPLAINED)
def test_a_true_reason_stands(text):
    assert unsupported(text, SAINT) == []


@pytest.mark.parametrize(("text", "bad"), MISEXPLAINED.items())
def test_a_title_in_the_place_of_another_is_refused(text, bad):
    assert unsupported(text, SAINT) == bad


def has(text):
    """Forms of all words of the facts, their names and the neutral words."""
    told = [*NEUTRAL, *GUARDED, "film", *TOY_STORY]
    for value in TOY_STORY.values():
        told += [str(one) for one in (value if isinstance(value, list) else [value])]
    plain = {form for one in told for word in words(one) for form in forms(word.plain)}
    return any(not forms(word.plain).isdisjoint(plain) for word in words(text))


@given(
    text=st.sampled_from(TRUE),
    word=st.text(string.ascii_letters, min_size=2, max_size=12)
    | st.text("éüñøß東京слово", min_size=2, max_size=8),
    data=st.data(),
)
def test_any_foreign_word_at_any_place_is_refused(text, word, data):
    assume(not has(word))
    places = [one.start for one in words(text)]
    at = data.draw(st.sampled_from(places))
    assert word in unsupported(f"{text[:at]}{word} {text[at:]}", TOY_STORY)


@given(text=st.sampled_from(TRUE), number=st.integers(0, 10**6) | st.floats(0, 1e4), data=st.data())
def test_any_foreign_number_at_any_place_is_refused(text, number, data):
    shown = f"{number:,}" if data.draw(st.booleans()) else f"{number}"
    assume(all(word.plain not in ("1995", "2") for word in words(shown)))
    places = [one.start for one in words(text)]
    at = data.draw(st.sampled_from(places))
    assert unsupported(f"{text[:at]}{shown} {text[at:]}", TOY_STORY)


@given(st.lists(st.sampled_from([*TRUE, *FALSE]), min_size=1, max_size=6))
def test_of_many_sentences_those_that_stand_are_kept_in_their_order(texts):
    # Of those that begin with a pronoun, the meaning depends on the one before.
    texts = [text for text in texts if words(text)[0].plain not in ("it", "they")]
    kept, bad = supported_part(" ".join(texts), TOY_STORY)
    wanted = dict.fromkeys(one for text in texts if text in TRUE for one in sentences(text))
    assert kept == " ".join(wanted)
    assert set(bad) == {word for text in texts if text in FALSE for word in FALSE[text]}


@given(st.text(max_size=80))
def test_any_text_is_judged(text):
    bad = unsupported(text, TOY_STORY)
    assert all(one in text for one in bad)
    assert supported_part(text, TOY_STORY)[0] == "" or bad != [text]


@given(
    st.dictionaries(
        st.text(string.ascii_lowercase, min_size=1, max_size=6),
        st.text(max_size=30) | st.integers() | st.lists(st.text(max_size=10), max_size=3),
        max_size=4,
    )
)
def test_any_facts_are_understood_and_a_word_beside_them_is_refused(facts):
    assert "Zyzzyva" in unsupported("Zyzzyva is a film.", facts | {"noun": "film"})


def test_a_sentence_about_it_falls_with_the_one_before():
    text = "Toy Story won an Oscar. It was released in 1995. Toy Story is a comedy."
    assert supported_part(text, TOY_STORY) == ("Toy Story is a comedy.", ["won", "Oscar"])


@pytest.mark.parametrize("text", ["", "Toy Story is a", "Is it a comedy?", "It is.", "..."])
def test_what_is_unfinished_asked_or_empty_is_not_kept(text):
    assert supported_part(text, TOY_STORY)[0] == ""


def test_a_sentence_said_twice_is_kept_once():
    assert supported_part("It is a comedy. It is a comedy.", TOY_STORY)[0] == "It is a comedy."


@pytest.mark.parametrize("number", ["1999", "1,999"])
def test_a_number_is_the_same_with_and_without_commas(number):
    assert unsupported(f"It has {number} pages.", {"pages": 1999}) == []
    assert unsupported(f"It has {number} pages.", {"pages": "1,999"}) == []
    assert unsupported(f"It has {number} pages.", {"pages": 999}) == [number]


def test_a_role_without_a_fact_of_it_is_refused():
    assert unsupported("It was directed.", {"title": "Alien"}) == ["directed"]


@pytest.mark.parametrize("empty", [{}, {"title": ""}, {"year": float("nan")}, {"cast": []}])
def test_nothing_but_neutral_words_stands_without_facts(empty):
    assert unsupported("Alien is a film.", empty) == ["Alien", "film"]


def test_what_is_no_text_and_no_fact_is_refused_by_name():
    with pytest.raises(TypeError, match="text must be a string, got 3"):
        unsupported(3, {})
    with pytest.raises(TypeError, match="facts must be a mapping"):
        unsupported("a", ["Alien"])
    with pytest.raises(TypeError, match="a fact must be a text, a number, a date or a sequence"):
        unsupported("a", {"title": object()})
