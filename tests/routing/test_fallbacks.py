"""Fallbacks that belong to a model, for every agent."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conftest import Caller
from tests.flow.support import local
from tests.support.openai_like import chat
from tests.support.scripted import ScriptedServer, answer

from ccroute import Agent, AliasTable, Fallback, OpenAIBackend, RetryPolicy, Router, errors
from ccroute.failures import TRIGGERS
from ccroute.routing import AgentTable, Plan, Tables, make_plan
from ccroute.types import Model, Request

PAID = OpenAIBackend("paid", base_url="http://paid.test", models={"big": Model(context_window=1000)})
ALIASES = {"big": "paid/big", "fast": "paid/fast", "own": "home/own", "pair": ["paid/big", "home/own"]}
FALLBACKS = {"big": ["fast", "own"], "*": "own"}


def plan(fallbacks: Any = FALLBACKS, agent: Agent | str | None = None, **asked: Any) -> Plan:
    """A plan for model `big`, or for an agent if one is given."""
    agents: dict[str, Any] = {} if agent is None else {"py": agent}
    tables = Tables(
        [PAID, local()],
        AliasTable(ALIASES, strategy="ordered"),
        AgentTable(agents),
        fallbacks=fallbacks,
    )
    who = {"model": "big"} if agent is None else {"agent": "py"}
    messages = [{"role": "user", "content": asked.pop("prompt", "hi")}]
    return make_plan(Request(messages=messages, **who | asked), tables, lambda: 0.5)


def models(made: Plan) -> list[str]:
    return [f"{'or ' * candidate.fallback}{candidate.deployment.model}" for candidate in made.candidates]


@pytest.mark.parametrize(
    ("asked", "tried"),
    [
        ({}, ["big", "or fast", "or own"]),
        ({"model": "fast"}, ["fast", "or own"]),
        ({"model": "own"}, ["own"]),
        ({"model": "paid/fast"}, ["fast", "or own"]),
        ({"model": "pair"}, ["big", "own"]),
        ({"agent": "big"}, ["big", "or fast", "or own"]),
        ({"agent": Agent("fast", fallback=["big"])}, ["fast", "or big", "or own"]),
        ({"agent": Agent("big", fallback=["own"])}, ["big", "or own", "or fast"]),
        ({"fallback": ["own"]}, ["big", "or own"]),
        ({"fallback": False}, ["big"]),
        ({"agent": Agent("fast", fallback=["big"]), "fallback": False}, ["fast"]),
        ({"fallbacks": {"fast": ["own"]}}, ["big"]),
        ({"fallbacks": {"*": ["fast"], "big": []}}, ["big"]),
        ({"fallbacks": {"big": ["big", "fast", "big"]}}, ["big", "or fast"]),
        ({"fallbacks": {}}, ["big"]),
        ({"fallbacks": None}, ["big"]),
    ],
)
def test_a_models_fallbacks_come_after_the_agents(asked: Any, tried: list[str]) -> None:
    assert models(plan(**asked)) == tried


def test_fallbacks_are_those_of_the_model_that_the_agent_uses() -> None:
    made = plan({"big": ["own"], "fast": ["big"]}, "fast", model="big")
    assert (made.overridden, models(made)) == (True, ["fast", "or big"])


def test_their_triggers_are_the_agents() -> None:
    assert plan().triggers == TRIGGERS
    assert plan(agent=Agent("big", triggers=["budget"])).triggers == ("budget",)


def test_a_local_only_agent_gets_none_that_is_not_local() -> None:
    made = plan({"*": ["big", "fast"]}, Agent("own", local_only=True))
    assert models(made) == ["own"]
    assert made.reasons == ("local_only: paid/big, paid/fast left out",)
    with pytest.raises(errors.EgressDeniedError):
        plan({"*": ["fast"]}, Agent("big", local_only=True))


def test_one_with_a_larger_window_goes_first_where_the_agent_lets_it() -> None:
    long = "word " * 4000
    assert models(plan(prompt=long)) == ["or fast", "or own"]
    with pytest.raises(errors.ContextWindowExceededError):
        plan(agent=Agent("big", triggers=["availability"]), prompt=long)


def test_all_faults_of_fallbacks_are_reported_at_once() -> None:
    wrong: Any = {
        "bgi": ["fast"],
        "big": ["fsat", "own"],
        "fast": 3,
        "own": ["big", 4],
        "pair": "",
        "b*": ["own"],
        "re:b.*": ["own"],
        7: ["own"],
        "*": ["nowhere/x"],
    }
    with pytest.raises(errors.ConfigError) as caught:
        plan(wrong, Agent("big", fallback=["fsat"]))
    assert caught.value.faults == (
        "fallbacks.fast: give a list of models, not int",
        "fallbacks.own: a model is named by a str, not 4",
        "fallbacks.pair: a model is named by a str, not ''",
        'fallbacks.b*: no pattern; give the names themselves, and "*" for all others',
        'fallbacks.re:b.*: no pattern; give the names themselves, and "*" for all others',
        "fallbacks: a model is named by a str, not 7",
        'agents.py, fallbacks.big: unknown model "fsat", did you mean "fast"?',
        'fallbacks.bgi: unknown model "bgi", did you mean "big"?',
        'fallbacks.*: unknown model "nowhere/x": there is no alias of that name, and no backend "nowhere"',
    )


LONG = Fallback("own", triggers=["token_limit"])


def test_a_deployment_comes_once_for_each_trigger() -> None:
    made = plan({"big": [LONG, "fast", "own", Fallback("fast")]})
    assert models(made) == ["big", "or own", "or fast", "or own"]
    assert [[*candidate.triggers] for candidate in made.candidates] == [
        [*TRIGGERS],
        ["token_limit"],
        [*TRIGGERS],
        ["rate_limit", "availability", "budget"],
    ]


def test_a_fallback_without_triggers_is_one_for_all() -> None:
    assert Fallback("own").triggers == TRIGGERS
    assert models(plan({"big": Fallback("own", [])})) == ["big"]
    assert models(plan({"big": Fallback("own")})) == ["big", "or own"]


def test_one_with_triggers_goes_first_only_for_token_limit() -> None:
    long = "word " * 900  # about 1,130 tokens: more than the window of `big`, but not by a quarter
    assert models(plan({"big": ["fast"]}, prompt=long)) == ["or fast", "big"]
    assert models(plan({"big": [Fallback("fast", ["rate_limit"]), LONG]}, prompt=long)) == [
        "or own",
        "big",
        "or fast",
    ]
    agent = Agent("big", triggers=["availability"])
    assert models(plan({"big": [LONG]}, agent, prompt=long)) == ["big", "or own"]
    with pytest.raises(errors.ContextWindowExceededError):
        plan({"big": [Fallback("fast", ["rate_limit"])]}, prompt="word " * 4000)


def test_where_only_fallbacks_are_local_their_triggers_do_not_count() -> None:
    windows = {"own": Model(context_window=1000)}
    tables = Tables(
        [PAID, local(models=windows)],
        AliasTable(ALIASES),
        AgentTable({"hr": Agent("fast", fallback=["own"], triggers=["rate_limit"], local_only=True)}),
    )
    request = Request(messages=[{"role": "user", "content": "hi"}], agent="hr")
    assert models(make_plan(request, tables, lambda: 0.5)) == ["or own"]


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (Fallback("fsat"), 'unknown model "fsat", did you mean "fast"?'),
        (Fallback(3), "a model is named by a str, not 3"),  # type: ignore[arg-type]
        (Fallback("own", ["token"]), 'own: unknown trigger "token", the triggers are token_limit'),  # type: ignore[list-item]
        (Fallback("own", 3), "own: triggers is a list, not int"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_fallback_is_reported_with_its_place(wrong: Fallback, fault: str) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        plan({"big": [wrong]})
    assert caught.value.faults[0].startswith(f"fallbacks.big: {fault}")
    with pytest.raises(errors.ConfigError) as caught:
        plan({}, Agent("big", fallback=wrong))  # type: ignore[arg-type]
    assert fault in caught.value.faults[0]


def test_what_a_model_holds_is_checked_with_its_place() -> None:
    wrong: Any = {
        "a": Model(params={"temprature": 1, "temperature": "hot"}, drops=["sed", "extra.sed"]),
        "b": Model(params=["seed"], drops="seed"),  # type: ignore[arg-type]
        "c": Model(drops=7),  # type: ignore[arg-type]
        "d": Model(params={"seed": 1}, drops={"seed"}),
    }
    with pytest.raises(errors.ConfigError) as caught:
        Router([OpenAIBackend("main", base_url="http://main.test", models=wrong)])
    assert caught.value.faults == (
        "backends.main.models.a.params: temperature must be a number, not str",
        'backends.main.models.a.params: unknown parameter "temprature", did you mean "temperature"?',
        'backends.main.models.a.drops: unknown parameter "sed", did you mean "seed"?',
        "backends.main.models.b.params: give a dict of parameters, not list",
        "backends.main.models.b.drops: give a list of parameters, not str",
        "backends.main.models.c.drops: give a list of parameters, not int",
    )


@pytest.mark.parametrize("wrong", [["big"], "big", 3])
def test_fallbacks_are_a_mapping(wrong: Any) -> None:
    with pytest.raises(errors.ConfigError, match="fallbacks: give a mapping of models to fallback models"):
        Router([PAID, local()], ALIASES, fallbacks=wrong)


def test_a_call_that_fails_goes_on_to_its_models_fallback(caller: Caller) -> None:
    with ScriptedServer([answer(503)] * 2) as gone, ScriptedServer([answer(json=chat("here"))]) as there:
        router = Router(
            [OpenAIBackend("a", base_url=gone.url), OpenAIBackend("b", base_url=there.url)],
            {"sonnet": "a/m", "gpt-4": "b/m"},
            health="off",
            fallbacks={"sonnet": ["gpt-4"]},
            retry=RetryPolicy(per_deployment=1, base=0, max=0),
        )
        reply = caller.complete(router, "hi", model="sonnet")
        with pytest.raises(errors.OverloadedError):
            caller.complete(router, "hi", model="sonnet", fallback=False)
        router.close()
    assert (reply.text, reply.route.model, reply.route.fallback) == ("here", "gpt-4", True)
