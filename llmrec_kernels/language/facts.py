"""Whether a text says only what the facts say, as far as words can tell.

A language model adds what it has read elsewhere: another director, a year, praise. So each word
that it writes is looked up in the facts it was given. A sentence stands when

1. every number, name and content word is a word of the facts, up to case, accents, plural and the
   endings of verbs, or of a short list of neutral words (`words.NEUTRAL`);
2. words that deny, count, compare or order (`words.GUARDED`) stand between the neighbours that they
   have in the facts;
3. words of a name stand side by side only where they do in the facts: no "Steven Hanks" of two;
4. what it says of a person or title fits the fact it is from: no actor is said to direct, and no
   recommended title to be liked (`roles`);
5. its words from a fact in prose, such as a plot, come from one sentence of it, in its order and
   with all its words that deny;
6. its numbers are not those of a title; those of prose come with other words of it and without
   "released"; those beside the name of a fact ("300 pages") are of it;
7. it has no sign, such as % or $, that the facts have not.

What this does not catch: words left out of a sentence of the facts can change what it says ("a doll
is threatened by a spaceman" becomes "a doll threatened a spaceman"), and so can a fact told of
another thing of the same sentence. Facts that are false stay false.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

from llmrec_kernels.language import roles
from llmrec_kernels.language.values import Facts, fact_texts
from llmrec_kernels.language.words import (
    DENYING,
    GUARDED,
    NEUTRAL,
    Word,
    forms,
    is_whole,
    listed,
    same,
    sentences,
    words,
)

_PROSE = 3  # a text of so many words is prose, if it is no list of names
_PARTICLES = listed("van von de da di du del der den dos la le el al bin")  # within names
_RELEASED = listed("release released")
_PRONOUNS = listed("it its they their them this these those he she his her")
# The common ones, and the dashes and quotation marks of typesetters.
_PUNCTUATION = frozenset(".,;:!?'\"()-/&\u2013\u2014\u2018\u2019\u201c\u201d")


def unsupported(text: str, facts: Facts) -> list[str]:
    """Words of a text that the facts do not support; none where it may stand.

    Parameters
    ----------
    text : str
        One or more sentences.
    facts : mapping of str to str, number or sequence of these
        By name, such as `{"title": "Alien", "year": 1979, "genres": ["Horror"]}`. Names that
        are known (`directors`, `cast`, `author`, `liked`, `recommended`) say who did what.

    Returns
    -------
    list of str
        As they are written, each once, in the order of the checks.

    Raises
    ------
    TypeError
        `text` is not a string, or a fact is neither text, number nor a sequence of these.

    Examples
    --------
    >>> facts = {"title": "Alien", "year": 1979, "directors": ["Ridley Scott"]}
    >>> unsupported("Alien was directed by Ridley Scott and released in 1979.", facts)
    []
    >>> unsupported("Alien is a masterpiece of 1986 by James Cameron.", facts)
    ['masterpiece', '1986', 'James', 'Cameron']
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be a string, got {text!r}.")
    known = _Known(facts)
    found = [one for sentence in sentences(text) for one in known.unsupported(sentence)]
    return list(dict.fromkeys(found))


def supported_part(text: str, facts: Facts) -> tuple[str, list[str]]:
    """The whole sentences of a text that may stand, and the words that speak against the others.

    A sentence is left out too when it says nothing of the facts, says the same as one before, is no
    statement, or begins with a pronoun after one that is left out: who knows whom it means.

    Parameters
    ----------
    text : str
        One or more sentences; an unfinished one at the end is dropped.
    facts : mapping
        As in `unsupported`.

    Returns
    -------
    tuple of str and list of str
        Empty where no sentence stands; and empty where nothing speaks against any.

    Examples
    --------
    >>> supported_part("Alien is a film. It won an Oscar. It is", {"title": "Alien, a film"})
    ('Alien is a film.', ['won', 'Oscar'])
    """
    known = _Known(facts)
    kept: dict[str, None] = {}
    against: dict[str, None] = {}
    stood = True
    for sentence in sentences(text):
        bad = known.unsupported(sentence)
        against |= dict.fromkeys(bad)
        refers = any(word.plain in _PRONOUNS for word in words(sentence)[:1])
        stood = not bad and is_whole(sentence) and sentence[-1] != "?" and (stood or not refers)
        if stood and known.tells(sentence):
            kept[sentence] = None
    return " ".join(kept), list(against)


class _Known:
    """The facts, with their words in the ways that they are looked up."""

    def __init__(self, facts: Facts) -> None:
        if not isinstance(facts, Mapping):
            raise TypeError(f"facts must be a mapping of names to values, got {facts!r}.")
        self._texts = {str(name): fact_texts(value) for name, value in facts.items()}
        self._texts = {name: texts for name, texts in self._texts.items() if texts}
        self._rows = [words(text) for texts in self._texts.values() for text in texts]
        told = [f"{name}: {', '.join(texts)}" for name, texts in self._texts.items()]
        self._guarded_rows = [*self._rows, *map(words, told)]
        prose = [(name, one) for name, texts in self._texts.items() for one in texts
                 if _is_prose(name, one)]  # fmt: skip
        self._prose = [words(sentence) for _, text in prose for sentence in sentences(text)]
        self._roles = roles.Roles(
            {
                name: [one for one in texts if (name, one) not in prose]
                for name, texts in self._texts.items()
            }
        )
        names = [one for name in self._texts if roles.is_names(name) for one in self._texts[name]]
        self._titles = {tuple(word.plain for word in words(one)) for one in names}
        self._counted = _forms(
            one
            for name, texts in self._texts.items()
            for one in texts
            if name != "title" and (one.isnumeric() or not roles.is_names(name))
            if (name, one) not in prose
        )
        self._numbers = [
            (_forms([name]) - NEUTRAL, _forms(texts))
            for name, texts in self._texts.items()
            if all(_is_number(word) for text in texts for word in words(text))
        ]
        self._counted_in_prose = self._counted | _forms(text for _, text in prose)
        self._words = _forms(text for texts in self._texts.values() for text in texts)
        self._words |= _forms(self._texts) - (roles.WORDS - self._roles.plain_keys)
        self._neutral = NEUTRAL | self._roles.neutral

    def unsupported(self, sentence: str) -> list[str]:
        """What speaks against a sentence, in the order of the checks."""
        said = words(sentence)
        found = [
            word.shown
            for place, word in enumerate(said)
            if not (self._in_place(said, place) if word.plain in GUARDED else self._has(word))
        ]
        found = found or list(self._mixed_names(said, sentence))
        found = found or [
            *([] if self._is_prose(said) else self._roles.misplaced(said, sentence)),
            *self._left_of_prose(self._of_prose(said), said),
            *self._foreign_numbers(said),
        ]
        return found + [one for one in sentence if self._is_foreign_sign(one)]

    def tells(self, sentence: str) -> bool:
        """Whether any of its words is of the facts."""
        return any(
            word.plain not in self._neutral and not forms(word.plain).isdisjoint(self._words)
            for word in words(sentence)
        )

    def _has(self, word: Word) -> bool:
        return word.plain in self._neutral or not forms(word.plain).isdisjoint(self._words)

    def _in_place(self, said: list[Word], place: int) -> bool:
        """Whether a guarded word has the neighbours that it has in the facts."""
        around = [word.plain for word in said[max(0, place - 1) : place + 2]]
        rows = ([word.plain for word in row] for row in self._guarded_rows)
        return any(around in _runs(row, len(around)) for row in rows)

    @cached_property
    def _plain_rows(self) -> list[list[str]]:
        return [[word.plain for word in row] for row in self._rows]

    def _mixed_names(self, said: list[Word], sentence: str) -> Iterator[str]:
        """Words of names side by side that are not so in the facts."""
        for run in self._name_runs(said, sentence):
            plain = [word.plain for word in run]
            if len(run) > 1 and not any(
                plain in _runs(row, len(plain)) for row in self._plain_rows
            ):
                yield sentence[run[0].start : run[-1].end]

    def _name_runs(self, said: list[Word], sentence: str) -> Iterator[list[Word]]:
        run: list[Word] = []
        for word in said:
            joined = run and _is_join(sentence[run[-1].end : word.start], run[-1])
            is_name = (word.is_capital or word.plain in self._only_names) and (
                word.plain not in self._neutral
            )
            if run and not (joined and is_name):
                yield run
                run = []
            if is_name:
                run = [*run, word]
        if run:
            yield run

    @cached_property
    def _only_names(self) -> set[str]:
        """Words that the facts have with a capital alone, in a name of several words."""
        names, small = set(), set()
        for row in self._rows:
            for place, word in enumerate(row):
                beside = row[max(0, place - 1) : place + 2]
                if not word.is_capital:
                    small.add(word.plain)
                elif sum(one.is_capital for one in beside) > 1:
                    names.add(word.plain)
        return names - small

    def _of_prose(self, said: list[Word]) -> list[Word]:
        """Words that prose has, outside of whole names."""
        return [
            word
            for word in self._outside_names(said)
            if word.plain not in self._neutral
            and word.plain not in GUARDED
            and forms(word.plain).isdisjoint(self._counted)
            and any(same(word.plain, one.plain) for row in self._prose for one in row)
        ]

    def _is_prose(self, said: list[Word]) -> bool:
        """Whether all that a sentence says is one sentence of prose: then its roles are those."""
        content = [one for one in said if one.plain not in NEUTRAL and one.plain not in GUARDED]
        return bool(content) and bool(self._prose) and not self._left_of_prose(content, said)

    def _left_of_prose(self, content: list[Word], said: list[Word]) -> list[str]:
        """Words from prose that no one sentence of it has in this order, with its denials."""
        denied = _denials(said)
        left = [
            content if _denials(row) - denied else _left_over(content, row) for row in self._prose
        ]
        return [word.shown for word in min(left, key=len, default=[])]

    def _foreign_numbers(self, said: list[Word]) -> Iterator[str]:
        """Numbers of a title alone, of prose where nothing else of it is told, of another fact."""
        of_prose = any(not _is_number(word) for word in self._of_prose(said))
        released = any(word.plain in _RELEASED for word in said)
        told = of_prose and (not released or self._is_prose(said))
        known = self._counted_in_prose if told else self._counted
        outside = self._outside_names(said)
        for place, word in enumerate(said):
            # "1984 was released in 1984": the second is no title.
            is_free = word in outside or (place > 0 and released and (word.plain,) in self._titles)
            beside = {
                one for near in said[max(0, place - 1) : place + 2] for one in forms(near.plain)
            }
            others = (told for name, told in self._numbers if not name.isdisjoint(beside))
            wrong = word.plain not in known or any(word.plain not in told for told in others)
            if _is_number(word) and is_free and wrong:
                yield word.shown

    def _outside_names(self, said: list[Word]) -> list[Word]:
        inside = {n for one in self._roles.mentions(said) for n in range(one.start, one.end)}
        return [word for place, word in enumerate(said) if place not in inside]

    def _is_foreign_sign(self, sign: str) -> bool:
        plain = sign.isalnum() or sign.isspace() or sign in _PUNCTUATION
        return not plain and not any(
            sign in text for texts in self._texts.values() for text in texts
        )


def _forms(texts: Iterable[str]) -> set[str]:
    return {form for text in texts for word in words(text) for form in forms(word.plain)}


def _is_prose(name: str, text: str) -> bool:
    """Whether a fact is in words of its own order: no name, no number and no list of these."""
    row = words(text)
    small = [word for word in row if not (word.is_capital or word.shown[0].isdigit())]
    names = all(word.plain in NEUTRAL or word.plain in _PARTICLES for word in small)
    return len(row) >= _PROSE and not names and not roles.is_names(name)


def _is_number(word: Word) -> bool:
    return word.plain.lstrip("-")[:1].isdigit()


def _denials(row: list[Word]) -> Counter[str]:
    return Counter(one.plain for one in row if one.plain in DENYING or one.plain.endswith("n't"))


def _runs(row: list[str], length: int) -> Iterator[list[str]]:
    return (row[start : start + length] for start in range(len(row) - length + 1))


def _is_join(between: str, before: Word) -> bool:
    """Whether two words belong to one name: a blank or hyphen apart, or the stop of an initial."""
    if between.strip() == "." and len(before.shown) <= 2:
        return True
    return between.strip(" -") == "" and "\n" not in between


def _left_over(said: list[Word], row: list[Word]) -> list[Word]:
    """Words that are not found in a row one after the other."""
    left, start = [], 0
    for word in said:
        place = next((n for n in range(start, len(row)) if same(word.plain, row[n].plain)), None)
        if place is None:
            left.append(word)
        else:
            start = place + 1
    return left
