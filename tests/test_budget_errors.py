"""What a budget's errors say: what is wrong, and what to do."""

from __future__ import annotations

from decimal import Decimal

import pytest

from ccroute import Agent, AnthropicBackend, Budget, OllamaBackend, Price, Router, errors
from ccroute.types.budget import Then

PAID = "anthropic/claude-paid"


def refusal(budget: Budget, prices: dict[str, Price] | None = None) -> errors.BudgetExceededError:
    """The error of a call that this budget of its agent refuses."""
    with Router(
        [AnthropicBackend(api_key="example-key"), OllamaBackend("local")],
        {"paid": PAID, "free": "local/m"},
        {"coder": Agent("paid", fallback=["free"])},
        budgets={"coder": budget},
        prices=prices or {},
        trust_env=False,
    ) as router:
        with pytest.raises(errors.BudgetExceededError) as caught:
            router.complete("hi", agent="coder", max_tokens=1000, fallback=False)
    return caught.value


@pytest.mark.parametrize(
    ("then", "advice"),
    [
        ("refuse", 'or let a free model answer instead: then="fallback"'),
        ("fallback", "or give the agent a free model as its last fallback"),
    ],
)
def test_a_refusal_says_what_a_call_may_take_and_what_to_do(then: Then, advice: str) -> None:
    error = refusal(Budget("0.01", then=then), {PAID: Price(15, 75)})
    assert error.args[0].startswith("budget agent:coder (0.01 USD per day) has $0.01 left until ")
    assert error.args[0].endswith(f"may take $0.075105. Raise the budget, lower max_tokens, {advice}")
    assert (error.budget, error.spent, error.limit) == ("agent:coder", 0, Decimal("0.01"))
    assert error.resets_at is not None
    assert 0 < (error.retry_after or 0) <= 86_400


def test_what_has_no_price_is_not_better_in_the_next_window() -> None:
    error = refusal(Budget(5))
    assert "so budget agent:coder (5 USD per day) cannot allow it" in error.args[0]
    assert error.retry_after is None


def test_a_budget_of_a_group_or_a_backend_has_its_kind_in_its_name() -> None:
    with pytest.raises(errors.ConfigError) as caught:
        Router(
            [OllamaBackend("local")],
            groups={"devs": Agent()},
            budgets={n: Budget(1) for n in ("devs", "local")},
        )
    assert caught.value.faults == (
        'budgets.devs: unknown agent "devs"; the budget of the group is "group:devs"',
        'budgets.local: unknown agent "local"; the budget of the backend is "backend:local"',
    )
