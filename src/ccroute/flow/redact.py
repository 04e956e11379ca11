"""Takes keys and prompts out of what a server said, before anybody may see it.

Knows a text and what must not be in it, however it is written; must not know who said it. A text is
read as it stands and with its escapes undone, without case and whitespace; what is found in any of
these views goes from the text itself. Everything is linear in the length of prompt and text.
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
_KEY, _PROMPT = "[key]", "[prompt]"

_LAYERS = 3
"""How often a text may have been escaped: as JSON, in JSON, in a URL."""
_ESCAPE = re.compile(
    r"(?:%[0-9a-f]{2})+|(?:\\x[0-9a-f]{2})+|(?:\\u[0-9a-f]{4})+|&(?:#?\w{1,31});"
    r"|(?:%[0-9a-f]?|\\(?:u[0-9a-f]{0,3}|x[0-9a-f]?)?|&#?\w{0,8})\Z"  # cut off within one
    r"|\\."
)
_CONTROLS = dict(zip("btnfr", "\b\t\n\f\r", strict=True))

_KEY_PART = 12
"""Characters of a key that are one too much; all of it, if it is shorter."""
_KEY_START = 5
"""Characters of a key's start that are one too much at the end of a text, where it may be cut off."""
_RUN = 16
"""Characters in a row that text and prompt share by more than chance."""
_LONG_WORD = 12
_SHORT_LINE = range(6, _RUN)
_EDGE = re.compile(r"(?<!\w)|(?!\w)")
_PLAIN_WORD = re.compile(r"[^\W\d]*")

# A run of 12 holds one of the prompt's pieces, wherever it begins.
_PIECE, _STRIDE = 7, 6
_NO_SPACE = dict.fromkeys(map(ord, "\t\n\v\f\r\x1c\x1d\x1e\x1f "))

_ASKED = tuple(sorted({"messages", *PARAMETERS} - {"extra"}))
_API_WORDS = PARAMETERS | {
    "additionalproperties",
    "cache_control",
    "input_schema",
    "max_completion_tokens",
    "reasoning_content",
    "tool_call_id",
}
"""Words that errors need and that give nothing away, though a request may hold them."""


def clean(error: BackendError | RequestError, secrets: Iterable[str], request: Request) -> None:
    """Remove `secrets`, anything that looks like a key, and the prompt from what `error` shows.

    Servers quote the key they refuse and the message they could not parse. Of a key, any longer part
    goes, also in base64; of any string of the request, whatever stands in the text for 16 characters
    or more, long words, and short lines that stand there whole. What the error came from goes too:
    those frames and causes hold the server's words as they were.
    """
    said = {name: _Said(text) for name in ("detail", "body", "request_id") if (text := getattr(error, name))}
    if said:
        _mark_prompt(list(said.values()), _Prompt(request))
        _mark_keys(list(said.values()), {form for secret in secrets for form in _forms(secret)})
    for name, text in said.items():
        setattr(error, name, _URL_CREDENTIALS.sub(r"\1", _KEY_LIKE.sub(_KEY, text.left())))
    error.args = (error.detail,)
    error.__traceback__ = error.__cause__ = error.__context__ = None


class _View(NamedTuple):
    """A text in one of its readings; `chars[i]` was written `text[starts[i]:ends[i]]`."""

    chars: str
    starts: list[int]
    ends: list[int]

    @classmethod
    def of(cls, text: str) -> _View:
        """`text` without case; a letter may turn into two."""
        folded = [(letter, i) for i, char in enumerate(text) for letter in char.casefold()]
        starts = [i for _, i in folded]
        return cls("".join(letter for letter, _ in folded), starts, [i + 1 for i in starts])

    def unescaped(self) -> _View:
        """The same with one layer of escapes undone."""
        chars, starts, ends, at = "", [*self.starts[:0]], [*self.ends[:0]], 0
        for found in _ESCAPE.finditer(self.chars):
            start, end = found.span()
            plain = _unescape(found[0]).casefold()
            chars += self.chars[at:start] + plain
            starts += self.starts[at:start] + self.starts[start : start + 1] * len(plain)
            ends += self.ends[at:start] + self.ends[end - 1 : end] * len(plain)
            at = end
        return _View(chars + self.chars[at:], starts + self.starts[at:], ends + self.ends[at:])

    def dense(self) -> _View:
        """The same without whitespace, which a URL also writes as a plus."""
        kept = [i for i, char in enumerate(self.chars) if char != "+" and not char.isspace()]
        return _View(
            "".join([self.chars[i] for i in kept]),
            [self.starts[i] for i in kept],
            [self.ends[i] for i in kept],
        )

    def windows(self, size: int) -> list[str]:
        """Every `size` characters in a row."""
        return [self.chars[i : i + size] for i in range(len(self.chars) - size + 1)]

    def phrases(self) -> Iterator[tuple[int, int]]:
        """Start and end of whatever may be a short line that is quoted whole."""
        edges = [edge.start() for edge in _EDGE.finditer(self.chars)]
        known = set(edges)
        return ((start, start + n) for start in edges for n in _SHORT_LINE if start + n in known)


class _Said:
    """A text, its readings, and what of it must go."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._marks = [""] * len(text)
        self.views = [_View.of(text)]
        for _ in range(_LAYERS):
            further = self.views[-1].unescaped()
            if further.chars == self.views[-1].chars:
                break
            self.views.append(further)
        self.dense = [view.dense() for view in self.views]

    def written(self, view: _View, start: int, end: int) -> str:
        """How `view.chars[start:end]` stands in the text."""
        return self.text[view.starts[start] : view.ends[end - 1]]

    def mark(self, view: _View, start: int, end: int, what: str) -> None:
        """`view.chars[start:end]` gives way to `what`."""
        place = slice(view.starts[start], view.ends[end - 1])
        self._marks[place] = [what] * (place.stop - place.start)

    def ends_marked(self) -> bool:
        """Whether its end goes already."""
        return bool(self._marks[-1])

    def left(self) -> str:
        """The text, with what was marked replaced."""
        pieces = groupby(zip(self._marks, self.text, strict=True), key=lambda pair: pair[0])
        return "".join(mark or "".join(char for _, char in pairs) for mark, pairs in pieces)


class _Prompt:
    """Every string of a request, ready to be compared with."""

    def __init__(self, request: Request) -> None:
        self.text = "\n" + "\n\0\n".join(_strings(request)).casefold()
        # translate() is the faster one, but only for ASCII.
        dense = self.text.translate(_NO_SPACE) if self.text.isascii() else "".join(self.text.split())
        self._dense = "\0" * _STRIDE + dense.replace("+", "")

    def short_lines(self, among: set[str]) -> set[str]:
        """Which of `among` are lines of the prompt, and no ordinary words."""
        lines = among.intersection(map(str.strip, self.text.split("\n")))
        return {line for line in lines if not _PLAIN_WORD.fullmatch(line)}

    def pieces(self, texts: list[_View]) -> _Pieces:
        """The prompt's pieces that stand in `texts`, and how far they go on there to either side."""
        text, last = self._dense, len(self._dense) - _PIECE + 1
        among = {window for view in texts for window in view.windows(_PIECE)}
        around = {
            text[i - _STRIDE : i + _PIECE + _STRIDE]
            for i in range(_STRIDE, last, _STRIDE)
            if text[i : i + _PIECE] in among
        }
        end = _STRIDE + _PIECE
        alone = {piece[_STRIDE:end] for piece in around}
        longer, earlier = set[str](), set[str]()
        after, before = {piece[_STRIDE:] for piece in around}, {piece[:end] for piece in around}
        for size in range(_PIECE + 1, end + 1) if around else ():
            among = {window for view in texts for window in view.windows(size)}
            after = {piece for piece in after if piece[:size] in among}
            before = {piece for piece in before if piece[-size:] in among}
            longer |= {piece[:size] for piece in after}
            earlier |= {piece[-size:] for piece in before}
        return _Pieces(alone, longer, earlier)


class _Pieces(NamedTuple):
    """Pieces of a prompt: as they are, with what goes on, with what goes before."""

    alone: set[str]
    longer: set[str]
    earlier: set[str]


def _mark_prompt(texts: list[_Said], prompt: _Prompt) -> None:
    phrases = {view.chars[a:b] for said in texts for view in said.views for a, b in view.phrases()}
    lines = prompt.short_lines(phrases)
    pieces = prompt.pieces([view for said in texts for view in said.dense])
    for said in texts:
        for view in said.views if lines else ():
            for start, end in view.phrases():
                if view.chars[start:end] in lines:
                    said.mark(view, start, end, _PROMPT)
        for view in said.dense if pieces.alone else ():
            for start, end in _runs(view, pieces):
                if _tells(said.written(view, start, end)):
                    said.mark(view, start, end, _PROMPT)
        _mark_cut_line(said, prompt)


def _runs(view: _View, pieces: _Pieces) -> Iterator[tuple[int, int]]:
    """Start and end of what the prompt's pieces cover, to the letter."""
    chars, begun = view.chars, dict[int, int]()
    for i, window in enumerate(view.windows(_PIECE)):
        if window not in pieces.alone:
            continue
        start, end = begun.pop(i, i), i + _PIECE
        while start and start > i - _STRIDE and chars[start - 1 : i + _PIECE] in pieces.earlier:
            start -= 1
        while end < min(len(chars), i + _PIECE + _STRIDE) and chars[i : end + 1] in pieces.longer:
            end += 1
        if end == i + _PIECE + _STRIDE:
            begun[i + _STRIDE] = start  # the next piece goes on with it
        else:
            yield start, end


def _tells(written: str) -> bool:
    """Whether what text and prompt share is long enough to be a quotation."""
    if written.casefold().strip("\"'`.,:;()[]{} ") in _API_WORDS:
        return False
    return len(written) >= _RUN or (len(written) >= _LONG_WORD and not re.search(r"\s", written))


def _mark_cut_line(said: _Said, prompt: _Prompt) -> None:
    """Where a text ends within a short line of the prompt, or early in a long one."""
    view = said.views[0]
    end = len(view.chars.rstrip("\ufffd"))
    if said.ends_marked():
        return
    for size in reversed(_SHORT_LINE):
        if size <= end and "\n" + view.chars[end - size : end] in prompt.text:
            said.mark(view, end - size, len(view.chars), _PROMPT)
            return


def _mark_keys(texts: list[_Said], forms: set[str]) -> None:
    parts: dict[int, set[str]] = {}
    for form in forms:
        size = min(_KEY_PART, len(form))
        parts.setdefault(size, set()).update(form[i : i + size] for i in range(len(form) - size + 1))
    for said in texts:
        for view in said.dense:
            for size, known in parts.items():
                for i, window in enumerate(view.windows(size)):
                    if window in known:
                        said.mark(view, i, i + size, _KEY)
            _mark_cut_key(said, view, forms)


def _mark_cut_key(said: _Said, view: _View, forms: set[str]) -> None:
    end = len(view.chars.rstrip("\ufffd"))
    for form in forms:
        for size in range(min(len(form), end), _KEY_START - 1, -1):
            if view.chars.endswith(form[:size], 0, end):
                said.mark(view, end - size, len(view.chars), _KEY)
                break


def _forms(secret: str) -> Iterator[str]:
    """A secret as views show it: as it is, and in base64, wherever it begins in what was encoded."""
    yield from filter(None, [_View.of(secret).dense().chars])
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + secret.encode()).decode().rstrip("=")
        # What it shares a character with on either side is not known.
        whole = coded[(0, 2, 3)[shift] : len(coded) - bool((shift + len(secret.encode())) % 3)]
        if len(whole) >= _KEY_PART:
            for form in {whole, whole.replace("+", "-").replace("/", "_")}:
                yield _View.of(form).dense().chars


def _unescape(code: str) -> str:
    if code.startswith("&"):
        return html.unescape(code) if code.endswith(";") else ""
    if code.startswith(("%", "\\x")):
        return unquote(code.replace("\\x", "%")) if len(code) > 2 else ""
    if code.startswith("\\u") and len(code) >= 6:
        units = bytes.fromhex(code.replace("\\u", ""))
        return units.decode("utf-16-be", "replace")
    return _CONTROLS.get(code[1:], code[1:2] if len(code) == 2 else "")


def _strings(request: Request) -> Iterator[str]:
    """Every string that a request sends, but the names of its parameters and the kinds of things."""
    left: list[object] = [getattr(request, name) for name in _ASKED]
    left += request.extra.values()
    seen: set[int] = set()
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping | list | tuple | set | frozenset) and id(value) not in seen:
            seen.add(id(value))
            if isinstance(value, Mapping):
                left += [key for key in value if str(key).casefold() not in _API_WORDS]
                left += [value for key, value in value.items() if not _is_kind(key, value)]
            else:
                left += value


def _is_kind(key: object, value: object) -> bool:
    return key in ("type", "role") and isinstance(value, str) and value.isidentifier() and len(value) <= 40
