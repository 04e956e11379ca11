"""Removes from an error our own secrets and what a server repeats of the request.

Knows an error, the secrets and the request; must not know what is done about the error.
"""

import base64
import re
from collections.abc import Mapping
from functools import lru_cache, partial
from string import ascii_lowercase, ascii_uppercase
from typing import NamedTuple

from ccroute.errors import BackendError, RequestError
from ccroute.types import Request
from ccroute.wire.errors import WORDS_SHOWN, described, typed_error
from ccroute.wire.kinds import SUMMARIES

_KEPT = 2048  # characters of a body; as many are read beyond a limit, so that no secret is cut in two
_LONGEST_ESCAPE = 8  # characters for one, as `%252B` or `&#x002b;`
_SHORTEST_SECRET = 8  # a placeholder such as "x" is a part of any word
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

_RUN = 24  # characters in a row that text and request do not share by chance, not counting whitespace
_PIECE, _STEP = 7, 18  # any run holds a piece of the request that begins at a multiple of the step
_MARKED = re.compile(  # a character as in a URL, in JSON or on a web page, also twice
    r"%(?:25){0,9}([0-9a-f]{2})|\\+(?:u([0-9a-f]{4}))?|&(?:amp;)*(?:#x0*([0-9a-f]{1,6})|#0*(\d{1,6})|(\w{2,4}));",
    re.IGNORECASE,
)
_NAMED = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}
_LOWER = str.maketrans(ascii_uppercase + "+", ascii_lowercase + " ")  # a URL may write a blank as a plus
_CODE = re.compile(r"\\+u([0-9a-fA-F]{4})")  # as in JSON, or in JSON within JSON
_DOTS = re.compile(r"\.\.\.|…")
_SENT = ("messages", "stop", "user", "tools", "tool_choice", "response_format", "extra")


class _Codes(NamedTuple):
    """What to look for, in lower case: secrets as they are or in base64, and in a text that is unescaped."""

    plain: list[str]
    bare: list[str]


def cleaned(
    error: BackendError | RequestError,
    secrets: tuple[str, ...],
    request: Request,
    model: str,
    *,
    foreign: bool = False,
) -> BackendError | RequestError:
    """The error without secrets, and without the server's words if they repeat the request.

    It is another one if its class was read from words that the server quoted from `request` or `model`.
    `foreign`: its message is not in ccroute's words.
    """
    payload, codes = error.payload, _encodings(secrets)
    asked: str | None = None
    if payload is not None and payload.words_count:
        asked = _compact("\n".join(_strings(request)), " \t\r")
        lines = f"{_compact(model)}\n{asked}\n"
        error = typed_error(payload, partial(_is_quoted, _compact(payload.words), lines))
    words = summary = ""
    if payload is not None:
        words, summary = _without(codes, payload.line, WORDS_SHOWN), payload.summary
        error.detail = described(payload, words)
    elif foreign or error.status is not None:  # of a user's own backend: its message may be the server's
        words, summary = error.detail, SUMMARIES.get(type(error), SUMMARIES[BackendError])
    error.request_id = request_id(error.request_id, secrets)
    text = _compact(f"{words}\n{error.request_id}")
    if len(text) >= _RUN and asked is None:
        asked = _compact("\n".join(_strings(request)))
    if asked and len(text) >= _RUN and _repeats(text, asked := asked.replace("\n", "")):
        error.detail = summary or error.detail
        error.request_id = None if _repeats(_compact(f"{error.request_id}"), asked) else error.request_id
    error.detail = _without(codes, error.detail, _KEPT)
    error.body = error.body and _without(codes, error.body, _KEPT)
    error.args = (error.detail,)
    error.payload = error.__cause__ = error.__context__ = None  # they hold what the server said
    return error


def request_id(value: str | None, secrets: tuple[str, ...]) -> str | None:
    """A server's id of a request if it looks like one and holds no secret, else None."""
    plain = value is not None and _ID.fullmatch(value)
    return value if plain and _without(_encodings(secrets), plain[0], 128) == value else None


def _without(codes: _Codes, text: str, limit: int) -> str:
    """`text` without the secrets that `codes` encode, cut to `limit` characters."""
    read = text[: limit + _KEPT]
    lower, rest = read.lower(), max(map(len, codes.plain), default=0)
    for code in codes.plain:
        if code in lower:
            read = re.sub(re.escape(code), "[key]", read, flags=re.IGNORECASE)
            lower = read.lower()
    if found := _spans(codes.bare, read):
        rest *= _LONGEST_ESCAPE
        for start, end in reversed(found):
            read = f"{read[:start]}[key]{read[end:]}"
    if rest and len(text) >= limit + _KEPT:
        read = read[:-rest]  # it may end in a part of a secret
    return read[:limit]


@lru_cache(maxsize=64)
def _encodings(secrets: tuple[str, ...]) -> _Codes:
    codes, bare = set[str](), set[str]()
    for secret in {*secrets, *(value.removeprefix("Bearer ") for value in secrets)}:  # of headers
        if len(secret) >= _SHORTEST_SECRET:
            codes.add(secret)
            bare.add(_unescaped(secret)[0])
            for before in range(3):  # base64 of "user:secret", too, whatever the user's length
                code = base64.b64encode(bytes(before) + secret.encode()).decode().rstrip("=")
                code = code[(0, 2, 3)[before] : len(code) - ((before + len(secret.encode())) % 3 > 0)]
                codes |= {code, code.replace("+", "-").replace("/", "_")}
    return _Codes([code.lower() for code in codes], [code for code in bare if len(code) >= _SHORTEST_SECRET])


def _spans(bare: list[str], text: str) -> list[tuple[int, int]]:
    """Where secrets stand in `text` with some of their characters escaped: apart, the first one first."""
    if not bare or not any(mark in text for mark in "\\%&+"):
        return []
    plain, starts = _unescaped(text)
    found = list[tuple[int, int]]()
    for code in bare:
        at = plain.find(code)
        while at >= 0:
            found.append((starts[at], starts[at + len(code)]))
            at = plain.find(code, at + len(code))
    apart = list[tuple[int, int]]()
    for start, end in sorted(found):
        if apart and start < apart[-1][1]:
            apart[-1] = (apart[-1][0], max(end, apart[-1][1]))
        else:
            apart.append((start, end))
    return apart


def _unescaped(text: str) -> tuple[str, list[int]]:
    """`text` in lower case, unescaped and without backslashes, and where each character and the end were."""
    parts, starts, at = list[str](), list[int](), 0
    for found in _MARKED.finditer(text):
        in_url, in_json, in_hex, number, name = found.groups()
        code = in_url or in_json or in_hex
        if code or number:
            value = int(code, 16) if code else int(number)
            char = "" if value == ord("\\") else chr(value) if value < 128 else "\ufffd"
        else:
            char = _NAMED.get(name.lower(), "\ufffd") if name else ""
        parts += [text[at : found.start()], char]
        starts += [*range(at, found.start()), *[found.start()] * len(char)]
        at = found.end()
    return ("".join(parts) + text[at:]).translate(_LOWER), [*starts, *range(at, len(text) + 1)]


def _strings(request: Request) -> list[str]:
    """Every string that a request sends, names of fields too."""
    left: list[object] = [getattr(request, name) for name in _SENT]
    found, seen = list[str](), set[int]()
    while left:
        value = left.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))  # a value that holds itself would never end
            left += [*value, *value.values()] if isinstance(value, Mapping) else value
    return found


def _compact(text: str, blanks: str = " \t\r\n") -> str:
    """`text` without case, whitespace and backslashes: however it is escaped, it is the same."""
    if "\\" in text:  # a prompt may have millions, and no deadline ends this
        if "\\u" in text:
            text = _CODE.sub(lambda found: chr(int(found[1], 16)), text)
        for escape in ("\\n", "\\r", "\\t", "\\"):
            text = text.replace(escape, "")
    if text.isascii():  # only then is translate() fast
        return text.translate(str.maketrans(ascii_uppercase, ascii_lowercase, blanks))
    text = text.casefold()
    for blank in blanks:
        text = text.replace(blank, "")
    return text


def _repeats(text: str, asked: str) -> bool:
    """Whether a run of `text` is in `asked`. Linear in both."""
    pieces = {text[i : i + _PIECE] for i in range(len(text) - _PIECE + 1)}
    steps = range(0, len(asked) - _PIECE + 1, _STEP)
    near = {asked[max(0, i - _STEP + 1) : i + _RUN] for i in steps if asked[i : i + _PIECE] in pieces}
    runs = {text[i : i + _RUN] for i in range(len(text) - _RUN + 1)} if near else set[str]()
    return bool(near) and any(part[i : i + _RUN] in runs for part in near for i in range(_STEP))


def _is_quoted(text: str, lines: str, phrase: str) -> bool:
    """Whether `phrase` is in a line of the request that `text` repeats, whole or cut off."""
    short = _compact(phrase)
    at = lines.find(short)
    for _ in range(2000):  # lines; in more of them it is taken for a quotation
        if at < 0:
            return False
        start, end = lines.rfind("\n", 0, at) + 1, lines.find("\n", at)
        line, head = lines[start:end], lines[start : at + len(short)]
        here = text.find(head)
        # A start that stops short counts at the end of the text, before dots, and behind a quotation mark.
        rest = text[here : here + len(line) + 3]
        rest = rest[: len(head)] + _DOTS.split(rest[len(head) :], maxsplit=1)[0]
        cut = len(head) >= 16 and (line.startswith(rest) or text[max(here, 1) - 1] in "'\"`([{«‘“„")
        if here >= 0 and (line in text or cut) and (line != short or " " in phrase.strip()):
            return True  # but a single word stands in any sentence
        at = lines.find(short, end)
    return True
