"""The error tree: split by whose fault it was; each message; pickling."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from typing import Any

import pytest

from ccroute import errors
from ccroute.types import Attempt, Completion, Usage

# As drawn in the design; a base stands before what derives from it.
TREE = {
    "CcrouteError": "Exception",
    "ConfigError": "CcrouteError",
    "RequestError": "CcrouteError",
    "InvalidRequestError": "RequestError",
    "ContextWindowExceededError": "InvalidRequestError",
    "ContentPolicyError": "InvalidRequestError",
    "UnknownAgentError": "RequestError",
    "UnknownModelError": "RequestError",
    "BudgetExceededError": "CcrouteError",
    "EgressDeniedError": "CcrouteError",
    "QueueTimeoutError": "CcrouteError",
    "DeadlineExceededError": "CcrouteError",
    "InvalidOutputError": "CcrouteError",
    "RouterClosedError": "CcrouteError",
    "BackendError": "CcrouteError",
    "AuthenticationError": "BackendError",
    "PermissionDeniedError": "BackendError",
    "ModelNotFoundError": "BackendError",
    "RateLimitError": "BackendError",
    "QuotaExhaustedError": "RateLimitError",
    "OverloadedError": "BackendError",
    "ServerError": "BackendError",
    "ConnectionFailedError": "BackendError",
    "BackendTimeoutError": "BackendError",
    "ProtocolError": "BackendError",
    "StreamInterruptedError": "BackendError",
}
ATTEMPT = Attempt(deployment="a/m", outcome="failed", started=datetime(2026, 1, 1, tzinfo=UTC), duration=0.5)
FACTS: dict[str, Any] = {
    "backend": "a",
    "deployment": "a/m",
    "status": 503,
    "retry_after": 1.5,
    "request_id": "r1",
    "body": "busy",
    "should_retry": True,
}


def public_bases(kind: type) -> list[str]:
    return [base.__name__ for base in kind.__mro__[1:] if not base.__name__.startswith("_")]


def made(name: str) -> errors.CcrouteError:
    kind = getattr(errors, name)
    if name == "ConfigError":
        return kind("one fault", "another")
    if name.startswith("Unknown"):
        return kind("opsu", ["opus"])
    if issubclass(kind, errors.BackendError | errors.RequestError):
        return kind("it failed", **FACTS)
    return kind("it failed")


@pytest.mark.parametrize(("name", "base"), TREE.items())
def test_the_tree_is_as_drawn(name: str, base: str) -> None:
    assert public_bases(getattr(errors, name))[0] == base


def test_the_tree_holds_every_error() -> None:
    assert sorted(TREE) == [name for name in dir(errors) if not name.startswith("_")]


def test_the_callers_faults_and_the_backends_are_never_the_same() -> None:
    kinds = [getattr(errors, name) for name in TREE]
    assert not [k for k in kinds if issubclass(k, errors.RequestError) and issubclass(k, errors.BackendError)]


@pytest.mark.parametrize("name", TREE)
def test_an_error_survives_pickling_without_its_body(name: str) -> None:
    error = made(name)
    error.attempts = (ATTEMPT,)
    if isinstance(error, errors.ContextWindowExceededError):
        error.estimated, error.limit = 9000, 8192
    if isinstance(error, errors.StreamInterruptedError):
        error.partial = Completion(usage=Usage(output=40, estimated=True))
    if isinstance(error, errors.BackendError):
        error.sent = False
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), copy.args) == (str(error), error.args)
    vars(error).pop("body", None)
    assert vars(copy).pop("body", None) is None
    assert vars(copy) == vars(error)


def test_an_error_without_attempts_has_none() -> None:
    assert errors.RouterClosedError("closed").attempts == ()


def test_an_error_names_its_deployment_and_status() -> None:
    assert str(errors.OverloadedError("no room", **FACTS)) == "a/m: no room (HTTP 503)"


def test_an_error_names_its_backend_where_no_deployment_is_known() -> None:
    assert str(errors.AuthenticationError("no key", backend="a")) == "a: no key"


def test_an_error_without_a_place_is_just_its_message() -> None:
    assert str(errors.ServerError("broke", status=500)) == "broke (HTTP 500)"
    assert str(errors.InvalidRequestError("bad")) == "bad"


def test_one_fault_is_the_message_and_several_are_a_list() -> None:
    assert str(errors.ConfigError("a: wrong")) == "a: wrong"
    both = errors.ConfigError("a: wrong", "b: wrong")
    assert both.faults == ("a: wrong", "b: wrong")
    assert str(both) == "2 faults:\n  - a: wrong\n  - b: wrong"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            errors.UnknownModelError("opsu", ["opus", "oups"]),
            'unknown model "opsu", did you mean "opus" or "oups"?',
        ),
        (errors.UnknownAgentError("x", hint="configure it"), 'unknown agent "x": configure it'),
        (errors.UnknownAgentError("x", ["y"], hint="configure it"), 'unknown agent "x", did you mean "y"?'),
        (errors.UnknownModelError("x"), 'unknown model "x"'),
    ],
)
def test_an_unknown_name_comes_with_what_to_do(error: errors.CcrouteError, says: str) -> None:
    assert str(error) == says


def test_an_unknown_name_is_kept_with_its_suggestions() -> None:
    error = errors.UnknownModelError("opsu", ["opus"])
    assert (error.name, error.suggestions) == ("opsu", ("opus",))
