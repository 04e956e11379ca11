"""What `explain` says is what a call does, and nothing is changed by asking."""

from __future__ import annotations

import os
import random
from collections import Counter, deque
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.flow.support import (
    Call,
    FakeClock,
    HandDriver,
    LimitedHosts,
    Shared,
    answers,
    fails,
    local,
    paid,
    router_state,
)

from ccroute import Agent, AliasTable, Model, OllamaBackend, OpenAIBackend, Price, PriceBook, RetryPolicy
from ccroute.backends import Backend
from ccroute.errors import CcrouteError
from ccroute.failures import TRIGGERS
from ccroute.flow import CallContext, RouterState, call
from ccroute.flow.explain import explain
from ccroute.observe import Event
from ccroute.routing import AgentTable, Fallback, Tables, make_plan
from ccroute.routing.acquired import AttemptOutcome
from ccroute.routing.load import STALE, Load
from ccroute.types import Request, RoutePlan
from ccroute.types.arguments.checked import build_request


class NoChance(FakeClock):
    """A clock that lets nobody draw."""

    def random(self) -> NoReturn:
        raise AssertionError("a random number was drawn")


def snapshot(value: Any, seen: tuple[int, ...] = ()) -> object:
    """Everything that can be reached from a value, as plain data; of locks, functions and errors the type."""
    if id(value) in seen or isinstance(value, str | bytes | int | float | Decimal | None):
        return value if id(value) not in seen else "seen"
    seen = (*seen, id(value))
    if isinstance(value, Mapping):
        return {repr(key): snapshot(each, seen) for key, each in value.items()}
    if isinstance(value, list | tuple | deque):
        return [snapshot(each, seen) for each in value]
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    fields = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    if not type(value).__module__.startswith("ccroute") or isinstance(value, type | CcrouteError):
        return repr(type(value))
    return {name: snapshot(each, seen) for name, each in (fields | getattr(value, "__dict__", {})).items()}


class Scene:
    """Tables, and a state that explaining may not change."""

    def __init__(
        self,
        *backends: Backend,
        aliases: Any = None,
        agents: Any = None,
        strategy: Any = "ordered",
        prices: Any = None,
        fallbacks: Any = None,
        **state: Any,
    ) -> None:
        self.tables = Tables(
            backends,
            AliasTable(aliases, strategy=strategy),
            AgentTable(agents or {}),
            prices=PriceBook(prices),
            fallbacks=fallbacks,
        )
        self.events: list[Event] = []
        self.clock = state.pop("clock", None) or NoChance()
        self.state: RouterState = router_state(self.clock, self.events.append, **state)
        self.state = self.state._replace(tables=self.tables)

    def explain(self, prompt: str = "hi", **options: Any) -> RoutePlan:
        learned = self.state._replace(tables=Tables([], AliasTable(), AgentTable({})))
        before = snapshot(learned), len(self.events)
        plan = explain(build_request(prompt, options), self.state)
        assert (snapshot(learned), len(self.events)) == before
        assert [each.allowed for each in plan.candidates] == [c.why_not is None for c in plan.candidates]
        return plan

    def attempts(self, world: Any, prompt: str = "hi", **options: Any) -> list[str]:
        """Whom a call asks, one after the other."""
        state = self.state._replace(clock=FakeClock())
        try:
            plan = make_plan(build_request(prompt, options), self.tables, lambda: 0.5, load=state.load)
            context = CallContext(plan, state, os.getpid())
            HandDriver(world).run(Call(call(context, stream=False), context, FakeClock(), []))
        except CcrouteError as error:
            return [attempt.deployment for attempt in error.attempts]
        raise AssertionError("the call succeeded")


def allowed(plan: RoutePlan) -> list[str]:
    return [each.deployment for each in plan.candidates if each.allowed]


def why_not(plan: RoutePlan) -> dict[str, str | None]:
    return {each.deployment: each.why_not for each in plan.candidates if not each.allowed}


def shares(plan: RoutePlan) -> dict[str, float]:
    return {each.deployment: each.probability for each in plan.candidates}


# -- The same decision as a call's

NAMES = ("a/small", "a/large", "b/m", "home/m", "home/n", "c/x")
ALIASES = {
    "one": "a/small",
    "pair": ["a/small", "home/m"],
    "three": ["b/m", "a/large", "c/x"],
    "cheap": {"targets": ["b/m", "home/n", "a/large"], "strategy": "cost"},
}
MODELS = st.sampled_from([*reversed(ALIASES), *NAMES])
GONE, BUSY = fails(404, "no such model", code="model_not_found"), fails(429, "slow down")


def four_backends() -> list[Backend]:
    """A server with two windows, one that takes few parameters, one at home, and one without a price."""
    sizes = {"small": Model(context_window=40, price=Price(1, 2)), "large": Model(context_window=300)}
    return [
        OllamaBackend("a", "http://a.test", models=sizes),
        paid("b", Price(3, 15)),
        local(models={"n": Model(price=Price("0.5", 1), context_window=100)}),
        OpenAIBackend("c", base_url="https://c.test"),
    ]


@settings(max_examples=150)
@given(
    model=MODELS,
    fallback=st.lists(MODELS, min_size=1, max_size=3),
    own_triggers=st.none() | st.sampled_from([TRIGGERS[:1], TRIGGERS[1:2], TRIGGERS[2:3]]),
    own=st.none() | st.lists(MODELS, max_size=2) | st.just(False),
    others=st.lists(MODELS, max_size=1),
    triggers=st.sampled_from([TRIGGERS, TRIGGERS[:2], TRIGGERS[1:3], TRIGGERS[2:], TRIGGERS[:1], ()]),
    local_only=st.sampled_from([False, False, True]),
    words=st.sampled_from([1, 30, 70, 200, 2000]),
    asked=st.fixed_dictionaries(
        {},
        optional={
            "max_tokens": st.sampled_from([10, 100]),
            "logit_bias": st.just({"1": 1}),
            "top_k": st.just(5),
            "tool_choice": st.just("required"),
        },
    ),
    attempts=st.sampled_from([9, 3, 2, 1]),
    drop_params=st.booleans(),
)
def test_what_is_explained_is_what_a_call_does(
    model: str,
    fallback: list[str],
    own_triggers: Any,
    own: Any,
    others: list[str],
    triggers: tuple[Any, ...],
    local_only: bool,
    words: int,
    asked: dict[str, Any],
    attempts: int,
    drop_params: bool,
) -> None:
    last = [] if own_triggers is None else [Fallback(fallback[0], own_triggers)]
    scene = Scene(
        *four_backends(),
        aliases=ALIASES,
        agents={"py": Agent(model, fallback=[*last, *fallback], triggers=triggers, local_only=local_only)},
        fallbacks={"*": others},
        retry=RetryPolicy(attempts=attempts, per_deployment=1),
        drop_params=drop_params,
    )
    options: dict[str, Any] = {"agent": "py", "fallback": own, **asked}
    plan = scene.explain("word" * words, **options)
    explained = allowed(plan)
    assert sum(each.probability for each in plan.candidates) == (1.0 if explained else 0.0)
    # A failure of a kind that the agent's fallbacks are for, if there is one.
    has_budget_only = not {*triggers} & {"rate_limit", "availability"} and not own
    if has_budget_only and triggers:
        return  # no server's refusal moves such a call on to them but one for the prompt's length
    failing = GONE if own or "availability" in triggers else BUSY
    asked_now = scene.attempts([failing], "word" * words, **options)
    if last:  # this one is only for its own kind of failure
        assert {*asked_now} <= {*explained}
    else:
        assert asked_now == explained[:attempts]


@settings(max_examples=40)
@given(
    st.lists(st.floats(0.1, 10), min_size=2, max_size=4),
    st.sampled_from(["weighted", "least-busy", "latency", "cost"]),
    st.integers(0, 2**32),
)
def test_a_probability_is_the_share_of_the_draws(weights: list[float], strategy: Any, seed: int) -> None:
    backends = [OpenAIBackend(f"b{i}", base_url=f"https://b{i}.test") for i in range(len(weights))]
    alias = {f"b{i}/m": weight for i, weight in enumerate(weights)}
    scene = Scene(*backends, aliases={"any": alias}, strategy=strategy)
    found = scene.explain(model="any")
    chance, request = random.Random(seed), Request(model="any")
    drawn = Counter(
        make_plan(request, scene.tables, chance.random).candidates[0].deployment.name for _ in range(1500)
    )
    for each in found.candidates:
        assert each.probability == pytest.approx(drawn[each.deployment] / 1500, abs=0.07)
    assert list(shares(found).values()) == sorted(shares(found).values(), reverse=True)


def test_a_draw_leaves_out_those_that_are_not_asked() -> None:
    """A larger weight does not help where the request cannot be carried, or only a small window has place."""
    windows = [(1, None), (2, None), (5, 10), (4, 400)]
    backends = [
        OpenAIBackend(f"b{i}", base_url=f"https://b{i}.test", models={"m": Model(context_window=window)})
        for i, (_, window) in enumerate(windows)
    ]
    alias = {f"b{i}/m": weight for i, (weight, _) in enumerate(windows)}
    scene = Scene(*backends, OllamaBackend("o"), aliases={"any": {**alias, "o/m": 9}}, strategy="weighted")
    plan = scene.explain("word" * 30, model="any", logit_bias={"1": 1}, max_tokens=500, fallback=["b0/other"])
    assert shares(plan) == {
        "b1/m": pytest.approx(2 / 3),
        "b0/m": pytest.approx(1 / 3),
        "b0/other": 0,
        "b3/m": 0,
        "b2/m": 0,
        "o/m": 0,
    }
    assert list(why_not(plan)) == ["o/m", "b2/m"]


def test_who_may_serve_instead_of_the_first_one_is_told() -> None:
    """Where hosts have limits, the first free slot decides; a deployment that cannot carry the request has no
    part in it."""
    backends = [paid("one"), paid("two"), OllamaBackend("o")]
    about: Any = {"aliases": {"any": [f"{each.name}/m" for each in backends]}, "strategy": "weighted"}
    said = "one/m, two/m: the first of their hosts that has a free slot serves the call"
    for hosts, told in ((backends, True), (backends[1:], False), ((), False)):
        scene = Scene(*backends, **about, hosts=LimitedHosts(each.origin for each in hosts))
        plan = scene.explain(model="any", logit_bias={"1": 1})
        assert (said in plan.reasons) is told
    ordered = Scene(
        *backends,
        aliases=about["aliases"],
        hosts=LimitedHosts(each.origin for each in backends),
    )
    assert ordered.explain(model="any").reasons == ()


# -- Why not


def test_every_reason_of_the_tables_is_told_at_once() -> None:
    scene = Scene(
        *four_backends(),
        aliases={"any": ["a/small", "b/m", "home/m", "home/n"]},
        agents={"py": Agent("any", local_only=True)},
    )
    plan = scene.explain("word" * 200, agent="py")
    assert allowed(plan) == ["home/m"]
    assert why_not(plan) == {
        "a/small": "agent py is local_only, and backend a is not local",
        "b/m": "agent py is local_only, and backend b is not local",
        "home/n": "the prompt has about 204 tokens, its context window 100",
    }
    assert plan.reasons == (
        "local_only: a/small, b/m left out",
        "about 204 tokens are needed: ordered by context window",
    )


def test_a_call_that_would_be_denied_is_explained() -> None:
    scene = Scene(*four_backends(), agents={"py": Agent("b/m", local_only=True), "long": Agent("a/small")})
    denied = scene.explain(agent="py")
    assert (allowed(denied), [*why_not(denied)]) == ([], ["b/m"])
    assert denied.reasons[0].startswith("agent py is local_only and may not use b/m")
    long = scene.explain("word" * 60, agent="long")
    assert why_not(long) == {"a/small": "the prompt has about 64 tokens, its context window 40"}
    assert long.reasons[0].startswith("the prompt has about 64 tokens, the largest context window 40")


def test_a_fallback_says_which_failures_it_is_for() -> None:
    agents = {
        "all": Agent("b/m", fallback=["home/m"]),
        "some": Agent("b/m", fallback=["home/m"], triggers=["rate_limit", "budget"]),
        "none": Agent("b/m", fallback=["home/m"], triggers=[]),
        "short": Agent("a/small", fallback=["home/m"], triggers=["availability"]),
    }
    scene = Scene(*four_backends(), agents=agents)
    reasons = {name: scene.explain(agent=name).candidates[1].reason for name in ("all", "some")}
    assert reasons == {
        "all": 'fallback "home/m"',
        "some": 'fallback "home/m", for rate_limit or budget',
    }
    assert why_not(scene.explain(agent="none")) == {
        "home/m": "the agent has no triggers, so its fallback models are never used"
    }
    assert why_not(scene.explain("word" * 60, agent="short"))["home/m"] == (
        "the prompt is too long for the model, and this fallback model is not for token_limit"
    )
    plan = scene.explain(agent="some", logit_bias={"1": 1})
    assert allowed(plan) == ["b/m", "home/m"]


def test_a_fallback_whose_trigger_the_agent_lacks_is_not_allowed() -> None:
    agent = Agent("a/large", fallback=["b/m"], triggers=["rate_limit"])
    scene = Scene(*four_backends(), agents={"py": agent})
    plan = scene.explain(agent="py", logit_bias={"1": 1})
    assert allowed(plan) == []
    assert (why_not(plan)["a/large"] or "").startswith("cannot carry logit_bias")
    assert why_not(plan)["b/m"] == "this fallback model is only for rate_limit"


def test_a_fallback_of_its_own_triggers_is_for_them() -> None:
    """The same deployment may serve twice, for different failures."""
    fallback = [
        Fallback("c/x", ["token_limit"]),
        Fallback("c/x", ["availability"]),
        Fallback("b/m", ["budget"]),
    ]
    agent = Agent("home/m", fallback=fallback, triggers=["token_limit", "availability"])
    scene = Scene(*four_backends(), agents={"py": agent})
    plan = scene.explain(agent="py")
    assert [(each.deployment, each.reason) for each in plan.candidates if each.allowed] == [
        ("home/m", 'model "home/m"'),
        ("c/x", 'fallback "c/x", for token_limit'),
        ("c/x", 'fallback "c/x", for availability'),
    ]
    assert why_not(plan) == {
        "b/m": "this fallback model is only for budget, and the agent's only for token_limit or availability"
    }
    assert [each.probability for each in plan.candidates] == [1, 0, 0, 0]


def test_a_draw_among_fallback_models_is_told() -> None:
    """Where the first choice gets no calls, they are the first that is asked."""
    aliases = {"any": {"targets": {"home/m": 1, "c/x": 3}, "strategy": "weighted"}}
    scene = Scene(*four_backends(), aliases=aliases)
    plan = scene.explain(model="a/large", logit_bias={"1": 1}, fallback=["any"])
    assert shares(plan) == {"a/large": 0, "c/x": 0.75, "home/m": 0.25}


def test_a_limit_that_the_model_gets_bounds_the_cost() -> None:
    models = {"m": Model(price=Price(0, 1000), params={"max_tokens": 20}, max_output=500)}
    backend = OpenAIBackend("x", base_url="https://x.test", models=models)
    (candidate,) = Scene(backend).explain(model="x/m").candidates
    assert candidate.worst_cost == Decimal("0.02")


def test_a_parameter_that_is_dropped_is_told() -> None:
    scene = Scene(*four_backends(), drop_params=True)
    plan = scene.explain(model="a/large", logit_bias={"1": 1})
    assert allowed(plan) == ["a/large"]
    assert [reason.partition(",")[0] for reason in plan.reasons] == ["a/large: logit_bias dropped"]


def test_a_missing_key_is_told_and_a_callable_is_not_asked() -> None:
    asked: list[str] = []

    def key() -> str:
        asked.append("key")
        return ""

    backends = [OpenAIBackend("bare"), OpenAIBackend("vault", api_key=key), local()]
    scene = Scene(*backends, aliases={"any": ["bare/m", "vault/m", "home/m"]})
    plan = scene.explain(model="any")
    assert (allowed(plan), asked) == (["vault/m", "home/m"], [])
    assert (why_not(plan)["bare/m"] or "").startswith("no API key: set OPENAI_API_KEY")


def test_attempts_that_are_used_up_are_told() -> None:
    scene = Scene(
        *four_backends(),
        aliases={"any": ["home/1", "home/2", "home/3", "b/m"]},
        retry=RetryPolicy(attempts=3),
    )
    plan = scene.explain(model="any")
    assert allowed(plan) == ["home/1", "home/2", "b/m", "home/3"], "the last one is for another backend"
    assert plan.reasons == (
        "a call makes at most 3 attempts, so home/3 may not be asked; RetryPolicy(attempts=…) allows more",
    )


# -- What the router has learned


def explained(shared: Shared, **options: Any) -> RoutePlan:
    """The plan for a call to all of them, which changes nothing of what they share."""
    scene = Scene(
        *shared.backends,
        aliases={"any": [f"{backend.name}/m" for backend in shared.backends]},
        agents={"py": Agent("paid/m", fallback=["home/m"], triggers=["rate_limit"])}
        if len(shared.backends) > 1
        else {},
        health=shared.health,
        load=shared.load,
        retry_budget=shared.retry_budget,
        clock=shared.clock,
    )
    return scene.explain(**options)


def test_what_gets_no_calls_is_not_allowed() -> None:
    both = Shared(paid(), local())
    for _ in range(5):
        both.gets(fails(503, "no"), answers(), retry=RetryPolicy(attempts=2, per_deployment=1))
    plan = explained(both, model="any")
    assert (allowed(plan), plan.reasons) == (["home/m"], ())
    assert why_not(plan) == {
        "paid/m": "not asked: it failed in other calls and gets none for 30 s more "
        "(5 failures in a row; last: OverloadedError, HTTP 503)"
    }
    assert shares(plan) == {"paid/m": 0.0, "home/m": 1.0}


def test_where_nobody_else_is_left_the_early_probe_is_told() -> None:
    one = Shared(paid())
    for _ in range(5):
        one.misses(fails(503, "no"))
    plan = explained(one, model="any")
    assert allowed(plan) == []
    assert plan.reasons == ("paid/m is tried early, because nobody else is left",)
    assert one.gets(answers(), model="any").asked == ["paid"]


def test_a_fallback_for_another_failure_does_not_serve_for_a_breaker() -> None:
    both = Shared(paid(), local())
    for _ in range(5):
        both.misses(fails(503, "no"), aliases={"one": "paid/m"}, model="one")
    plan = explained(both, agent="py")
    assert why_not(plan)["home/m"] == "this fallback model is only for rate_limit"
    assert plan.reasons == ("paid/m is tried early, because nobody else is left",)


@pytest.mark.parametrize(
    ("timeout", "reasons"),
    [(60.0, ("the call waits 20 s for paid/m, because nobody else is left",)), (5.0, ())],
)
def test_a_pause_is_told_with_the_wait_that_it_costs(timeout: float, reasons: tuple[str, ...]) -> None:
    one = Shared(paid())
    one.misses(fails(429, "slow down", retry_after="30"))
    plan = explained(one.after(10), model="any", timeout=timeout)
    assert (why_not(plan)["paid/m"] or "").endswith("(asked for a pause; last: RateLimitError, HTTP 429)")
    assert (plan.reasons, plan.timeout) == (reasons, timeout)


def test_a_pause_that_is_over_is_left_as_it_was() -> None:
    one = Shared(paid())
    one.misses(fails(429, "slow down", retry_after="30"))
    assert allowed(explained(one.after(31), model="any")) == ["paid/m"]


def test_the_retry_budget_is_left_as_it_was() -> None:
    one = Shared(paid())
    one.gets(fails(503, "no"), answers(), retry=RetryPolicy(attempts=2, base=0, max=0))
    assert one.retry_budget.left
    assert allowed(explained(one, model="any")) == ["paid/m"]


def test_a_refused_key_is_told_and_its_callable_is_not_asked() -> None:
    asked: list[str] = []

    def key() -> str:
        asked.append("asked")
        return "sk-old-0123456789"

    one = Shared(paid(api_key=key), local())
    one.gets(fails(401, "who?"), answers(), retry=RetryPolicy(attempts=2))
    before = len(asked)
    plan = explained(one, model="any")
    assert (allowed(plan), len(asked)) == (["home/m"], before)
    assert "refused: AuthenticationError, HTTP 401" in (why_not(plan)["paid/m"] or "")


# -- Strategies


def test_a_stale_latency_is_not_measured_by_explaining() -> None:
    clock = NoChance()
    load = Load(clock.monotonic)
    backends = [OpenAIBackend(name, base_url=f"https://{name}.test") for name in ("a", "b")]
    scene = Scene(*backends, aliases={"any": ["a/m", "b/m"]}, strategy="latency", load=load, clock=clock)
    for name, seconds in (("a/m", 9.0), ("b/m", 1.0)):
        running = load.begin(scene.tables.deployment(name))
        running.settle(AttemptOutcome(ok=True, duration=seconds, output=100))
    clock.elapsed += STALE + 1
    plan = scene.explain(model="any")
    assert shares(plan) == {"b/m": 1.0, "a/m": 0.0}
    assert plan.candidates[0].reason == 'model "any", latency'


def test_the_prompt_is_counted_once() -> None:
    counted: list[Request] = []

    def count(request: Request) -> int:
        counted.append(request)
        return 70

    scene = Scene(*four_backends(), aliases=ALIASES, count_tokens=count)
    assert scene.explain(model="cheap", fallback=["pair"]).estimated_tokens == 70
    assert len(counted) == 1


# -- Money


@pytest.mark.parametrize(
    ("model", "options", "cost"),
    [
        ("priced", {"max_tokens": 1000}, "0.0181"),  # 1000 × 1.25 × 2.48 + 1000 × 15 USD per million
        ("priced", {}, "0.0331"),
        ("endless", {"max_tokens": 1000}, "0.0181"),
        ("endless", {}, None),
        ("input", {}, "0.0031"),
        ("tiered", {"max_tokens": 1}, "0.011259"),
        ("unknown", {"max_tokens": 1000}, None),
    ],
)
def test_the_worst_cost_is_the_longest_prompt_and_answer(
    model: str, options: dict[str, Any], cost: str | None
) -> None:
    price = Price("2.48", 15, cache_write=99)
    models = {
        "priced": Model(price=price, max_output=2000),
        "endless": Model(price=price),
        "input": Model(price=Price("2.48", 0)),
        "tiered": Model(price=Price(1, 1, above={1200: Price(9, 9)})),
    }
    scene = Scene(OpenAIBackend("x", base_url="https://x.test", models=models))
    prompt = "word" * 996  # 996 tokens, and 4 around the message
    (candidate,) = scene.explain(prompt, model=f"x/{model}", **options).candidates
    assert candidate.worst_cost == (None if cost is None else Decimal(cost))


def test_a_tokenizers_count_is_taken_as_it_is() -> None:
    models = {"m": Model(price=Price(1000, 0))}
    backend = OpenAIBackend("x", base_url="https://x.test", models=models)
    (candidate,) = Scene(backend, count_tokens=lambda request: 100).explain(model="x/m").candidates
    assert candidate.worst_cost == Decimal("0.1")


def test_what_is_free_costs_nothing_at_any_length() -> None:
    (candidate,) = Scene(local()).explain(model="home/m").candidates
    assert candidate.worst_cost == 0
