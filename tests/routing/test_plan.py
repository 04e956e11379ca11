"""Who may serve a request, in which order, and why."""

from __future__ import annotations

import random
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.flow.support import PlainBackend, local, paid, planned

from ccroute import Agent, AliasTable, OllamaBackend, Price, PriceBook, Router
from ccroute.backends import Backend
from ccroute.errors import (
    ConfigError,
    EgressDeniedError,
    InvalidRequestError,
    UnknownAgentError,
    UnknownModelError,
)
from ccroute.failures import TRIGGERS
from ccroute.routing import AgentTable, Plan, Tables
from ccroute.routing.balance import order
from ccroute.routing.tables.prices import price_of
from ccroute.types import FREE, Model

PAID, HOME = paid(), local()
BOTH = [PAID, HOME]
ALIASES = {"big": "paid/big", "fast": "paid/fast", "own": "home/own", "mixed": ["paid/fast", "home/own"]}


def plan(agent: Agent | str | None = None, /, **options: Any) -> Plan:
    """A plan over both backends, for the agent "Py" if one is given."""
    if agent is not None:
        options = {"agents": {"Py": agent}, "agent": "py"} | options
    return planned(BOTH, aliases=ALIASES, **options)


def names(plan: Plan) -> list[str]:
    return [candidate.deployment.name for candidate in plan.candidates]


# -- Which model


@pytest.mark.parametrize(
    ("agent", "options", "model", "overridden"),
    [
        ("fast", {}, "fast", False),
        ("fast", {"model": "fast"}, "fast", False),
        ("fast", {"model": "big"}, "fast", True),
        ("fast", {"model": "no-such-model"}, "fast", True),
        ("fast", {"model": "big", "agent_override": False}, "big", False),
        ("fast", {"agent_override": False}, "fast", False),
        ("fast", {"default_model": "big"}, "fast", False),
        (Agent(), {"model": "big"}, "big", False),
        (Agent(), {"default_model": "big"}, "big", False),
        (None, {"model": "big"}, "big", False),
        (None, {"model": "big", "default_model": "fast"}, "big", False),
        (None, {"default_model": "fast"}, "fast", False),
        (None, {"model": "home/any:1b"}, "home/any:1b", False),
    ],
)
def test_the_agents_model_wins_then_the_callers_then_the_default(
    agent: Any, options: Any, model: str, overridden: bool
) -> None:
    made = plan(agent, **options)
    assert (made.model, made.overridden) == (model, overridden)
    assert made.requested_model == options.get("model")
    assert made.candidates[0].alias == model
    assert any('uses "fast", not the requested' in reason for reason in made.reasons) is overridden


@pytest.mark.parametrize("agent", [None, Agent()])
def test_no_model_at_all_is_refused(agent: Agent | None) -> None:
    with pytest.raises(InvalidRequestError, match="no model: give model= or agent="):
        plan(agent)


def test_an_unknown_model_is_refused_also_as_a_fallback() -> None:
    with pytest.raises(UnknownModelError, match='did you mean "fast"'):
        plan(model="fst")
    with pytest.raises(UnknownModelError, match='did you mean "fast"'):
        plan(model="big", fallback=["fst"])
    with pytest.raises(UnknownModelError):
        plan("fast", model="fst", agent_override=False)


def test_an_agent_is_reported_by_its_configured_name_and_group() -> None:
    made = plan(Agent("fast", group="devs"), groups={"devs": Agent()})
    assert (made.agent, made.group) == ("Py", "devs")
    assert (plan(model="big").agent, plan(model="big").group) == (None, None)


def test_an_unknown_agent_is_refused_or_treated_as_none() -> None:
    with pytest.raises(UnknownAgentError, match='did you mean "Py"'):
        plan(agents={"Py": "fast"}, agent="pyy")
    made = plan(agents={"Py": "fast"}, agent="pyy", model="big", unknown_agent="default")
    assert (made.agent, made.model, made.overridden) == ("pyy", "big", False)
    assert made.reasons == ('agent "pyy" is not configured: treated as no agent',)


def test_an_agents_parameters_fill_in_what_the_call_leaves_out() -> None:
    made = plan(Agent("fast", params={"temperature": 0.1, "seed": 7}), seed=1)
    assert (made.request.temperature, made.request.seed) == (0.1, 1)


def test_a_group_hands_its_model_down() -> None:
    made = plan(Agent(group="devs"), groups={"devs": Agent("own", local_only=True)})
    assert names(made) == ["home/own"]


# -- Fallbacks


@pytest.mark.parametrize(
    ("agent", "options", "expected"),
    [
        (Agent("big", fallback=["fast", "own"]), {}, ["paid/big", "paid/fast", "home/own"]),
        (Agent("big", fallback=["fast"]), {"fallback": ["own"]}, ["paid/big", "home/own"]),
        (Agent("big", fallback=["fast"]), {"fallback": False}, ["paid/big"]),
        (Agent("big", fallback=["fast"]), {"fallback": []}, ["paid/big"]),
        (Agent("big", fallback=["fast"]), {"fallback": None}, ["paid/big", "paid/fast"]),
        (None, {"model": "big", "fallback": ["mixed"]}, ["paid/big", "paid/fast", "home/own"]),
        (None, {"model": "mixed", "fallback": ["fast", "own"]}, ["paid/fast", "home/own"]),
        (None, {"model": "big", "fallback": ["big", "paid/big"]}, ["paid/big"]),
    ],
)
def test_fallbacks_follow_in_order_and_no_deployment_comes_twice(
    agent: Any, options: Any, expected: list[str]
) -> None:
    assert names(plan(agent, **options)) == expected


def test_each_candidate_says_why_it_is_there() -> None:
    made = plan(model="big", fallback=["mixed"])
    assert [(c.alias, c.fallback, c.reason) for c in made.candidates] == [
        ("big", False, 'model "big"'),
        ("mixed", True, 'fallback "mixed"'),
        ("mixed", True, 'fallback "mixed"'),
    ]


def test_an_agents_triggers_hold_for_its_own_fallbacks_only() -> None:
    agent = Agent("big", fallback=["own"], triggers=["rate_limit"])
    assert plan(agent).triggers == ("rate_limit",)
    assert plan(agent, fallback=["own"]).triggers == TRIGGERS
    assert plan(agent, fallback=False).triggers == ("rate_limit",)
    assert plan(model="big").triggers == TRIGGERS


# -- local_only


def test_a_local_only_agent_uses_no_remote_backend() -> None:
    made = plan(Agent("mixed", fallback=["big"], local_only=True))
    assert names(made) == ["home/own"]
    assert made.reasons == ("local_only: paid/fast, paid/big left out",)


def test_a_local_only_agent_may_begin_with_a_fallback() -> None:
    made = plan(Agent("big", fallback=["own"], local_only=True))
    assert [(c.deployment.name, c.fallback) for c in made.candidates] == [("home/own", True)]


@pytest.mark.parametrize("options", [{}, {"fallback": ["fast"]}, {"model": "own"}])
def test_a_local_only_agent_without_a_local_backend_is_denied(options: Any) -> None:
    with pytest.raises(EgressDeniedError, match="agent Py is local_only and may not use paid/big"):
        plan(Agent("big", local_only=True), **options)


@given(
    st.sampled_from(["big", "fast", "own", "mixed"]),
    st.lists(st.sampled_from(["big", "fast", "own", "mixed"]), max_size=3),
    st.booleans(),
)
def test_no_candidate_of_a_local_only_agent_is_elsewhere(
    model: str, fallback: list[str], other: bool
) -> None:
    agent = Agent(model, fallback=fallback, local_only=True)
    try:
        made = plan(agent, model="big" if other else None)
    except EgressDeniedError:
        return
    assert made.candidates
    assert all(candidate.deployment.backend.local for candidate in made.candidates)


# -- Balance


def drawn(weights: list[float], rounds: int = 20_000) -> list[float]:
    """How often each of several deployments comes first, as shares."""
    chance = random.Random(7)
    choices = range(len(weights))
    first = Counter(order(choices, weights, "weighted", chance.random)[0] for _ in range(rounds))
    return [first[i] / rounds for i in choices]


@pytest.mark.parametrize("weights", [[1, 1], [3, 1], [1, 2, 7], [0.5, 0.25]])
def test_weighted_deployments_come_first_by_their_share(weights: list[float]) -> None:
    assert drawn(weights) == pytest.approx([weight / sum(weights) for weight in weights], abs=0.015)


def test_the_second_place_is_drawn_by_weight_too() -> None:
    chance = random.Random(7)
    orders = Counter(tuple(order("abc", [1, 2, 3], "weighted", chance.random)) for _ in range(20_000))
    assert orders["a", "c", "b"] / 20_000 == pytest.approx(1 / 6 * 3 / 5, abs=0.01)


def test_ordered_deployments_stay_as_they_are() -> None:
    assert order("abc", [1, 2, 3], "ordered", pytest.fail) == "abc"


def test_one_deployment_needs_no_draw() -> None:
    assert names(
        planned([PAID], aliases={"a": "paid/x"}, model="a", strategy="weighted", random=pytest.fail)
    ) == ["paid/x"]


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_an_order_holds_every_deployment_once(weights: list[float], chance: random.Random) -> None:
    choices = range(len(weights))
    assert sorted(order(choices, weights, "weighted", chance.random)) == list(choices)


def test_a_models_own_weight_counts_as_well() -> None:
    backends: list[Backend] = [
        PlainBackend("a", models={"m": Model(weight=4)}),
        PlainBackend("b", models={"m": Model(weight=0.5)}),
    ]
    chance = random.Random(7)
    firsts = Counter(
        names(
            planned(
                backends,
                aliases={"x": {"a/m": 1, "b/m": 2}},
                model="x",
                strategy="weighted",
                random=chance.random,
            )
        )[0]
        for _ in range(2000)
    )
    assert firsts["a/m"] / 2000 == pytest.approx(0.8, abs=0.03)


@settings(max_examples=25)
@given(st.floats(0, 1, exclude_max=True))
def test_fallback_deployments_are_balanced_among_themselves(draw: float) -> None:
    made = plan(model="big", fallback=["mixed"], strategy="weighted", random=lambda: draw)
    assert names(made)[0] == "paid/big"
    assert set(names(made)[1:]) == {"paid/fast", "home/own"}


# -- Tables


def tables(
    backends: list[Backend], aliases: Any = None, agents: Any = None, prices: Any = None, **options: Any
) -> Tables:
    return Tables(
        backends, AliasTable(aliases), AgentTable(agents or {}), prices=PriceBook(prices), **options
    )


def test_all_names_that_lead_nowhere_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        tables(
            [PlainBackend("mini"), PlainBackend("mini")],
            {"a": "mimi/x", "b": "a", "c-*": "mimi/*", "re:(d)-(.*)": r"\1/\2", "e*": ["mini/*", "nope/*"]},
            {"one": "z", "two": Agent("mini/x", fallback=["z", "q-1"])},
            default_model="z",
        )
    assert caught.value.faults == (
        'backends: two are named "mini"',
        'aliases.a, aliases.b: unknown backend "mimi" in mimi/x, did you mean "mini"?',
        'aliases.c-*: unknown backend "mimi", did you mean "mini"?',
        'aliases.e*: unknown backend "nope"',
        'agents.one, agents.two, default_model: unknown model "z": add it to aliases, or write backend/model',
        'agents.two: unknown model "q-1": add it to aliases, or write backend/model',
    )


def test_a_patterns_target_may_be_an_alias_with_a_slash() -> None:
    made = tables([PlainBackend("mini")], {"x/best": "mini/m", "c-*": "x/best"})
    assert made.resolve("c-1")[0].deployments == ("mini/m",)


def test_a_pattern_that_makes_up_a_backend_is_an_unknown_model() -> None:
    made = tables([PlainBackend("mini")], {"re:(.*)@(.*)": r"\2/\1"})
    assert made.resolve("m@mini")[0].deployments == ("mini/m",)
    with pytest.raises(UnknownModelError, match="maxi/m names no backend of this router"):
        made.resolve("m@maxi")


def test_a_deployment_is_made_once_and_knows_its_model() -> None:
    backend = PlainBackend("mini", models={"a/b:1": Model(context_window=10)})
    made = tables([backend])
    deployment = made.deployment("mini/a/b:1")
    assert (deployment.backend, deployment.model, deployment.info.context_window) == (backend, "a/b:1", 10)
    assert made.deployment("mini/a/b:1") is deployment


@pytest.mark.parametrize("model", ["x\r\ny", "x\x00", "x\x1b[31m"])
def test_control_characters_in_a_models_name_are_refused_unseen(model: str) -> None:
    with pytest.raises(InvalidRequestError, match="a model name holds control characters") as caught:
        plan(model=f"paid/{model}")
    assert model not in str(caught.value)


# -- Prices


@pytest.mark.parametrize(
    ("backend", "prices", "price"),
    [
        (paid(price=Price(1, 2)), {"paid/m": Price(5, 5), "m": Price(6, 6)}, Price(1, 2)),
        (paid(price="free"), {"paid/m": Price(5, 5)}, FREE),
        (paid(), {"paid/m": Price(5, 5), "m": Price(6, 6)}, Price(5, 5)),
        (paid(), {"m": Price(6, 6)}, Price(6, 6)),
        (paid(), {"m": "free"}, FREE),
        (paid(), {}, None),
        (paid(local=True), {}, FREE),
        (paid(local=True), {"m": Price(6, 6)}, Price(6, 6)),
        (OllamaBackend("paid", "http://far.test"), {}, FREE),
    ],
)
def test_a_price_is_the_models_then_the_routers_then_free_if_local(
    backend: Backend, prices: Any, price: Price | None
) -> None:
    assert tables([backend], prices=prices).deployment("paid/m").price == price


@pytest.mark.parametrize(
    ("name", "price"),
    [
        ("opus", Price(15, 75)),
        ("paid/m", Price(3, 4)),
        ("alias", Price(3, 4)),
        ("own", FREE),
        ("both", Price(3, 4)),
        ("paid/dear", Price(15, 75)),
        ("unpriced", Price(7, 7)),
        ("paid/other", None),
        ("nobody", None),
        ("paid/bad\nname", None),
    ],
)
def test_a_names_price_is_that_of_where_it_leads_else_its_own(name: str, price: Price | None) -> None:
    made = tables(
        [paid(price=Price(3, 4)), HOME],
        {"alias": "paid/m", "own": "home/m", "both": ["paid/m", "home/m"], "unpriced": "paid/other"},
        prices={"opus": Price(15, 75), "paid/dear": Price(15, 75), "unpriced": Price(7, 7)},
    )
    assert price_of(made, name) == price


def test_an_alias_named_like_a_paid_model_costs_what_serves() -> None:
    made = tables([HOME], {"claude-opus-4": "home/qwen"}, prices={"claude-opus-4": Price(15, 75)})
    assert made.deployment("home/qwen").price == Price(Decimal(0), Decimal(0))


@pytest.mark.parametrize(
    ("agent", "warned"),
    [
        (Agent("big", local_only=True), True),
        (Agent("big", fallback=["fast"], local_only=True), True),
        (Agent("big", fallback=["own"], local_only=True), False),
        (Agent(local_only=True), False),
        (Agent("big"), False),
    ],
)
def test_local_only_without_a_local_model_is_a_warning(
    caplog: pytest.LogCaptureFixture, agent: Agent, warned: bool
) -> None:
    Router(BOTH, ALIASES, {"py": agent}).close()
    start = "agents.py is local_only, but paid/big"
    assert [message.startswith(start) for message in caplog.messages] == [True] * warned
