"""What a docstring says of a function and of its parameters, in Google's, NumPy's or Sphinx's form.

Knows text; must not know signatures. What it does not understand stays part of the description.
"""

from __future__ import annotations

import inspect
import re
from textwrap import indent
from typing import NamedTuple

_GOOGLE = re.compile(r"^(?:(?:Keyword )?Arg(?:ument)?s|(?:Other )?Param(?:eter)?s):\s*$")
_NUMPY = re.compile(r"^(?:Other )?Parameters\s*$")
# What a `++` or `*+` has matched is not tried again shorter, so that each takes linear time.
_GOOGLE_ENTRY = re.compile(r"^\*{0,2}(\w++)\s*+(?:\([^)]*+\)\s*+)?:\s*+(.*)$")
_NUMPY_ENTRY = re.compile(r"^(\w++)\s*+(?::.*)?$")
_SPHINX_ENTRY = re.compile(r"^:(?:param|parameter|arg|argument)\s([^:]*+):\s*+(.*)$")
_SECTION = re.compile(
    r"^(?:(?:Keyword )?Arg(?:ument)?s|(?:Other )?Param(?:eter)?s|Returns?|Yields?|Raises|Examples?|Notes?|"
    r"Attributes):?\s*$"
)
_FIELD = re.compile(r"^:\w[^:]*+:")
_WORD = re.compile(r"\w+")

LONGEST = 20_000
"""Characters of a docstring that are read: what comes after them is left out, as if it were not there."""


class Docstring(NamedTuple):
    """What comes before the first section, and each parameter's description."""

    summary: str
    parameters: dict[str, str]


def read_docstring(text: str | None) -> Docstring:
    """Take a docstring apart, or its first `LONGEST` characters."""
    text = (text or "")[:LONGEST]
    first, _, rest = text.partition("\n")
    if _GOOGLE.match(first):  # the last line keeps cleandoc from moving the entries to the left
        text = f"{first}\n{indent(inspect.cleandoc(rest), '    ')}\n."
    lines = inspect.cleandoc(text).splitlines()
    start = next((i for i, line in enumerate(lines) if _begins(lines, i)), len(lines))
    found: dict[str, str] = {}
    for i in range(start, len(lines)):
        if _GOOGLE.match(lines[i]):
            found |= _indented(lines[i + 1 :], _GOOGLE_ENTRY)
        elif _NUMPY.match(lines[i]) and _is_underlined(lines, i):
            found |= _listed(lines[i + 2 :])
        elif (entry := _SPHINX_ENTRY.match(lines[i])) and (name := _last_word(entry[1])):
            found[name] = _joined(entry[2], _deeper(lines[i + 1 :], 0))
    return Docstring("\n".join(lines[:start]).strip(), found)


def _last_word(field: str) -> str | None:
    """The name in Sphinx's `int | None name`."""
    words = field.split()
    return words[-1] if words and _WORD.fullmatch(words[-1]) else None


def _begins(lines: list[str], i: int) -> bool:
    """Whether a section, or Sphinx's list of fields, begins at a line."""
    if _FIELD.match(lines[i]):
        return True
    return bool(_SECTION.match(lines[i])) and (lines[i].rstrip().endswith(":") or _is_underlined(lines, i))


def _is_underlined(lines: list[str], i: int) -> bool:
    return i + 1 < len(lines) and re.fullmatch(r"-{3,}\s*", lines[i + 1]) is not None


def _indented(lines: list[str], entry: re.Pattern[str]) -> dict[str, str]:
    """Google's entries: each is indented, and what continues it is indented deeper."""
    lines = _deeper(lines, 0)
    depth = min((_depth(line) for line in lines if line.strip()), default=0)
    found: dict[str, str] = {}
    for i, line in enumerate(lines):
        if _depth(line) == depth and (match := entry.match(line.strip())):
            found[match[1]] = _joined(match[2], _deeper(lines[i + 1 :], depth))
    return found


def _listed(lines: list[str]) -> dict[str, str]:
    """NumPy's entries: each stands at the left, its description is indented below."""
    found: dict[str, str] = {}
    for i, line in enumerate(lines):
        if _begins(lines, i):
            break
        if line.strip() and not _depth(line) and (match := _NUMPY_ENTRY.match(line)):
            found[match[1]] = _joined("", _deeper(lines[i + 1 :], 0))
    return found


def _deeper(lines: list[str], depth: int) -> list[str]:
    """The lines up to the next that is not indented deeper than `depth`."""
    for i, line in enumerate(lines):
        if line.strip() and _depth(line) <= depth:
            return lines[:i]
    return lines


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def _joined(first: str, more: list[str]) -> str:
    return " ".join(part for part in (first.strip(), *(line.strip() for line in more)) if part)
