"""How a text may be written, and which strings a request holds: what is compared to find one in the other.

Knows escapes and requests; must not know who said a text, nor what becomes of what is found.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import NamedTuple
from urllib.parse import unquote

from ccroute.types import Request
from ccroute.types.request import PARAMETERS

_LAYERS = 3
"""How often a text may have been escaped: as JSON, in JSON, in a URL."""
_ESCAPE = re.compile(
    r"(?:%[0-9a-f]{2})+|(?:\\x[0-9a-f]{2})+|(?:\\u[0-9a-f]{4})+|&#?\w{1,31};"
    r"|(?P<cut>(?:%[0-9a-f]?|\\(?:u[0-9a-f]{0,3}|x[0-9a-f]?)?|&#?\w{0,8})\Z)|\\."
)
_NO_SPACE = dict.fromkeys(map(ord, "\t\n\v\f\r\x1c\x1d\x1e\x1f +"))
_CONTROLS = dict(zip("bfnrt", "\b\f\n\r\t", strict=True))

_EDGE = re.compile(r"(?<!\w)|(?!\w)")

_ASKED = tuple(sorted({"messages", *PARAMETERS} - {"extra", "logit_bias"}))
API_WORDS = PARAMETERS | {
    "additionalproperties",
    "budget_tokens",
    "cache_control",
    "extra_content",
    "function_call",
    "input_schema",
    "max_completion_tokens",
    "reasoning_content",
    "reasoning_details",
    "stream_options",
    "thinking_blocks",
    "thought_signature",
    "tool_call_id",
}
"""Words that an error needs and that tell nothing of a request, though they may stand in it."""


def dense(text: str) -> str:
    """`text` without whitespace, which a URL also writes as a plus."""
    # translate() is the fastest, but for ASCII only.
    return text.translate(_NO_SPACE) if text.isascii() else "".join(text.replace("+", " ").split())


class View(NamedTuple):
    """One reading of a text: `chars[i]` was written `text[starts[i]:ends[i]]`."""

    chars: str
    starts: list[int]
    ends: list[int]

    @classmethod
    def of(cls, text: str) -> View:
        """`text` without case; one letter may become two."""
        folded = [(letter, i) for i, char in enumerate(text) for letter in char.casefold()]
        return cls(
            "".join(letter for letter, _ in folded), [i for _, i in folded], [i + 1 for _, i in folded]
        )

    def unescaped(self) -> View:
        """The same with one layer of escapes undone."""
        chars, starts, ends, at = "", list[int](), list[int](), 0
        for found in _ESCAPE.finditer(self.chars):
            start, end = found.span()
            plain = _unescape(found).casefold()
            chars += self.chars[at:start] + plain
            starts += self.starts[at:start] + [self.starts[start]] * len(plain)
            ends += self.ends[at:start] + [self.ends[end - 1]] * len(plain)
            at = end
        return View(chars + self.chars[at:], starts + self.starts[at:], ends + self.ends[at:])

    def dense(self) -> View:
        """The same without whitespace, which a URL also writes as a plus."""
        kept = [i for i, char in enumerate(self.chars) if char != "+" and not char.isspace()]
        chars, starts, ends = self
        return View("".join([chars[i] for i in kept]), [starts[i] for i in kept], [ends[i] for i in kept])

    def windows(self, size: int) -> list[str]:
        """Every `size` characters in a row."""
        return [self.chars[i : i + size] for i in range(len(self.chars) - size + 1)]

    def phrases(self, sizes: range) -> Iterator[tuple[int, int]]:
        """Start and end of whatever may be a short line, quoted whole."""
        edges = [edge.start() for edge in _EDGE.finditer(self.chars)]
        known = set(edges)
        return ((start, start + size) for start in edges for size in sizes if start + size in known)

    def uncut(self) -> int:
        """Where it ends, without what is left of a character that was cut in two."""
        return len(self.chars.rstrip("\ufffd"))


class Text:
    """A text, its readings, and what of it must go."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.marks = [""] * len(text)
        self.views = [View.of(text)]
        for _ in range(_LAYERS):
            further = self.views[-1].unescaped()
            if further.chars == self.views[-1].chars:
                break
            self.views.append(further)
        self.dense = [view.dense() for view in self.views]

    def mark(self, view: View, start: int, end: int, what: str) -> None:
        """`view.chars[start:end]` gives way to `what`."""
        first, beyond = view.starts[start], view.ends[end - 1]
        self.marks[first:beyond] = [what] * (beyond - first)

    def mark_from(self, view: View, start: int, what: str) -> None:
        """`view.chars[start:]`, and what was cut off within an escape, give way to `what`."""
        first = view.starts[start]
        self.marks[first:] = [what] * (len(self.text) - first)

    def left(self) -> str:
        """The text with what was marked replaced."""
        pieces = groupby(zip(self.marks, self.text, strict=True), key=lambda pair: pair[0])
        return "".join(mark or "".join(char for _, char in pairs) for mark, pairs in pieces)


def strings(request: Request) -> Iterator[str]:
    """Every string that a request sends, but names of parameters and kinds of things."""
    left: list[object] = [*request.extra.values(), *(getattr(request, name) for name in _ASKED)]
    seen = set[int]()
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))  # what holds itself would never end
            if isinstance(value, Mapping):
                left += [key for key in value if key not in API_WORDS]
                left += [part for key, part in value.items() if not _is_kind(key, part)]
            else:
                left += value


def _is_kind(key: object, value: object) -> bool:
    return key in ("type", "role") and isinstance(value, str) and value.isidentifier() and len(value) <= 40


def _unescape(found: re.Match[str]) -> str:
    code = found[0]
    if found["cut"]:
        return ""
    if code.startswith("&"):
        return html.unescape(code)
    if code.startswith(("%", "\\x")) and len(code) > 2:
        return unquote(code.replace("\\x", "%"))
    if code.startswith("\\u") and len(code) > 2:
        return bytes.fromhex(code.replace("\\u", "")).decode("utf-16-be", "replace")
    return _CONTROLS.get(code[1], code[1])
