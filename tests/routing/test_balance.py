"""Each strategy sends calls where it says, and a host that fails at once attracts none of them."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.flow.support import FakeClock, PlainBackend

from ccroute import AliasTable
from ccroute.routing import Agent, AgentTable, Candidate, Deployment, Plan, Tables, make_plan
from ccroute.routing.acquired import AttemptOutcome
from ccroute.routing.balance import EXPLORE
from ccroute.routing.load import STALE, Load
from ccroute.routing.tables.aliases import Strategy
from ccroute.types import Model, Price, Request

LOOKING: tuple[Strategy, ...] = ("least-busy", "latency", "cost")
CHEAP, DEAR = Price(1, 2), Price(3, 6)
NEVER, ALWAYS = 0.99, 0.0
"""Draws that let nobody, or everybody who may, go and see how quick a host is now."""


class BalanceScenario:
    """An alias "any" over several backends, their load, and a clock that is set."""

    def __init__(
        self,
        strategy: Strategy,
        models: Mapping[str, Model],
        agents: Mapping[str, Agent] | None = None,
        **options: Any,
    ) -> None:
        self.clock = FakeClock()
        self.load = Load(self.clock.monotonic)
        self.in_flight: list[Any] = []
        self.counted = 0
        backends = [PlainBackend(name, models={"m": model}, **options) for name, model in models.items()]
        aliases = AliasTable({"any": [f"{name}/m" for name in models]}, strategy=strategy)
        self.tables = Tables(backends, aliases, AgentTable(agents or {}))

    def deployment(self, name: str) -> Deployment:
        return self.tables.deployment(f"{name}/m")

    def begin(self, name: str, calls: int = 1) -> list[Any]:
        begun = [self.load.begin(self.deployment(name)) for _ in range(calls)]
        self.in_flight += begun  # one that is dropped is over
        return begun

    def ends(self, name: str, ok: bool | None = True, calls: int = 1, **measured: Any) -> None:
        for running in self.begin(name, calls):
            running.settle(AttemptOutcome(ok=ok, **measured))

    def plan(self, draw: Callable[[], float] = lambda: NEVER, **asked: Any) -> Plan:
        def count(request: Request) -> int:
            self.counted += 1
            return 1000

        request = Request(messages=[{"role": "user", "content": "hi"}], **({"model": "any"} | asked))
        return make_plan(request, self.tables, draw, count, load=self.load)

    def order(self, draw: float = NEVER, **asked: Any) -> str:
        """The backends' names, in order."""
        return "".join(c.deployment.backend.name for c in self.plan(lambda: draw, **asked).candidates)


def place(strategy: Strategy, names: str = "ab", **options: Any) -> BalanceScenario:
    return BalanceScenario(strategy, dict.fromkeys(names, Model()), **options)


# -- What holds for all


@given(
    st.sampled_from(LOOKING),
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([True, False, None]), st.floats(0, 200))),
    st.lists(st.sampled_from("abc"), max_size=5),
    st.floats(0, 1, exclude_max=True),
)
def test_an_order_holds_every_deployment_once(
    strategy: Strategy, ended: list[tuple[str, bool | None, float]], running: list[str], draw: float
) -> None:
    scene = place(strategy, "abc")
    for name, ok, seconds in ended:
        scene.clock.elapsed += seconds
        scene.ends(name, ok, duration=seconds, output=100)
    for name in running:
        scene.begin(name)
    assert sorted(scene.order(draw)) == ["a", "b", "c"]


@pytest.mark.parametrize(("strategy", "weight"), [("least-busy", 1), ("latency", 1), ("cost", 3)])
def test_where_nothing_speaks_for_one_the_draw_is_by_weight(strategy: Strategy, weight: float) -> None:
    scene = BalanceScenario(strategy, {"a": Model(), "b": Model(weight=weight)})
    chance = random.Random(7)
    firsts = [scene.plan(chance.random).candidates[0].deployment.backend.name for _ in range(2000)]
    assert firsts.count("b") / 2000 == pytest.approx(weight / (1 + weight), abs=0.03)


@pytest.mark.parametrize("strategy", ["weighted", "ordered"])
def test_the_others_do_not_look_at_the_load(strategy: Strategy) -> None:
    scene = place(strategy)
    scene.ends("a", False, calls=10)
    scene.begin("a", 10)
    assert scene.order() == "ab"


def test_each_alias_is_balanced_by_its_own_strategy() -> None:
    backends = [
        PlainBackend("a", models={"m": Model(price=DEAR)}),
        PlainBackend("b", models={"m": Model(price=CHEAP)}),
    ]
    hosts = ["a/m", "b/m"]
    aliases: dict[str, Any] = {
        "first": {"targets": hosts, "strategy": "ordered"},
        "cheap": {"targets": hosts, "strategy": "cost"},
        "idle": hosts,
    }
    tables = Tables(backends, AliasTable(aliases, strategy="least-busy"), AgentTable({}))
    load = Load(FakeClock().monotonic)
    busy = load.begin(tables.deployment("a/m"))
    counted = []

    def asked(model: str) -> list[str]:
        request = Request(messages=[{"role": "user", "content": "hi"}], model=model)

        def count(request: Request) -> int:
            counted.append(model)
            return 1000

        made = make_plan(request, tables, lambda: NEVER, count, load=load)
        return [candidate.deployment.backend.name for candidate in made.candidates]

    assert (asked("first"), asked("cheap"), asked("idle")) == (["a", "b"], ["b", "a"], ["b", "a"])
    assert counted == ["cheap"], "a prompt is counted only where that decides something"
    busy.settle(AttemptOutcome(ok=True, duration=1.0, output=1))


def test_the_cheapest_is_found_by_the_prompts_price_tier() -> None:
    tiered = Price(1, 1, above={500: Price(9, 9)})
    scene = BalanceScenario("cost", {"a": Model(price=tiered), "b": Model(price=Price(2, 2))})
    assert scene.order() == "ba", "the prompt has 1000 tokens"
    scene = BalanceScenario(
        "cost", {"a": Model(price=Price(1, 1, above={1000: Price(9, 9)})), "b": Model(price=Price(2, 2))}
    )
    assert scene.order() == "ab"


@pytest.mark.parametrize("strategy", LOOKING)
def test_without_a_load_and_prices_there_still_is_a_plan(strategy: Strategy) -> None:
    tables = place(strategy).tables
    assert len(make_plan(Request(model="any"), tables, lambda: 0.5).candidates) == 2


@pytest.mark.parametrize("strategy", LOOKING)
def test_after_a_failure_a_host_gets_one_call_at_a_time(strategy: Strategy) -> None:
    scene = BalanceScenario(strategy, {"a": Model(price=CHEAP, weight=4), "b": Model(price=DEAR)})
    scene.ends("a", True, duration=1.0, output=100)
    scene.ends("b", True, duration=5.0, output=100)
    assert scene.order() == "ab"
    scene.ends("a", False, calls=3)
    assert scene.order() == "ba"
    scene.clock.elapsed += 100
    assert scene.order() == "ab"
    (probe,) = scene.begin("a")
    assert scene.order() == "ba"
    probe.settle(AttemptOutcome(ok=True, duration=1.0, output=100))
    scene.begin("a")
    assert scene.order() == "ab"


# -- least-busy


def test_the_host_with_fewer_calls_for_its_weight_goes_first() -> None:
    scene = BalanceScenario("least-busy", {"a": Model(weight=3), "b": Model()})
    assert scene.order() == "ab"
    scene.begin("a", 2)
    scene.begin("b", 1)
    assert scene.order() == "ab"
    scene.begin("a", 4)
    assert scene.order() == "ba"


def test_calls_of_other_models_keep_a_host_busy_too() -> None:
    scene = place("least-busy")
    running = scene.load.begin(scene.tables.deployment("a/other"))
    assert scene.order() == "ba"
    running.settle(AttemptOutcome(ok=None))


# -- latency


def test_the_quickest_for_this_many_tokens_goes_first() -> None:
    scene = place("latency")
    scene.ends("a", first_content=0.2, duration=20.2, output=400)  # begins soon, writes slowly
    scene.ends("b", first_content=4.0, duration=6.0, output=400)
    assert scene.order() == "ba"
    assert scene.order(max_tokens=10) == "ab"


def test_what_is_not_measured_is_tried_by_one_call_at_a_time() -> None:
    scene = place("latency", "abc")
    scene.ends("a", duration=1.0, output=100)
    scene.begin("b")
    assert scene.order() == "cab"
    scene.begin("c")
    assert scene.order()[0] == "a"


def test_a_stale_host_is_tried_again_by_a_small_share_of_calls() -> None:
    scene = place("latency")
    scene.ends("b", duration=60.0, output=100)
    scene.clock.elapsed += STALE + 1
    scene.ends("a", duration=1.0, output=100)
    assert scene.order(draw=NEVER) == "ab"
    assert scene.order(draw=EXPLORE) == "ab"
    assert scene.order(draw=ALWAYS) == "ba"
    (explorer,) = scene.begin("b")
    assert scene.order(draw=ALWAYS) == "ab"
    explorer.settle(AttemptOutcome(ok=True, duration=0.5, output=100))
    assert scene.order(draw=ALWAYS) == "ba"


def test_hosts_that_are_nearly_as_quick_share_by_weight() -> None:
    scene = BalanceScenario("latency", {"a": Model(), "b": Model(weight=2)})
    scene.ends("a", duration=1.0, output=100)
    scene.ends("b", duration=1.1, output=100)
    assert scene.order() == "ba"
    scene.begin("b", 2)
    assert scene.order() == "ab"


def test_calls_in_flight_make_the_predicted_time_longer() -> None:
    scene = place("latency", max_concurrency=1)
    scene.ends("a", duration=1.0, output=400)
    scene.ends("b", duration=3.0, output=400)
    scene.begin("a")
    assert scene.order() == "ab"
    scene.begin("a")
    assert scene.order() == "ba"


def test_a_host_that_stops_answering_is_noticed_by_its_open_calls() -> None:
    scene = place("latency")
    scene.ends("a", duration=1.0, output=400)
    scene.ends("b", duration=3.0, output=400)
    scene.begin("a", 4)
    assert scene.order() == "ba"


# -- cost


def test_the_cheapest_goes_first_and_unknown_prices_last() -> None:
    models = {"a": Model(), "b": Model(price=Price(1, 9)), "c": Model(price=Price(3, 3))}
    scene = BalanceScenario("cost", models, {"brief": Agent(params={"max_tokens": 10})})
    assert scene.order(max_tokens=1000) == "cba"
    assert scene.order(max_tokens=100) == "bca"
    assert scene.order() == "cba"
    assert scene.order(agent="brief") == "bca"


def test_a_prompt_is_counted_once_and_only_where_its_price_differs() -> None:
    same, differing = Model(price=CHEAP, context_window=9999), Model(price=DEAR)
    scene = BalanceScenario("cost", {"a": same, "b": differing})
    scene.plan()
    assert scene.counted == 1
    for models in ({"a": differing, "b": differing}, {"a": Model(), "b": Model()}):
        scene = BalanceScenario("cost", models)
        scene.plan()
        assert scene.counted == 0


# -- Over time


@dataclass
class Host:
    """How a host behaves t seconds after the start: seconds for an answer of 400 tokens, share that fails."""

    seconds: Callable[[float], float] = lambda t: 1.0
    failing: Callable[[float], float] = lambda t: 0.0
    model: Model = field(default_factory=Model)


def traffic(
    strategy: Strategy, hosts: Mapping[str, Host], rate: float, until: float = 900.0
) -> list[tuple[float, str]]:
    """Who was asked first, and when, by callers who come at random, `rate` a second.

    A failure takes 5 ms; who fails is asked once, then the next in the plan.
    """
    chance = random.Random(20)
    scene = BalanceScenario(strategy, {name: host.model for name, host in hosts.items()})
    number = itertools.count()
    asked: list[tuple[float, str]] = []
    coming: list[tuple[float, int, Callable[[], None]]] = []

    def later(seconds: float, then: Callable[[], None]) -> None:
        heapq.heappush(coming, (scene.clock.elapsed + seconds, next(number), then))

    def ask(candidates: list[Candidate]) -> None:
        deployment = candidates[0].deployment
        host, now = hosts[deployment.backend.name], scene.clock.elapsed
        running, output = scene.load.begin(deployment), chance.randint(50, 750)

        def fails() -> None:
            running.settle(AttemptOutcome(ok=False))
            if candidates[1:]:
                ask(candidates[1:])

        if chance.random() < host.failing(now):
            later(0.005, fails)
        else:
            seconds = host.seconds(now) * (0.2 + 0.8 * output / 400)
            later(seconds, lambda: running.settle(AttemptOutcome(ok=True, duration=seconds, output=output)))

    def arrive() -> None:
        later(chance.expovariate(rate), arrive)
        candidates = list(scene.plan(chance.random).candidates)
        asked.append((scene.clock.elapsed, candidates[0].deployment.backend.name))
        ask(candidates)

    later(0.0, arrive)
    while coming[0][0] < until:
        scene.clock.elapsed, _, then = heapq.heappop(coming)
        then()
    return asked


def share(asked: list[tuple[float, str]], name: str, since: float, until: float) -> float:
    names = [who for at, who in asked if since <= at < until]
    return names.count(name) / len(names)


@pytest.mark.parametrize(("rate", "most"), [(0.2, 0.5), (1, 0.2), (20, 0.02)])
@pytest.mark.parametrize("failing", [0.4, 1.0])
@pytest.mark.parametrize("strategy", LOOKING)
def test_a_host_that_fails_at_once_gets_less_until_it_has_recovered(
    strategy: Strategy, failing: float, rate: float, most: float
) -> None:
    hosts = {
        "good": Host(model=Model(price=DEAR)),
        "bad": Host(lambda t: 0.5, lambda t: failing if t < 300 else 0.0, Model(price=CHEAP)),
    }
    asked = traffic(strategy, hosts, rate)
    assert share(asked, "bad", 0, 300) < most
    assert share(asked, "bad", 600, 900) > 0.4


def test_a_slow_host_gets_little_until_it_is_quick() -> None:
    hosts = {"quick": Host(), "slow": Host(lambda t: 5.0 if t < 300 else 0.3)}
    asked = traffic("latency", hosts, 5)
    assert share(asked, "slow", 0, 300) < 0.05
    assert share(asked, "slow", 500, 900) > 0.9


def test_with_few_calls_slow_hosts_are_seldom_explored() -> None:
    asked = traffic("latency", {"quick": Host(), "slow": Host(lambda t: 5.0)}, 1 / 180, until=90_000)
    assert 0 < share(asked, "slow", 1000, 90_000) < 2 * EXPLORE


@pytest.mark.parametrize("strategy", LOOKING)
@pytest.mark.parametrize("rate", [0.2, 5, 50])
def test_equal_hosts_share_evenly(strategy: Strategy, rate: float) -> None:
    assert share(traffic(strategy, {"a": Host(), "b": Host()}, rate), "a", 0, 900) == pytest.approx(
        0.5, abs=0.1
    )


def test_least_busy_hosts_share_by_weight() -> None:
    hosts = {"a": Host(model=Model(weight=3)), "b": Host()}
    assert share(traffic("least-busy", hosts, 40), "a", 0, 900) == pytest.approx(0.75, abs=0.03)
