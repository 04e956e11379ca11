"""What a server said of a failure, in any of the forms the three wires and their imitators use.

Knows statuses, error codes and the shapes of error bodies; must not know backends, nor decide what
follows. Codes and types are read first, an error's text last. A server's own words follow ours, cut
short; taking secrets out of them is a higher floor's job.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import partial
from math import isfinite
from typing import Any, Final, Literal, TypeAlias

from ccroute.errors import (
    BackendError,
    ContextWindowExceededError,
    InvalidRequestError,
    OverloadedError,
    ProtocolError,
    RateLimitError,
    ServerError,
)
from ccroute.types import JSON
from ccroute.wire.kinds import BY_CODE, BY_MEANING, BY_STATUS, LACKING, OURS, WITHOUT_STATUS, Failure
from ccroute.wire.parameters import refused_parameter
from ccroute.wire.reading import listed, load, mapping, shown, text
from ccroute.wire.wordings import ANYWHERE, LEAD, LIMITS, PROMPTS, STATUSES, WORDINGS, Wording

LONGEST_WAIT: Final = 7 * 86_400.0
"""The longest Retry-After that is believed, in seconds."""

_WORDS_SHOWN: Final = 300  # characters of a server's own message
_FAULTS: Final = 5  # of a list
_DIGITS: Final = 10  # of a number of tokens that is believed, one too many

_WORDS_READ: Final = 4000
"""Characters of a server's words that are searched: some quote the whole request."""
_TRY_AGAIN: Final = re.compile(r"try again in (\d+(?:\.\d+)?) ?(ms|s)\b", re.IGNORECASE)
_SECONDS: Final = re.compile(r"(\d+(?:\.\d+)?)s")


@dataclass(frozen=True, slots=True)
class Told:
    """A failure in a server's words: `message` is what it says, `words` all that may be searched.

    `limit` and `prompt` are tokens, `wait` is in seconds; `status` is one that was written into the body,
    `codes` are in lower case, `param` is the field of the request that is at fault.
    """

    message: str = ""
    words: str = ""
    codes: frozenset[str] = frozenset()
    param: str = ""
    status: int | None = None
    limit: int | None = None
    prompt: int | None = None
    wait: float | None = None
    request_id: str | None = None


def is_error(frame: Mapping[str, JSON]) -> bool:
    """Whether a frame, or a whole body under HTTP 200, reports a failure."""
    return bool(frame.get("error")) or frame.get("object") == "error" or frame.get("type") == "error"


def read_body(body: bytes) -> Told:
    """What an error body says. It may be JSON of any shape, plain text or a web page; it never raises."""
    try:
        return read(load(body))
    except ProtocolError:
        plain = shown(body).strip()
        return Told() if plain.startswith("<") else Told(message=plain, words=plain)


def read(value: JSON) -> Told:
    """What a decoded error says, whichever server wrote it."""
    if isinstance(value, list) and value:
        return read(value[0])  # Google and Hugging Face wrap their error in a list
    if isinstance(value, str):
        return Told(message=value, words=value)
    frame = mapping(value)
    error = frame.get("error")
    inner = mapping(error)
    both = {**frame, **inner}
    message = text(error) or _message(both)
    metadata = mapping(both.get("metadata"))
    details = inner.get("details")
    places = (inner, frame, metadata, mapping(details), mapping(inner.get("innererror")))
    keys = ("code", "type", "error_type", "error_code", "status_code")
    codes = [place.get(key) for place in places for key in keys]
    return Told(
        message=message,
        words=f"{message} {text(metadata.get('raw'))}",
        codes=frozenset(str(code).lower() for code in codes if isinstance(code, str | int)),
        param=text(both.get("param")),
        status=next((status for code in codes if (status := _status(code))), None),
        limit=_tokens(both.get("n_ctx")),
        prompt=_tokens(both.get("n_prompt_tokens")),
        wait=_told_wait(both, details),
        request_id=text(frame.get("request_id")) or None,
    )


def classified(
    told: Told,
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    hint: str = "",
    words: str | None = None,
) -> Failure:
    """The typed error. `status` is that of a non-2xx answer; a failure inside a stream has none.

    `words` are those that count, where they are not all that the server said.
    """
    said = told.words[:_WORDS_READ] if words is None else words
    kind, found = _kind(told, said, status)
    headers = headers or {}
    wait = retry_after(headers)
    if wait is None and issubclass(kind, RateLimitError | OverloadedError):
        wait = told.wait if told.wait is not None else _wait_in(said)
    failure = kind(
        _sentence(hint or _said_by_us(kind, status, lacks=_lacks(found)), told.message),
        status=status,
        retry_after=wait,
        request_id=headers.get("request-id") or headers.get("x-request-id") or told.request_id,
        body=shown(body) if body else None,
        should_retry={"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower()),
    )
    if isinstance(failure, ContextWindowExceededError):
        failure.limit = told.limit or _number("limit", found, LIMITS, said)
        failure.estimated = told.prompt or _number("prompt", found, PROMPTS, said)
    elif isinstance(failure, InvalidRequestError):
        failure.elsewhere = _lacks(found)
        if failure.elsewhere:
            failure.parameter = refused_parameter(told.param, said)
    elif isinstance(failure, OverloadedError):
        failure.loading = found is not None and found[0].meaning == "loading"
    elif isinstance(failure, RateLimitError) and status == 413:
        failure.should_retry = False  # one request alone is more than the limit, so waiting does not help
    if words is None and (found is not None or issubclass(kind, RateLimitError | OverloadedError)):
        facts = {"status": status, "headers": headers, "body": body, "hint": hint}
        failure.read_again = partial(_read_again, told, facts)
    return failure


def _read_again(told: Told, facts: Mapping[str, Any], blanked: Callable[[str], str]) -> Failure | None:
    """The typed error by what is left of the words; None where nothing was taken out of them."""
    words = told.words[:_WORDS_READ]
    left = blanked(words)
    return None if left == words else classified(told, **facts, words=left)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """How long to wait, in seconds, if the server said so and it makes sense.

    A date counts from the answer's own `date`, so that no clock is asked; without one it says nothing.
    """
    wait = _wait(headers.get("retry-after-ms"), 0.001)
    if wait is None:
        wait = _wait(headers.get("retry-after"), 1.0)
    if wait is not None:
        return wait
    until, now = _date(headers.get("retry-after")), _date(headers.get("date"))
    if until is None or now is None:
        return None
    wait = max(0.0, (until - now).total_seconds())
    return wait if wait <= LONGEST_WAIT else None


_Found: TypeAlias = tuple[Wording, re.Match[str]]


def _kind(told: Told, words: str, status: int | None) -> tuple[type[Failure], _Found | None]:
    """The class of a failure, and the wording that tells more of it."""
    implied = status or told.status
    found = _wording(words, implied)
    for code, kind in BY_CODE.items():
        if code in told.codes:
            return kind, found
    if found is not None:
        return BY_MEANING[found[0].meaning], found
    if status is None:
        for code, kind in WITHOUT_STATUS.items():
            if code in told.codes:
                return kind, None
    if implied is None:
        return ServerError, None
    return BY_STATUS.get(implied, ServerError if implied >= 500 else BackendError), None


def _wording(words: str, status: int | None) -> _Found | None:
    """The first row of the table that fits."""
    for wording in WORDINGS:
        if status not in STATUSES[wording.meaning]:
            continue
        anywhere = ANYWHERE.get(wording.meaning)
        if anywhere is None or status in anywhere:
            match = re.search(wording.pattern, words, re.IGNORECASE)  # compiled at its first use
        else:
            match = re.match(f"{LEAD}(?:{wording.pattern})", words, re.IGNORECASE)
        if match:
            return wording, match
    return None


def _lacks(found: _Found | None) -> bool:
    """Whether it is only this deployment that cannot serve the request."""
    return found is not None and found[0].meaning in ("lacks", "feature", "output")


def _said_by_us(kind: type[Failure], status: int | None, *, lacks: bool = False) -> str:
    if status is not None and 300 <= status < 400:
        return "the server redirects, and redirects are not followed: fix base_url"
    return LACKING if lacks and kind is InvalidRequestError else OURS[kind]


def _sentence(ours: str, theirs: str) -> str:
    line = next((line for line in theirs.splitlines() if line.strip()), "").strip()
    if not line or line.startswith("<"):
        return ours
    return f"{ours}: {line[:_WORDS_SHOWN]}"


def _message(fields: Mapping[str, JSON]) -> str:
    """What an error says, under whichever name, as a text or (Mistral, FastAPI) as a list of faults."""
    for name in ("message", "detail", "msg"):
        value = fields.get(name)
        if isinstance(value, dict):
            value = value.get("detail")
        if isinstance(value, list):
            value = "; ".join(filter(None, map(_fault, value[:_FAULTS])))
        if isinstance(value, str) and value:
            return value
    return ""


def _fault(value: JSON) -> str:
    """One fault of a list: where, and what."""
    fault = mapping(value)
    place = ".".join(part for part in listed(fault.get("loc")) if isinstance(part, str) and part != "body")
    said = text(fault.get("msg"))
    return f"{place}: {said}" if place and said else said


def _told_wait(fields: Mapping[str, JSON], details: JSON) -> float | None:
    """Seconds that a body asks to wait for: Hugging Face's, a plan's, or Google's."""
    for name in ("estimated_time", "resets_in_seconds"):
        if isinstance(seconds := fields.get(name), int | float):
            return _wait(str(seconds), 1.0)
    for detail in listed(details):
        if found := _SECONDS.fullmatch(text(mapping(detail).get("retryDelay"))):
            return _wait(found[1], 1.0)
    return None


def _wait_in(words: str) -> float | None:
    """Seconds that a text asks to wait for."""
    found = _TRY_AGAIN.search(words)
    return None if found is None else _wait(found[1], 0.001 if found[2].lower() == "ms" else 1.0)


def _status(code: object) -> int | None:
    """A status written as a code: an int, or (LiteLLM) a str."""
    if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) == 3:
        code = int(code)
    return code if isinstance(code, int) and 400 <= code < 600 else None


def _tokens(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _number(
    name: Literal["limit", "prompt"], found: _Found | None, pattern: re.Pattern[str], words: str
) -> int | None:
    """A number of tokens: of the row that fits, else as such numbers are usually told."""
    told = found[1].groupdict().get(name) if found is not None and found[0].meaning == "overflow" else None
    if told is None and (match := pattern.search(words)):
        told = match[name]
    return int(told) if told is not None and len(told) < _DIGITS else None


def _wait(value: str | None, unit: float) -> float | None:
    try:
        wait = float(value or "") * unit
    except ValueError:
        return None
    return wait if isfinite(wait) and 0 <= wait <= LONGEST_WAIT else None


def _date(value: str | None) -> datetime | None:
    try:
        date = parsedate_to_datetime(value or "")
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date if date.tzinfo else None
