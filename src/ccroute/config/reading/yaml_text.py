"""Reads YAML as `yaml.safe_load` does (YAML 1.1), with what a configuration needs besides.

A number with a fraction stays exact. A key is a text. A duplicate key is a fault with its place.
Works on the parser's events: PyYAML's own composer recurses in C, and deep nesting would end the process.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

if TYPE_CHECKING:
    import yaml

    from ccroute.config.reading.source import Place, Source

    Event: TypeAlias = yaml.Event
    Start: TypeAlias = yaml.SequenceStartEvent | yaml.MappingStartEvent

_TAG: Final = "tag:yaml.org,2002:"
_STR: Final = f"{_TAG}str"
_MERGE: Final = f"{_TAG}merge"
_PLAIN: Final = frozenset({"tag:yaml.org,2002:value", _STR, _MERGE})
_NUMBER: Final = re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]{1,3})?")
_SCIENTIFIC: Final = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]{1,3}")
"""YAML 1.1 reads `1e-6` as a text; JSON and TOML, and who writes it, mean a number. LiteLLM converts it."""
_QUOTED: Final = re.compile(r"(['\"])[^'\" <]{2,}\1")
_WORD: Final = re.compile("![A-Za-z]{1,12}")
_DEEPEST: Final = 100
_MOST: Final = 100_000
_GROWTH: Final = 10
"""Anchors may not make more than `_MOST` values of a file, nor `_GROWTH` times those that are written."""


class YamlError(ValueError):
    """A text that is no YAML, or a kind of YAML that is not read. The message has the line, but no value."""

    def __init__(self, problem: str, mark: Any) -> None:
        where = "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
        super().__init__(f"{problem}{where}")


def read_yaml(text: str, source: Source) -> object:
    """The value of a document. Raises `YamlError`, and `ImportError` without PyYAML.

    A key that is twice in a table is a fault of `source`, because one of its values is lost.
    """
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _Reader(yaml.parse(text, Loader=loader), source).document()
    except yaml.MarkedYAMLError as error:
        # The scanner repeats what stands for a tag, which may be any text.
        problem = _QUOTED.sub("…", error.problem or "it cannot be parsed")
        raise YamlError(problem, error.problem_mark) from None
    except yaml.reader.ReaderError as error:
        raise YamlError(f"the character U+{error.character:04X} is not allowed", None) from None


class _Reader:
    """Builds the value from events. `sizes` counts the values of each anchor with what is in them."""

    def __init__(self, events: Iterator[Event], source: Source) -> None:
        import yaml.constructor

        self._yaml = yaml
        self._events = events
        self._source = source
        self._scalars = yaml.constructor.SafeConstructor()
        self._resolvers = yaml.SafeLoader.yaml_implicit_resolvers
        self._anchors: dict[str, Any] = {}
        self._sizes: dict[str, int] = {}
        self._open: set[str] = set()
        self._own = 0
        self._all = 0

    def document(self) -> object:
        yaml, value = self._yaml, None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if self._own:
                    raise YamlError("there is a second document; a file is one", event.start_mark)
                value = self._value(next(self._events), ())
        return value

    def _value(self, event: Event, place: Place) -> Any:
        yaml = self._yaml
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        self._own += 1
        self._count(1, event)
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event)
            self._keep(event.anchor, value, 1)
            return value
        if len(place) > _DEEPEST:
            raise YamlError("it is nested too deeply", event.start_mark)
        start = cast("Start", event)
        kind = "map" if isinstance(event, yaml.MappingStartEvent) else "seq"
        if start.tag not in (None, "!", f"{_TAG}{kind}"):
            raise YamlError(f"{_shown(start.tag)} is not read", event.start_mark)
        before, anchor = self._all, start.anchor
        if anchor:
            self._open.add(anchor)
        value = self._mapping(place) if kind == "map" else self._sequence(place)
        self._open.discard(anchor)
        self._keep(anchor, value, 1 + self._all - before)
        return value

    def _sequence(self, place: Place) -> list[Any]:
        found: list[Any] = []
        for event in self._events:
            if isinstance(event, self._yaml.SequenceEndEvent):
                break
            found.append(self._value(event, (*place, len(found))))
        return found

    def _mapping(self, place: Place) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for event in self._events:
            if isinstance(event, self._yaml.MappingEndEvent):
                break
            key, is_merge = self._key(event)
            here = (*place, key)
            value = self._value(next(self._events), here)
            if is_merge:
                # What is merged first wins, and the table's own keys win over it.
                for part in reversed(value if isinstance(value, list) else [value]):
                    if not isinstance(part, dict):
                        raise YamlError("<< takes a table, or a list of tables", event.start_mark)
                    merged = {**merged, **part}
            elif key in own:
                self._source.fault(here, "is there twice")
            else:
                own[key] = value
        return {**merged, **own} if merged else own

    def _key(self, event: Event) -> tuple[str, bool]:
        """The key as a text, and whether it is `<<`."""
        yaml = self._yaml
        if isinstance(event, yaml.AliasEvent):
            key = self._alias(event)
            if not isinstance(key, str):
                raise YamlError("a key should be a string", event.start_mark)
            return key, False
        if not isinstance(event, yaml.ScalarEvent):
            raise YamlError("a key should be a string", event.start_mark)
        self._keep(event.anchor, event.value, 1)
        tag = self._tag_of(event)
        if not tag.startswith(_TAG):
            raise YamlError(f"{_shown(tag)} is not read", event.start_mark)
        # `on:` would be True, `1_000:` and `0x10:` are numbers.
        return (str(self._number(event, tag)) if tag == f"{_TAG}int" else event.value), tag == _MERGE

    def _alias(self, event: yaml.AliasEvent) -> Any:
        name = event.anchor
        if name in self._open:
            raise YamlError("an anchor refers to itself", event.start_mark)
        if name not in self._anchors:
            raise YamlError("there is no anchor of that name", event.start_mark)
        self._count(self._sizes[name], event)
        return self._anchors[name]

    def _keep(self, anchor: str | None, value: Any, size: int) -> None:
        if anchor:
            self._anchors[anchor], self._sizes[anchor] = value, size

    def _count(self, values: int, event: Event) -> None:
        self._all += values
        if self._all > _MOST and self._all > _GROWTH * self._own:
            raise YamlError("its anchors make it too large", event.start_mark)

    def _tag_of(self, event: yaml.ScalarEvent) -> str:
        if event.tag not in (None, "!"):
            return str(event.tag)
        if event.implicit[0]:
            first = event.value[:1]
            for tag, pattern in (*self._resolvers.get(first, ()), *self._resolvers.get(None, ())):
                if pattern.match(event.value):
                    return str(tag)
        return _STR

    def _scalar(self, event: yaml.ScalarEvent) -> Any:
        tag, text = self._tag_of(event), event.value
        if tag in _PLAIN:
            is_number = event.implicit[0] and _SCIENTIFIC.fullmatch(text)
            return Decimal(text) if is_number else text
        match tag.removeprefix(_TAG):
            case "null":
                return None
            case "bool":
                return self._scalars.construct_yaml_bool(self._node(event, tag))
            case "int" | "float" | "timestamp":
                return self._number(event, tag)
            case _:
                raise YamlError(f"{_shown(tag)} is not read", event.start_mark)

    def _number(self, event: yaml.ScalarEvent, tag: str) -> Any:
        """A number or a date. A float is a Decimal, but for infinity and what is no number."""
        node = self._node(event, tag)
        try:
            if tag == f"{_TAG}int":
                return self._scalars.construct_yaml_int(node)
            if tag == f"{_TAG}timestamp":
                return self._scalars.construct_yaml_timestamp(node)
            if _NUMBER.fullmatch(event.value):
                return Decimal(event.value.replace("_", ""))
            value = self._scalars.construct_yaml_float(node)
            return Decimal(str(value)) if abs(value) < float("inf") else value
        except (ValueError, ArithmeticError, IndexError):
            raise YamlError(f"this is no {tag.removeprefix(_TAG)}", event.start_mark) from None

    def _node(self, event: yaml.ScalarEvent, tag: str) -> yaml.ScalarNode:
        return self._yaml.ScalarNode(tag, event.value)


def _shown(tag: str) -> str:
    """The tag, if it is one of YAML's own or a plain word. Any other may be a secret that begins with "!"."""
    own = tag.startswith(_TAG)
    return f"the tag {tag.replace(_TAG, '!!')}" if own or _WORD.fullmatch(tag) else "a tag (!…)"
