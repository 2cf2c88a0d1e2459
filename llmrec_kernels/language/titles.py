"""Titles as people write them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llmrec_kernels.language.values import fact_texts

_YEAR = re.compile(r"\s*\((\d{4})\)\s*$")
_ARTICLE = re.compile(r"^(.+), (The|A|An|La|Le|Les|L'|Il|El|Das|Der|Die)((?: \(.*\))?)$")


def readable(title: str) -> str:
    """A title without its year, and with its article in front.

    Examples
    --------
    >>> readable("Usual Suspects, The (1995)")
    'The Usual Suspects'
    """
    match = _ARTICLE.match(_YEAR.sub("", title).strip())
    if match is None:
        return _YEAR.sub("", title).strip()
    name, article, rest = match.groups()
    return f"{article}{'' if article.endswith(chr(39)) else ' '}{name}{rest}"


def year_of(title: str) -> int | None:
    """The year that stands in brackets at the end of a title.

    Examples
    --------
    >>> year_of("Alien (1979)"), year_of("Alien")
    (1979, None)
    """
    match = _YEAR.search(title)
    return None if match is None else int(match.group(1))


def with_readable_title(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose title is readable, with its year apart, if any is known.

    Examples
    --------
    >>> with_readable_title({"title": "Usual Suspects, The (1995)"})
    {'title': 'The Usual Suspects', 'year': 1995}
    """
    title = row.get("title")
    if not isinstance(title, str):
        return {"year": None, **row}
    year = row.get("year")
    found = year if fact_texts(year) else year_of(title)
    return {**row, "year": found, "title": readable(title)}
