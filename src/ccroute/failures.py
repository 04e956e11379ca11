"""The fate of every failure, in one table: what it costs, what may follow it, and who else hears of it.

A status leads to an error's type and to a rule, in `STATUSES`: a 503 is an `OverloadedError`, and its rule
is `OVERLOADED`. Where the server's text or code says more than the status (`wire/errors/`), the error has
another type, and `rule_of` finds the rule of that type: a 503 that says "loading" is `LOADING`, one with the
code `insufficient_quota` is `NO_QUOTA`. The call, the deployment's health and the ledger ask the rule.

Sources: `docs/architecture.md`, "Failures".
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from ccroute.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BudgetExceededError,
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


class Rule(NamedTuple):
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
    trigger:      which of an agent's fallback triggers it is; None: no fallback model is used because of it.
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
    trigger: Trigger | None = "availability"
    breaker: bool | None = None
    by_caller: bool = False
    slows: bool = False
    turns_off: Literal["deployment", "credential"] | None = None
    seconds: float = 0.0
    longest: float = 0.0


NOT_SENT: Final = Rule(FailureClass.NOT_SENT, retry=True, uses_attempt=False, breaker=True)
NO_SLOT: Final = Rule(FailureClass.NOT_SENT, uses_attempt=False)
BUSY: Final = Rule(FailureClass.REJECTED, retry=True, slows=True)
RATE_LIMITED: Final = BUSY._replace(trigger="rate_limit")
OVERLOADED: Final = BUSY._replace(breaker=True)
LOADING: Final = BUSY._replace(polled=True, breaker=False, uses_attempt=False, retry_tokens=0)
AMBIGUOUS: Final = Rule(
    FailureClass.AMBIGUOUS, retry=True, retry_tokens=2, charged=True, breaker=True, by_caller=True
)
DELIVERED: Final = Rule(FailureClass.DELIVERED, others="none", charged=True)
INVALID_REQUEST: Final = Rule(FailureClass.INVALID_REQUEST, others="none")
UNSUPPORTED: Final = INVALID_REQUEST._replace(others="all")
"""A feature or a limit of this deployment is in the way; another one may serve the request."""
TOO_LONG: Final = Rule(FailureClass.CONTEXT_LENGTH, others="larger", trigger="token_limit")
WRONG_KEY: Final = Rule(
    FailureClass.CREDENTIAL, slows=True, turns_off="credential", seconds=5 * MINUTES, longest=60 * MINUTES
)
NO_QUOTA: Final = Rule(FailureClass.CREDENTIAL, slows=True, turns_off="credential", seconds=15 * MINUTES)
"""Off until the reset that the server names, else for `seconds`."""
UNPAID: Final = NO_QUOTA._replace(by_caller=True)
"""It may say that this one request costs too much."""
FORBIDDEN: Final = Rule(
    FailureClass.CREDENTIAL, slows=True, turns_off="deployment", seconds=5 * MINUTES, by_caller=True
)
NO_MODEL: Final = Rule(
    FailureClass.UNAVAILABLE, slows=True, turns_off="deployment", seconds=5 * MINUTES, by_caller=True
)
NO_BUDGET: Final = Rule(FailureClass.BUDGET, uses_attempt=False, trigger="budget")
NO_BUDGET_REFUSED: Final = NO_BUDGET._replace(trigger=None)
"""The same for a budget that no fallback model may serve instead."""

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
"""The statuses with a row each; `row_of` handles the others."""

_BY_TYPE: Final[tuple[tuple[type[CcrouteError], Rule], ...]] = (
    (ContextWindowExceededError, TOO_LONG),
    (RequestError, INVALID_REQUEST),
    (EgressDeniedError, INVALID_REQUEST),
    (BudgetExceededError, NO_BUDGET),
    (QuotaExhaustedError, NO_QUOTA),
    (RateLimitError, RATE_LIMITED),
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
"""The rules of errors whose text or code said more than their status, or that have none. The first row whose
type fits decides."""

_NOT_BEGUN: Final = (BUSY, RATE_LIMITED, OVERLOADED)
"""The rules of the statuses by which a server says that it did not begin."""
_SAID_MORE: Final = (
    RequestError,
    EgressDeniedError,
    RateLimitError,
    AuthenticationError,
    PermissionDeniedError,
    ModelNotFoundError,
)
"""With these types the server's text or code said more than such a status; any other type keeps its rule."""


def row_of(status: int) -> Row:
    """What an HTTP status other than 2xx stands for, where nothing else is known. A 5xx without a row is
    `AMBIGUOUS`; another status (a redirect, 405, 410) means that this deployment will not answer."""
    row = STATUSES.get(status)
    if row is not None:
        return row
    return Row(ServerError, AMBIGUOUS) if status >= 500 else Row(BackendError, NO_MODEL)


def is_charged(status: int) -> bool:
    """Whether a server that answered with this status may have worked on the prompt."""
    return status < 300 or row_of(status).rule.charged


def rule_of(error: CcrouteError) -> Rule:
    """The rule for an error that a codec or a connection raised: that of its status, or of its type where the
    server's text or code gave it another type than the status does."""
    if isinstance(error, BackendError) and not error.sent:
        return NOT_SENT
    if isinstance(error, InvalidRequestError) and error.elsewhere:
        return UNSUPPORTED
    if isinstance(error, OverloadedError) and error.loading and error.should_retry is not False:
        return LOADING
    row = STATUSES.get(getattr(error, "status", None) or 0)
    if row is not None and (
        type(error) is row.error or (row.rule in _NOT_BEGUN and not isinstance(error, _SAID_MORE))
    ):
        return row.rule
    return next((rule for kind, rule in _BY_TYPE if isinstance(error, kind)), NO_MODEL)
