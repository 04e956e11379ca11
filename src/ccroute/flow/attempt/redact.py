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
from ccroute.wire.errors.phrases import any_of
from ccroute.wire.errors.typed import WORDS_SHOWN, described, typed_error

_KEPT = 2048  # characters of a body; as many are read beyond a limit, so that no secret is cut in two
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

_RUN = 24  # characters in a row that text and request do not share by chance, not counting whitespace
_SIZES = (12, 16, _RUN)  # of pieces of a text: short ones are found faster, longer ones less often by chance
_LONG = 50_000  # characters; in a longer text all pieces are looked for at once
_CODE = r"\\+u([0-9a-fA-F]{4})"  # as in JSON, or in JSON within JSON
_DOTS = r"\.\.\.|…"
_NESTED = (dict, list, tuple, Mapping)
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
    if len(text) >= _RUN:
        asked = asked.replace("\n", "") if asked else _compact("\n".join(_strings(request)))
        if _repeats(text, asked):
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
    lower = read.lower()
    for code in codes:
        if code in lower:
            read = re.sub(re.escape(code), "[key]", read, flags=re.IGNORECASE)
            lower = read.lower()
    if codes and len(text) >= limit + _KEPT:
        read = read[: -max(map(len, codes))]  # it may end in a part of a secret
    return read[:limit]


def _strings(request: Request) -> list[str]:
    """Every string that a request sends, names of fields too."""
    left: list[object] = [getattr(request, name) for name in _SENT if getattr(request, name) is not None]
    found, seen = list[str](), set[int]()
    while left:
        value = left.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, _NESTED) and id(value) not in seen:
            seen.add(id(value))  # a value that holds itself would never end
            left += [*value, *value.values()] if isinstance(value, Mapping) else value
    return found


def _compact(text: str, blanks: str = " \t\r\n") -> str:
    """`text` without case, whitespace and backslashes: however it is escaped, it is the same."""
    if "\\" in text:  # a prompt may have millions, and no deadline ends this
        text = re.sub(_CODE, lambda found: chr(int(found[1], 16)), text) if "\\u" in text else text
        for escape in ("\\n", "\\r", "\\t"):
            text = text.replace(escape, "")
    blanks += "\\"
    if text.isascii():  # for other text, this is slow
        return text.translate(str.maketrans(ascii_uppercase, ascii_lowercase, blanks))
    return text.casefold().encode(errors="replace").translate(None, blanks.encode()).decode()


def _repeats(text: str, asked: str) -> bool:
    """Whether a run of `text` is in `asked`. Linear in both."""
    return len(text) >= _RUN and all(_has_any(asked, _pieces(text, size)) for size in _SIZES)


def _has_any(text: str, pieces: list[str]) -> bool:
    """Whether one of `pieces` is in `text`."""
    return any_of(pieces)(text) if len(text) > _LONG else any(piece in text for piece in pieces)


def _pieces(text: str, size: int) -> list[str]:
    """So many pieces of `text` that any run of it has a whole one."""
    return [text[i : i + size] for i in range(0, len(text) - size + 1, _RUN - size + 1)]


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
        rest = rest[: len(head)] + re.split(_DOTS, rest[len(head) :], maxsplit=1)[0]
        cut = len(head) >= 16 and (line.startswith(rest) or text[max(here, 1) - 1] in "'\"`([{«‘“„")
        if here >= 0 and (line in text or cut) and (line != short or " " in phrase.strip()):
            return True  # but a single word stands in any sentence
        at = lines.find(short, end)
    return True
