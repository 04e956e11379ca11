"""A call whose wait has a price: it pays where that costs less, comes back where nobody else answers, and
says why."""

from __future__ import annotations

import os
from decimal import Decimal
from typing import Any

import pytest
from tests.flow.support import (
    BROKEN,
    ONCE,
    Call,
    FakeClock,
    HandDriver,
    LimitedHosts,
    Queue,
    answers,
    fails,
    local,
    paid,
    router_state,
)

from ccroute import Agent, AliasTable, AnthropicBackend, Budget, Model, OpenAIBackend, Price, RetryPolicy
from ccroute.accounting import MemoryLedger
from ccroute.backends import Backend
from ccroute.errors import QueueTimeoutError
from ccroute.flow import CallContext, RouterState, call
from ccroute.flow.effects import Wait
from ccroute.flow.explain import explain
from ccroute.observe import Event, FellBack, WaitSkipped
from ccroute.routing import Fallback, make_plan
from ccroute.routing.arguments import checked
from ccroute.types import Request, RoutePlan
from ccroute.types.arguments.checked import build_request

TENTH = Price(1000, 1000)
"""A tenth of a cent for a token. A call of 10 tokens and an answer of 10 costs two cents: as much as a wait
of 3.6 s at 20 USD per hour."""
WELL = answers("well")


def ten(request: Request) -> int:
    return 10


class Scene:
    """A router's state with a free host, `home`, that is busy for some seconds, and others that cost
    money."""

    def __init__(self, *others: Backend, busy: float = 95.0, **options: Any) -> None:
        given = [local(max_concurrency=1), *(others or (paid(price=TENTH),))]
        names = [f"{each.name}/m" for each in given]
        self.clock, self.events = FakeClock(), list[Event]()
        options = {"aliases": AliasTable({"any": names}, strategy="ordered"), "retry": ONCE, **options}
        origins = [each.origin for each in given if each.max_concurrency]
        self.hosts = LimitedHosts(origins, {given[0].origin: busy})
        self.state: RouterState = router_state(
            self.clock, self.events.append, ledger=MemoryLedger(), count_tokens=ten, hosts=self.hosts
        ).configured(checked(given, **options))

    def call(self, *, stream: bool = False, **options: Any) -> Call:
        given = {"max_tokens": 10, **options}
        given |= {} if "agent" in given or "model" in given else {"model": "any"}
        asked, state = build_request("What is it?", given), self.state
        plan = make_plan(asked, state.tables, self.clock.random, state.count_tokens, load=state.load)
        context = CallContext(plan, state, os.getpid())
        return Call(call(context, stream=stream), context, self.clock, self.events)

    def gets(self, *world: Any, hosts: Any = (), **options: Any) -> HandDriver:
        """A call that is answered, with a price of its wait unless another is given."""
        asked = {"waiting_cost": 20, **options}
        return HandDriver(world or [WELL], hosts=hosts).run(self.call(**asked))

    def skipped(self) -> list[WaitSkipped]:
        return [event for event in self.events if isinstance(event, WaitSkipped)]


def reasons(driver: HandDriver) -> tuple[str, ...]:
    return driver.completion.route.reasons


def test_a_call_pays_at_once_where_the_wait_costs_more() -> None:
    scene = Scene()
    driver = scene.gets()
    assert driver.asked == ["paid"]
    assert driver.kinds == ["Leave", "Send", "Read"], "it asks for no slot"
    why = "home/m: a wait of about 95 s would cost 0.53 USD, paid/m about 0.02 USD"
    assert reasons(driver) == (why, 'model "any"')
    (skipped, fell) = scene.events
    assert skipped == WaitSkipped(skipped.call, None, "home/m", "paid/m", why)  # type: ignore[attr-defined]
    assert str(skipped) == why
    assert isinstance(fell, FellBack)


def test_a_call_waits_where_the_wait_costs_less() -> None:
    scene = Scene(busy=3.5)
    driver = scene.gets(hosts=[Queue(seconds=3.5)])
    assert driver.asked == ["home"]
    assert scene.skipped() == []
    assert driver.completion.cost == 0


def test_without_a_price_a_call_waits_as_ever() -> None:
    scene = Scene(agents={"qa": Agent("any", waiting_cost=0)})
    assert scene.gets(hosts=[Queue(seconds=95)], waiting_cost=None).asked == ["home"]
    assert scene.gets(hosts=[Queue(seconds=95)], waiting_cost=0).asked == ["home"]
    assert scene.gets(hosts=[Queue(seconds=95)], waiting_cost=None, agent="qa").asked == ["home"]


def test_a_host_that_is_free_and_loaded_is_never_passed_by() -> None:
    driver = Scene(busy=0.0).gets(waiting_cost=10**6, max_wait_free=0)
    assert driver.asked == ["home"]


def test_the_price_is_the_calls_own_else_the_agents_else_its_groups() -> None:
    scene = Scene(
        busy=10,
        agents={"dear": Agent("any", waiting_cost="20.0"), "cheap": Agent("any", group="g")},
        groups={"g": Agent(waiting_cost=1)},
    )
    waits: Any = {"hosts": [Queue(seconds=10)], "waiting_cost": None}
    assert scene.gets(agent="dear", **waits).asked == ["paid"]
    assert scene.gets(agent="cheap", **waits).asked == ["home"]
    assert scene.gets(agent="cheap", **(waits | {"waiting_cost": 20.5})).asked == ["paid"]
    assert scene.gets(agent="dear", **(waits | {"waiting_cost": 0})).asked == ["home"]


def test_max_wait_free_needs_no_price() -> None:
    unpriced = OpenAIBackend("paid", base_url="https://paid.test")
    scene = Scene(unpriced, agents={"qa": Agent("any", max_wait_free=30)})
    driver = scene.gets(agent="qa", waiting_cost=None)
    assert driver.asked == ["paid"]
    assert reasons(driver)[0] == "home/m: a wait of about 95 s is more than max_wait_free=30 s, so paid/m"
    assert scene.gets(agent="qa", hosts=[Queue(seconds=95)], max_wait_free=100).asked == ["home"]


def test_a_price_of_waiting_compares_known_prices_only() -> None:
    unpriced = OpenAIBackend("paid", base_url="https://paid.test")
    assert Scene(unpriced).gets(hosts=[Queue(seconds=95)]).asked == ["home"]


def test_what_costs_less_anyway_is_taken_rather_than_any_wait() -> None:
    """The rule is general: not only what is free may have to wait."""
    dear = Model(price=Price(2000, 2000))
    scene = Scene(busy=0.5)
    home = OpenAIBackend("home", base_url="http://localhost:8080", max_concurrency=1, models={"m": dear})
    scene.state = scene.state.configured(checked([home, paid(price=TENTH)], aliases=ORDERED, retry=ONCE))
    driver = scene.gets()
    assert driver.asked == ["paid"]
    beside = "a wait of about 0.5 s would cost 0.0028 USD and the call itself 0.04 USD"
    assert reasons(driver)[0] == f"home/m: {beside}, paid/m about 0.02 USD"


ORDERED = AliasTable({"any": ["home/m", "paid/m"]}, strategy="ordered")

# -- Who may serve instead


def test_a_fallback_model_serves_instead_if_it_is_for_availability() -> None:
    aliases = {"free": "home/m", "big": "paid/m"}
    agents = {
        "qa": Agent("free", fallback=["big"]),
        "long": Agent("free", fallback=[Fallback("big", ["token_limit"])]),
        "never": Agent("free", fallback=["big"], triggers=["rate_limit"]),
    }
    scene = Scene(aliases=aliases, agents=agents)
    assert scene.gets(agent="qa").completion.route.fallback
    for agent in ("long", "never"):
        assert scene.gets(agent=agent, hosts=[Queue(seconds=95)]).asked == ["home"]


def test_local_only_is_stronger() -> None:
    scene = Scene(agents={"qa": Agent("any", local_only=True, waiting_cost=10**6, max_wait_free=0)})
    assert scene.gets(agent="qa", hosts=[Queue(seconds=95)]).asked == ["home"]


def test_a_spent_budget_is_stronger_and_nothing_waits_for_it() -> None:
    for budget in (Budget("0.01"), Budget("0.01", then="queue")):
        scene = Scene(budgets={"backend:paid": budget})
        driver = scene.gets(hosts=[Queue(seconds=95)])
        assert driver.asked == ["home"]
        assert scene.skipped() == []
    assert Scene(budgets={"backend:paid": Budget(1)}).gets().asked == ["paid"]
    assert Scene(budgets={"agent:qa": Budget(1)}, agents={"qa": "any"}).gets().asked == ["paid"]


def test_a_budget_that_is_spent_in_between_sends_the_call_back_to_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ccroute.flow.waits.patience.fits_now", lambda *given: True)
    scene = Scene(budgets={"backend:paid": Budget("0.01", then="queue")})
    driver = scene.gets(hosts=[Queue(seconds=95)])
    assert driver.asked == ["home"]
    assert driver.slept == []
    assert "paid/m passed over: it would have to wait for its budget" in reasons(driver)


def test_whoever_gets_no_calls_serves_nobody_instead() -> None:
    scene = Scene(paid(price=TENTH), paid("other", price=TENTH))
    for _ in range(5):
        HandDriver([BROKEN]).fail(scene.call(model="paid/m"))
    assert scene.gets().asked == ["other"]


def test_a_rate_limit_without_room_serves_nobody_instead() -> None:
    limited = OpenAIBackend(
        "paid", base_url="https://paid.test", models={"m": Model(price=TENTH, rpm=1, tpm=1000)}
    )
    scene = Scene(limited)
    assert scene.gets().asked == ["paid"]
    assert scene.gets(hosts=[Queue(seconds=59)]).asked == ["home"]
    driver = scene.gets(hosts=[Queue(seconds=95)])
    assert driver.asked == ["paid"], "it has room again"
    assert reasons(driver)[0].startswith("home/m: after 10.0 s, a wait of about 85 s would cost 0.47 USD")


def test_a_host_at_which_the_call_would_wait_too_serves_nobody_instead() -> None:
    busy, free = paid("busy", price=TENTH, max_concurrency=1), paid("free", price=TENTH, max_concurrency=1)
    scene = Scene(busy, free)
    scene.hosts.busy[busy.origin] = 1.0
    assert scene.gets().asked == ["free"]


def test_what_cannot_carry_the_request_or_has_no_key_serves_nobody_instead() -> None:
    keyless = OpenAIBackend("openai", models={"m": Model(price=TENTH)})
    assert Scene(keyless, paid(price=TENTH)).gets().asked == ["paid"]
    without_top_k = AnthropicBackend(api_key="example", models={"m": Model(price=TENTH, refuses=["top_k"])})
    assert Scene(without_top_k, paid(price=TENTH, preset="vllm")).gets(top_k=3).asked == ["paid"]


# -- Coming back


def test_where_the_paid_one_fails_the_call_comes_back_and_waits() -> None:
    scene = Scene(retry=RetryPolicy(base=0, max=0))
    driver = scene.gets(fails(500), WELL, hosts=[Queue(seconds=95)])
    assert driver.asked == ["paid", "home"]
    assert [attempt.queued for attempt in driver.completion.route.attempts] == [0, 95]
    assert len(scene.skipped()) == 1, "it goes there once"


def test_where_the_first_paid_one_fails_the_next_is_weighed_again() -> None:
    cheap, dear = paid(price=TENTH), paid("dear", price=Price(10**6, 10**6))
    scene = Scene(cheap, dear, retry=RetryPolicy(base=0, max=0))
    assert scene.gets(fails(500), WELL, hosts=[Queue(seconds=95)]).asked == ["paid", "home"]
    scene = Scene(cheap, paid("other", price=TENTH), retry=RetryPolicy(base=0, max=0))
    assert scene.gets(fails(500), WELL).asked == ["paid", "other"]


# -- While it waits


def test_whoever_waits_longer_than_predicted_pays_at_the_break_even() -> None:
    scene = Scene(busy=1.0)
    driver = scene.gets(hosts=[Queue(seconds=60, left=[1.0] * 20)])
    assert driver.asked == ["paid"]
    assert scene.clock.elapsed == pytest.approx(3.6)
    (attempt,) = driver.completion.route.attempts
    assert attempt.queued == pytest.approx(3.6)
    assert reasons(driver)[0] == "home/m: a wait of 3.6 s has cost 0.02 USD, paid/m about 0.02 USD"
    assert driver.kinds.count("Leave") == 1, "it leaves the queue"


def test_whoever_is_passed_by_others_pays_as_soon_as_that_shows() -> None:
    scene = Scene(busy=1.0)
    driver = scene.gets(hosts=[Queue(seconds=60, left=[1.0, 30.0])])
    assert driver.asked == ["paid"]
    assert scene.clock.elapsed == pytest.approx(1.0)


def test_whoever_has_waited_max_wait_free_pays() -> None:
    scene = Scene(busy=1.0)
    driver = scene.gets(waiting_cost=None, max_wait_free=7, hosts=[Queue(seconds=60, left=[0.0] * 99)])
    assert driver.asked == ["paid"]
    assert scene.clock.elapsed == pytest.approx(7)


def test_whoever_finds_nobody_else_waits_to_the_end() -> None:
    scene = Scene(budgets={"backend:paid": Budget("0.01")})
    call = scene.call(waiting_cost=20, timeout=100)
    driver = HandDriver([WELL], hosts=[Queue(seconds=200)])
    error = driver.fail(call)
    assert isinstance(error, QueueTimeoutError)
    assert 8 < sum(isinstance(effect, Wait) for effect in driver.effects) < 40


def test_a_call_decides_again_only_where_its_wait_has_a_price() -> None:
    scene = Scene()
    driver = scene.gets(waiting_cost=None, hosts=[Queue(seconds=95)])
    assert [effect.decides for effect in driver.effects if isinstance(effect, Wait)] == [float("inf")]


# -- What is learned


def test_answers_are_expected_to_be_as_long_as_the_agents_usual_ones() -> None:
    scene = Scene(agents={"brief": "any", "long": "any"}, busy=30)
    long = answers("well", usage={"prompt_tokens": 10, "completion_tokens": 5000})
    options: Any = {"max_tokens": None, "waiting_cost": 20}
    assert scene.gets(agent="brief", hosts=[Queue(seconds=30)], **options).asked == ["home"], "400 tokens"
    for _ in range(3):
        scene.gets(answers("well", usage={"prompt_tokens": 10, "completion_tokens": 5}), agent="brief")
        scene.gets(long, agent="long")
    assert scene.gets(agent="brief", **options).asked == ["paid"]
    assert scene.gets(agent="long", hosts=[Queue(seconds=30)], **options).asked == ["home"]


def test_a_slower_answer_counts_as_waiting() -> None:
    scene = Scene(busy=0)
    quick, slow = answers("well"), answers("well")
    slow.after = 60.0
    scene.gets(quick)
    scene.gets(slow, model="paid/m")
    home = next(iter(scene.hosts))
    scene.hosts.busy[home] = 62.0
    assert scene.gets(hosts=[Queue(seconds=62)]).asked == ["home"]
    scene.hosts.busy[home] = 64.0
    driver = scene.gets()
    assert driver.asked == ["paid"]
    assert reasons(driver)[0].endswith("paid/m about 0.017 USD and about 60 s more")


def test_the_wait_of_those_behind_counts_too() -> None:
    scene = Scene(busy=0)
    slow = answers("well")
    slow.after = 100.0
    scene.gets(slow)
    home = next(iter(scene.hosts))
    scene.hosts.busy[home] = 2.5
    for _ in range(8):
        scene.gets(hosts=[Queue(seconds=2.5)])
    driver = scene.gets()
    assert driver.asked == ["paid"]
    assert "would cost 0.014 USD and the calls behind it 0.0" in reasons(driver)[0]


def test_predictions_that_were_wrong_are_not_believed_before_the_break_even() -> None:
    scene = Scene(busy=3.0)
    for _ in range(6):
        scene.gets(hosts=[Queue(seconds=0.1)])
    home = next(iter(scene.hosts))
    scene.hosts.busy[home] = 95.0
    assert scene.gets(hosts=[Queue(seconds=1.0)]).asked == ["home"]
    assert scene.gets(hosts=[Queue(seconds=50.0)]).asked == ["paid"]


def test_one_of_many_calls_looks_whether_the_prediction_was_right() -> None:
    scene = Scene()
    asked = [scene.gets(hosts=[Queue(seconds=1)]).asked[0] for _ in range(38)]
    assert asked == ["paid"] * 4 + ["home"] + ["paid"] * 32 + ["home"]


# -- What explain says


def explained(scene: Scene, **options: Any) -> RoutePlan:
    asked: dict[str, Any] = {"max_tokens": 10, "model": "any", "waiting_cost": 20, **options}
    return explain(build_request("What is it?", asked), scene.state)


def test_a_plan_shows_waits_and_who_is_asked_because_of_them() -> None:
    plan = explained(Scene())
    assert [each.deployment for each in plan.candidates] == ["paid/m", "home/m"]
    assert [each.probability for each in plan.candidates] == [1, 0]
    assert [each.predicted_wait for each in plan.candidates] == [None, 95]
    assert plan.reasons[0] == "home/m: a wait of about 95 s would cost 0.53 USD, paid/m about 0.02 USD"
    header, _, first, second = str(plan).splitlines()[2:6]
    assert header.split()[:4] == ["deployment", "first", "wait", "worst"]
    assert first.split()[:4] == ["1", "paid/m", "100", "%"]
    assert " 95.0 s " in second


def test_a_plan_has_no_column_for_waits_that_have_no_price() -> None:
    plan = explained(Scene(), waiting_cost=0)
    assert [each.deployment for each in plan.candidates] == ["home/m", "paid/m"]
    assert [each.predicted_wait for each in plan.candidates] == [95, None]
    assert "wait" not in str(plan)
    assert (plan.waiting_cost, plan.max_wait_free) == (None, None)
    limited = explained(Scene(busy=0), waiting_cost="0.50", max_wait_free=7)
    assert (limited.waiting_cost, limited.max_wait_free) == (Decimal("0.50"), 7)
    assert limited.candidates[0].deployment == "home/m"
    waits = explained(Scene(busy=3))
    assert [each.deployment for each in waits.candidates] == ["home/m", "paid/m"]
    assert "paid/m may not be asked" in waits.reasons[0]


def test_a_plan_does_not_fall_for_one_that_cannot_serve() -> None:
    plan = explained(Scene(budgets={"backend:paid": Budget("0.01")}))
    assert [each.deployment for each in plan.candidates if each.allowed] == ["home/m"]


def test_a_plan_with_fallbacks_for_different_failures_begins_where_a_call_does() -> None:
    backends = [paid(name, price=TENTH) for name in ("rate", "other")]
    agents = {"qa": Agent("free", fallback=[Fallback("rate/m", ["rate_limit"]), Fallback("other/m", OTHER)])}
    plan = explained(Scene(*backends, aliases={"free": "home/m"}, agents=agents), agent="qa", model=None)
    assert [each.deployment for each in plan.candidates] == ["other/m", "home/m", "rate/m"]
    assert plan.candidates[0].probability == 1


OTHER: Any = ["availability"]


def test_a_plan_of_an_alias_whose_order_is_drawn_begins_with_who_is_asked() -> None:
    scene = Scene(aliases={"any": ["home/m", "paid/m"]})
    assert [each.probability for each in explained(scene).candidates] == [1, 0]
    assert explained(scene).candidates[0].deployment == "paid/m"
