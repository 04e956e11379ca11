"""The price of waiting through the public API and real sockets: who pays, who waits, and who comes back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from tests.conftest import Caller
from tests.runtime.test_slots import PROMPTLY, Host, in_thread, pool
from tests.support.ollama import FakeOllama
from tests.support.openai_like import chat
from tests.support.scripted import ScriptedServer, answer

from ccroute import Agent, AliasTable, Model, OllamaBackend, OpenAIBackend, Price, Router
from ccroute.errors import ConfigError, InvalidRequestError
from ccroute.observe import WaitSkipped

__all__ = ["pool"]

FREE, PAID = Model(price="free"), Model(price=Price(2, 8))
DEAR: Any = {"waiting_cost": "1000.00"}
"""A dollar for 3.6 seconds. A call to `paid` costs less than a cent."""


class Scene:
    """A free host that serves one call at a time, and a paid one that serves any number."""

    def __init__(self, free: Host, paid: ScriptedServer, **options: Any) -> None:
        other = OpenAIBackend("paid", base_url=paid.url, api_key="example-key", models={"m": PAID})
        aliases = AliasTable({"any": ["free/m", "paid/m"]}, strategy="ordered")
        self.free, self.paid = free, paid
        self.router = free.router(free.backend("free", models={"m": FREE}), other, aliases=aliases, **options)

    def occupied(self, caller: Caller, pool: ThreadPoolExecutor) -> Any:
        """A call that runs at the free host until its `go` is set."""
        running = in_thread(pool, caller, self.router, "running", model="free/m")
        assert self.free.first.wait(PROMPTLY)
        return running


@contextlib.contextmanager
def scene(status: int = 200, **options: Any) -> Iterator[Scene]:
    reply = [*answer(json=chat("paid"))] if status == 200 else [*answer(status)]
    with Host() as free, ScriptedServer([reply], repeat=True) as paid:
        made = Scene(free, paid, **options)
        with made.router:
            yield made


def test_a_call_pays_where_its_wait_would_cost_more(caller: Caller, pool: ThreadPoolExecutor) -> None:
    with scene(agents={"qa": Agent("any", **DEAR)}) as made:
        running = made.occupied(caller, pool)
        reply = caller.complete(made.router, "hi", agent="qa")
        assert (reply.text, reply.route.deployment) == ("paid", "paid/m")
        assert reply.cost is not None
        assert 0 < reply.cost < Decimal("0.01")
        assert reply.route.reasons[0].startswith("free/m: a wait of about 5.0 s would cost 1.40 USD, paid/m")
        assert [each.instead for each in made.free.heard(WaitSkipped) if isinstance(each, WaitSkipped)] == [
            "paid/m"
        ]
        made.free.go.set()
        assert running.result(PROMPTLY).route.deployment == "free/m"
        assert caller.complete(made.router, "hi", agent="qa").route.deployment == "free/m", "it is free now"


def test_explain_says_who_would_be_asked_because_of_the_wait(
    caller: Caller, pool: ThreadPoolExecutor
) -> None:
    with scene() as made:
        idle = made.router.explain("hi", model="any", **DEAR)
        assert [each.deployment for each in idle.candidates] == ["free/m", "paid/m"]
        running = made.occupied(caller, pool)
        busy = made.router.explain("hi", model="any", **DEAR)
        assert [each.deployment for each in busy.candidates] == ["paid/m", "free/m"]
        assert [each.predicted_wait for each in busy.candidates] == [None, pytest.approx(5, abs=1)]
        assert made.paid.requests == []
        made.free.go.set()
        running.result(PROMPTLY)


def test_where_the_paid_one_fails_the_call_waits_for_the_free_one(
    caller: Caller, pool: ThreadPoolExecutor
) -> None:
    with scene(status=401) as made:
        running = made.occupied(caller, pool)
        waits = in_thread(pool, caller, made.router, "comes back", model="any", **DEAR)
        made.free.one_waits()
        made.free.go.set()
        reply = waits.result(PROMPTLY)
        assert [each.deployment for each in reply.route.attempts] == ["paid/m", "free/m"]
        assert reply.cost == 0
        running.result(PROMPTLY)


def test_whoever_has_waited_as_long_as_allowed_pays_and_leaves_the_queue(
    caller: Caller, pool: ThreadPoolExecutor
) -> None:
    with scene() as made:
        running = made.occupied(caller, pool)
        # Many quick answers were measured, so that no wait is predicted.
        made.router._state.hosts.predicted = lambda option, priority: 0.001  # type: ignore[method-assign, union-attr]
        reply = caller.complete(made.router, "hi", model="any", max_wait_free=0.1)
        assert reply.route.deployment == "paid/m"
        assert 0.1 <= reply.route.queued < PROMPTLY
        assert made.router.stats().backends["free"].queued == 0
        made.free.go.set()
        running.result(PROMPTLY)


def test_a_stream_pays_too(caller: Caller, pool: ThreadPoolExecutor) -> None:
    with scene(status=401) as made:
        running = made.occupied(caller, pool)
        made.free.go.set()
        running.result(PROMPTLY)
        heard = caller.stream(made.router, "hi", model="any", max_wait_free=0)
        assert (heard.text, heard.stream.route.deployment) == ("so far", "free/m")  # type: ignore[union-attr]


def test_before_a_call_pays_it_asks_whether_its_model_is_loaded(caller: Caller) -> None:
    with FakeOllama(["m"]) as server, ScriptedServer([[*answer(json=chat("paid"))]], repeat=True) as paid:
        free = OllamaBackend("free", server.url)
        other = OpenAIBackend("paid", base_url=paid.url, api_key="example-key")
        aliases = AliasTable({"any": ["free/m", "paid/m"]}, strategy="ordered")
        with Router([free, other], aliases) as router:
            for _ in range(3):
                cold = caller.complete(router, "hi", model="any", max_wait_free=1)
                assert cold.route.deployment == "paid/m", "a load takes 5 s, as long as it is not measured"
            assert [each.target for each in server.requests].count("/api/ps") == 1
        server.loaded["m:latest"] = 4096  # by another program, or before this one began
        with Router([free, other], aliases) as router:
            warm = caller.complete(router, "hi", model="any", max_wait_free=1)
            assert warm.route.deployment == "free/m"


@pytest.mark.parametrize("wrong", [-1, "much", float("nan"), 10**10])
def test_a_wrong_price_of_waiting_is_named(wrong: Any) -> None:
    what = "waiting_cost must be USD per hour, a number or a str such as '2.50', of at least 0"
    with pytest.raises(ConfigError, match=r"agents\.qa\.waiting_cost must be USD per hour"):
        Router([], agents={"qa": Agent("any", waiting_cost=wrong)})
    with Router([]) as router, pytest.raises(InvalidRequestError, match=what):
        router.complete("hi", model="any", waiting_cost=wrong)


def test_a_wrong_limit_of_waiting_is_named() -> None:
    for wrong, what in ((-1, "max_wait_free must be seconds of at least 0"), (True, "max_wait_free: give")):
        with pytest.raises(ConfigError, match=what):
            Router([], agents={"qa": Agent("any", max_wait_free=wrong)})
    with Router([]) as router:
        for given in ({"max_wait_free": "5"}, {"waiting_cost": True}, {"max_wait_free": float("nan")}):
            with pytest.raises(InvalidRequestError, match=next(iter(given))):
                router.complete("hi", model="any", **given)  # type: ignore[arg-type]
