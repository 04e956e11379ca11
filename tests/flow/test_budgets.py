"""A call whose budgets are in its way: where it goes, what it waits for, what it is told, what is settled."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from tests.accounting.support import row
from tests.flow.support import (
    NOON,
    ONCE,
    Call,
    FakeClock,
    HandDriver,
    LimitedHosts,
    PlainBackend,
    Queue,
    ScriptedReply,
    answers,
    fails,
    local,
    router_state,
    streams,
)

from ccroute import Agent, AnthropicBackend, Budget, Model, OpenAIBackend, Price, RetryPolicy, Usage
from ccroute.accounting import LedgerRow, MemoryLedger
from ccroute.accounting.tokens import estimate
from ccroute.errors import BudgetExceededError, ServerError
from ccroute.flow import CallContext, RouterState, call
from ccroute.flow.effects import Effect, Sleep
from ccroute.http.message import Failure
from ccroute.observe import Event, LedgerFailed, OverBudget
from ccroute.routing import make_plan
from ccroute.routing.arguments import checked
from ccroute.types import Request, Timeout
from ccroute.types.arguments.checked import build_request

TEN = 10
"""Tokens of each prompt here. One token costs a cent, in a prompt or in an answer."""
CENT = Price(10_000, 10_000)


def ten(request: Request) -> int:
    return TEN


def backend(
    name: str = "main", price: Any = CENT, *, longest: int | None = 1000, **model: Any
) -> OpenAIBackend:
    models = {"m": Model(price=price, max_output=longest, **model)}
    return OpenAIBackend(name, base_url=f"https://{name}.test", models=models)


def used(prompt: int, output: int) -> Any:
    return answers("well", usage={"prompt_tokens": prompt, "completion_tokens": output})


ANSWER = used(10, 40)
"""An answer that costs half a dollar."""


class Scene:
    """A router's state with budgets, and calls that share it."""

    def __init__(
        self, *backends: Any, budgets: dict[str, Budget], limited: bool = False, **options: Any
    ) -> None:
        given = backends or (backend(),)
        self.clock, self.events, self.ledger = FakeClock(), list[Event](), MemoryLedger()
        options = {"aliases": {"any": [f"{each.name}/m" for each in given]}, "retry": ONCE, **options}
        timeout, count = options.pop("timeout", Timeout()), options.pop("count_tokens", ten) or estimate
        configured = checked(list(given), budgets=budgets, timeout=timeout, **options)
        hosts = LimitedHosts(each.origin for each in given if limited)
        self.state: RouterState = router_state(
            self.clock, self.events.append, ledger=self.ledger, count_tokens=count, hosts=hosts
        ).configured(configured)

    def call(self, *, stream: bool = False, model: str | None = "any", **options: Any) -> Call:
        asked = build_request("What is it?", {"model": None if "agent" in options else model, **options})
        state = self.state
        plan = make_plan(asked, state.tables, self.clock.random, state.count_tokens, load=state.load)
        context = CallContext(plan, state, os.getpid())
        return Call(call(context, stream=stream), context, self.clock, self.events)

    def gets(self, *world: Any, hosts: Any = (), **options: Any) -> HandDriver:
        """A call that is answered."""
        return HandDriver(world or [ANSWER], hosts=hosts).run(self.call(**options))

    def misses(self, *world: Any, **options: Any) -> Any:
        """The error of a call that is not."""
        return HandDriver(world or [ANSWER]).fail(self.call(**options))

    def refuses(self, *world: Any, **options: Any) -> BudgetExceededError:
        """The error of a call that a budget does not allow; nothing was sent."""
        driver = HandDriver(world or [ANSWER])
        error = driver.fail(self.call(**options))
        assert isinstance(error, BudgetExceededError)
        assert driver.sends == []
        return error

    def stands(self, name: str = "router") -> tuple[Decimal, Decimal]:
        """What is spent and reserved, in USD."""
        table, budgets = self.state.tables.budgets, self.state.budgets
        assert table is not None
        assert budgets is not None
        [need] = [each for each in table if each.name == name]
        [account] = budgets.store.accounts([need.claim(self.clock.now())])
        return account.spent_usd, account.reserved_usd

    def holds(self, usd: Any, name: str = "router") -> Callable[[Any], None]:
        """Another call reserves so much; call it to end that with what it cost."""
        table, budgets = self.state.tables.budgets, self.state.budgets
        assert table is not None
        assert budgets is not None
        need = next(each for each in table if each.name == name)
        claims = [need.claim(self.clock.now())]
        assert budgets.store.reserve("other", claims, Decimal(usd), 0, NOON) is None

        def end(cost: Any) -> None:
            who = {} if need.scope.kind == "router" else {need.scope.kind: need.scope.name}
            written = row(id="other", started=self.clock.now(), cost=Decimal(cost), usage=Usage(), **who)
            self.ledger.record(written)
            budgets.count(written)

        return end

    def emitted(self) -> list[OverBudget]:
        return [event for event in self.events if isinstance(event, OverBudget)]


def body(driver: HandDriver) -> Any:
    return json.loads(driver.sends[-1].request.body)


# -- What a call may spend


def test_a_call_is_settled_with_what_it_cost() -> None:
    scene = Scene(budgets={"router": Budget(2)})
    driver = scene.gets(max_tokens=100)
    assert driver.completion.cost == Decimal("0.5")
    assert scene.stands() == (Decimal("0.5"), 0)


def test_a_call_that_does_not_fit_is_not_sent_and_says_why() -> None:
    scene = Scene(budgets={"router": Budget("1.50")})
    scene.gets(max_tokens=100)
    error = scene.refuses(max_tokens=100)
    assert str(error) == (
        "budget router (1.50 USD per day) has $1.00 left until 2026-01-03 00:00 UTC, and a call to main/m "
        "may take $1.10. Raise the budget, lower max_tokens, or let a free model answer instead: "
        'then="fallback"'
    )
    assert (error.budget, error.spent, error.limit) == ("router", Decimal("0.5"), Decimal("1.5"))
    assert error.resets_at == NOON + timedelta(hours=12)
    assert (error.retry_after, error.attempts) == (12 * 3600, ())
    assert error.reasons == (f"main/m left out: {error}",)
    [event] = scene.emitted()
    assert (event.deployment, event.budget, event.reason, event.waits) == (
        "main/m",
        "router",
        str(error),
        False,
    )
    assert str(event) == f"main/m: not asked: {error}"
    assert len(scene.ledger.rows()) == 1, "nothing was attempted"


def test_a_total_never_resets_and_tokens_are_numbers() -> None:
    scene = Scene(budgets={"router": Budget(tokens=150, per="total")})
    scene.gets(max_tokens=100)
    error = scene.refuses(max_tokens=100)
    assert (error.spent, error.limit, error.resets_at, error.retry_after) == (50, 150, None, None)
    assert str(error).startswith(
        "budget router (150 tokens in total) has 100 tokens left, and a call to main/m may take 110."
    )


def test_of_two_limits_the_one_in_the_way_is_named() -> None:
    for budget, limit in ((Budget(1, tokens=10**6), Decimal(1)), (Budget(1000, tokens=100), 100)):
        assert Scene(budgets={"router": budget}).refuses(max_tokens=100).limit == limit
    scene = Scene(budgets={"router": Budget(2, tokens=10**6)}, timeout=Timeout(5))
    scene.holds("1.5")
    assert scene.refuses(max_tokens=100).limit == 2


def test_an_estimate_is_reserved_with_a_quarter_more() -> None:
    exact = Scene(budgets={"router": Budget(tokens=110)})
    exact.gets(max_tokens=100)
    estimated = Scene(budgets={"router": Budget(tokens=112)}, count_tokens=None)
    assert estimated.state.count_tokens(build_request("What is it?", {})) == 7
    assert "may take 109" in str(
        Scene(budgets={"router": Budget(tokens=108)}, count_tokens=None).refuses(max_tokens=100)
    )
    estimated.gets(max_tokens=100)


def test_a_free_model_needs_no_money_and_is_not_limited() -> None:
    scene = Scene(backend(price="free", longest=None), budgets={"router": Budget(0)})
    driver = scene.gets()
    assert "max_tokens" not in body(driver)
    assert driver.completion.cost == 0


def test_a_model_without_a_price_is_refused_and_told_how_to_get_one() -> None:
    scene = Scene(backend(price=None), budgets={"router": Budget(100)})
    why = scene.state.tables.deployment("main/m").why_unpriced
    assert str(scene.refuses(max_tokens=5)) == (
        f"the price of main/m is unknown ({why}), so budget router (100 USD per day) cannot allow it. "
        'Give it one, such as prices={"m": Price(3, 15)}, or a budget in tokens'
    )
    tokens = Scene(backend(price=None), budgets={"router": Budget(tokens=100)})
    assert tokens.gets(max_tokens=5).completion.cost is None
    assert tokens.stands() == (0, 0)


# -- A limit for the answer


def test_an_answer_is_limited_to_what_the_budget_affords() -> None:
    scene = Scene(budgets={"router": Budget(100), "backend:main": Budget("3.60")})
    driver = scene.gets()
    assert body(driver)["max_tokens"] == 350
    assert (
        "main/m: max_tokens 1000 → 350, what budget backend:main (3.60 USD per day) still affords"
        in driver.completion.route.reasons
    )
    assert body(scene.gets())["max_tokens"] == 300, "with less to spend"
    error = scene.refuses()
    assert "a call to main/m may take $2.66 even with max_tokens=256." in str(error)


def test_a_prompt_that_costs_too_much_waits_for_nobody() -> None:
    scene = Scene(backend(price=Price(10_000, 0)), budgets={"router": Budget("0.05")})
    assert "may take $0.10" in str(scene.refuses())
    assert [event.waits for event in scene.emitted()] == [False]


def test_an_answer_that_fits_is_not_limited() -> None:
    driver = Scene(budgets={"router": Budget(100)}).gets()
    assert "max_tokens" not in body(driver)
    assert driver.completion.route.reasons == ('model "any"',)


@pytest.mark.parametrize(
    ("model", "options", "sent"),
    [
        ({}, {"max_tokens": 300}, 300),
        ({"params": {"max_tokens": 300}}, {}, 300),
        ({}, {"extra": {"max_completion_tokens": 300}}, None),
        ({"drops": ["max_tokens"]}, {"max_tokens": 300}, None),
    ],
)
def test_a_limit_that_was_given_is_never_changed(model: Any, options: Any, sent: int | None) -> None:
    given = backend(longest=300, **model)
    assert body(Scene(given, budgets={"router": Budget("3.10")}).gets(**options)).get("max_tokens") == sent
    assert "may take $3.10. Raise" in str(Scene(given, budgets={"router": Budget("3.09")}).refuses(**options))


def test_a_limit_of_the_agent_is_never_changed() -> None:
    agents = {"a": Agent("any", params={"max_tokens": 300})}
    Scene(budgets={"a": Budget("3.10")}, agents=agents).gets(agent="a")
    assert Scene(budgets={"a": Budget("3.09")}, agents=agents).refuses(agent="a").budget == "agent:a"


def test_a_model_whose_longest_answer_nobody_knows_gets_a_limit() -> None:
    driver = Scene(backend(longest=None), budgets={"router": Budget(1000)}).gets()
    assert body(driver)["max_tokens"] == 8192
    assert (
        "main/m: max_tokens 8192: the model has no max_output, and budget router (1000 USD per day) needs a "
        "limit" in driver.completion.route.reasons
    )


def test_claude_gets_the_limit_that_its_api_wants_anyway() -> None:
    models = {"m": Model(price=CENT), "t": Model(price=CENT, thinking="budget")}
    claude = AnthropicBackend("main", base_url="https://main.test", api_key="k", models=models)
    tokens = {"input_tokens": 1, "output_tokens": 1}
    message = {"type": "message", "content": [{"type": "text", "text": "well"}], "usage": tokens}
    reply = ScriptedReply(200, [json.dumps(message).encode()])
    scene = Scene(claude, budgets={"router": Budget(1000)})
    driver = scene.gets(reply)
    assert body(driver)["max_tokens"] == 4096
    assert driver.completion.route.reasons == ('model "any"',)
    thinks = scene.gets(reply, model="main/t", reasoning_effort="high")
    assert body(thinks)["max_tokens"] == 8192, "as it was reserved, without the thinking on top of it"
    small = Scene(claude, budgets={"router": Budget("12.90")})
    assert body(small.gets(reply, model="main/t", reasoning_effort="high"))["max_tokens"] == 1280
    assert "with max_tokens=1280" in str(small.refuses(model="main/t", reasoning_effort="high"))


def test_a_wire_of_ones_own_that_takes_no_limit_gets_none() -> None:
    class Plain(PlainBackend):
        def refusals(self, request: Request, model: str) -> dict[str, str]:
            return {} if request.max_tokens is None else {"max_tokens": "there is no such field"}

    plain = Plain("main", models={"m": Model(price=CENT, max_output=100)})
    fits = Scene(plain, budgets={"router": Budget("1.10")}).gets(answers())
    assert len(fits.sends) == 1
    assert "may take $1.10. Raise" in str(Scene(plain, budgets={"router": Budget("1.09")}).refuses())


# -- Where else it goes


SPENT = {"backend:main": Budget(0, then="fallback")}


@pytest.mark.parametrize(("then", "asked"), [("fallback", ["home"]), ("refuse", []), ("queue", [])])
def test_only_then_fallback_leads_to_fallback_models(then: Any, asked: list[str]) -> None:
    agents = {"a": Agent("main/m", fallback=["home/free"])}
    scene = Scene(backend(), local(), budgets={"a": Budget(0, then=then)}, agents=agents, aliases={})
    driver = HandDriver([answers("at home")])
    running = scene.call(agent="a")
    if not asked:
        assert isinstance(driver.fail(running), BudgetExceededError)
    else:
        route = driver.run(running).completion.route
        assert (route.deployment, route.fallback) == ("home/free", True)
        assert "main/m left out: budget agent:a (0 USD per day) has $0.00 left" in route.reasons[0]
    assert driver.asked == asked


@pytest.mark.parametrize("then", ["fallback", "refuse", "queue"])
def test_another_deployment_of_the_model_may_always_serve(then: Any) -> None:
    free = backend("spare", "free")
    for budgets in ({"backend:main": Budget(0, then=then)}, {"router": Budget(0, then=then)}):
        assert Scene(backend(), free, budgets=budgets).gets().asked == ["spare"]


def test_the_budget_is_a_trigger_that_an_agent_may_lack() -> None:
    agents = {"a": Agent("main/m", fallback=["spare/m"], triggers=["availability"])}
    scene = Scene(backend(), backend("spare"), budgets=SPENT, agents=agents)
    assert scene.refuses(agent="a").budget == "backend:main"
    assert scene.gets(model="main/m", fallback=["spare/m"]).asked == ["spare"], "the call's own"


def test_a_fallback_has_to_fit_as_well() -> None:
    agents = {"a": Agent("main/m", fallback=["spare/m", "home/m"])}
    budgets = {"a": Budget("5", then="fallback"), "backend:spare": Budget(1)}
    home = backend("home", "free")
    scene = Scene(backend(price=Price(10**6, 10**6)), backend("spare"), home, budgets=budgets, agents=agents)
    driver = scene.gets(agent="a", max_tokens=100)
    assert driver.asked == ["home"]
    [first, second, *_] = driver.completion.route.reasons
    assert "main/m left out: budget agent:a" in first
    assert "spare/m left out: budget backend:spare" in second


def test_a_budget_that_refuses_outranks_one_that_falls_back() -> None:
    agents = {"a": Agent("main/m", fallback=["spare/m"])}
    budgets = {"a": Budget(0, then="fallback"), "router": Budget(0)}
    scene = Scene(backend(), backend("spare", "free"), budgets=budgets, agents=agents)
    assert scene.refuses(agent="a").budget == "router"


def test_the_error_of_an_attempt_outranks_a_budget_and_names_it() -> None:
    agents = {"a": Agent("main/m", fallback=["spare/m"])}
    scene = Scene(
        backend(), backend("spare"), budgets={"backend:spare": Budget(0)}, agents=agents, retry=RetryPolicy()
    )
    error = scene.misses(fails(500), agent="a")
    assert isinstance(error, ServerError)
    assert any(note.startswith("spare/m left out: budget backend:spare (0 USD") for note in error.__notes__)


def test_if_no_candidate_fits_the_first_ones_budget_is_the_error() -> None:
    scene = Scene(
        backend(),
        backend("spare"),
        budgets={"router": Budget(50), "backend:main": Budget(1), "backend:spare": Budget(2)},
    )
    assert scene.refuses(max_tokens=500).budget == "backend:main"
    assert [event.budget for event in scene.emitted()] == ["backend:main", "backend:spare"]


# -- Each hop


def test_a_retry_is_checked_anew() -> None:
    budgets = {"router": Budget("1.15")}
    scene = Scene(budgets=budgets, retry=RetryPolicy(base=0, max=0))
    error = scene.misses(fails(500), max_tokens=100)
    assert isinstance(error, ServerError), "the prompt may have been charged, so the rest is too little"
    assert len(error.attempts) == 1
    assert any("left out: budget router" in reason for reason in error.reasons)
    assert scene.stands() == (Decimal("0.1"), 0)


def test_a_rejected_attempt_gives_all_of_it_back_to_the_next() -> None:
    scene = Scene(backend(), backend("spare"), budgets={"router": Budget("1.10")}, retry=RetryPolicy())
    driver = scene.gets(fails(503), ANSWER, max_tokens=100)
    assert driver.asked == ["main", "spare"]
    assert scene.stands() == (Decimal("0.5"), 0)


def test_what_an_attempt_cost_stays_reserved_until_its_call_ends() -> None:
    scene = Scene(backend(), backend("spare"), budgets={"router": Budget(9)}, retry=RetryPolicy())
    seen: list[Any] = []

    def before(k: int, effect: Effect) -> None:
        seen.append(scene.stands())

    HandDriver([fails(500), ANSWER], before).run(scene.call(max_tokens=100))
    assert (0, Decimal("1.2")) in seen, "the prompt that may have been charged, and the next attempt"
    assert scene.stands() == (Decimal("0.6"), 0)


# -- Waiting


def test_a_call_waits_for_those_in_flight_and_says_so() -> None:
    scene = Scene(budgets={"router": Budget(2)})
    end = scene.holds("1.5")
    slept: list[float] = []

    def before(k: int, effect: Effect) -> None:
        if isinstance(effect, Sleep):
            slept.append(effect.seconds)
            if len(slept) == 3:
                end("0.5")

    running = scene.call(max_tokens=100)
    driver = HandDriver([ANSWER], before).run(running)
    assert slept == [1, 1, 1], "nobody wakes it here"
    assert "main/m: waited 3.0 s for budget router (2 USD per day)" in driver.completion.route.reasons
    [event] = scene.emitted()
    assert event.waits
    assert str(event) == (
        "main/m: waits: budget router (2 USD per day) has $2.00 left, $1.50 of it reserved by calls in "
        "flight, and a call to main/m may take $1.10"
    )
    assert running.rows[-1].queue == 3
    assert running.rows[-1].duration == 0


def test_a_wait_for_others_ends_by_the_deadline() -> None:
    scene = Scene(budgets={"router": Budget(2)}, timeout=Timeout(5))
    scene.holds("1.5")
    driver = HandDriver([ANSWER])
    error = driver.fail(scene.call(max_tokens=100))
    assert isinstance(error, BudgetExceededError)
    assert sum(driver.slept) == pytest.approx(4.95)
    assert str(error).endswith("They did not end in time: raise timeout= or the budget, or lower max_tokens")
    assert scene.stands() == (0, Decimal("1.5"))
    assert [event.waits for event in scene.emitted()] == [True, False]


def test_one_that_others_leave_no_room_for_falls_back() -> None:
    agents = {"a": Agent("main/m", fallback=["spare/m"])}
    budgets = {"backend:main": Budget(2, then="fallback")}
    scene = Scene(backend(), backend("spare"), budgets=budgets, agents=agents)
    end = scene.holds("1.5", "backend:main")
    driver = HandDriver([ANSWER], lambda k, effect: end("1.5") if isinstance(effect, Sleep) else None)
    assert driver.run(scene.call(agent="a", max_tokens=100)).asked == ["spare"]


def test_then_queue_waits_for_the_next_window() -> None:
    scene = Scene(budgets={"router": Budget(1, per="hour", then="queue")}, timeout=Timeout(2 * 3600))
    scene.gets(max_tokens=90)
    driver = scene.gets(max_tokens=90)
    assert sum(driver.slept) == 3600
    assert "main/m: waited 3600.0 s for budget router (1 USD per hour)" in driver.completion.route.reasons
    assert scene.stands() == (Decimal("0.5"), 0)


def test_then_queue_refuses_at_once_if_the_window_ends_too_late() -> None:
    scene = Scene(budgets={"router": Budget(1, per="hour", then="queue")}, timeout=Timeout(3600))
    scene.gets(max_tokens=90)
    error = scene.refuses(max_tokens=90)
    assert error.retry_after == 3600
    assert [event.waits for event in scene.emitted()] == [False]
    total = Scene(budgets={"router": Budget(0, per="total", then="queue")}, timeout=Timeout(total=None))
    assert total.refuses(max_tokens=9).resets_at is None


def test_who_waits_for_a_budget_holds_no_slot() -> None:
    scene = Scene(budgets={"router": Budget(2)}, limited=True)
    end = scene.holds("1.5")
    driver = HandDriver([ANSWER], lambda k, effect: end(0) if isinstance(effect, Sleep) else None)
    driver.run(scene.call(max_tokens=100))
    assert driver.kinds[:2] == ["Sleep", "Enter"]


def test_a_turn_under_a_rate_limit_is_looked_at_again_after_a_wait() -> None:
    scene = Scene(backend(rpm=1), budgets={"router": Budget(2)})
    end = scene.holds("1.5")
    driver = HandDriver([ANSWER], lambda k, effect: end(0) if isinstance(effect, Sleep) else None)
    driver.run(scene.call(max_tokens=100))
    scene.clock.elapsed += 59.5
    assert scene.gets(max_tokens=100).slept == [pytest.approx(0.5)], "a minute after it was sent"


def test_a_call_that_gets_no_slot_gives_back_what_it_reserved() -> None:
    scene = Scene(budgets={"router": Budget(2)}, limited=True)
    driver = HandDriver([ANSWER], hosts=[Failure("queue", "its queue is full", sent=False)])
    assert driver.fail(scene.call(max_tokens=100)).attempts[0].cost == 0
    assert scene.stands() == (0, 0)


def test_a_long_wait_for_a_slot_counts_the_row_from_its_end() -> None:
    scene = Scene(budgets={"router": Budget(5, per="hour")}, limited=True, timeout=Timeout(9000))
    scene.clock.elapsed = 3599.0
    scene.gets(hosts=[Queue(1, 60.0)], max_tokens=100)
    assert scene.stands() == (Decimal("0.5"), 0), "it was sent in the second hour"


# -- However it ends


def test_a_stream_is_settled_at_its_end() -> None:
    scene = Scene(budgets={"router": Budget(2)})
    running = scene.call(stream=True, max_tokens=100)
    driver = HandDriver([streams("one ", "two", usage={"prompt_tokens": 10, "completion_tokens": 30})])
    while not driver.chunks:
        driver.step(running)
    assert scene.stands() == (0, Decimal("1.1"))
    driver.run(running)
    assert scene.stands() == (Decimal("0.4"), 0)


def test_an_interrupted_stream_is_settled_with_its_estimate() -> None:
    scene = Scene(budgets={"router": Budget(2)})
    cut = streams("four or so tokens")
    cut.pieces[2:] = [Failure("broken", "reset", sent=True)]
    error = scene.misses(cut, stream=True, max_tokens=100)
    assert error.partial.usage.estimated
    assert scene.stands() == (error.partial.cost, 0)
    assert error.partial.cost > Decimal("0.1")


@pytest.mark.parametrize("sent", [True, False])
def test_a_cancelled_call_is_settled(sent: bool) -> None:
    scene = Scene(budgets={"router": Budget(2)})

    def before(k: int, effect: Effect) -> None:
        if k == (1 if sent else 0):
            raise KeyboardInterrupt

    options: dict[str, Any] = {"stream": True} if sent else {}
    with pytest.raises(KeyboardInterrupt):
        HandDriver([streams("one")], before).run(scene.call(max_tokens=100, **options))
    [written] = scene.ledger.rows()
    assert scene.stands() == (written.cost, 0)


def test_an_abandoned_stream_is_settled() -> None:
    scene = Scene(budgets={"router": Budget(2)})
    running = scene.call(stream=True, max_tokens=100)
    driver = HandDriver([streams("one", "two")])
    while not driver.chunks:
        driver.step(running)
    running.flow.close()
    spent, reserved = scene.stands()
    assert spent > 0
    assert reserved == 0


def test_a_call_that_is_cancelled_while_it_waits_leaves_the_queue() -> None:
    scene = Scene(budgets={"router": Budget(2)})
    scene.holds("1.5")
    running = scene.call(max_tokens=100)
    assert isinstance(HandDriver([ANSWER]).step(running), Sleep)
    budgets = scene.state.budgets
    assert budgets is not None
    assert budgets.waiting() == ["router"]
    running.flow.close()
    assert budgets.waiting() == []
    assert scene.stands() == (0, Decimal("1.5"))


def test_a_request_that_a_deployment_cannot_carry_reserves_nothing() -> None:
    scene = Scene(backend(refuses=["seed"]), budgets={"router": Budget(0)})
    error = scene.misses(seed=1, max_tokens=5)
    assert "cannot carry seed" in str(error)
    assert scene.emitted() == []


def test_what_was_spent_counts_though_the_ledger_cannot_be_written() -> None:
    scene = Scene(budgets={"router": Budget("1.50")})

    def broken(row: LedgerRow) -> None:
        raise OSError("disk full")

    scene.ledger.record = broken  # type: ignore[method-assign]  # a fake for this test
    scene.gets(max_tokens=100)
    assert isinstance(scene.events[-1], LedgerFailed)
    assert scene.stands() == (Decimal("0.5"), 0)
    scene.refuses(max_tokens=100)


def test_without_a_ledger_that_can_be_read_a_budget_refuses_the_call() -> None:
    scene = Scene(backend(), backend("spare"), budgets={"backend:main": Budget(9)})

    def broken(*_: object, **__: object) -> Any:
        raise OSError("disk full")

    scene.ledger.tallies = broken  # type: ignore[method-assign]  # a fake for this test
    assert scene.gets(max_tokens=5).asked == ["spare"], "a call without a budget goes on"
    error = scene.refuses(model="main/m", max_tokens=5)
    assert str(error) == (
        "the ledger cannot say what is spent of budget backend:main (9 USD per day): OSError. A call that "
        "needs a budget is not sent until it can"
    )
    assert (error.spent, error.limit) == (None, 9)
    assert isinstance(error.__cause__, OSError)


def test_the_prompt_is_counted_once_per_call() -> None:
    counted: list[Request] = []

    def count(request: Request) -> int:
        counted.append(request)
        return TEN

    scene = Scene(
        backend(context_window=9000, tpm=10**6),
        backend("spare", context_window=9000, tpm=10**6),
        budgets={"router": Budget(9)},
        retry=RetryPolicy(),
        count_tokens=count,
        aliases={"any": {"targets": ["main/m", "spare/m"], "strategy": "cost"}},
    )
    driver = scene.gets(fails(500), fails(500), ANSWER, max_tokens=100)
    assert len(driver.sends) == 3
    assert len(counted) == 1


def test_an_agents_groups_and_sessions_budgets_hold_together() -> None:
    agents = {"a": Agent("any", group="g"), "b": Agent("any", group="g"), "c": Agent("any")}
    budgets = {"group:g": Budget(1), "session": Budget(1, per="session"), "a": Budget(100)}
    scene = Scene(budgets=budgets, agents=agents, groups={"g": Agent()})
    scene.gets(agent="a", max_tokens=50)
    assert scene.refuses(agent="b", max_tokens=50).budget == "group:g"
    scene.gets(agent="c", session="one", max_tokens=50)
    assert scene.refuses(agent="c", session="one", max_tokens=50).budget == "session:one"
    scene.gets(agent="c", session="two", max_tokens=50)
    scene.gets(agent="c", max_tokens=5000)
