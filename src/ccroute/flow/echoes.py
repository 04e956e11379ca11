"""What a server quotes of the request is not what it says of the failure.

Knows requests and texts; must not know which text means what. A quotation is a whole line of the request, or
the start of one that was cut off: a phrase that a request and an error share by chance is none.
"""

from __future__ import annotations

from bisect import bisect
from collections import defaultdict
from typing import TypeVar

from ccroute.flow.readings import API_WORDS, Text, View, dense, strings
from ccroute.types import Request

E = TypeVar("E", bound=BaseException)

_SHORTEST = 8
"""Characters of a line that is searched for, without whitespace."""
_CUT = 16
"""Characters of a line's start that are a quotation, where it follows a quotation mark or ends the text."""
_QUOTES = frozenset("'\"`([{\u00ab\u2018\u201c\u201e")
_MOST = 10_000
"""Places that are compared with a line. Where there are more, the text is a quotation all through."""


def in_own_words(error: E, request: Request, model: str) -> E:
    """`error` as its server's own words have it, without what they quote of `request` or `model`."""
    read_again = getattr(error, "read_again", None)
    if read_again is None:
        return error
    error.read_again = None  # type: ignore[attr-defined]  # it holds the words as they came
    again: E | None = read_again(lambda words: without_quotes(words, request, model))
    return error if again is None else again


def without_quotes(words: str, request: Request, model: str = "") -> str:
    """`words` with each quotation replaced. Linear in the lengths of `words` and of the request."""
    text = Text(words)
    lines = _lines(request, model)
    left = _MOST
    for view in text.dense:
        places = _places(view)
        for line in lines:
            for start in places.get(line[:_SHORTEST], ()):
                left -= 1
                if left < 0:
                    return ""
                if end := _end(view, start, line):
                    text.mark(view, start, end, "[request]")
    return text.left()


def _lines(request: Request, model: str) -> set[str]:
    """Every line of a request that may be quoted; a plain word stands in any sentence."""
    lines = {line for text in (model, *strings(request)) for line in text.casefold().split("\n")}
    return {
        short
        for line in lines
        if line not in API_WORDS and len(short := dense(line)) >= _SHORTEST and not line.strip().isalpha()
    }


def _places(view: View) -> dict[str, list[int]]:
    """Where each `_SHORTEST` characters in a row begin."""
    found = defaultdict[str, list[int]](list)
    for i, window in enumerate(view.windows(_SHORTEST)):
        found[window].append(i)
    return found


def _end(view: View, start: int, line: str) -> int:
    """Where the quotation of `line` that begins at `start` ends; 0 if it is none."""
    chars = view.chars
    if chars.startswith(line, start):
        return start + len(line)
    sizes = range(_SHORTEST, min(len(line), len(chars) - start) + 1)
    size = sizes[bisect(sizes, 0, key=lambda size: not chars.startswith(line[:size], start)) - 1]
    is_cut = start + size >= view.uncut() or (start > 0 and chars[start - 1] in _QUOTES)
    return start + size if is_cut and size >= _CUT else 0
