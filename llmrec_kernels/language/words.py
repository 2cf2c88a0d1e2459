"""Words of a text: what counts as one, which are neutral, and when two are the same word."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

# A number with its sign and what is glued to it (-5, 1990s, 3rd), or letters, perhaps with
# apostrophes among them (don't).
_WORD = re.compile(r"(?:(?<![\w)\]%.-])-)?\d+(?:[.,]\d+)*[^\W\d_]*|[^\W\d_]+(?:'[^\W\d_]+)*")
# Where a sentence ends: not after an initial or a short title, nor before a small letter.
_END = re.compile(
    r"(?<!\b[A-Z])(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\bJr)(?<!\bvs)"
    r"[.!?][\"')\]]*(?=\s+[^\sa-z]|\s*$)"
)


def listed(text: str) -> frozenset[str]:
    """The words of a list that is written as a text.

    Examples
    --------
    >>> sorted(listed("of the a"))
    ['a', 'of', 'the']
    """
    return frozenset(text.split())


# Words that say nothing about an item. None that denies, counts, compares, orders in time, judges
# or tells a person's sex: such a word must come from the facts.
NEUTRAL = listed(
    """
    a about also an and are as at be because been being by can for from had has have in including
    into is it its like may of on or our so such that the their them then there these they this
    those through to too was we were when where which who whom whose will with would you your
    featuring features feature focuses focus follows follow tells tell told includes include
    plot released release share shares shared similar since story tale theme themes while
    """
)

# Words that deny: who tells a sentence of the facts tells them too.
DENYING = listed(
    """
    no not never none nor neither nothing nobody nowhere without cannot hardly barely rarely unlike
    except unless
    """
)

# Words that are true only with the very neighbours that they have in the facts.
GUARDED = DENYING | listed(
    """
    all any both each every only most more less least fewer than many much few some several other
    another first last next before after until later earlier again still just even but
    instead best better worst worse
    """
)

_SIGNS = {ord(one): "'" for one in "\N{LEFT SINGLE QUOTATION MARK}\u2019\u02bc"} | {0x2212: "-"}
_COUNTED = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
)
_SAME = {word: str(number) for number, word in enumerate(_COUNTED.split(" "))} | {
    "movie": "film",
    "movies": "films",
}


class Word(NamedTuple):
    """A word where it stands.

    Parameters
    ----------
    shown : str
        As it is written.
    plain : str
        Without accents, capitals and a possessive s; a number word as its number.
    start, end : int
        Its place in the text.
    """

    shown: str
    plain: str
    start: int
    end: int

    @property
    def is_capital(self) -> bool:
        """Whether it begins as a name does."""
        return self.shown[0].isupper()


def words(text: str) -> list[Word]:
    """The words of a text in order.

    Examples
    --------
    >>> [word.plain for word in words("Amélie's two cats, in 1,999 Sci-Fi films.")]
    ['amelie', '2', 'cats', 'in', '1999', 'sci', 'fi', 'films']
    """
    flat = text.translate(_SIGNS)  # one sign for one: places stay those of the text
    return [
        Word(match.group(), _plain(match.group()), match.start(), match.end())
        for match in _WORD.finditer(flat)
    ]


def same(one: str, other: str) -> bool:
    """Whether two plain words are forms of one word: equal, or by an ending of English.

    Examples
    --------
    >>> same("stories", "story"), same("running", "run"), same("cares", "caring")
    (True, True, True)
    >>> same("caring", "car"), same("space", "spaced out")
    (False, False)
    """
    return one == other or not forms(one).isdisjoint(forms(other))


@lru_cache(maxsize=65_536)
def forms(plain: str) -> frozenset[str]:
    """What a word may be a form of, itself included: a number has no other.

    Examples
    --------
    >>> sorted(forms("hunted"))
    ['hunt', 'hunte', 'hunted']
    """
    found = {plain}
    if plain.lstrip("-")[:1].isdigit():
        return frozenset(found)
    if plain[-1:] != "s" or plain[-2:] == "ss":
        pass
    elif plain.endswith("ies") and len(plain) > 4:
        found.add(plain[:-3] + "y")
    elif len(plain) > 3:
        found.add(plain[:-1])
        if plain.endswith(("ses", "xes", "zes", "ches", "shes", "oes")):
            found.add(plain[:-2])
    for ending in ("ed", "ing"):
        stem = plain.removesuffix(ending)
        if stem != plain and len(stem) > 2:
            found.add(stem + "e")
            if len(stem) > 3:
                found.add(stem)
                if stem[-1] == stem[-2]:
                    found.add(stem[:-1])
            if stem.endswith("i"):
                found.add(stem[:-1] + "y")
    return frozenset(found)


def sentences(text: str) -> list[str]:
    """Whole sentences of a text; an end without its full stop is one more.

    Examples
    --------
    >>> sentences("Dr. No stars J. Wiseman. It is a film! And")
    ['Dr. No stars J. Wiseman.', 'It is a film!', 'And']
    """
    found, start = [], 0
    for match in _END.finditer(text):
        found.append(text[start : match.end()].strip())
        start = match.end()
    rest = text[start:].strip()
    return [*found, rest] if rest else found


def is_whole(sentence: str) -> bool:
    """Whether a sentence has its end.

    Examples
    --------
    >>> is_whole("It is a film."), is_whole("It is a")
    (True, False)
    """
    return sentence.rstrip("\"')]").endswith((".", "!", "?"))


@lru_cache(maxsize=65_536)
def _plain(shown: str) -> str:
    decomposed = unicodedata.normalize("NFKD", shown.casefold())
    bare = "".join(one for one in decomposed if not unicodedata.combining(one))
    if bare.lstrip("-")[:1].isdigit():
        return bare.replace(",", "")
    return _SAME.get(bare.removesuffix("'s"), bare.removesuffix("'s"))
