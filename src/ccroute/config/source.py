"""One file or mapping: how it is read, what messages call it, and what was found in it.

Knows syntax and places; must not know what any key means.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

Given: TypeAlias = str | os.PathLike[str] | Mapping[str, Any]
"""A path, or what a file would hold."""

Place: TypeAlias = tuple[str | int, ...]
"""The keys and list positions that lead to a value."""


class Ignored(NamedTuple):
    """Something that ccroute passed over, and why."""

    place: str
    reason: str


class Source:
    """One file or mapping, and the faults and the ignored keys found in it.

    What is read from another tool's shape is handed on in the native one; `renamed` leads from a
    place there back to the place in the file. `left_out` are the native places whose values had a
    fault and are not handed on.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self.faults: list[tuple[str, str]] = []
        self.ignored: list[Ignored] = []
        self.renamed: dict[Place, Place] = {}
        self.left_out: list[Place] = []

    def at(self, place: Place) -> str:
        """A place in this source, as messages write it: `agents.python-expert.fallback[0]`."""
        steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in place]
        return ": ".join(filter(None, (self.label, "".join(steps).removeprefix("."))))

    def where(self, place: Place) -> str:
        """The same for a place in the native shape."""
        for length in range(len(place), 0, -1):
            if (origin := self.renamed.get(place[:length])) is not None:
                return self.at((*origin, *place[length:]))
        return self.at(place)

    def fault(self, where: str, text: str) -> None:
        self.faults.append((where, text))

    def faulty(self, where: str) -> bool:
        """Whether a fault was found there or below."""
        return any(known == where or known.startswith((f"{where}.", f"{where}[")) for known, _ in self.faults)

    def ignore(self, place: Place, reason: str) -> None:
        self.ignored.append(Ignored(self.at(place), reason))


def open_sources(given: Given | Sequence[Given]) -> list[tuple[Source, Mapping[str, Any]]]:
    """Each source with its content; one that cannot be read is empty and has a fault."""
    several = [given] if isinstance(given, str | os.PathLike | Mapping) else list(given)
    opened = []
    for one, label in zip(several, _labels(several), strict=True):
        source = Source(label if len(several) > 1 else "")
        opened.append((source, one if isinstance(one, Mapping) else _read(Path(one), label, source)))
    return opened


def _labels(several: Sequence[Given]) -> list[str]:
    """A file's name, or its whole path where two have the same name."""
    names = ["" if isinstance(one, Mapping) else Path(one).name for one in several]
    return [
        f"source {i}" if isinstance(one, Mapping) else str(one) if names.count(name) > 1 else name
        for i, (one, name) in enumerate(zip(several, names, strict=True), 1)
    ]


def _read(path: Path, label: str, source: Source) -> Mapping[str, Any]:
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        source.fault(label, f"cannot be read: {error.strerror}")
        return {}
    except UnicodeDecodeError:
        source.fault(label, "is not UTF-8 text")
        return {}
    return _parse(text, label, source)


def _parse(text: str, label: str, source: Source) -> Mapping[str, Any]:
    # A TOML document cannot start with a brace, and a JSON document that is a table must.
    is_json = text.lstrip().startswith("{")
    try:
        # Decimal keeps the amount as it is written: 0.1 is a tenth.
        content: dict[str, Any] = (
            json.loads(text, parse_float=Decimal) if is_json else tomllib.loads(text, parse_float=Decimal)
        )
    except RecursionError:
        source.fault(label, "is nested too deeply")
    except ValueError as error:
        source.fault(label, f"is not {'JSON' if is_json else 'TOML, and no JSON object'}: {error}")
    else:
        return content
    return {}
