"""The fate of every failure, in one table: what it costs, what may follow it, and who else hears of it.

A status leads to an error's type and to a rule; an error without a deciding status leads to a rule by its
type. Everything else in ccroute asks the rule. A 503, for example, is `STATUSES[503]`: an `OverloadedError`
by the rule `OVERLOADED`.

Sources: `docs/architecture.md`, "Failures".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from ccroute.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    CcrouteError,
    ConnectionFailedError,
    ContextWindowExceededError,
    EgressDeniedError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    QuotaExhaustedError,
    RateLimitError,
    RequestError,
    ServerError,
    StreamInterruptedError,
)
from ccroute.types import FailureClass

Trigger = Literal["token_limit", "rate_limit", "availability", "budget"]
"""The kinds of failure for which an agent's fallback models may be used."""
TRIGGERS: tuple[Trigger, ...] = get_args(Trigger)

MINUTES: Final = 60.0


@dataclass(frozen=True, slots=True)
class Rule:
    """What follows one kind of failure.

    failure:      its class, as results, events and ledger rows name it.
    retry:        the same deployment may be tried again in this call, after the server's Retry-After or
                  else the retry policy's wait.
    polled:       the server only has to finish something: it is asked again until the deadline, and no
                  attempt is used up.
    others:       which other candidates may be tried: all, those with a larger context window, or none.
    uses_attempt: whether it counts towards `RetryPolicy.attempts`.
    retry_tokens: what another attempt at the same backend costs of its retry budget.
    charged:      the prompt is counted as spent, because the server may have worked on it.
    trigger:      which of an agent's fallback triggers it is.
    breaker:      True: a failure for the deployment's breaker. False: the server answers. None: neither.
    by_caller:    it may be the caller's own fault, so the breaker counts failures of different callers, and
                  the server's Retry-After holds for this call alone.
    slows:        the balancing strategies send fewer calls there, even where the breaker does not count it.
    turns_off:    what gets no calls for `seconds`; the time doubles up to `longest`, if that is given.
    """

    failure: FailureClass
    retry: bool = False
    polled: bool = False
    others: Literal["all", "larger", "none"] = "all"
    uses_attempt: bool = True
    retry_tokens: int = 1
    charged: bool = False
    trigger: Trigger = "availability"
    breaker: bool | None = None
    by_caller: bool = False
    slows: bool = False
    turns_off: Literal["deployment", "credential"] | None = None
    seconds: float = 0.0
    longest: float = 0.0


NOT_SENT: Final = Rule(FailureClass.NOT_SENT, retry=True, uses_attempt=False, breaker=True)
NO_SLOT: Final = Rule(FailureClass.NOT_SENT, uses_attempt=False)
BUSY: Final = Rule(FailureClass.REJECTED, retry=True, slows=True)
RATE_LIMITED: Final = replace(BUSY, trigger="rate_limit")
OVERLOADED: Final = replace(BUSY, breaker=True)
LOADING: Final = replace(BUSY, polled=True, breaker=False, uses_attempt=False, retry_tokens=0)
AMBIGUOUS: Final = Rule(
    FailureClass.AMBIGUOUS, retry=True, retry_tokens=2, charged=True, breaker=True, by_caller=True
)
DELIVERED: Final = Rule(FailureClass.DELIVERED, others="none", charged=True)
INVALID_REQUEST: Final = Rule(FailureClass.INVALID_REQUEST, others="none")
UNSUPPORTED: Final = replace(INVALID_REQUEST, others="all")
"""A feature or a limit of this deployment is in the way; another one may serve the request."""
TOO_LONG: Final = Rule(FailureClass.CONTEXT_LENGTH, others="larger", trigger="token_limit")
WRONG_KEY: Final = Rule(
    FailureClass.CREDENTIAL, slows=True, turns_off="credential", seconds=5 * MINUTES, longest=60 * MINUTES
)
NO_QUOTA: Final = Rule(FailureClass.CREDENTIAL, slows=True, turns_off="credential", seconds=15 * MINUTES)
"""Off until the reset that the server names, else for `seconds`."""
UNPAID: Final = replace(NO_QUOTA, by_caller=True)
"""It may say that this one request costs too much."""
FORBIDDEN: Final = Rule(
    FailureClass.CREDENTIAL, slows=True, turns_off="deployment", seconds=5 * MINUTES, by_caller=True
)
NO_MODEL: Final = Rule(
    FailureClass.UNAVAILABLE, slows=True, turns_off="deployment", seconds=5 * MINUTES, by_caller=True
)

CallFailure: TypeAlias = BackendError | RequestError


class Row(NamedTuple):
    """What a status stands for."""

    error: type[CallFailure]
    rule: Rule


STATUSES: Final[dict[int, Row]] = {
    400: Row(InvalidRequestError, INVALID_REQUEST),
    401: Row(AuthenticationError, WRONG_KEY),
    402: Row(QuotaExhaustedError, UNPAID),
    403: Row(PermissionDeniedError, FORBIDDEN),
    404: Row(ModelNotFoundError, NO_MODEL),
    408: Row(BackendTimeoutError, BUSY),
    409: Row(OverloadedError, BUSY),
    413: Row(InvalidRequestError, INVALID_REQUEST),
    422: Row(InvalidRequestError, INVALID_REQUEST),
    424: Row(ServerError, AMBIGUOUS),
    425: Row(OverloadedError, BUSY),
    429: Row(RateLimitError, RATE_LIMITED),
    503: Row(OverloadedError, OVERLOADED),
    529: Row(OverloadedError, OVERLOADED),
}
"""Another 5xx is as 500, `ServerError` and `AMBIGUOUS`; another status (a redirect, 405, 410) says that this
deployment will not answer: `BackendError` and `NO_MODEL`."""

_MEANT: Final[tuple[tuple[type[CcrouteError], Rule], ...]] = (
    (ContextWindowExceededError, TOO_LONG),
    (RequestError, INVALID_REQUEST),
    (EgressDeniedError, INVALID_REQUEST),
    (QuotaExhaustedError, NO_QUOTA),
    (RateLimitError, RATE_LIMITED),
)
"""The errors whose meaning outranks the status they came with; the first that fits decides."""

_BY_TYPE: Final[tuple[tuple[type[CcrouteError], Rule], ...]] = (
    (AuthenticationError, WRONG_KEY),
    (PermissionDeniedError, FORBIDDEN),
    (ModelNotFoundError, NO_MODEL),
    (OverloadedError, OVERLOADED),
    (ServerError, AMBIGUOUS),
    (ProtocolError, AMBIGUOUS),
    (ConnectionFailedError, AMBIGUOUS),
    (BackendTimeoutError, AMBIGUOUS),
    (StreamInterruptedError, DELIVERED),
)
"""The rules of all other errors, where the status has none of its own."""

_NOT_BEGUN: Final = (BUSY, RATE_LIMITED, OVERLOADED)
"""The rules of statuses by which a server says that it did not begin, whatever the error's type."""


def error_of(status: int) -> type[CallFailure]:
    """The error that an HTTP status other than 2xx stands for, where nothing else is known."""
    row = STATUSES.get(status)
    return row.error if row is not None else ServerError if status >= 500 else BackendError


def is_charged(status: int) -> bool:
    """Whether a server that answered with this status may have worked on the prompt."""
    row = STATUSES.get(status)
    return row.rule.charged if row is not None else not 300 <= status < 500


def rule_of(error: CcrouteError) -> Rule:
    """The rule for an error that a codec or a connection raised."""
    if isinstance(error, BackendError) and not error.sent:
        return NOT_SENT
    if isinstance(error, InvalidRequestError) and error.elsewhere:
        return UNSUPPORTED
    if isinstance(error, OverloadedError) and error.loading and error.should_retry is not False:
        return LOADING
    row = STATUSES.get(getattr(error, "status", None) or 0)
    rule = _first(_MEANT, error)
    if rule is None and row is not None and row.rule in _NOT_BEGUN:
        return row.rule
    if rule is NO_QUOTA and row is not None and row.rule is UNPAID:
        return UNPAID
    return rule or _first(_BY_TYPE, error) or NO_MODEL


def _first(table: tuple[tuple[type[CcrouteError], Rule], ...], error: CcrouteError) -> Rule | None:
    return next((rule for kind, rule in table if isinstance(error, kind)), None)
