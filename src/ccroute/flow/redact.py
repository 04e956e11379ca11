"""Takes keys and prompts out of what a server said, before anybody may see it.

Knows a text and what must not be in it, however it is written; must not know who said it. A text is
read as it stands and with its escapes undone, without case and whitespace; what is found in any of
these views goes from the text itself. All of it is linear in the lengths of text and prompt.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import NamedTuple
from urllib.parse import unquote

from ccroute.errors import BackendError, RequestError
from ccroute.types import Request
from ccroute.types.request import PARAMETERS

_KEY_LIKE = re.compile(
    r"\b(?:sk|pk|gsk|xai|key|ghp|hf)[-_][A-Za-z0-9_-]{8,}|\bBearer\s+\S+|\beyJ[A-Za-z0-9_.-]{20,}"
)
_URL_CREDENTIALS = re.compile(r"(://)[^/\s@]+@")

_LAYERS = 3
"""How often a text may have been escaped: as JSON, in JSON, in a URL."""
_ESCAPE = re.compile(
    r"(?:%[0-9a-f]{2})+|(?:\\x[0-9a-f]{2})+|(?:\\u[0-9a-f]{4})+|&#?\w{1,31};"
    r"|(?P<cut>(?:%[0-9a-f]?|\\(?:u[0-9a-f]{0,3}|x[0-9a-f]?)?|&#?\w{0,8})\Z)|\\."
)
_CONTROLS = dict(zip("bfnrt", "\b\f\n\r\t", strict=True))
_NO_SPACE = dict.fromkeys(map(ord, "\t\n\v\f\r\x1c\x1d\x1e\x1f +"))

_SHORTEST_KEY = 8
"""Characters of a secret that is searched for: a placeholder such as "x" is a part of any word."""
_KEY_PART = 12
"""Characters of a key that are one too many; all of them, if it is shorter."""
_KEY_START = 5
"""Characters of a key's or a line's start that are one too many where a text was cut off."""
_RUN = 16
"""Characters in a row that text and prompt do not share by chance."""
_LONG_WORD = re.compile(r"[\w-]{12,}")
_SHORT_LINE = range(6, _RUN)
_CUT_FROM = 300
"""Characters from which on ccroute itself may have cut a text off."""
_EDGE = re.compile(r"(?<!\w)|(?!\w)")
_PLAIN_WORD = re.compile(r"[^\W\d]*")

_STEP, _PIECE = 5, 8
"""A piece of the prompt begins every 5 characters and is 8 long: whatever has 12 in a row holds one."""
_BESIDE = _STEP + _PIECE

_ASKED = tuple(sorted({"messages", *PARAMETERS} - {"extra", "logit_bias"}))
_API_WORDS = PARAMETERS | {
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


def clean(error: BackendError | RequestError, secrets: Iterable[str], request: Request) -> None:
    """Remove `secrets`, anything that looks like a key, and the prompt from what `error` shows.

    Servers quote the key they refuse and the message they could not parse. Of a key, any long part
    goes, also in base64; of every string of the request, what text and string share for 16 characters
    in a row, long words, and short lines that are quoted whole. Its causes go too: they hold the
    server's words as they were.
    """
    texts = {name: _Text(text) for name in ("detail", "body", "request_id") if (text := getattr(error, name))}
    if texts:
        _mark_prompt([*texts.values()], _Prompt(request))
        _mark_keys(
            [*texts.values()],
            {form for secret in secrets if len(secret) >= _SHORTEST_KEY for form in _forms(secret)},
        )
    for name, text in texts.items():
        setattr(error, name, _URL_CREDENTIALS.sub(r"\1", _KEY_LIKE.sub("[key]", text.left())))
    error.args = (error.detail,)
    error.__cause__ = error.__context__ = None


def found_in(text: str, secret: str) -> bool:
    """Whether a short text of a server holds a secret."""
    return len(secret) >= _SHORTEST_KEY and secret.lower() in text.lower()


class _View(NamedTuple):
    """One reading of a text: `chars[i]` was written `text[starts[i]:ends[i]]`."""

    chars: str
    starts: list[int]
    ends: list[int]

    @classmethod
    def of(cls, text: str) -> _View:
        """`text` without case; one letter may become two."""
        folded = [(letter, i) for i, char in enumerate(text) for letter in char.casefold()]
        return cls(
            "".join(letter for letter, _ in folded), [i for _, i in folded], [i + 1 for _, i in folded]
        )

    def unescaped(self) -> _View:
        """The same with one layer of escapes undone."""
        chars, starts, ends, at = "", list[int](), list[int](), 0
        for found in _ESCAPE.finditer(self.chars):
            start, end = found.span()
            plain = _unescape(found).casefold()
            chars += self.chars[at:start] + plain
            starts += self.starts[at:start] + [self.starts[start]] * len(plain)
            ends += self.ends[at:start] + [self.ends[end - 1]] * len(plain)
            at = end
        return _View(chars + self.chars[at:], starts + self.starts[at:], ends + self.ends[at:])

    def dense(self) -> _View:
        """The same without whitespace, which a URL also writes as a plus."""
        kept = [i for i, char in enumerate(self.chars) if char != "+" and not char.isspace()]
        chars, starts, ends = self
        return _View("".join([chars[i] for i in kept]), [starts[i] for i in kept], [ends[i] for i in kept])

    def windows(self, size: int) -> list[str]:
        """Every `size` characters in a row."""
        return [self.chars[i : i + size] for i in range(len(self.chars) - size + 1)]

    def phrases(self) -> Iterator[tuple[int, int]]:
        """Start and end of whatever may be a short line, quoted whole."""
        edges = [edge.start() for edge in _EDGE.finditer(self.chars)]
        known = set(edges)
        return ((start, start + size) for start in edges for size in _SHORT_LINE if start + size in known)

    def uncut(self) -> int:
        """Where it ends, without what is left of a character that was cut in two."""
        return len(self.chars.rstrip("\ufffd"))


class _Text:
    """A text, its readings, and what of it must go."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.marks = [""] * len(text)
        self.views = [_View.of(text)]
        for _ in range(_LAYERS):
            further = self.views[-1].unescaped()
            if further.chars == self.views[-1].chars:
                break
            self.views.append(further)
        self.dense = [view.dense() for view in self.views]

    def mark(self, view: _View, start: int, end: int, what: str) -> None:
        """`view.chars[start:end]` gives way to `what`."""
        first, beyond = view.starts[start], view.ends[end - 1]
        self.marks[first:beyond] = [what] * (beyond - first)

    def mark_from(self, view: _View, start: int, what: str) -> None:
        """`view.chars[start:]`, and what was cut off within an escape, give way to `what`."""
        first = view.starts[start]
        self.marks[first:] = [what] * (len(self.text) - first)

    def left(self) -> str:
        """The text with what was marked replaced."""
        pieces = groupby(zip(self.marks, self.text, strict=True), key=lambda pair: pair[0])
        return "".join(mark or "".join(char for _, char in pairs) for mark, pairs in pieces)


class _Prompt:
    """Every string of a request, ready to be compared with."""

    def __init__(self, request: Request) -> None:
        self.text = "\n" + "\n\0\n".join(_strings(request)).casefold()
        # translate() is the fastest, but for ASCII only.
        ascii_only = self.text.isascii()
        dense = self.text.translate(_NO_SPACE) if ascii_only else "".join(self.text.replace("+", " ").split())
        self._dense = "\0" * _STEP + dense + "\0" * _STEP

    def short_lines(self, among: set[str]) -> set[str]:
        """Which of `among` are lines of the prompt, and no ordinary words."""
        lines = among.intersection(map(str.strip, self.text.split("\n")))
        return {line for line in lines if not _PLAIN_WORD.fullmatch(line)}

    def pieces(self, among: set[str]) -> set[str]:
        """Those of the prompt's pieces that are `among` the windows of a text, with what is beside them."""
        text = self._dense
        return {
            text[i - _STEP : i + _BESIDE]
            for i in range(_STEP, len(text) - _BESIDE + 1, _STEP)
            if text[i : i + _PIECE] in among
        }


def _mark_prompt(texts: list[_Text], prompt: _Prompt) -> None:
    lines = prompt.short_lines(
        {view.chars[a:b] for t in texts for view in t.views for a, b in view.phrases()}
    )
    pieces = prompt.pieces({window for t in texts for view in t.dense for window in view.windows(_PIECE)})
    for text in texts:
        for view in text.views:
            for start, end in view.phrases():
                if view.chars[start:end] in lines:
                    text.mark(view, start, end, "[prompt]")
    _mark_runs(texts, pieces)
    for text in texts:
        _mark_cut_line(text, prompt)


def _mark_runs(texts: list[_Text], pieces: set[str]) -> None:
    alone = {piece[_STEP:-_STEP] for piece in pieces}
    chains = [
        (text, view, first, last)
        for text in texts
        for view in text.dense
        for first, last in _chains(view.windows(_PIECE), alone)
    ]
    edges = {view.chars[i : i + _PIECE] for _, view, *ends in chains for i in ends}
    longer, earlier = _grown({piece for piece in pieces if piece[_STEP:-_STEP] in edges})
    for text, view, first, last in chains:
        start, end = first, last + _PIECE
        while start and view.chars[start - 1 : first + _PIECE] in earlier:
            start -= 1
        while end < len(view.chars) and view.chars[last : end + 1] in longer:
            end += 1
        if _tells(text.text[view.starts[start] : view.ends[end - 1]]):
            text.mark(view, start, end, "[prompt]")


def _chains(windows: list[str], pieces: set[str]) -> list[tuple[int, int]]:
    """The first and the last window of each row of pieces that may follow one another in a prompt."""
    begun = dict[int, int]()
    for i, window in enumerate(windows):
        if window in pieces:
            begun[i + _STEP] = begun.pop(i, i)
    return [(first, beyond - _STEP) for beyond, first in begun.items()]


def _grown(pieces: set[str]) -> tuple[set[str], set[str]]:
    """How each piece goes on, and what goes before it, a character at a time."""
    after, before = {piece[_STEP:] for piece in pieces}, {piece[:_BESIDE] for piece in pieces}
    sizes = range(_PIECE + 1, _BESIDE + 1)
    return {piece[:size] for piece in after for size in sizes}, {
        piece[-size:] for piece in before for size in sizes
    }


def _tells(shared: str) -> bool:
    """Whether what a text shares with a prompt is a quotation."""
    if shared.casefold().strip("\"'`.,:;()[]{} ") in _API_WORDS:
        return False
    return len(shared) >= _RUN or _LONG_WORD.search(shared) is not None


def _mark_cut_line(text: _Text, prompt: _Prompt) -> None:
    """Where a text was cut off, the start of a line is too short to be found as a run."""
    view, end = text.views[0], text.views[0].uncut()
    shortest = _SHORT_LINE.start if len(text.text) < _CUT_FROM else _KEY_START
    for size in range(_RUN - 1, shortest - 1, -1) if not text.marks[-1] else ():
        if size <= end and "\n" + view.chars[end - size : end] in prompt.text:
            text.mark_from(view, end - size, "[prompt]")
            return


def _mark_keys(texts: list[_Text], forms: set[str]) -> None:
    parts: dict[int, set[str]] = {}
    for form in forms:
        size = min(_KEY_PART, len(form))
        parts.setdefault(size, set()).update(form[i : i + size] for i in range(len(form) - size + 1))
    for text in texts:
        for view in text.dense:
            for size, known in parts.items():
                for i, window in enumerate(view.windows(size)):
                    if window in known:
                        text.mark(view, i, i + size, "[key]")
            _mark_cut_key(text, view, forms)


def _mark_cut_key(text: _Text, view: _View, forms: set[str]) -> None:
    end = view.uncut()
    for form in forms:
        for size in range(_KEY_START, min(len(form), end + 1)):
            if view.chars.endswith(form[:size], 0, end):
                text.mark_from(view, end - size, "[key]")


def _forms(secret: str) -> Iterator[str]:
    """A secret as dense views show it: as it is and in base64, wherever it stands in what was encoded."""
    plain = secret.encode()
    codes = [secret]
    for ahead in range(3):
        code = base64.b64encode(bytes(ahead) + plain).decode().rstrip("=")
        # The characters that hold bits of its neighbours, too, are not known.
        whole = code[(0, 2, 3)[ahead] : len(code) - ((ahead + len(plain)) % 3 > 0)]
        codes += [whole, whole.replace("+", "-").replace("/", "_")] if len(whole) >= _KEY_PART else []
    return filter(None, (_View.of(code).dense().chars for code in codes))


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


def _strings(request: Request) -> Iterator[str]:
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
                left += [key for key in value if key not in _API_WORDS]
                left += [part for key, part in value.items() if not _is_kind(key, part)]
            else:
                left += value


def _is_kind(key: object, value: object) -> bool:
    return key in ("type", "role") and isinstance(value, str) and value.isidentifier() and len(value) <= 40
