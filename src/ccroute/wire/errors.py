"""What a server said of a failure, in any of the forms the three wires and their imitators use.

Knows statuses, error codes and the shapes of error bodies; must not know backends, nor decide what
follows. Codes and types are read first, an error's text last. A server's own words follow ours, cut
short; taking secrets out of them is a higher floor's job.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Final, TypeAlias

from ccroute.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    ContentPolicyError,
    ContextWindowExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    QuotaExhaustedError,
    RateLimitError,
    RequestError,
    ServerError,
)
from ccroute.types import JSON
from ccroute.wire.reading import load, mapping, shown, text

Failure: TypeAlias = BackendError | RequestError

LONGEST_WAIT: Final = 7 * 86_400.0
"""The longest Retry-After that is believed, in seconds."""

_WORDS_SHOWN: Final = 300  # characters of a server's own message

_OURS: Final[dict[type[Failure], str]] = {
    InvalidRequestError: "the server refused the request as invalid",
    ContextWindowExceededError: "the prompt exceeds the context window: shorten it, or use a larger model",
    ContentPolicyError: "the provider's content policy refused the request: rephrase it",
    AuthenticationError: "the key is missing or wrong: check api_key",
    QuotaExhaustedError: "a billing limit is reached and waiting does not clear it: check plan and balance",
    PermissionDeniedError: "the key may not do this: check what it is allowed",
    ModelNotFoundError: "the server has no such model or path: check the model's name and base_url",
    RateLimitError: "too many requests or tokens: send fewer, or wait",
    OverloadedError: "the server has no room now: try again later",
    ServerError: "the server failed: try again, or look at its log",
    BackendTimeoutError: "the server gave up waiting: try again",
    BackendError: "the server refused: check base_url and what the server expects",
}

_BY_STATUS: Final[dict[int, type[Failure]]] = {
    400: InvalidRequestError,
    401: AuthenticationError,
    402: QuotaExhaustedError,
    403: PermissionDeniedError,
    404: ModelNotFoundError,
    408: BackendTimeoutError,
    409: OverloadedError,
    413: InvalidRequestError,
    422: InvalidRequestError,
    424: ServerError,
    425: OverloadedError,
    429: RateLimitError,
    503: OverloadedError,
    529: OverloadedError,
}

# These codes say more than any status does.
_BY_CODE: Final[dict[str, type[Failure]]] = {
    **dict.fromkeys(
        ("context_length_exceeded", "context_window_exceeded", "exceed_context_size_error"),
        ContextWindowExceededError,
    ),
    **dict.fromkeys(
        ("content_filter", "content_policy_violation", "responsibleaipolicyviolation"), ContentPolicyError
    ),
    **dict.fromkeys(
        (
            "billing_error",
            "billing_hard_limit_reached",
            "credit_balance_exhausted",
            "enforced_spend_limit_reached",
            "insufficient_quota",
            "organization_spend_limit_exceeded",
            "organization_usage_limit_exceeded",
            "project_spend_limit_exceeded",
        ),
        QuotaExhaustedError,
    ),
    "model_not_found": ModelNotFoundError,
}

# These only repeat the status, so they count where there is none: in a stream, or under HTTP 200.
_WITHOUT_STATUS: Final[dict[str, type[Failure]]] = {
    **dict.fromkeys(("authentication_error", "invalid_api_key"), AuthenticationError),
    **dict.fromkeys(
        ("invalid_request_error", "badrequesterror", "request_too_large", "validation"), InvalidRequestError
    ),
    **dict.fromkeys(("not_found_error", "notfounderror"), ModelNotFoundError),
    **dict.fromkeys(("overloaded_error", "overloaded", "unavailable_error"), OverloadedError),
    "permission_error": PermissionDeniedError,
    **dict.fromkeys(("rate_limit_error", "rate_limit_exceeded"), RateLimitError),
    "timeout_error": BackendTimeoutError,
}

_OVERFLOW: Final = re.compile(
    r"exceeds? (?:the )?(?:\w+ ){0,2}context|maximum context length|prompt (?:is )?too long|input is too long"
    r"|exceeds the maximum number of tokens|max_new_tokens` must be|must have less than \d+ tokens",
    re.IGNORECASE,
)
_POLICY: Final = re.compile(r"content filtering policy|content management policy", re.IGNORECASE)
_BILLING: Final = re.compile(r"credit balance is too low", re.IGNORECASE)
_BY_TEXT: Final[tuple[tuple[re.Pattern[str], type[Failure]], ...]] = (
    (_OVERFLOW, ContextWindowExceededError),
    (_POLICY, ContentPolicyError),
    (_BILLING, QuotaExhaustedError),
)
_LIMIT: Final = re.compile(
    r"(?:context (?:length|size)(?: is| of)? \(?|> ?|must be <= |have less than |tokens allowed \()(\d{1,9})",
    re.IGNORECASE,
)
_PROMPT: Final = re.compile(
    r"(?:requested |resulted in |too long: |request \(|given: |token count \()(\d{1,9})", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Told:
    """A failure in a server's words. `limit` and `prompt` are tokens; `status` is one that was written
    into the body, `codes` are in lower case."""

    message: str = ""
    codes: frozenset[str] = frozenset()
    status: int | None = None
    limit: int | None = None
    prompt: int | None = None
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
        return Told() if plain.startswith("<") else Told(message=plain)


def read(value: JSON) -> Told:
    """What a decoded error says, whichever server wrote it."""
    if isinstance(value, str):
        return Told(message=value)
    frame = mapping(value)
    error = frame.get("error")
    inner = mapping(error)
    both = {**frame, **inner}
    message = text(error) or text(both.get("message")) or _fastapi(frame.get("detail"))
    places = (inner, frame, mapping(inner.get("details")), mapping(inner.get("innererror")))
    keys = ("code", "type", "error_type", "error_code", "status_code")
    codes = [place.get(key) for place in places for key in keys]
    return Told(
        message=message,
        codes=frozenset(code.lower() for code in codes if isinstance(code, str)),
        status=next((status for code in codes if (status := _status(code))), None),
        limit=_tokens(both.get("n_ctx")) or _number(_LIMIT, message),
        prompt=_tokens(both.get("n_prompt_tokens")) or _number(_PROMPT, message),
        request_id=text(frame.get("request_id")) or None,
    )


def classified(
    told: Told,
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    hint: str = "",
) -> Failure:
    """The typed error. `status` is that of a non-2xx answer; a failure inside a stream has none."""
    kind = _kind(told, status)
    headers = headers or {}
    failure = kind(
        _sentence(hint or _said_by_us(kind, status), told.message),
        status=status,
        retry_after=retry_after(headers),
        request_id=headers.get("request-id") or headers.get("x-request-id") or told.request_id,
        body=shown(body) if body else None,
        should_retry={"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower()),
    )
    if isinstance(failure, ContextWindowExceededError):
        failure.limit, failure.estimated = told.limit, told.prompt
    return failure


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


def _kind(told: Told, status: int | None) -> type[Failure]:
    for code, kind in _BY_CODE.items():
        if code in told.codes:
            return kind
    implied = status or told.status
    if implied in (None, 400, 413, 422, 500):
        for pattern, kind in _BY_TEXT:
            if pattern.search(told.message):
                return kind
    if status is None:
        for code, kind in _WITHOUT_STATUS.items():
            if code in told.codes:
                return kind
    if implied is None:
        return ServerError
    return _BY_STATUS.get(implied, ServerError if implied >= 500 else BackendError)


def _said_by_us(kind: type[Failure], status: int | None) -> str:
    if status is not None and 300 <= status < 400:
        return "the server redirects, and redirects are not followed: fix base_url"
    return _OURS[kind]


def _sentence(ours: str, theirs: str) -> str:
    line = next((line for line in theirs.splitlines() if line.strip()), "").strip()
    if not line or line.startswith("<"):
        return ours
    return f"{ours}: {line[:_WORDS_SHOWN]}"


def _fastapi(value: JSON) -> str:
    """FastAPI's `detail`: a text, or a list of faults each with a `msg`."""
    if isinstance(value, list) and value:
        value = mapping(value[0]).get("msg")
    return text(value)


def _status(code: object) -> int | None:
    """A status written as a code: an int, or (LiteLLM) a str."""
    if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) == 3:
        code = int(code)
    return code if isinstance(code, int) and 400 <= code < 600 else None


def _tokens(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _number(pattern: re.Pattern[str], message: str) -> int | None:
    found = pattern.search(message)
    return int(found[1]) if found else None


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
