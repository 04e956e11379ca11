"""A table of another tool's file whose keys may have any spelling: `baseUrl`, `base_url`, `base-url`.

Knows spellings and types. Must not know what a key means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ccroute.config.foreign.builder import Builder
from ccroute.config.foreign.spelling import folded
from ccroute.config.reading.source import Place

_WHOLE = TypeAdapter(int)


class Section:
    """Reads the keys in `known`. All others are ignored, with a warning where one looks misspelled."""

    def __init__(
        self, table: Mapping[str, Any], place: Place, builder: Builder, known: Sequence[str]
    ) -> None:
        self._table = table
        self._place = place
        self._builder = builder
        self._keys = {folded(key): key for key in reversed([*table])}
        names = set(map(folded, known))
        for key in table:
            if folded(key) not in names:
                builder.pass_over(key, table, place, known)

    def place(self, key: str) -> Place:
        """The key's place, as the file spells it."""
        return (*self._place, self._keys.get(folded(key), key))

    def get(self, key: str) -> Any:
        """The value as it is; None if the key is absent."""
        return self._table.get(self._keys.get(folded(key), key))

    def text(self, key: str) -> str | None:
        """A string with variables replaced. Anything else is a fault."""
        value = self.get(key)
        if value is None:
            return None
        expanded = self._builder.expand(value, self.place(key))
        if expanded is not None and not isinstance(expanded, str):
            self._builder.fault(self.place(key), "should be a string")
            return None
        return expanded

    def number(self, key: str, *, least: int) -> int | None:
        """A whole number, which may be written as a string. Anything else is a fault."""
        value = self.get(key)
        expanded = None if value is None else self._builder.expand(value, self.place(key))
        if expanded is None:
            return None
        try:
            number = _WHOLE.validate_python(expanded)
        except ValidationError:
            number = least - 1
        if number >= least and not isinstance(expanded, bool):
            return number
        self._builder.fault(self.place(key), f"should be a whole number, at least {least}")
        return None

    def table(self, key: str) -> Mapping[str, Any]:
        """A table, empty if the key is absent. Anything else is a fault."""
        value = self.get(key)
        if value is not None and not isinstance(value, Mapping):
            self._builder.fault(self.place(key), "should be a table")
        return value if isinstance(value, Mapping) else {}

    def texts(self, key: str) -> Iterator[tuple[str, str, Place]]:
        """The strings of a table, with their names and places. Any other value is a fault."""
        for name, value in self.table(key).items():
            here = (*self.place(key), name)
            expanded = self._builder.expand(value, here)
            if isinstance(expanded, str) and expanded:
                yield str(name), expanded, here
            elif expanded is not None:
                self._builder.fault(here, "should be a name")

    def entries(self, key: str) -> Iterator[tuple[Any, Place]]:
        """The values of a list, or of a single value, with their places and variables replaced."""
        value = self.get(key)
        if value is None:
            return
        place = self.place(key)
        listed = list(enumerate(value)) if isinstance(value, list | tuple) else [(None, value)]
        for i, each in listed:
            here = place if i is None else (*place, i)
            expanded = self._builder.expand(each, here)
            if expanded is not None:
                yield expanded, here
