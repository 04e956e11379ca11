"""Budgets through the public API: real servers, threads and event loops, ledgers, reloads and forks."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Caller
from tests.support import loops
from tests.support.openai_like import chat, chat_sse, usage
from tests.support.scripted import Hang, Request, ScriptedServer, Set, Step, Wait, answer, stream

import ccroute
from ccroute import Agent, Budget, Model, OpenAIBackend, Price, Report, RoutePlan, Router
from ccroute.accounting import MemoryLedger
from ccroute.errors import BudgetExceededError, CcrouteError, ConfigError
from ccroute.observe import Event, OverBudget, Reloaded
from ccroute.serve import anthropic, openai
from ccroute.types import BudgetStats

CENT = Price(10_000, 10_000)
"""One cent a token, in prompts and in answers."""
ANSWER = answer(json=chat("fine", usage=usage(10, 40)))
"""An answer that costs half a dollar."""
STREAM = stream(chat_sse(["fi", "ne"], usage=usage(10, 40)))


def ten(_: object) -> int:
    return 10


def backend(server: ScriptedServer, name: str = "main", price: Any = CENT, **model: Any) -> OpenAIBackend:
    models = {"m": Model(price=price, **{"max_output": 100, **model})}
    return OpenAIBackend(name, base_url=server.url, models=models)


def router(server: ScriptedServer, budgets: Any, **options: Any) -> Router:
    """A router whose prompts have ten tokens: a call costs at most 1.10 USD."""
    given = {"agents": {"coder": "main/m", "tester": "main/m"}, "count_tokens": ten} | options
    return Router([backend(server)], budgets=budgets, **given)


class Waits:
    """Listens for calls that begin to wait for a budget."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)

    def __call__(self, event: Event) -> None:
        if isinstance(event, OverBudget) and event.waits:
            self.began.release()


def spent(router: Router, name: str = "router") -> tuple[Decimal | None, Decimal | None]:
    found = router.stats().budgets[name]
    return found.spent, found.reserved


def midday() -> None:
    """Wait where the next test would see a day begin."""
    now = datetime.now(UTC)
    until = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0) - now
    if until.total_seconds() < 20:
        time.sleep(until.total_seconds())


# -- A call that does not fit


def test_a_call_over_its_budget_is_not_sent(caller: Caller) -> None:
    with ScriptedServer([ANSWER, STREAM]) as server, router(server, {"coder": Budget(2)}) as made:
        assert caller.complete(made, "hi", agent="coder").cost == Decimal("0.5")
        assert caller.stream(made, "hi", agent="Coder").completion.cost == Decimal("0.5")
        assert made.stats().budgets["agent:coder"].spent == 1
        with pytest.raises(
            BudgetExceededError, match=r"budget agent:coder \(2 USD per day\) has \$1\.00 left"
        ):
            caller.complete(made, "hi", agent="coder", max_tokens=100)
        heard = caller.stream(made, "hi", agent="coder", max_tokens=100)
    assert isinstance(heard.error, BudgetExceededError)
    assert (heard.error.budget, heard.error.spent, heard.error.limit) == ("agent:coder", 1, 2)
    assert len(server.requests) == 2


def test_a_wrapper_serves_it_as_402() -> None:
    with ScriptedServer([]) as server, router(server, {"router": Budget(0)}) as made:
        with pytest.raises(BudgetExceededError) as caught:
            made.complete("hi", agent="coder")
    for wire in (openai, anthropic):
        status, body = wire.dump_error(caught.value)
        assert (status, body["error"]["type"]) == (402, "billing_error")
    assert openai.dump_error(caught.value)[1]["error"]["code"] == "budget_exceeded"


def test_then_fallback_ends_at_a_free_local_model(caller: Caller) -> None:
    with ScriptedServer([ANSWER]) as paid, ScriptedServer([ANSWER] * 2) as free:
        agents = {"coder": Agent("main/m", fallback=["spare/m", "home/m"])}
        backends = [backend(paid), backend(paid, "spare"), backend(free, "home", "free")]
        budgets = {"router": Budget("1.20", then="fallback")}
        with Router(backends, agents=agents, budgets=budgets, count_tokens=ten) as made:
            routes = [caller.complete(made, "hi", agent="coder", max_tokens=100).route for _ in range(3)]
    assert [(route.deployment, route.fallback) for route in routes] == [
        ("main/m", False),
        ("home/m", True),
        ("home/m", True),
    ]
    assert [reason.split(" left out")[0] for reason in routes[1].reasons[:2]] == ["main/m", "spare/m"]


def test_an_answer_without_a_limit_is_cut_to_what_is_left(caller: Caller) -> None:
    with ScriptedServer([ANSWER, STREAM]) as server:
        options: dict[str, Any] = {"agents": {"coder": "main/m"}, "count_tokens": ten}
        with Router([backend(server, max_output=1000)], budgets={"coder": Budget(5)}, **options) as made:
            first = caller.complete(made, "hi", agent="coder")
            second = caller.stream(made, "hi", agent="coder").completion
    assert [request.json["max_tokens"] for request in server.requests] == [490, 440]
    for route, tokens in ((first.route, 490), (second.route, 440)):
        assert route.reasons[0] == (
            f"main/m: max_tokens 1000 → {tokens}, what budget agent:coder (5 USD per day) still affords"
        )


# -- Waiting


@contextlib.contextmanager
def one_in_flight(budgets: Any, *others: Any) -> Iterator[tuple[Router, Waits, Callable[[], str]]]:
    """A router with one call in flight, who listens for calls that wait, and what ends the call."""
    here, go, waits = threading.Event(), threading.Event(), Waits()
    replies = [[Set(here), Wait(go), *ANSWER], *others]
    with ScriptedServer(replies) as server, router(server, budgets, on_event=waits) as made:
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(made.complete, "hi", agent="coder")

            def end() -> str:
                go.set()
                return running.result(5).text

            try:
                assert here.wait(5)
                yield made, waits, end
            finally:
                go.set()


def test_a_call_waits_for_those_in_flight(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccroute.routing.budgets.budgets.LOOK_AT_ALL", 60.0)  # so it has to be woken
    with one_in_flight({"router": Budget(2)}, ANSWER) as (made, waits, end), ThreadPoolExecutor(1) as pool:
        second = pool.submit(caller.complete, made, "hi", agent="coder")
        assert waits.began.acquire(timeout=5)
        assert made.stats().budgets["router"].waiting == 1
        assert end() == second.result(5).text == "fine"
        assert spent(made) == (1, 0)
    assert any(" s for budget router (2 USD per day)" in reason for reason in second.result().route.reasons)


@pytest.mark.parametrize("mode", ["async", "trio"])
def test_a_task_that_is_cancelled_leaves_the_queue(mode: loops.Mode) -> None:
    with one_in_flight({"router": Budget(2)}, ANSWER) as (made, waits, end):
        wait = partial(loops.in_thread, partial(waits.began.acquire, timeout=5))

        async def main() -> None:
            await loops.cancelled(partial(made.acomplete, "hi", agent="coder", max_tokens=150), when=wait)

        loops.run(mode, main)
        assert made.stats().budgets["router"].waiting == 0
        assert made.complete("hi", agent="tester", max_tokens=50).text == end() == "fine"


def test_a_task_whose_loop_is_blocked_holds_up_nobody_for_long() -> None:
    with one_in_flight({"router": Budget(2)}, ANSWER, ANSWER) as (made, waits, end):

        async def main() -> str:
            task = asyncio.ensure_future(made.acomplete("hi", agent="coder"))
            assert await asyncio.to_thread(waits.began.acquire, timeout=5)
            end()
            assert made.complete("hi", agent="tester", max_tokens=10, timeout=5).text == "fine"
            return (await task).text

        assert asyncio.run(main()) == "fine"


def test_a_wait_ends_by_the_deadline(caller: Caller) -> None:
    with one_in_flight({"router": Budget(2)}) as (made, _, end):
        began = time.monotonic()
        with pytest.raises(BudgetExceededError, match=r"\$1\.10 of it reserved by calls in flight"):
            caller.complete(made, "hi", agent="coder", timeout=0.4)
        assert time.monotonic() - began < 5
        assert end() == "fine"


def test_then_queue_waits_for_the_next_window(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, length = datetime.now(UTC), timedelta(seconds=0.3)

    def short(self: Budget, now: datetime) -> Any:
        since = begun + (now - begun) // length * length
        return since, since + length

    monkeypatch.setattr("ccroute.types.budget.Budget.window", short)
    budgets = {"router": Budget("1.10", per="hour", then="queue")}
    with ScriptedServer([ANSWER] * 3) as server, router(server, budgets) as made:
        for _ in range(3):
            caller.complete(made, "hi", agent="coder", max_tokens=100)
        starts = [row.started for row in made.rows()]
    assert len({(each - begun) // length for each in starts}) == 3, "each one in its own window"


# -- Never a cent over


class Bill:
    """A provider that answers with a random number of tokens, and keeps its own bill, in cents."""

    def __init__(self, longest: int) -> None:
        self._lock, self._longest, self.cents, self.calls = threading.Lock(), longest, 0, 0

    def __call__(self, request: Request) -> list[Step]:
        with self._lock:
            self.calls += 1
            tokens = 20 + self.calls * 37 % (self._longest - 19)
            self.cents += 10 + tokens
        said = usage(10, tokens)
        if request.json.get("stream"):
            return list(stream(chat_sse(["fi", "ne"], usage=said)))
        return list(answer(json=chat("fine", usage=said)))


def test_64_agents_spend_a_budget_of_100_calls_and_not_a_cent_more(caller: Caller) -> None:
    bill, over = Bill(90), list[Decimal]()
    limit = 100 * Decimal(1)  # 100 calls of ten tokens of prompt, and at most 90 of answer
    agents = {f"agent-{number}": "main/m" for number in range(64)}
    with ScriptedServer(bill) as server:
        made = Router([backend(server)], agents=agents, budgets={"router": Budget(limit)}, count_tokens=ten)

        def note() -> None:
            found = made.stats().budgets["router"]
            assert found.spent is not None
            assert found.reserved is not None
            over.append(found.spent + found.reserved - limit)

        def spend(agent: str) -> None:
            streams = agent.endswith(("1", "5", "9"))
            try:
                while True:
                    if streams:
                        for _ in made.stream("hi", agent=agent, max_tokens=90):
                            pass
                    else:
                        made.complete("hi", agent=agent, max_tokens=90)
                    note()
            except BudgetExceededError:
                note()

        async def aspend(agent: str) -> None:
            streams = agent.endswith(("1", "5", "9"))
            try:
                while True:
                    if streams:
                        async for _ in made.astream("hi", agent=agent, max_tokens=90):
                            pass
                    else:
                        await made.acomplete("hi", agent=agent, max_tokens=90)
                    note()
            except BudgetExceededError:
                note()

        midday()
        with made:
            if caller.mode == "sync":
                with ThreadPoolExecutor(64) as pool:
                    list(pool.map(spend, agents))
            else:
                caller.run(loops.at_once, aspend, agents)
            total = made.report(by=()).total["cost"]
            stats = made.stats().budgets["router"]
    assert max(over) <= 0
    assert bill.cents == total * 100, "the ledger and the provider agree"
    assert limit * Decimal("0.95") <= total <= limit
    assert (stats.spent, stats.reserved, stats.waiting) == (total, 0, 0)


def test_calls_that_fail_break_and_are_left_spend_no_cent_too_much() -> None:
    """Each call costs at most a dollar by what the router can know: a cut or left stream is estimated."""
    cut = [*stream(chat_sse(["fi", "ne"], usage=None, finish=None, done=False))][:-1]
    kinds = itertools.cycle([ANSWER, answer(503), answer(500), cut, STREAM, stream([Hang()])])
    lock = threading.Lock()

    def serve(request: Request) -> Any:
        with lock:
            return next(kinds)

    with ScriptedServer(serve) as server, router(server, {"router": Budget(20)}, health="off") as made:

        def spend(number: int) -> None:
            for _ in range(4):
                try:
                    if number % 3:
                        made.complete("hi", agent="coder", max_tokens=90, timeout=0.5)
                    else:
                        next(iter(opened := made.stream("hi", agent="coder", max_tokens=90, timeout=0.5)))
                        opened.close()
                except (CcrouteError, StopIteration):
                    pass

        midday()
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(spend, range(16)))
        cost = made.report(by=()).total["cost"]
        assert cost <= 20
        assert spent(made) == (cost, 0), "nothing is reserved for ever"


# -- Ledgers, reloads, forks


def test_a_new_router_on_the_same_ledger_goes_on_counting(caller: Caller, tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    midday()
    with ScriptedServer([ANSWER] * 2) as server:
        for budgets in ({"coder": Budget(1)}, {"router": Budget("1.50")}):
            with router(server, budgets, ledger=path) as made:
                caller.complete(made, "hi", agent="coder", max_tokens=50)
        with router(server, {"coder": Budget("1.50"), "tester": Budget("1.50")}, ledger=path) as made:
            with pytest.raises(BudgetExceededError) as caught:
                caller.complete(made, "hi", agent="coder", max_tokens=50)
            assert made.stats().budgets["agent:tester"].spent == 0
    assert caught.value.spent == 1
    assert Report.from_ledger(path).total["cost"] == 1


def test_routers_that_share_a_ledger_share_its_budgets() -> None:
    ledger = MemoryLedger()
    with ScriptedServer([ANSWER] * 2) as server:
        first, second = (router(server, {"router": Budget("1.20")}, ledger=ledger) for _ in range(2))
        plain = Router([backend(server)], ledger=ledger, count_tokens=ten)
        first.complete("hi", agent="coder", max_tokens=50)
        plain.complete("hi", model="main/m")
        with pytest.raises(BudgetExceededError) as caught:
            second.complete("hi", agent="coder", max_tokens=50)
        assert caught.value.spent == 1


def test_a_reload_keeps_what_was_spent_and_changes_the_limit() -> None:
    events: list[Event] = []
    with ScriptedServer([ANSWER] * 3) as server:
        priced = {"m": {"price": {"input": 10_000, "output": 10_000}}}
        backends = {"main": {"kind": "openai", "base_url": server.url, "models": priced}}

        def source(**budgets: Any) -> dict[str, Any]:
            return {"backends": backends, "budgets": budgets}

        with Router.from_config(source(router={"usd": 1}), count_tokens=ten, on_event=events.append) as made:
            made.complete("hi", model="main/m", max_tokens=50)
            made.reload(source(router={"usd": 2}, session={"usd": 9}))
            assert spent(made) == (Decimal("0.5"), 0)
            made.complete("hi", model="main/m", max_tokens=90)
            made.reload(source())
            made.complete("hi", model="main/m", max_tokens=500)
            assert made.stats().budgets == {}
    added, removed = (event for event in events if isinstance(event, Reloaded))
    assert (added.added, added.changed) == (("budgets.session",), ("budgets.router",))
    assert removed.removed == ("budgets.router", "budgets.session")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_spends_what_its_parent_left() -> None:
    here, go = threading.Event(), threading.Event()
    with ScriptedServer([ANSWER, [Set(here), Wait(go), *ANSWER], ANSWER]) as server:
        with router(server, {"router": Budget(2)}) as made, ThreadPoolExecutor(1) as pool:
            made.complete("hi", agent="coder")
            running = pool.submit(made.complete, "hi", agent="coder")
            assert here.wait(5)
            child = os.fork()
            if not child:
                code = 1
                try:
                    ok = made.complete("hi", agent="coder").text == "fine" and spent(made) == (1, 0)
                    code = 0 if ok else 2
                finally:
                    os._exit(code)
            assert os.waitpid(child, 0)[1] == 0
            go.set()
            running.result(5)


def test_nothing_of_budgets_is_loaded_without_them() -> None:
    code = (
        "import sys\n"
        "from ccroute import OpenAIBackend, Router\n"
        "Router([OpenAIBackend('a', api_key='k')]).stats()\n"
        "print(*[name for name in sys.modules if 'budget' in name and 'retry' not in name])\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout == "\n"


# -- Names


def test_every_wrong_budget_is_a_fault_of_the_router() -> None:
    with pytest.raises(ConfigError) as caught:
        Router(
            [OpenAIBackend("main", api_key="k")],
            agents={"coder": Agent("main/m", group="devs"), "odd": "nowhere/m"},
            groups={"devs": Agent()},
            budgets={"codr": Budget(1), "group:dev": Budget(1), "backend:mian": Budget(1), "router": 5},  # type: ignore[dict-item]  # wrong on purpose
        )
    assert len(caught.value.faults) == 5
    assert 'budgets.codr: unknown agent "codr", did you mean "coder"?' in caught.value.faults
    assert 'budgets.group:dev: unknown group "dev", did you mean "devs"?' in caught.value.faults
    assert 'budgets.backend:mian: unknown backend "mian", did you mean "main"?' in caught.value.faults
    assert "budgets.router: give a Budget such as Budget(5), not int" in caught.value.faults


# -- What explain() and stats() say


def explained(made: Router, **options: Any) -> RoutePlan:
    return made.explain("hi", **{"agent": "coder", "max_tokens": 90, **options})


def test_explain_shows_what_each_candidate_may_cost_and_what_is_left() -> None:
    midday()
    with ScriptedServer([ANSWER]) as server:
        agents = {"coder": Agent("main/m", fallback=["home/m"])}
        backends = [backend(server), backend(server, "home", "free")]
        budgets = {
            "coder": Budget("1.20", then="fallback"),
            "router": Budget(50, per="month"),
            "tester": Budget(1),
        }
        del budgets["tester"]
        with Router(backends, agents=agents, budgets=budgets, count_tokens=ten) as made:
            before = explained(made)
            made.complete("hi", agent="coder", max_tokens=90)
            after = explained(made)
            assert len(server.requests) == 1
            assert made.stats().budgets["agent:coder"].reserved == 0, "nothing is taken"
    assert [(each.allowed, each.worst_cost, each.budget_left) for each in before.candidates] == [
        (True, 1, Decimal("1.2")),
        (True, 0, Decimal("1.2")),
    ]
    first, second = after.candidates
    assert (first.allowed, first.budget_left, second.allowed) == (False, Decimal("0.7"), True)
    assert first.why_not is not None
    assert first.why_not.startswith("budget agent:coder (1.20 USD per day) has $0.70 left until")
    assert [(each.name, each.limit, each.spent, each.reserved) for each in after.budgets] == [
        ("router", 50, Decimal("0.5"), 0),
        ("agent:coder", Decimal("1.2"), Decimal("0.5"), 0),
    ]
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).date()
    lines = str(after).splitlines()
    assert "budget left" in lines[2]
    assert "$0.70" in lines[4]
    assert lines[-1] == f"budget agent:coder: $0.50 of $1.20 spent; per day until {tomorrow} 00:00 UTC"
    assert "budget left" in after._repr_html_()
    assert RoutePlan.model_validate_json(json.dumps(after.to_dict())) == after


def test_explain_never_raises_for_a_budget_and_says_who_is_waited_for() -> None:
    with one_in_flight({"router": Budget(2)}) as (made, _, end):
        waits, never = explained(made), explained(made, max_tokens=200)
        assert made.stats().budgets["router"].waiting == 0
        end()
    [candidate] = waits.candidates
    assert (candidate.allowed, candidate.budget_left) == (True, Decimal("0.9"))
    assert any("waits, budget router (2 USD per day) has $2.00 left, $1.10 of it" in r for r in waits.reasons)
    assert not never.candidates[0].allowed
    assert "$1.10 reserved" in str(never)


def test_explain_knows_the_next_window() -> None:
    queue = {
        "coder": Budget("1.20", per="hour", then="queue"),
        "tester": Budget("1.20", per="total", then="queue"),
    }
    with ScriptedServer([ANSWER] * 2) as server, router(server, queue) as made:
        for agent in ("coder", "tester"):
            made.complete("hi", agent=agent)
        in_time, late = explained(made, timeout=7200), explained(made, timeout=0.001)
        never = explained(made, agent="tester", timeout=7200)
        too_dear = explained(made, max_tokens=120, timeout=7200)
    assert in_time.candidates[0].allowed
    assert any("waits, budget agent:coder (1.20 USD per hour)" in reason for reason in in_time.reasons)
    assert not late.candidates[0].allowed
    assert not never.candidates[0].allowed
    assert not too_dear.candidates[0].allowed, "an hour later, it is dearer than the whole limit again"


def test_explain_shows_how_an_answer_would_be_limited() -> None:
    with ScriptedServer([]) as server, router(server, {"router": Budget("0.90")}) as made:
        explained(made, max_tokens=None)
        options: dict[str, Any] = {"agents": {"coder": "main/m"}, "count_tokens": ten}
        with Router([backend(server, max_output=900)], budgets={"router": Budget(5)}, **options) as long:
            plan = explained(long, max_tokens=None)
    assert plan.candidates[0].worst_cost == 5
    assert "main/m: max_tokens 900 → 490, what budget router (5 USD per day) still affords" in plan.reasons


def test_explain_of_a_session_shows_its_own_budget() -> None:
    with ScriptedServer([ANSWER]) as server, router(server, {"session": Budget(3, per="session")}) as made:
        made.complete("hi", agent="coder", session="one")
        one, two, none = (explained(made, **who) for who in ({"session": "one"}, {"session": "two"}, {}))
        [shown] = made.stats().budgets.values()
    assert [(plan.budgets[0].name, plan.budgets[0].spent) for plan in (one, two)] == [
        ("session:one", Decimal("0.5")),
        ("session:two", 0),
    ]
    assert none.budgets == ()
    assert "budget left" not in str(none)
    assert (shown.name, shown.spent, shown.limit, shown.resets_at) == ("session", None, 3, None)
    assert str(shown) == "budget session: at most $3.00; per session"


def test_stats_show_each_budget(caller: Caller) -> None:
    midday()
    budgets = {"coder": Budget(5, tokens=1000, per="total"), "backend:main": Budget(tokens=90, then="queue")}
    with ScriptedServer([ANSWER]) as server, router(server, budgets) as made:
        caller.complete(made, "hi", agent="coder", max_tokens=80)
        stats = made.stats().budgets
    assert stats["agent:coder"] == BudgetStats(
        name="agent:coder",
        per="total",
        then="refuse",
        limit=Decimal(5),
        spent=Decimal("0.5"),
        reserved=Decimal(0),
        token_limit=1000,
        tokens_spent=50,
        tokens_reserved=0,
    )
    assert str(stats["agent:coder"]) == (
        "budget agent:coder: $0.50 of $5.00 spent, 50 tokens of 1,000 tokens spent; in total"
    )
    main = stats["backend:main"]
    assert (main.limit, main.spent, main.token_limit, main.tokens_spent) == (None, Decimal("0.5"), 90, 50)
    assert main.resets_at is not None
    assert main.resets_at > datetime.now(UTC)


def test_stats_and_explain_work_though_the_ledger_does_not() -> None:
    class Broken(MemoryLedger):
        def tallies(self, *_: object, **__: object) -> Any:
            raise OSError("no database")

    with ScriptedServer([]) as server, router(server, {"router": Budget(5)}, ledger=Broken()) as made:
        plan, stats = explained(made), made.stats()
        with pytest.raises(BudgetExceededError, match="the ledger cannot say what is spent"):
            made.complete("hi", agent="coder")
    assert (plan.candidates[0].allowed, plan.candidates[0].budget_left) == (False, None)
    assert plan.candidates[0].why_not is not None
    assert "the ledger cannot say" in plan.candidates[0].why_not
    assert (stats.budgets["router"].spent, stats.budgets["router"].limit) == (None, 5)


def test_budget_is_a_public_name() -> None:
    assert "Budget" in ccroute.__all__
