"""Reads the errors of all three wires and of the servers that imitate them.

Knows statuses, error codes and the shapes of error bodies; must not know backends or retries. Codes and
types are read first, then the text.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import isfinite
from typing import Final, Literal

from ccroute.errors import (
    ContextWindowExceededError,
    InvalidRequestError,
    OverloadedError,
    ProtocolError,
    RateLimitError,
    ServerError,
)
from ccroute.failures import CallFailure, row_of
from ccroute.types import JSON
from ccroute.wire.errors import wordings
from ccroute.wire.errors.codes import BY_CODE, MISSING_FEATURE, REDIRECT, SUMMARIES, WITHOUT_STATUS
from ccroute.wire.errors.parameters import refused_parameter
from ccroute.wire.errors.phrases import IsQuoted, Phrase, find_phrase
from ccroute.wire.reading import listed, load, mapping, shown, text

LONGEST_WAIT: Final = 7 * 86_400.0
"""Seconds. A longer Retry-After is ignored."""
WORDS_SHOWN: Final = 300
"""Characters of a server's message that an error shows."""

_WORDS_READ: Final = 4000  # characters that are searched: some servers quote the whole request
_FAULTS: Final = 5  # shown of a list
_DIGITS: Final = 10  # a number of tokens with so many digits is ignored
_CODES: Final = ("code", "type", "error_type", "error_code", "status_code")
# Patterns are compiled at their first use: most programs see few errors.
_TRY_AGAIN: Final = r"try again in (\d+(?:\.\d+)?) ?(ms|s)\b"
_SECONDS: Final = r"(\d+(?:\.\d+)?)s"


@dataclass(slots=True, repr=False, eq=False)
class ErrorPayload:
    """A server's description of an error. `line` is shown. `words` is the searched text, in lower case.

    `limit` and `prompt` are in tokens, `wait` in seconds. `codes` are in lower case. `param` is the wrong
    field of the request, `body_status` a status within the body.
    """

    line: str = ""
    words: str = ""
    codes: set[str] = field(default_factory=set)
    param: str = ""
    body_status: int | None = None
    limit: int | None = None
    prompt: int | None = None
    wait: float | None = None
    request_id: str | None = None

    # From the answer that holds the error.
    status: int | None = None
    headers: Mapping[str, str] | None = None
    body: str | None = None
    hint: str = ""

    # From the typed error.
    summary: str = ""
    words_count: bool = False
    """Whether `words`, not only status and codes, decided the error."""


def error(status: int, headers: Mapping[str, str], body: bytes) -> CallFailure:
    """Return the typed error of an answer that is not 2xx. Header names are in lower case."""
    return typed_error(parse_body(body, status, headers))


def parse_body(
    body: bytes, status: int | None = None, headers: Mapping[str, str] | None = None
) -> ErrorPayload:
    """Read an error body: JSON of any shape, plain text or a web page. Never raises.

    `status` is the status of an answer that is not 2xx, or None for an error in a stream.
    """
    start = shown(body)
    try:
        payload = parse_error(load(body))
    except ProtocolError:
        payload = ErrorPayload() if start.lstrip().startswith("<") else _plain(start)
    payload.status, payload.headers, payload.body = status, headers, start or None
    return payload


def parse_error(value: JSON) -> ErrorPayload:
    """Read a decoded error of any server."""
    while isinstance(value, list) and value:
        value = value[0]  # Google and Hugging Face wrap their error in a list
    if not isinstance(value, dict):
        return _plain(value) if isinstance(value, str) else ErrorPayload()
    inner = value.get("error")
    message = inner if isinstance(inner, str) else ""
    if not isinstance(inner, dict):
        inner = {}
    both = {**value, **inner}
    metadata, details = both.get("metadata"), inner.get("details")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    payload = _plain(message or _message(both), raw if isinstance(raw, str) else "")
    for place in (inner, value, metadata, details, inner.get("innererror")):
        fields = mapping(place)
        for name in _CODES if fields else ():
            code = fields.get(name)
            if isinstance(code, str | int):
                code = str(code).lower()
                payload.codes.add(code)
                # A gateway may write the status as a code.
                if payload.body_status is None and len(code) == 3 and code[0] in "45" and code.isdecimal():
                    payload.body_status = int(code)
    limit, prompt = both.get("n_ctx"), both.get("n_prompt_tokens")
    payload.limit = limit if isinstance(limit, int) and limit > 0 else None
    payload.prompt = prompt if isinstance(prompt, int) and prompt > 0 else None
    payload.param = text(both.get("param"))
    payload.request_id = text(value.get("request_id")) or None
    for name in ("estimated_time", "resets_in_seconds"):  # Hugging Face's, and a plan's
        if payload.wait is None and isinstance(seconds := both.get(name), int | float):
            payload.wait = _seconds(str(seconds))
    for detail in details if isinstance(details, list) and payload.wait is None else ():
        if found := re.fullmatch(_SECONDS, text(mapping(detail).get("retryDelay"))):  # Google's
            payload.wait = _seconds(found[1])
    return payload


def typed_error(payload: ErrorPayload, is_quoted: IsQuoted | None = None) -> CallFailure:
    """Return the typed error. Text that `is_quoted` finds in the request decides nothing."""
    status, words, headers = payload.status, payload.words, payload.headers or {}
    kind, found = _type(payload, is_quoted)
    payload.words_count = found is not None
    meaning = None if found is None else found[0].meaning
    lacks = kind is InvalidRequestError and meaning in (wordings.LACKS, wordings.FEATURE, wordings.OUTPUT)
    payload.summary = MISSING_FEATURE if lacks else SUMMARIES[kind]
    if status is not None and 300 <= status < 400:
        payload.summary = REDIRECT
    wait = retry_after(headers)
    if wait is None and issubclass(kind, RateLimitError | OverloadedError):
        wait = payload.wait
        if wait is None and (asked := re.search(_TRY_AGAIN, words)):
            payload.words_count = True
            if not (is_quoted and is_quoted(asked[0])):
                wait = _seconds(asked[1], 0.001 if asked[2] == "ms" else 1.0)
    failure = kind(
        described(payload, payload.line[:WORDS_SHOWN]),
        status=status,
        retry_after=wait,
        request_id=headers.get("request-id") or headers.get("x-request-id") or payload.request_id,
        body=payload.body,
        should_retry={"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower()),
    )
    failure.payload = payload
    if isinstance(failure, ContextWindowExceededError):
        failure.limit = payload.limit or _number("limit", found, wordings.LIMITS, words)
        failure.estimated = payload.prompt or _number("prompt", found, wordings.PROMPTS, words)
    elif isinstance(failure, InvalidRequestError) and lacks:
        failure.elsewhere = True
        failure.parameter = refused_parameter(payload.param, words, is_quoted)
    elif isinstance(failure, OverloadedError):
        failure.loading = meaning is wordings.LOADING
    elif isinstance(failure, RateLimitError) and status == 413:
        failure.should_retry = False  # one request alone is more than the limit, so waiting does not help
    return failure


def described(payload: ErrorPayload, words: str) -> str:
    """Return an error's message: what happened and what to do, then the server's `words`."""
    summary = payload.hint or payload.summary
    return f"{summary}: {words}" if words else summary


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait that the headers ask for, or None.

    A date counts from the `date` header, so that no clock is needed. Without that header it is ignored.
    """
    milliseconds, seconds = headers.get("retry-after-ms"), headers.get("retry-after")
    wait = None if milliseconds is None else _seconds(milliseconds, 0.001)
    if wait is not None or seconds is None:
        return wait
    wait = _seconds(seconds)
    if wait is not None:
        return wait
    until, now = _date(seconds), _date(headers.get("date", ""))
    if until is None or now is None:
        return None
    wait = max(0.0, (until - now).total_seconds())
    return wait if wait <= LONGEST_WAIT else None


def _plain(message: str, more: str = "") -> ErrorPayload:
    lines = message[:_WORDS_READ].strip().splitlines()
    line = lines[0].strip() if lines else ""
    return ErrorPayload(
        "" if line.startswith("<") else line, f"{message[:_WORDS_READ]} {more}"[:_WORDS_READ].lower()
    )


def _type(payload: ErrorPayload, is_quoted: IsQuoted | None) -> tuple[type[CallFailure], Phrase | None]:
    """Return the error's class, and the matching row of the table, which may say more."""
    status = payload.status or payload.body_status
    found = find_phrase(payload.words, status, is_quoted)
    for code, kind in BY_CODE.items() if payload.codes else ():
        if code in payload.codes:
            return kind, found
    if found is not None:
        return found[0].meaning.error, found
    if payload.status is None:
        for code, kind in WITHOUT_STATUS.items():
            if code in payload.codes:
                return kind, None
    if status is None:
        return ServerError, None
    return row_of(status).error, None


def _message(fields: Mapping[str, JSON]) -> str:
    """Return the message of an error body. Mistral and FastAPI send a list of faults."""
    for name in ("message", "detail", "msg"):
        value = fields.get(name)
        if isinstance(value, dict):
            value = value.get("detail")
        if isinstance(value, list):
            value = "; ".join(filter(None, map(_one_fault, value[:_FAULTS])))
        if isinstance(value, str) and value:
            return value
    return ""


def _one_fault(value: JSON) -> str:
    """Return one fault of a list as text: its place and its message."""
    fault = mapping(value)
    place = ".".join(part for part in listed(fault.get("loc")) if isinstance(part, str) and part != "body")
    message = text(fault.get("msg"))
    return f"{place}: {message}" if place and message else message


def _number(name: Literal["limit", "prompt"], found: Phrase | None, pattern: str, words: str) -> int | None:
    """Return a number of tokens from the matching row, else from the usual phrase `pattern`."""
    number = None
    if found is not None and found[0].meaning is wordings.OVERFLOW:
        number = found[1].groupdict().get(name)
    if number is None and (match := re.search(pattern, words)):
        number = match[name]
    return int(number) if number is not None and len(number) < _DIGITS else None


def _seconds(value: str, unit: float = 1.0) -> float | None:
    try:
        wait = float(value) * unit
    except ValueError:
        return None
    return wait if isfinite(wait) and 0 <= wait <= LONGEST_WAIT else None


def _date(value: str) -> datetime | None:
    from email.utils import parsedate_to_datetime  # slow to import, and most servers send seconds

    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date if date.tzinfo else None
