"""Lays out a table as a TOML file: comments, and small tables in one line. tomli-w writes keys and values.

Knows TOML; must not know what a key means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from textwrap import wrap
from typing import Any, Final

from ccroute.config.reading.source import Place, Source
from ccroute.errors import ConfigError

_WIDTH: Final = 100
"""Characters of a line. A longer list has a line for each item, a longer table a header."""


@dataclass(frozen=True)
class Layout:
    """How a table is laid out.

    comments: text by place; each is written above its line.
    headed:   whether the table at a place has a header (`[backends.local]`); None: if one line is too short.
    """

    comments: Mapping[Place, str]
    headed: Callable[[Place], bool | None]

    def text(self, table: Mapping[str, Any], top: Sequence[str]) -> str:
        """The file, with comments at its top. Raises `ConfigError` for what TOML cannot hold."""
        lines, sections = self._parts(table, ())
        body = "\n".join([*lines, *sections]).strip("\n")
        return "\n".join([*_comment(top), "", body]).strip("\n") + "\n"

    def _parts(self, table: Mapping[str, Any], place: Place) -> tuple[list[str], list[str]]:
        """The lines below a table's header, and the inner tables with headers of their own."""
        lines: list[str] = []
        sections: list[str] = []
        for key, value in table.items():
            here = (*place, key)
            line = f"{self._key(key, here)} = {self._value(value, here)}"
            comment = _comment([self.comments[here]] if here in self.comments else [])
            if not (isinstance(value, Mapping) and self._has_header(here, line)):
                if len(line) > _WIDTH and isinstance(value, list):
                    items = [f"    {self._value(item, (*here, i))}," for i, item in enumerate(value)]
                    line = "\n".join([f"{self._key(key, here)} = [", *items, "]"])
                lines += [*comment, line]
                continue
            inner_lines, inner_sections = self._parts(value, here)
            if inner_lines or not inner_sections:  # tables within a table make its header superfluous
                header = ".".join(self._key(str(step), here) for step in here)
                sections += ["", *comment, f"[{header}]", *inner_lines]
            sections += inner_sections
        return lines, sections

    def _has_header(self, place: Place, line: str) -> bool:
        if (said := self.headed(place)) is not None:
            return said
        inside = any(len(other) > len(place) and other[: len(place)] == place for other in self.comments)
        return inside or len(line) > _WIDTH

    def _value(self, value: object, place: Place) -> str:
        if isinstance(value, Mapping):
            entries = (
                f"{self._key(key, place)} = {self._value(inner, (*place, key))}"
                for key, inner in value.items()
            )
            return f"{{ {', '.join(entries)} }}" if value else "{}"
        if isinstance(value, list):
            return f"[{', '.join(self._value(inner, (*place, i)) for i, inner in enumerate(value))}]"
        return self._written({"k": value}, place).removeprefix("k = ")

    def _key(self, key: str, place: Place) -> str:
        return self._written({key: 0}, place).removesuffix(" = 0")

    def _written(self, pair: Mapping[str, object], place: Place) -> str:
        try:
            text = self._dumps(pair)
            text.encode()
        except (TypeError, UnicodeEncodeError):
            raise ConfigError(f"{Source('').at(place)}: TOML cannot hold this value") from None
        return text.removesuffix("\n")

    @cached_property
    def _dumps(self) -> Callable[[Mapping[str, object]], str]:
        try:
            from tomli_w import dumps
        except ImportError:
            raise ConfigError("writing TOML needs tomli-w: pip install 'ccroute[cli]'") from None
        return dumps


def _comment(lines: Sequence[str]) -> Iterator[str]:
    """The lines as comments. A name in them may hold a line break or a control character."""
    for line in lines:
        text = "".join(c if c.isprintable() else "�" for c in line)
        indent = " " * (len(text) - len(text.lstrip()))
        wrapped = wrap(
            text,
            _WIDTH - 2,
            subsequent_indent=f"{indent}  ",
            break_long_words=False,
            break_on_hyphens=False,  # a file's name stays whole
        ) or [""]
        yield from (f"# {piece}".rstrip() for piece in wrapped)
