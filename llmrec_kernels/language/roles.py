"""Who did what: a name of one fact must not be given the part of another.

A word such as "directed", "starring" or "liked" says which fact the names near it are from. It
stands only where there is that fact, and a name that it governs must be one of it. The name of any
other fact, such as "genre", does so for a name right after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from llmrec_kernels.language.words import NEUTRAL, Word, forms, listed, words


class _Role(NamedTuple):
    keys: frozenset[str]  # words in the names of facts
    words: frozenset[str]  # words that say so in a sentence


def _role(keys: str, said: str) -> _Role:
    return _Role(listed(keys), listed(said))


_ROLES = {
    "direct": _role("director directors", "direct directs directed directing director directors"),
    "star": _role(
        "cast star stars starring actor actors",
        "star stars starred starring cast actor actors",
    ),
    "write": _role("author authors writer writers", "author authors writer writers written wrote"),
    # What someone did with items: only the word that the fact itself has.
    "did": _role(*["liked watched read heard played bought took rated visited"] * 2),
    "recommend": _role(
        "recommended",
        "recommend recommends recommended recommendation suggest suggested enjoy",
    ),
}
DONE = _ROLES["did"].words
WORDS = frozenset(word for role in _ROLES.values() for word in role.words)
# "A film by ..." names who made it: one of these.
_MAKERS = ("direct", "write")
# What may stand between a name and the word that says what it did: "Tom Hanks also stars".
_LINKS = listed("is are was were be been has have also who which that the a an")
_RESTARTS = listed("so because since if while")
# What may stand between such a word and a name that did nothing: "directed by Comedy".
_BEFORE = listed("by the of")


class Roles:
    """The names of some facts by what they did.

    Parameters
    ----------
    texts : mapping of str to sequence of str
        The facts.
    """

    def __init__(self, texts: Mapping[str, Sequence[str]]) -> None:
        self._roles: dict[str, frozenset[str]] = {}  # with the words that say so
        self._labels: dict[str, str] = {}  # by a form of a word in the name of a fact
        self._roles_of: dict[tuple[str, ...], set[str]] = {}
        for key, values in texts.items():
            parts = {word.plain for word in words(key)}
            own = [name for name, role in _ROLES.items() if parts & role.keys]
            for role in own:
                said = parts if role == "did" else _ROLES[role].words
                self._roles[role] = self._roles.get(role, frozenset()) | said
            if key == "title":
                continue  # what all is said of: "directed Alien" and "stars in Alien"
            if not own:
                own = [key]
                labels = {form for part in parts - NEUTRAL for form in forms(part)}
                self._labels |= dict.fromkeys(labels, key)
            for value in values:
                name = tuple(word.plain for word in words(value))
                if name:
                    self._roles_of.setdefault(name, set()).update(own)

    def neutral(self) -> frozenset[str]:
        """Words of the roles that the facts have."""
        return frozenset(word for said in self._roles.values() for word in said)

    def misplaced(self, said: list[Word], sentence: str) -> Iterator[str]:
        """Names that a sentence gives another part than the facts do."""
        for start, end, had in self._mentions(said):
            asked = self._governing(said, start, end, sentence, had)
            if asked and had.isdisjoint(asked):
                yield sentence[said[start].start : said[end - 1].end]

    def _mentions(self, said: list[Word]) -> Iterator[tuple[int, int, set[str]]]:
        """Places [start, end) of names, the longest first, and their roles."""
        plain = [word.plain for word in said]
        place = 0
        while place < len(plain):
            best, had = 0, set[str]()
            for name, own in self._roles_of.items():
                if len(name) > best and tuple(plain[place : place + len(name)]) == name:
                    best, had = len(name), own
            if not best and said[place].is_capital:  # a family name alone
                had = {
                    role
                    for name, own in self._roles_of.items()
                    if len(name) > 1 and name[-1] == plain[place]
                    for role in own
                }
                best = 1 if had else 0
            if best:
                yield place, place + best, had
            place += max(best, 1)

    def _governing(
        self, said: list[Word], start: int, end: int, sentence: str, had: set[str]
    ) -> tuple[str, ...] | None:
        """The roles that a sentence gives to the name at [start, end); None where it gives none."""
        did = not had.isdisjoint(self._roles)
        for place in range(end, len(said) if did else end):
            if "," in sentence[said[place - 1].end : said[place].start]:
                break
            role = self._said(said[place])
            if role is not None:
                return (role,)
            if said[place].plain not in _LINKS:
                break
        for place in range(start - 1, -1, -1):
            word = said[place].plain
            role = self._said(said[place])
            if role is not None:
                return (role,)
            if word in self._labels and place >= start - 2:
                return (self._labels[word],)
            if word in _RESTARTS or not (did or word in _BEFORE):
                return None
            if word == "by" and (place == 0 or self._said(said[place - 1]) is None):
                return _MAKERS
        return None

    def _said(self, word: Word) -> str | None:
        return next((name for name, said in self._roles.items() if word.plain in said), None)
