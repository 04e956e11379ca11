"""Limits, waits and models check themselves when they are made. (Prices: tests/accounting.)"""

from __future__ import annotations

from typing import Any

import pytest

from ccroute.types import FREE, Model, Price, RetryPolicy, Timeout


def test_a_retry_policy_has_the_documented_defaults() -> None:
    policy = RetryPolicy()
    assert (policy.attempts, policy.per_deployment, policy.base, policy.max) == (3, 2, 0.5, 8.0)


@pytest.mark.parametrize(
    "wrong",
    [{"attempts": 0}, {"per_deployment": 0}, {"base": -1}, {"base": 9}, {"max": 0.1}, {"base": float("nan")}],
)
def test_a_retry_policy_that_makes_no_sense_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError):
        RetryPolicy(**wrong)


def test_a_retry_policy_may_do_without_waiting() -> None:
    assert RetryPolicy(base=0, max=0).max == 0


def test_a_timeout_has_the_documented_defaults() -> None:
    timeout = Timeout()
    assert (timeout.total, timeout.connect, timeout.first, timeout.idle) == (600.0, 5.0, None, 120.0)


@pytest.mark.parametrize("name", ["total", "connect", "first", "idle"])
@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_a_timeout_must_be_a_positive_number(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Timeout(**{name: value})


def test_none_switches_a_timeout_off() -> None:
    assert Timeout(None, None, None, None).total is None


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"context_window": 0}, "context_window"),
        ({"max_output": -5}, "max_output"),
        ({"weight": 0}, "weight"),
        ({"weight": float("nan")}, "weight"),
        ({"rpm": 0}, "rpm"),
        ({"tpm": -1}, "tpm"),
    ],
)
def test_a_model_that_makes_no_sense_is_refused(wrong: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Model(**wrong)


@pytest.mark.parametrize("value", ["60", 1.5, True])
@pytest.mark.parametrize("name", ["rpm", "tpm"])
def test_a_rate_limit_is_a_whole_number(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"Model: {name} is a number of"):
        Model(**{name: value})


@pytest.mark.parametrize("price", [0.15, "gratis", 3])
def test_a_models_price_is_a_price_or_free(price: Any) -> None:
    with pytest.raises(TypeError, match="price"):
        Model(price=price)
    assert Model(price="free").price == "free"
    assert Model(price=Price(1, 2)).price == Price(1, 2)


@pytest.mark.parametrize("value", [RetryPolicy(), Timeout(), Model(), FREE])
def test_a_policy_cannot_be_changed(value: Any) -> None:
    with pytest.raises(AttributeError):
        setattr(value, next(iter(value.__dataclass_fields__)), 1)
