"""Who did what: a name of one fact must not be given the part of another.

A word such as "directed", "starring" or "liked" says which fact the names near it are from. It
stands only where there is that fact, and a name that it governs must be one of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from llmrec_kernels.language.words import Word, listed, words


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
    "like": _role("liked", "liked enjoyed watched"),
    "recommend": _role(
        "recommended",
        "recommend recommends recommended recommendation suggest suggested enjoy",
    ),
}
WORDS = frozenset(word for role in _ROLES.values() for word in role.words)
# "A film by ..." names who made it: one of these.
_MAKERS = ("direct", "write")
# What may stand between a name and the word that says what it did: "Tom Hanks also stars".
_LINKS = listed("is are was were be been has have also who which that")
_RESTARTS = listed("so because since if while")


class Roles:
    """The names of some facts by what they did.

    Parameters
    ----------
    texts : mapping of str to sequence of str
        The facts.
    """

    def __init__(self, texts: Mapping[str, Sequence[str]]) -> None:
        self._names: dict[str, list[list[str]]] = {}
        for key, values in texts.items():
            parts = {word.plain for word in words(key)}
            for name, role in _ROLES.items():
                if parts & role.keys:
                    named = self._names.setdefault(name, [])
                    named += [[word.plain for word in words(value)] for value in values]
        self._roles_of: dict[tuple[str, ...], set[str]] = {}
        for role_name, names in self._names.items():
            for one in names:
                if one:
                    self._roles_of.setdefault(tuple(one), set()).add(role_name)

    def neutral(self) -> frozenset[str]:
        """Words of the roles that the facts have."""
        return frozenset(word for name in self._names for word in _ROLES[name].words)

    def misplaced(self, said: list[Word], sentence: str) -> Iterator[str]:
        """Names that a sentence gives another part than the facts do."""
        for start, end, had in self._mentions(said):
            asked = self._governing(said, start, end, sentence)
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
        self, said: list[Word], start: int, end: int, sentence: str
    ) -> tuple[str, ...] | None:
        """The roles that a sentence gives to the name at [start, end); None where it gives none."""
        for place in range(end, len(said)):
            if "," in sentence[said[place - 1].end : said[place].start]:
                break
            role = self._said(said[place])
            if role is not None:
                return (role,)
            if said[place].plain not in _LINKS:
                break
        for place in range(start - 1, -1, -1):
            role = self._said(said[place])
            if role is not None:
                return (role,)
            if said[place].plain in _RESTARTS:
                return None
            if said[place].plain == "by" and (place == 0 or self._said(said[place - 1]) is None):
                return _MAKERS
        return None

    def _said(self, word: Word) -> str | None:
        return next((name for name in self._names if word.plain in _ROLES[name].words), None)
