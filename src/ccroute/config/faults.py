"""The faults and the warnings of all sources, each reported once with its places.

Knows places and texts; must not know what they are about.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from ccroute.config.reading.source import Source
from ccroute.config.references import joined

Located: TypeAlias = tuple[str, str]
"""A place, or several places, and the text of a fault or warning."""


def grouped(found: Iterable[Located], beginning: str = "") -> list[Located]:
    """Join the places of equal texts that start with `beginning`, because the user has to act only once.

    Other texts are not changed.
    """
    places: dict[str, list[str]] = {}
    for where, text in found:
        is_alike = text.startswith(beginning)
        places.setdefault(text if is_alike else f"{where}: {text}", []).append(where)
    return [
        (joined(list(dict.fromkeys(where))), text.removeprefix(f"{where[0]}: "))
        for text, where in places.items()
    ]


def without_unset(faults: Iterable[Located], sources: Iterable[Source]) -> list[Located]:
    """The faults that are not caused by variables that are not set."""
    waiting = [source for source in sources if source.unset]
    texts = {source.references[place][0] for source in waiting for place in source.unset}
    return [
        (where, text)
        for where, text in faults
        if not any(each in text.partition(";")[0] for each in texts)  # after it may be all names to define
        and not all(any(source.is_unset(each) for source in waiting) for each in where.split(", "))
    ]
