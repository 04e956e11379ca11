"""Reads the values of the file's tables, each with its place. A value of a wrong type is a fault."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

from ccroute.config.foreign.builder import Builder, unknown_key
from ccroute.config.foreign.spelling import as_switch, misspelt
from ccroute.config.litellm.keys import MEANT, SECTIONS, SUPPORTS, TIER, Keys
from ccroute.config.reading.source import Place

Layer = tuple[Mapping[str, Any], Place]
"""A table and its place."""


class Section:
    """Tables that are read as one: the first that has a key counts. A key that is null is absent."""

    def __init__(self, builder: Builder, *layers: Layer) -> None:
        self.builder = builder
        self.layers = layers
        self._found: dict[str, tuple[Any, Place]] = {}
        for table, place in layers:
            for key, value in table.items():
                if value is not None:
                    self._found.setdefault(key, (value, place))

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def place(self, key: str) -> Place:
        """The place of a key that is there."""
        return (*self._found[key][1], key)

    def get(self, key: str) -> Any:
        """The value with its variables replaced; None if it is absent or a variable is not set."""
        if key not in self._found:
            return None
        value, place = self._found[key]
        return self.builder.expand(value, (*place, key))

    def text(self, key: str) -> str | None:
        value = self.get(key)
        if value is None or isinstance(value, str):
            return value
        self._wrong(key, "a text")
        return None

    def number(self, key: str) -> Decimal | None:
        """A number, also one that is written as a text. Exact."""
        value = self.get(key)
        if value is None:
            return None
        try:
            number = Decimal(str(value)) if not isinstance(value, bool) else Decimal("nan")
        except InvalidOperation:
            number = Decimal("nan")
        if number.is_finite() and number >= 0:
            return number
        self._wrong(key, "a number of at least 0")
        return None

    def whole(self, key: str) -> int | None:
        """A whole number; also `1000.0` and `1e3`."""
        number = self.number(key)
        if number is None or number == number.to_integral_value():
            return None if number is None else int(number)
        self._wrong(key, "a whole number")
        return None

    def flag(self, key: str) -> bool | None:
        value = self.get(key)
        known = as_switch(value)
        if known is not None or value is None:
            return known
        self._wrong(key, "true or false")
        return None

    def table(self, key: str) -> Mapping[str, Any] | None:
        value = self.get(key)
        if value is None or isinstance(value, Mapping):
            return value
        self._wrong(key, "a table")
        return None

    def inner(self, key: str) -> Layer | None:
        """A table whose values are still as the file has them, to be read as a section."""
        if key not in self._found:
            return None
        if isinstance(value := self._found[key][0], Mapping):
            return value, self.place(key)
        self._wrong(key, "a table")
        return None

    def texts(self, key: str) -> Sequence[str] | None:
        """A list of texts, or one text."""
        value = self.get(key)
        if value is None or (isinstance(value, list) and all(isinstance(each, str) for each in value)):
            return value
        if isinstance(value, str):
            return [value]
        self._wrong(key, "a list of texts")
        return None

    def note_unread(self, known: Keys) -> None:
        """Note the keys that are ignored, and warn of those that seem misspelled."""
        for table, place in self.layers:
            note_unread(self.builder, table, place, known)

    def _wrong(self, key: str, what: str) -> None:
        self.builder.fault(self.place(key), f"should be {what}")


def note_unread(builder: Builder, table: Mapping[str, Any], place: Place, known: Keys) -> None:
    """Note the keys of a table that are ignored, and warn of those that seem misspelled."""
    for key, value in table.items():
        why = known.get(key, "")
        if why is None or value is None or TIER.fullmatch(key):
            continue
        here = (*place, key)
        if why or key.startswith(SUPPORTS):
            builder.ignore(here, why or "ccroute knows by its own lists what a model can")
        elif (meant := _meant(key, tuple(known))) and meant not in table:
            builder.warn(here, unknown_key(meant))
            builder.ignore(here, unknown_key(meant))
        elif other := _elsewhere(key, place):
            builder.warn(here, f"is read under {other} only, by LiteLLM too")
            builder.ignore(here, f"belongs under {other}")
        else:
            builder.ignore(here, "is not known; a field of the provider's own belongs under extra_body")


@lru_cache(256)
def _meant(key: str, known: tuple[str, ...]) -> str | None:
    """The known key that a wrong one may mean. Hundreds of entries have the same keys."""
    return MEANT.get(key) or misspelt(key, known)


def _elsewhere(key: str, place: Place) -> str | None:
    """The section that a key belongs to, for one that is in another section."""
    found: Iterable[str] = (
        name for name, keys in SECTIONS.items() if name not in place and keys.get(key, "") is None
    )
    return next(iter(found), None) if place and place[-1] in SECTIONS else None
