"""Who did what: a name of one fact must not be given the part of another.

A sentence with words such as "directed by", "stars", "you liked" or the name of a fact ("genre") is
cut at them. What follows such words, up to the next ones, holds a whole name of their fact and no
other name; what stands before the first of them may name the title and its genres. Beside names
there are only small words (`_LINKS`), the noun and the year: no "who also", no "will". In all other
sentences no person and no title of a history is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from llmrec_kernels.language.words import NEUTRAL, Word, forms, listed, words


class _Role(NamedTuple):
    keys: frozenset[str]  # words in the names of facts
    alone: frozenset[str] = frozenset()  # words that say so
    by: frozenset[str] = frozenset()  # those that do when "by" follows
    never: frozenset[str] = frozenset()  # those that leave open who did it, for a small model


class _Mention(NamedTuple):
    start: int
    end: int
    facts: set[str]


class _Cut(NamedTuple):
    start: int
    end: int
    role: str | None  # None where the words do not say whose part it is


# What someone did with items: only with "you", and with the word that the fact itself has.
DONE = listed("bought chose heard liked played rated read took visited watched")
_ROLES = {
    "direct": _Role(
        listed("director directors"),
        listed("director directors"),
        listed("directed"),
        listed("direct directs directing"),
    ),
    "star": _Role(
        listed("cast star stars starring actor actors"),
        listed("star stars starred starring cast actor actors"),
    ),
    "write": _Role(
        listed("author authors writer writers"),
        listed("author authors writer writers"),
        listed("written"),
        listed("wrote write writes writing"),
    ),
    "recommended": _Role(listed("recommended")),
    **{verb: _Role(listed(verb)) for verb in DONE},
}
_WITH = {verb: ("you", verb) for verb in DONE} | {
    "recommend": ("we", "recommended"),
    "suggest": ("we", "recommended"),
}
_NEVER = listed("recommends recommended recommendation suggests suggested").union(
    *(role.never for role in _ROLES.values())
)
WORDS = _NEVER.union(_WITH, *(role.alone | role.by for role in _ROLES.values()))

# Facts that say what an item is: their values may stand before the first role.
_FREE = listed(
    "title noun kind genre genres tag tags category categories brand color colour language country"
)
_TITLES = DONE | {"recommended"}  # names even where they are numbers, as 1984 is
_UNLABELLED = listed("title year noun")
_LINKS = listed(
    "a an and are because film in include includes including is it its of release released share "
    "shared shares since so the their these they this was were"
)


def is_names(key: str) -> bool:
    """Whether a fact is of names by what it is called, however its values are written."""
    parts = {word.plain for word in words(key)}
    return bool(parts & _FREE) or any(parts & role.keys for role in _ROLES.values())


class Roles:
    """The names of some facts by what they did.

    Parameters
    ----------
    texts : mapping of str to sequence of str
        The facts that are no prose.

    Attributes
    ----------
    plain_keys : set of str
        Words in the names of facts that are no names, such as those of "pages_read".
    """

    def __init__(self, texts: Mapping[str, Sequence[str]]) -> None:
        self._neutral: set[str] = set()
        self.plain_keys: set[str] = set()
        self._labels: dict[str, str] = {}  # role by a form of a word in the name of a fact
        self._names: dict[tuple[str, ...], set[str]] = {}
        self._lower: set[tuple[str, ...]] = set()  # names of one word that need no capital
        self._free: set[str] = set()
        self._others = set(_LINKS)
        for key, values in texts.items():
            named = [word for value in values for word in words(value) if word.shown[-1].isalpha()]
            parts = {word.plain for word in words(key)}
            if key in ("noun", "kind", "year"):
                self._others |= {word.plain for value in values for word in words(value)}
            is_title = key == "title" or parts <= _TITLES
            if key == "noun" or not (named or is_title):
                self.plain_keys |= parts
                continue
            own = {name for name, role in _ROLES.items() if parts & role.keys}
            for role in own:
                self._neutral |= _ROLES[role].alone | _ROLES[role].by
                self._neutral |= {word for word, (_, said) in _WITH.items() if said == role}
            labels = set() if own else parts - NEUTRAL - _UNLABELLED
            self._labels |= {form: key for part in labels for form in forms(part)}
            is_named = bool(own) or (bool(labels) and any(word.is_capital for word in named))
            is_free = bool(parts & _FREE) or not is_named
            own = own or {key}
            if is_free:
                self._free |= own
            for value in values:
                for one in {value} if key == "title" else {value, *re.split(r"[,;|]", value)}:
                    self._add(words(one), own, is_free)

    def _add(self, name: list[Word], own: set[str], is_free: bool) -> None:
        plain = tuple(word.plain for word in name)
        if plain:
            self._names.setdefault(plain, set()).update(own)
            if not name[0].is_capital or (is_free and own != {"title"}):
                self._lower.add(plain)

    @property
    def neutral(self) -> frozenset[str]:
        """Words of the roles that the facts have."""
        return frozenset(self._neutral)

    def mentions(self, said: list[Word]) -> Iterator[_Mention]:
        """Whole names in a sentence, the longest first."""
        plain = [word.plain for word in said]
        place = 0
        while place < len(plain):
            found = [
                name
                for name in self._names
                if tuple(plain[place : place + len(name)]) == name
                and (len(name) > 1 or said[place].is_capital or name in self._lower)
            ]
            name = max(found, key=len, default=())
            if name:
                yield _Mention(place, place + len(name), self._names[name])
            place += max(len(name), 1)

    def misplaced(self, said: list[Word], sentence: str) -> list[str]:
        """What of a sentence gives a name another part than the facts do."""
        mentions = list(self.mentions(said))
        inside = {place for one in mentions for place in range(one.start, one.end)}
        outside = [place for place in range(len(said)) if place not in inside]
        cuts = [cut for place in outside for cut in self._cut(said, place)]
        stops = [*(one.start for one in cuts), len(said)]
        wrong = [one for one in mentions if one.start < stops[0]]
        wrong = [one for one in wrong if one.facts.isdisjoint(self._free)]
        for cut, stop in zip(cuts, stops[1:], strict=True):
            held = [one for one in mentions if cut.end <= one.start < stop]
            wrong += [one for one in held if cut.role not in one.facts]
            if not held:
                wrong.append(_Mention(cut.start, cut.end, set()))
        taken = {place for one in cuts for place in range(one.start, one.end)}
        for place in outside:
            word = said[place]
            foreign = word.plain not in self._others if cuts else self._is_part(word)
            if foreign and place not in taken:
                wrong.append(_Mention(place, place + 1, set()))
        wrong.sort(key=lambda one: one.start)
        return [sentence[said[one.start].start : said[one.end - 1].end] for one in wrong]

    def _is_part(self, word: Word) -> bool:
        """Whether a word with a capital is of names of people, and of no other."""
        owners = set[str]().union(
            *(facts for name, facts in self._names.items() if word.plain in name)
        )
        return word.is_capital and bool(owners) and owners.isdisjoint(self._free)

    def _cut(self, said: list[Word], place: int) -> Iterator[_Cut]:
        """The place of the words that say whose part follows, if it is here."""
        plain = said[place].plain
        if plain in self.plain_keys - self._neutral:
            return
        before = said[place - 1].plain if place else ""
        after = said[place + 1].plain if place + 1 < len(said) else ""
        label = next((self._labels[one] for one in forms(plain) if one in self._labels), None)
        if plain in _WITH:
            who, role = _WITH[plain]
            yield _Cut(place - (before == who), place + 1, role if before == who else None)
        elif plain in WORDS:
            names = (name for name, one in _ROLES.items() if plain in one.alone)
            by = (name for name, one in _ROLES.items() if plain in one.by and after == "by")
            name = next(names, None)
            passive = next(by, None)
            yield _Cut(place, place + 1 + (passive is not None), name or passive)
        elif label is not None:
            yield _Cut(place, place + 1, label)
