"""Reads a docstring in Google's, NumPy's or Sphinx's format: the summary, and a text for each parameter.

Knows text; must not know signatures. Text in no known format stays in the summary.
"""

from __future__ import annotations

import inspect
import re
from typing import NamedTuple

_HEADING = re.compile(
    r"(?:((?:Keyword )?Arg(?:ument)?s|(?:Other )?Param(?:eter)?s)"
    r"|Returns?|Yields?|Raises|Examples?|Notes?|Attributes)(:?)\s*$"
)
_RULE = re.compile(r"-{3,}\s*$")
# `++` and `*+` never backtrack, so that each pattern takes linear time.
_GOOGLE = re.compile(r"\s+\*{0,2}(\w++)\s*+(?:\([^)]*+\)\s*+)?:\s*+(.*)$")
_NUMPY = re.compile(r"(\w++)\s*+(?::.*)?$()")
_SPHINX = re.compile(r":(?:param|parameter|arg|argument)\s(?:[^:]*\s)?(\w++)\s*+:\s*+(.*)$")
_FIELD = re.compile(r":\w[^:]*+:")

LONGEST = 20_000
"""Characters of a docstring that are read; the rest is ignored."""


class Docstring(NamedTuple):
    """The text before the first section, and each parameter's description."""

    summary: str
    parameters: dict[str, str]


def read_docstring(text: str | None) -> Docstring:
    """Split a docstring into summary and parameters. Only its first `LONGEST` characters are read."""
    text = (text or "")[:LONGEST]
    lines = inspect.cleandoc(text).splitlines()
    if (heading := _HEADING.match(text.partition("\n")[0])) and heading[2]:
        lines[1:] = [f" {line}" for line in lines[1:]]  # cleandoc has aligned the entries with the heading
    found: dict[str, list[str]] = {}
    entries: re.Pattern[str] | None = None  # what an entry of this section looks like, if it has parameters
    described: list[str] | None = None  # the description that a deeper line continues
    start, depth = len(lines), 0
    for i, line in enumerate(lines):
        indented = len(line) - len(line.lstrip())
        heading = _HEADING.match(line)
        if heading and (heading[2] or _RULE.match("".join(lines[i + 1 : i + 2]))):
            entries = (_GOOGLE if heading[2] else _NUMPY) if heading[1] else None
            start, described = min(start, i), None
            continue
        if _FIELD.match(line):
            start, entries, described = min(start, i), _SPHINX, None
        if described is not None and indented > depth:
            described.append(line.strip())
        elif entries and line.strip():
            described = None
            if entry := entries.match(line):
                described = found[entry[1]] = [entry[2].strip()]
                depth = indented
            elif entries is _GOOGLE and not indented:
                entries = None
    summary = "\n".join(lines[:start]).strip()
    return Docstring(summary, {name: " ".join(filter(None, parts)) for name, parts in found.items()})
