"""Takes keys and prompts out of what a server said, before anybody may see it.

Knows a text and what must not be in it, however it is written; must not know who said it. A text is
read as it stands and with its escapes undone, without case and whitespace; what is found in any of
these views goes from the text itself. All of it is linear in the lengths of text and prompt.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator

from ccroute.errors import BackendError, RequestError
from ccroute.flow.readings import API_WORDS, Text, View, dense, strings
from ccroute.types import Request

_KEY_LIKE = re.compile(
    r"\b(?:sk|pk|gsk|xai|key|ghp|hf)[-_][A-Za-z0-9_-]{8,}|\bBearer\s+\S+|\beyJ[A-Za-z0-9_.-]{20,}"
)
_URL_CREDENTIALS = re.compile(r"(://)[^/\s@]+@")

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
_PLAIN_WORD = re.compile(r"[^\W\d]*")

_STEP, _PIECE = 5, 8
"""A piece of the prompt begins every 5 characters and is 8 long: whatever has 12 in a row holds one."""
_BESIDE = _STEP + _PIECE


def clean(error: BackendError | RequestError, secrets: Iterable[str], request: Request) -> None:
    """Remove `secrets`, anything that looks like a key, and the prompt from what `error` shows.

    Servers quote the key they refuse and the message they could not parse. Of a key, any long part
    goes, also in base64; of every string of the request, what text and string share for 16 characters
    in a row, long words, and short lines that are quoted whole. Its causes go too: they hold the
    server's words as they were.
    """
    texts = {name: Text(text) for name in ("detail", "body", "request_id") if (text := getattr(error, name))}
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


class _Prompt:
    """Every string of a request, ready to be compared with."""

    def __init__(self, request: Request) -> None:
        self.text = "\n" + "\n\0\n".join(strings(request)).casefold()
        self._dense = "\0" * _STEP + dense(self.text) + "\0" * _STEP

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


def _mark_prompt(texts: list[Text], prompt: _Prompt) -> None:
    lines = prompt.short_lines(
        {view.chars[a:b] for t in texts for view in t.views for a, b in view.phrases(_SHORT_LINE)}
    )
    pieces = prompt.pieces({window for t in texts for view in t.dense for window in view.windows(_PIECE)})
    for text in texts:
        for view in text.views:
            for start, end in view.phrases(_SHORT_LINE):
                if view.chars[start:end] in lines:
                    text.mark(view, start, end, "[prompt]")
    _mark_runs(texts, pieces)
    for text in texts:
        _mark_cut_line(text, prompt)


def _mark_runs(texts: list[Text], pieces: set[str]) -> None:
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
    if shared.casefold().strip("\"'`.,:;()[]{} ") in API_WORDS:
        return False
    return len(shared) >= _RUN or _LONG_WORD.search(shared) is not None


def _mark_cut_line(text: Text, prompt: _Prompt) -> None:
    """Where a text was cut off, the start of a line is too short to be found as a run."""
    view, end = text.views[0], text.views[0].uncut()
    shortest = _SHORT_LINE.start if len(text.text) < _CUT_FROM else _KEY_START
    for size in range(_RUN - 1, shortest - 1, -1) if not text.marks[-1] else ():
        if size <= end and "\n" + view.chars[end - size : end] in prompt.text:
            text.mark_from(view, end - size, "[prompt]")
            return


def _mark_keys(texts: list[Text], forms: set[str]) -> None:
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


def _mark_cut_key(text: Text, view: View, forms: set[str]) -> None:
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
    return filter(None, (View.of(code).dense().chars for code in codes))
