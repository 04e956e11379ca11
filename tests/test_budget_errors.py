"""What a budget's errors say: what is wrong, and what to do."""

from __future__ import annotations

import json
from decimal import Decimal

import httpx
import pytest
from tests.support.anthropic_like import message, usage

from ccroute import Agent, AnthropicBackend, Budget, OllamaBackend, Price, Router, errors
from ccroute.types.budget import Then

PAID = "anthropic/claude-paid"


def made(budgets: dict[str, Budget], prices: dict[str, Price] | None = None) -> Router:
    """A router whose agent has a paid model, and then a free one. The paid one answers at full length."""

    def play(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=message(usage=usage(3, json.loads(request.content)["max_tokens"])))

    return Router(
        [AnthropicBackend(api_key="example-key"), OllamaBackend("local")],
        {"paid": PAID, "free": "local/m"},
        {"coder": Agent("paid", fallback=["free"])},
        budgets=budgets,
        prices={PAID: Price(15, 75)} if prices is None else prices,
        transport=httpx.MockTransport(play),
    )


def refusal(budget: Budget, prices: dict[str, Price] | None = None) -> errors.BudgetExceededError:
    """The error of a call that this budget of its agent refuses."""
    with made({"coder": budget}, prices or {}) as router:
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
    assert error.retry_after is None, "a call that may cost more than the whole limit never fits"


def test_what_has_no_price_is_not_better_in_the_next_window() -> None:
    error = refusal(Budget(5))
    assert error.args[0] == (
        f"the price of {PAID} is unknown (genai-prices has no model claude-paid of anthropic), so budget "
        "agent:coder (5 USD per day) cannot allow it. "
        'Give it one, such as prices={"claude-paid": Price(3, 15)}, or a budget in tokens'
    )
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


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("coder", "may take 1007. Raise the budget, or lower max_tokens"),
        ("backend:anthropic", 'or let a free model answer instead: then="fallback"'),
    ],
)
def test_a_free_model_helps_no_budget_in_tokens_but_a_backends(name: str, advice: str) -> None:
    with pytest.raises(errors.BudgetExceededError) as caught, made({name: Budget(tokens=1_000)}) as router:
        router.complete("hi", agent="coder", max_tokens=1000)
    assert "(1000 tokens per day)" in caught.value.args[0]
    assert caught.value.args[0].endswith(advice)


def test_a_window_that_ends_after_the_deadline_is_said_to() -> None:
    with made({"coder": Budget("0.08", per="month", then="queue")}) as router:
        router.complete("hi", agent="coder", max_tokens=1000)
        with pytest.raises(errors.BudgetExceededError) as caught:
            router.complete("hi", agent="coder", max_tokens=1000)
    assert caught.value.args[0].endswith(
        "It ends too late to wait for: raise timeout= or the budget, or lower max_tokens"
    )
    assert caught.value.retry_after


def test_explain_says_that_a_budget_allows_no_fallback_models() -> None:
    with made({"coder": Budget(0)}) as router:
        _, free = router.explain("hi", agent="coder", max_tokens=1000).candidates
    assert free.why_not == 'budget agent:coder allows no fallback models: then="fallback" would'
