"""What follows each failure: one table of statuses and errors, and the rules they lead to."""

from __future__ import annotations

from typing import Any

import pytest

from ccroute import errors
from ccroute.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    CcrouteError,
    ConnectionFailedError,
    ContentPolicyError,
    ContextWindowExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    QuotaExhaustedError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
)
from ccroute.failures import (
    AMBIGUOUS,
    BUSY,
    DELIVERED,
    FORBIDDEN,
    INVALID_REQUEST,
    LOADING,
    NO_MODEL,
    NO_QUOTA,
    NO_SLOT,
    NOT_SENT,
    OVERLOADED,
    RATE_LIMITED,
    TOO_LONG,
    UNPAID,
    UNSUPPORTED,
    WRONG_KEY,
    Rule,
    row_of,
    rule_of,
)

# name: failure, retry here, others, uses an attempt, retry tokens, charged, trigger
NEXT: dict[str, tuple[Rule, tuple[Any, ...]]] = {
    "not sent": (NOT_SENT, ("not_sent", True, "all", False, 1, False, "availability")),
    "no slot": (NO_SLOT, ("not_sent", False, "all", False, 1, False, "availability")),
    "busy": (BUSY, ("rejected", True, "all", True, 1, False, "availability")),
    "rate limited": (RATE_LIMITED, ("rejected", True, "all", True, 1, False, "rate_limit")),
    "overloaded": (OVERLOADED, ("rejected", True, "all", True, 1, False, "availability")),
    "loading": (LOADING, ("rejected", True, "all", False, 0, False, "availability")),
    "ambiguous": (AMBIGUOUS, ("ambiguous", True, "all", True, 2, True, "availability")),
    "delivered": (DELIVERED, ("delivered", False, "none", True, 1, True, "availability")),
    "invalid": (INVALID_REQUEST, ("invalid_request", False, "none", True, 1, False, "availability")),
    "unsupported": (UNSUPPORTED, ("invalid_request", False, "all", True, 1, False, "availability")),
    "too long": (TOO_LONG, ("context_length", False, "larger", True, 1, False, "token_limit")),
    "wrong key": (WRONG_KEY, ("credential", False, "all", True, 1, False, "availability")),
    "no quota": (NO_QUOTA, ("credential", False, "all", True, 1, False, "availability")),
    "unpaid": (UNPAID, ("credential", False, "all", True, 1, False, "availability")),
    "forbidden": (FORBIDDEN, ("credential", False, "all", True, 1, False, "availability")),
    "no model": (NO_MODEL, ("unavailable", False, "all", True, 1, False, "availability")),
}

# name: breaker, by caller, slows the balancing, what is off, for how many seconds, at most
HEALTH: dict[str, tuple[Any, ...]] = {
    "not sent": (True, False, False, None, 0, 0),
    "no slot": (None, False, False, None, 0, 0),
    "busy": (None, False, True, None, 0, 0),
    "rate limited": (None, False, True, None, 0, 0),
    "overloaded": (True, False, True, None, 0, 0),
    "loading": (False, False, True, None, 0, 0),
    "ambiguous": (True, True, False, None, 0, 0),
    "delivered": (None, False, False, None, 0, 0),
    "invalid": (None, False, False, None, 0, 0),
    "unsupported": (None, False, False, None, 0, 0),
    "too long": (None, False, False, None, 0, 0),
    "wrong key": (None, False, True, "credential", 300, 3600),
    "no quota": (None, False, True, "credential", 900, 0),
    "unpaid": (None, True, True, "credential", 900, 0),
    "forbidden": (None, True, True, "deployment", 300, 0),
    "no model": (None, True, True, "deployment", 300, 0),
}


@pytest.mark.parametrize("name", NEXT)
def test_each_rule_says_what_a_failure_costs_and_what_may_follow(name: str) -> None:
    rule, expected = NEXT[name]
    found = (rule.failure, rule.retry, rule.others, rule.uses_attempt, rule.retry_tokens, rule.charged)
    assert (*found, rule.trigger) == expected
    assert rule.polled is (name == "loading")


@pytest.mark.parametrize("name", NEXT)
def test_each_rule_says_what_other_calls_learn_of_a_failure(name: str) -> None:
    rule, _ = NEXT[name]
    found = (rule.breaker, rule.by_caller, rule.slows, rule.turns_off, rule.seconds, rule.longest)
    assert found == HEALTH[name]


@pytest.mark.parametrize(
    ("status", "error", "rule"),
    [
        (302, BackendError, NO_MODEL),
        (400, InvalidRequestError, INVALID_REQUEST),
        (401, AuthenticationError, WRONG_KEY),
        (402, QuotaExhaustedError, UNPAID),
        (403, PermissionDeniedError, FORBIDDEN),
        (404, ModelNotFoundError, NO_MODEL),
        (405, BackendError, NO_MODEL),
        (408, BackendTimeoutError, BUSY),
        (409, OverloadedError, BUSY),
        (410, BackendError, NO_MODEL),
        (413, InvalidRequestError, INVALID_REQUEST),
        (422, InvalidRequestError, INVALID_REQUEST),
        (424, ServerError, AMBIGUOUS),
        (425, OverloadedError, BUSY),
        (429, RateLimitError, RATE_LIMITED),
        (500, ServerError, AMBIGUOUS),
        (501, ServerError, AMBIGUOUS),
        (502, ServerError, AMBIGUOUS),
        (503, OverloadedError, OVERLOADED),
        (504, ServerError, AMBIGUOUS),
        (529, OverloadedError, OVERLOADED),
        (599, ServerError, AMBIGUOUS),
    ],
)
def test_each_status_leads_to_an_error_and_a_rule(status: int, error: type[Any], rule: Rule) -> None:
    assert row_of(status).error is error
    assert rule_of(error("x", status=status)) is rule


@pytest.mark.parametrize(
    ("error", "rule"),
    [
        (errors.EgressDeniedError(), INVALID_REQUEST),
        (errors.UnknownModelError("x"), INVALID_REQUEST),
        (errors.UnknownAgentError("x"), INVALID_REQUEST),
        (InvalidRequestError("x"), INVALID_REQUEST),
        (InvalidRequestError("x", status=409), INVALID_REQUEST),
        (InvalidRequestError("x", status=500), INVALID_REQUEST),
        (ContentPolicyError("x", status=429), INVALID_REQUEST),
        (ContextWindowExceededError("x", status=400), TOO_LONG),
        (ContextWindowExceededError("x", status=429), TOO_LONG),
        (ContextWindowExceededError("x", status=500), TOO_LONG),
        (AuthenticationError("x"), WRONG_KEY),
        (AuthenticationError("x", status=400), WRONG_KEY),
        (PermissionDeniedError("x"), FORBIDDEN),
        (QuotaExhaustedError("x"), NO_QUOTA),
        (QuotaExhaustedError("x", status=403), NO_QUOTA),
        (QuotaExhaustedError("x", status=429), NO_QUOTA),
        (ModelNotFoundError("x"), NO_MODEL),
        (ModelNotFoundError("x", status=400), NO_MODEL),
        (ModelNotFoundError("x", status=503), NO_MODEL),
        (RateLimitError("x"), RATE_LIMITED),
        (RateLimitError("x", status=503), RATE_LIMITED),
        (OverloadedError("x"), OVERLOADED),
        (BackendError("x", status=425), BUSY),
        (ServerError("x"), AMBIGUOUS),
        (ProtocolError("x"), AMBIGUOUS),
        (ConnectionFailedError("x"), AMBIGUOUS),
        (BackendTimeoutError("x"), AMBIGUOUS),
        (StreamInterruptedError("x"), DELIVERED),
        (BackendError("x"), NO_MODEL),
        (CcrouteError("x"), NO_MODEL),
    ],
    ids=lambda value: (
        f"{type(value).__name__}-{getattr(value, 'status', '')}" if isinstance(value, CcrouteError) else ""
    ),
)
def test_where_no_status_decides_the_errors_type_does(error: CcrouteError, rule: Rule) -> None:
    assert rule_of(error) is rule


@pytest.mark.parametrize("kind", [ConnectionFailedError, BackendTimeoutError, ProtocolError])
def test_an_error_of_a_request_that_was_never_sent_cost_nothing(kind: type[BackendError]) -> None:
    error = kind("x")
    error.sent = False
    assert rule_of(error) is NOT_SENT


def test_what_only_this_deployment_cannot_serve_goes_to_another() -> None:
    error = InvalidRequestError("images are not supported", status=400)
    error.elsewhere = True
    assert rule_of(error) is UNSUPPORTED


@pytest.mark.parametrize(("should_retry", "rule"), [(None, LOADING), (True, LOADING), (False, OVERLOADED)])
def test_a_server_that_loads_is_polled_unless_it_forbids_it(should_retry: Any, rule: Rule) -> None:
    error = OverloadedError("loading", status=503, should_retry=should_retry)
    error.loading = True
    assert rule_of(error) is rule
