"""Removes from an error our own secrets and what a server repeats of the request.

Knows an error, the secrets and the request; must not know what is done about the error.
"""

import re
from collections.abc import Mapping
from functools import partial
from string import ascii_lowercase, ascii_uppercase

from ccroute.backends.credentials import Secrets
from ccroute.errors import BackendError
from ccroute.failures import CallFailure
from ccroute.types import Request
from ccroute.wire.errors.codes import SUMMARIES
from ccroute.wire.errors.typed import WORDS_SHOWN, described, typed_error

_KEPT = 2048  # characters of a body; as many are read beyond a limit, so that no secret is cut in two
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

_RUN = 24  # characters in a row that text and request do not share by chance, not counting whitespace
_PIECE, _STEP = 7, 18  # any run holds a piece of the request that begins at a multiple of the step
_CODE = re.compile(r"\\+u([0-9a-fA-F]{4})")  # as in JSON, or in JSON within JSON
_DOTS = re.compile(r"\.\.\.|…")
_SENT = ("messages", "stop", "user", "tools", "tool_choice", "response_format", "extra")


def cleaned(
    error: CallFailure, secrets: Secrets, request: Request, model: str, *, foreign: bool = False
) -> CallFailure:
    """The error without secrets, and without the server's words if they repeat the request.

    The error may be of another class: a class that was read from a quotation of `request` or `model` is
    read again without it. `foreign`: its message may be the server's.
    """
    payload, codes, asked = error.payload, secrets.codes, ""
    if payload is not None and payload.words_count:
        asked = _compact("\n".join(_strings(request)), " \t\r")
        lines = f"{_compact(model)}\n{asked}\n"
        error = typed_error(payload, partial(_is_quoted, _compact(payload.words), lines))
    words = summary = ""
    if payload is not None:
        words, summary = _without(codes, payload.line, WORDS_SHOWN), payload.summary
        error.detail = described(payload, words)
    elif foreign or error.status is not None:  # of a user's own backend
        words, summary = error.detail, SUMMARIES.get(type(error), SUMMARIES[BackendError])
    error.request_id = request_id(error.request_id, secrets)
    text = _compact(f"{words}\n{error.request_id}")
    asked = (asked or _compact("\n".join(_strings(request)))).replace("\n", "") if len(text) >= _RUN else ""
    if asked and _repeats(text, asked):
        error.detail = summary or error.detail
        error.request_id = None if _repeats(_compact(f"{error.request_id}"), asked) else error.request_id
    error.detail = _without(codes, error.detail, _KEPT)
    error.body = error.body and _without(codes, error.body, _KEPT)
    error.args = (error.detail,)
    error.payload = error.__cause__ = error.__context__ = None  # they hold what the server said
    return error


def request_id(value: str | None, secrets: Secrets) -> str | None:
    """A server's id of a request if it looks like one and holds no secret, else None."""
    plain = value is not None and _ID.fullmatch(value)
    return value if plain and _without(secrets.codes, plain[0], 128) == value else None


def _without(codes: list[str], text: str, limit: int) -> str:
    """`text` without the secrets that `codes` encode, cut to `limit` characters."""
    read = text[: limit + _KEPT]
    for code in codes:
        if code in read.lower():
            read = re.sub(re.escape(code), "[key]", read, flags=re.IGNORECASE)
    if codes and len(text) >= limit + _KEPT:
        read = read[: -max(map(len, codes))]  # it may end in a part of a secret
    return read[:limit]


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
        text = _CODE.sub(lambda found: chr(int(found[1], 16)), text) if "\\u" in text else text
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
