"""One file or mapping: reads it, names its places in messages, and collects what was found in it.

Knows syntax, must not know what a key means.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from ccroute.config.reading.syntax import parse
from ccroute.errors import ConfigError

Given: TypeAlias = str | os.PathLike[str] | Mapping[str, Any]
"""A path, or what a file would hold."""

Stamp: TypeAlias = tuple[int, int]
"""When a file was written last, in nanoseconds, and its size in bytes."""

Place: TypeAlias = tuple[str | int, ...]
"""The keys and list positions that lead to a value."""

_GIVEN = (str, os.PathLike, Mapping)
_FEW = 3
"""As many ignored keys of one name are listed one by one."""
_LARGEST = 16 * 1024 * 1024
"""Bytes of a file at most. A device such as /dev/zero has no end."""
_DEEPEST = 100
"""Tables and lists within each other at most."""
_ANY = -1
"""Stands for every position of a list."""
EXPECTED = (
    'expected a path or a mapping (or several of them), such as {"backends": {"local": {"kind": "ollama"}}}'
)


class Ignored(NamedTuple):
    """A key that ccroute does not read, and why."""

    place: str
    reason: str


class Source:
    """One file or mapping, and the faults and the ignored keys found in it.

    Another tool's file is translated into the native shape; `renamed` maps a place there to the place in the
    file. `left_out` are the native places whose values had a fault and are left out. `path` is None for a
    mapping. `files` are those that were read. `is_unread`: it has a fault as a whole, so what it
    defines is not known.

    `references` has the text and the expanded value of each place in the file that refers to variables.
    `unset` are those of them that stayed as they are, and `stand_ins` their texts by native place, where a
    text does not fit.
    """

    def __init__(self, label: str, name: str = "") -> None:
        self.label = label
        self.name = name or label
        self.path: Path | None = None
        self.warnings: list[tuple[str, str]] = []
        self.is_unread = False
        self.faults: list[tuple[str, str]] = []
        self.renamed: dict[Place, Place] = {}
        self.left_out: list[Place] = []
        self._ignored: list[tuple[Place, str]] = []
        self.references: dict[Place, tuple[str, str]] = {}
        self.unset: set[Place] = set()
        self.stand_ins: dict[Place, str] = {}
        self.files: dict[Path, Stamp | None] = {}

    def text(self, path: Path) -> str:
        """A file's text. Its stamp is taken before, so that a change while it is read is noticed later."""
        path = path.absolute()
        self.files[path] = stamp(path)
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1)
        if len(text) > _LARGEST:
            raise OSError(errno.EFBIG, f"it is larger than {_LARGEST // 1024**2} MB")
        return io.TextIOWrapper(io.BytesIO(text), "utf-8-sig").read()  # lines may end in CR

    def at(self, place: Place) -> str:
        """A place in this source, as messages write it: `agents.python-expert.fallback[0]`."""
        steps = [_position(step) if isinstance(step, int) else f".{step}" for step in place]
        return ": ".join(filter(None, (self.label, "".join(steps).removeprefix("."))))

    def origin(self, place: Place) -> Place:
        """The place in this source of a place in the native shape."""
        for length in range(len(place), 0, -1):
            if (origin := self.renamed.get(place[:length])) is not None:
                return (*origin, *place[length:])
        return place

    def where(self, place: Place) -> str:
        """`at` for a place in the native shape."""
        return self.at(self.origin(place))

    def fault(self, place: Place, text: str) -> None:
        self.faults.append((self.at(place), text))

    def fault_file(self, text: str) -> None:
        """Report a fault of the source as a whole."""
        self.is_unread = True
        self.faults.append((self.name, text))

    def warn(self, place: Place, text: str) -> None:
        self.warnings.append((self.at(place), text))

    def faulty(self, where: str) -> bool:
        """Whether a fault was found there or below."""
        return any(known == where or known.startswith((f"{where}.", f"{where}[")) for known, _ in self.faults)

    def is_unset(self, where: str) -> bool:
        """Whether a reference there, or around there, stayed because its variable is not set."""
        kept = map(self.at, self.unset)
        return any(where == each or where.startswith((f"{each}.", f"{each}[")) for each in kept)

    def ignore(self, place: Place, reason: str) -> None:
        self._ignored.append((place, reason))

    def ignored(self) -> Iterator[Ignored]:
        """The keys not read. Many of one name are one entry: `*Agents[].prompt (119 times)`."""
        alike: dict[tuple[object, ...], list[Place]] = {}
        for place, reason in self._ignored:
            alike.setdefault(_likeness(place, reason), []).append(place)
        for place, reason in self._ignored:
            places = alike[_likeness(place, reason)]
            if len(places) <= _FEW:
                yield Ignored(self.at(place), reason)
            elif place is places[0]:
                yield Ignored(f"{self.at(_pattern(places))} ({len(places)} times)", reason)


def _position(step: int) -> str:
    return "[]" if step == _ANY else f"[{step}]"


def _likeness(place: Place, reason: str) -> tuple[object, ...]:
    """What is equal for keys that one entry can list: their name, their depth and the reason."""
    return len(place), place[-1] if isinstance(place[-1], str) else _ANY, reason


def _pattern(places: Sequence[Place]) -> Place:
    """One place for several: `*` where their keys differ, `[]` for their positions."""
    return tuple(map(_common, zip(*places, strict=True)))


def _common(steps: Sequence[str | int]) -> str | int:
    if len(set(steps)) == 1:
        return steps[0]
    names = [step for step in steps if isinstance(step, str)]
    if len(names) < len(steps):
        return _ANY
    end = os.path.commonprefix([name[::-1] for name in names])  # noqa: RUF071
    return f"*{end[::-1]}"


def stamp(path: Path) -> Stamp | None:
    """The file's stamp; None while there is no such file. A pipe has none either: to read it again may never
    end."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size) if stat.S_ISREG(found.st_mode) else None


def open_sources(given: Given | Sequence[Given]) -> list[tuple[Source, Mapping[str, Any]]]:
    """Each source with its content. One that cannot be read has a fault and is empty.

    Raises `ConfigError` for a value of a wrong type.
    """
    several: list[Any] = [given]
    if isinstance(given, Sequence) and not isinstance(given, str | bytes):
        several = list(given)
    if strange := {type(one).__name__ for one in several if not isinstance(one, _GIVEN)}:
        raise ConfigError(f"{EXPECTED}, not {' or '.join(sorted(strange))}")
    sources = [Source(label if len(several) > 1 else "", label) for label in _labels(several)]
    return [(source, content_of(one, source)) for source, one in zip(sources, several, strict=True)]


def _is_text(one: object) -> bool:
    """Whether it is a file's text instead of a path. It may have secrets, so it is never shown."""
    return isinstance(one, str) and ("\n" in one or one.lstrip().startswith(("{", "[")))


def _labels(several: Sequence[Given]) -> list[str]:
    """A file's name, or its whole path where two have the same name."""
    names = ["" if isinstance(one, Mapping) or _is_text(one) else Path(one).name for one in several]
    if names == [""]:
        return ["source"]
    return [
        f"source {i}" if not name else str(one) if names.count(name) > 1 else name
        for i, (one, name) in enumerate(zip(several, names, strict=True), 1)
    ]


def content_of(given: Given, source: Source) -> Mapping[str, Any]:
    """What a file or a mapping holds. What is wrong with it goes to `source`; then the content is empty."""
    content = given if isinstance(given, Mapping) else _parsed(given, source)
    if not _is_too_deep(content):
        return content
    source.fault_file("is nested too deeply")
    return {}


def _parsed(given: str | os.PathLike[str], source: Source) -> Mapping[str, Any]:
    try:
        if not _is_text(given):
            source.path = Path(given)
            return parse(source.text(source.path), source)
        source.fault_file("is no path, but a file's text: give the path, or the mapping that it holds")
    except OSError as error:
        source.fault_file(f"cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        source.fault_file("is not UTF-8 text")
    except ValueError:  # of a path with a NUL
        source.fault_file("is no path")
    return {}


def _is_too_deep(content: Mapping[str, Any]) -> bool:
    """Whether tables and lists are deeper than anything means, or within themselves."""
    level: Collection[Any] = [content]
    for _ in range(_DEEPEST):
        inner = (
            each
            for outer in level
            for each in (outer.values() if isinstance(outer, Mapping) else outer)
            if isinstance(each, Mapping | list | tuple)
        )
        level = {id(each): each for each in inner}.values()  # one object may be in many places
        if not level:
            return False
    return True
