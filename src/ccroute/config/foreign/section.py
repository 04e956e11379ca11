"""Tables of another tool's file, read value by value. A value of a wrong type is a fault at its place.

Knows types and spellings. Must not know what a key means.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

from ccroute.config.foreign.builder import Builder
from ccroute.config.foreign.spelling import as_switch, folded
from ccroute.config.reading.source import Place

Layer: TypeAlias = tuple[Mapping[str, Any], Place]
"""A table and its place."""


class Section:
    """Tables that are read as one: the first that has a key counts. A key that is null is absent.

    `at` is the place of the first one.
    """

    def __init__(self, builder: Builder, *layers: Layer) -> None:
        self.builder = builder
        self.layers = layers
        self.at: Place = layers[0][1] if layers else ()
        self._found: dict[str, tuple[Any, Place]] = {}
        for table, place in layers:
            for key, value in table.items():
                if value is not None:
                    self._found.setdefault(self._same(key), (value, (*place, key)))

    def _same(self, key: str) -> str:
        """Equal for all spellings of a key."""
        return key

    def __contains__(self, key: str) -> bool:
        return self._same(key) in self._found

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def place(self, key: str) -> Place:
        """The key's place, as the file spells it; where it belongs if it is absent."""
        found = self._found.get(self._same(key))
        return (*self.at, key) if found is None else found[1]

    def raw(self, key: str) -> Any:
        """The value as the file has it; None if it is absent."""
        return self._found.get(self._same(key), (None, ()))[0]

    def get(self, key: str) -> Any:
        """The value with its variables replaced; None if it is absent or a variable is not set."""
        value, place = self._found.get(self._same(key), (None, ()))
        return None if value is None else self.builder.expand(value, place)

    def text(self, key: str) -> str | None:
        value = self.get(key)
        if value is None or isinstance(value, str):
            return value
        self.fault(key, "should be a string")
        return None

    def number(self, key: str) -> Decimal | None:
        """A number of at least 0, also one that is written as a string. Exact."""
        if (value := self.get(key)) is None:
            return None
        if (number := _number(value)) is None:
            self.fault(key, "should be a number, at least 0")
        return number

    def whole(self, key: str, *, least: int = 0) -> int | None:
        """A whole number; also `"1000"`, `1000.0` and `1e3`."""
        if (value := self.get(key)) is None:
            return None
        number = _number(value)
        if number is not None and number >= least and number == number.to_integral_value():
            return int(number)
        self.fault(key, f"should be a whole number, at least {least}")
        return None

    def flag(self, key: str) -> bool | None:
        """True or false, also as a word such as "on"."""
        value = self.get(key)
        if value is not None and as_switch(value) is None:
            self.fault(key, "should be true or false")
        return as_switch(value)

    def table(self, key: str) -> Mapping[str, Any]:
        """A table, empty if the key is absent."""
        return self._table(key, self.get(key))

    def layer(self, key: str) -> Layer:
        """A table whose values are still as the file has them, and its place."""
        return self._table(key, self.raw(key)), self.place(key)

    def texts(self, key: str) -> Iterator[tuple[str, str, Place]]:
        """The strings of a table, with their names and places. Any other value is a fault."""
        table, place = self.layer(key)
        for name, value in table.items():
            here = (*place, name)
            expanded = self.builder.expand(value, here)
            if isinstance(expanded, str) and expanded:
                yield str(name), expanded, here
            elif expanded is not None:
                self.builder.fault(here, "should be a name")

    def entries(self, key: str) -> Iterator[tuple[Any, Place]]:
        """The values of a list, or a single value, with their variables replaced, and their places."""
        for value, place in listed(self.raw(key), self.place(key)):
            expanded = self.builder.expand(value, place)
            if expanded is not None:
                yield expanded, place

    def fault(self, key: str, text: str) -> None:
        self.builder.fault(self.place(key), text)

    def warn(self, key: str, text: str) -> None:
        self.builder.warn(self.place(key), text)

    def ignore(self, key: str, reason: str) -> None:
        self.builder.ignore(self.place(key), reason)

    def _table(self, key: str, value: Any) -> Mapping[str, Any]:
        if isinstance(value, Mapping):
            return value
        if value is not None:
            self.fault(key, "should be a table")
        return {}


class AnySpelling(Section):
    """A section whose keys may have any spelling: `baseUrl`, `base_url`, `base-url`.

    Keys that are not `known` are ignored, with a warning where one looks misspelled.
    """

    def __init__(self, builder: Builder, layer: Layer, known: Sequence[str]) -> None:
        super().__init__(builder, layer)
        table, place = layer
        names = set(map(folded, known))
        for key in table:
            if folded(key) not in names:
                builder.pass_over(key, table, place, known)

    def _same(self, key: str) -> str:
        return folded(key)


def listed(value: Any, place: Place) -> list[tuple[Any, Place]]:
    """The values of a list, or a single value, with their places."""
    if isinstance(value, list | tuple):
        return [(each, (*place, i)) for i, each in enumerate(value)]
    return [(value, place)]


def _number(value: Any) -> Decimal | None:
    """None for what is no number of at least 0."""
    try:
        number = Decimal(str(value))
        return number if 0 <= float(number) < math.inf else None
    except (ArithmeticError, ValueError):
        return None
