"""A prompt goes where it fits, before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest

from ccroute import Agent, Model, OllamaBackend, OpenAIBackend, Router
from ccroute.errors import ContextWindowExceededError
from ccroute.routing import AgentTable, AliasTable, Plan, Tables, make_plan
from ccroute.types import Request

WINDOWS = {"small": 100, "middle": 200, "large": 1000}


def plan(tokens: int, agent: Agent, **options: Any) -> Plan:
    models = {name: Model(context_window=window) for name, window in WINDOWS.items()}
    backend = OllamaBackend("mini", models=models)
    aliases = AliasTable({"both": ["mini/small", "mini/large"]}, strategy="ordered")
    tables = Tables([backend], aliases, AgentTable({"a": agent}))
    request = Request(messages=[{"role": "user", "content": "x"}], agent="a", **options)
    return make_plan(request, tables, lambda: 0.5, lambda request: tokens)


def order(made: Plan) -> list[str]:
    return [candidate.deployment.model for candidate in made.candidates]


def test_what_fits_keeps_the_order_of_the_tables() -> None:
    assert order(plan(100, Agent("both", fallback=["mini/middle"]))) == ["small", "large", "middle"]


def test_what_may_not_fit_comes_last_and_what_cannot_not_at_all() -> None:
    made = plan(120, Agent("both", fallback=["mini/middle"]))
    assert order(made) == ["large", "middle", "small"]
    assert "ordered by context window" in made.reasons[-1]
    assert order(plan(126, Agent("both", fallback=["mini/middle"]))) == ["large", "middle"]


def test_room_for_the_answer_counts_for_the_order() -> None:
    assert order(plan(80, Agent("both"), max_tokens=50)) == ["large", "small"]


def test_a_fallback_goes_first_only_where_token_limit_triggers_it() -> None:
    fallback = {"fallback": ["mini/large"]}
    assert order(plan(110, Agent("mini/small", **fallback))) == ["large", "small"]
    assert order(plan(110, Agent("mini/small", triggers=["availability"], **fallback))) == ["small", "large"]
    with pytest.raises(ContextWindowExceededError):
        plan(150, Agent("mini/small", triggers=["availability"], **fallback))


def test_a_fallback_that_is_all_that_is_left_needs_no_trigger() -> None:
    """The first choice may not be used, because it is not local: then nothing overtakes it."""
    models = {"small": Model(context_window=100), "large": Model(context_window=200)}
    backends = [OpenAIBackend("far", base_url="https://far.test"), OllamaBackend("mini", models=models)]
    agent = Agent("far/m", fallback=["mini/large"], triggers=["availability"], local_only=True)
    tables = Tables(backends, AliasTable({}), AgentTable({"a": agent}))

    def made(tokens: int) -> Plan:
        request = Request(messages=[{"role": "user", "content": "x"}], agent="a")
        return make_plan(request, tables, lambda: 0.5, lambda request: tokens)

    assert order(made(200)) == ["large"]
    with pytest.raises(ContextWindowExceededError, match="the largest context window 200"):
        made(300)


def test_a_prompt_a_quarter_over_the_largest_window_is_not_sent() -> None:
    assert order(plan(1250, Agent("both"))) == ["large"]
    with pytest.raises(
        ContextWindowExceededError, match=r"about 1251 tokens, the largest context window 1000"
    ) as caught:
        plan(1251, Agent("both", fallback=["mini/middle"]))
    assert (caught.value.estimated, caught.value.limit) == (1251, 1000)


def test_an_unknown_window_holds_anything() -> None:
    assert order(plan(10**9, Agent("mini/unknown", fallback=["mini/large"]))) == ["unknown"]
    assert order(plan(10**9, Agent("mini/small", fallback=["mini/unknown"]))) == ["unknown"]


def test_a_router_counts_with_the_counter_it_was_given() -> None:
    backend = OllamaBackend("mini", models={"m": Model(context_window=10)})
    with (
        Router([backend], count_tokens=lambda request: 99) as router,
        pytest.raises(ContextWindowExceededError),
    ):
        router.complete("hi", model="mini/m")
