"""Two hosts that may serve the same calls, through the public API and real sockets: who gets the slot."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.conftest import Caller
from tests.runtime.test_slots import ONCE, PROMPTLY, Host, in_thread, pool
from tests.support import ollama
from tests.support.scripted import Hang, Request, Set, Step, Wait

from ccroute import Budget, Model, OllamaBackend, Price, Router
from ccroute.errors import QueueTimeoutError
from ccroute.observe import Event, FellBack, Queued

__all__ = ["pool"]

ALIASES: Any = {"any": {"a/m": 1e6, "b/m": 1e-6}}
"""`a` is preferred; the other has the same right."""


class Pair:
    """Two hosts that serve one call at a time, and a router over both. The first call to each of them runs
    until its `go` is set."""

    def __init__(self, first: Host, second: Host, **options: Any) -> None:
        self.first, self.second = first, second
        models = options.pop("models", None)
        backends = first.backend("a", models=models), second.backend("b", models=models)
        self.router = first.router(*backends, aliases=ALIASES, **options)

    def occupied(self, caller: Caller, pool: ThreadPoolExecutor, *hosts: Host) -> list[Any]:
        """A call that runs at each of these hosts."""
        running = []
        for host in hosts:
            name = "a/m" if host is self.first else "b/m"
            running.append(in_thread(pool, caller, self.router, "running", model=name))
            assert host.first.wait(PROMPTLY)
        return running

    def is_idle(self) -> bool:
        """Whether no slot, place in a queue or call in flight is left."""
        backends = self.router.stats().backends.values()
        return {(each.in_flight, each.slots_held, each.queued) for each in backends} == {(0, 0, 0)}


@contextlib.contextmanager
def pair(**options: Any) -> Iterator[Pair]:
    with Host() as first, Host() as second:
        made = Pair(first, second, **options)
        with made.router:
            yield made


def test_a_call_takes_the_host_that_is_free(caller: Caller, pool: ThreadPoolExecutor) -> None:
    with pair() as hosts:
        running = hosts.occupied(caller, pool, hosts.first)
        hosts.second.go.set()
        route = caller.complete(hosts.router, "moves", model="any").route
        assert (route.deployment, route.fallback, len(route.attempts)) == ("b/m", False, 1)
        assert "b/m had a free slot first" in route.reasons
        assert hosts.first.heard(FellBack) == []
        hosts.first.go.set()
        assert [call.result(PROMPTLY).text for call in running] == ["running"]
        assert caller.complete(hosts.router, "stays", model="any").route.deployment == "a/m"
        assert hosts.is_idle()


def test_a_call_that_waits_for_both_goes_where_a_slot_is_free_first(
    caller: Caller, pool: ThreadPoolExecutor
) -> None:
    with pair() as hosts:
        running = hosts.occupied(caller, pool, hosts.first, hosts.second)
        waiting = in_thread(pool, caller, hosts.router, "waits", model="any")
        hosts.first.one_waits()
        hosts.second.go.set()
        answer = waiting.result(PROMPTLY)
        assert (answer.text, answer.route.deployment) == ("waits", "b/m")
        assert answer.route.queued > 0
        hosts.first.go.set()
        assert {call.result(PROMPTLY).route.deployment for call in running} == {"a/m", "b/m"}
        assert hosts.is_idle()
        assert (hosts.first.most, hosts.second.most) == (1, 1)


def test_a_stream_moves_too(caller: Caller, pool: ThreadPoolExecutor) -> None:
    with pair() as hosts:
        running = hosts.occupied(caller, pool, hosts.first)
        hosts.second.go.set()
        assert caller.stream(hosts.router, "moves", model="any").stream.route.deployment == "b/m"
        hosts.first.go.set()
        running[0].result(PROMPTLY)
        assert hosts.is_idle()


async def test_a_call_that_is_cancelled_while_it_waits_for_both_leaves_both_queues() -> None:
    with pair() as hosts:
        ask = hosts.router.acomplete
        running = [asyncio.create_task(ask("running", model=name)) for name in ("a/m", "b/m")]
        for host in (hosts.first, hosts.second):
            assert await asyncio.to_thread(host.first.wait, PROMPTLY)
        cancelled, kept = (asyncio.create_task(ask(name, model="any")) for name in ("cancelled", "kept"))
        for _ in range(2):
            await asyncio.to_thread(hosts.first.one_waits)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        hosts.second.go.set()
        assert (await kept).route.deployment == "b/m"
        hosts.first.go.set()
        await asyncio.gather(*running)
        assert hosts.is_idle()
        assert "cancelled" not in hosts.first.served + hosts.second.served


def test_a_call_that_reaches_its_deadline_leaves_both_queues(
    caller: Caller, pool: ThreadPoolExecutor
) -> None:
    with pair(retry=ONCE) as hosts:
        running = hosts.occupied(caller, pool, hosts.first, hosts.second)
        with pytest.raises(QueueTimeoutError, match="busy until the deadline") as caught:
            caller.complete(hosts.router, "late", model="any", timeout=0.2)
        (attempt,) = caught.value.attempts
        assert attempt.queued == pytest.approx(0.15, abs=0.1)
        hosts.first.go.set()
        hosts.second.go.set()
        for call in running:
            call.result(PROMPTLY)
        assert hosts.is_idle()
        assert "late" not in hosts.first.served + hosts.second.served


def test_only_the_host_that_served_has_spent(caller: Caller, pool: ThreadPoolExecutor) -> None:
    priced = {"m": Model(price=Price(1, 1), max_output=100)}
    budgets = {f"backend:{name}": Budget(100) for name in ("a", "b")}
    with pair(models=priced, budgets=budgets) as hosts:
        running = hosts.occupied(caller, pool, hosts.first)
        hosts.second.go.set()
        cost = caller.complete(hosts.router, "moves", model="any").cost
        hosts.first.go.set()
        mine = running[0].result(PROMPTLY).cost
        stats = hosts.router.stats().budgets
        assert {name: (each.spent, each.reserved) for name, each in stats.items()} == {
            "backend:a": (mine, 0),
            "backend:b": (cost, 0),
        }


def test_only_the_host_that_served_counts_for_its_rate_limit(
    caller: Caller, pool: ThreadPoolExecutor
) -> None:
    with pair(models={"m": Model(rpm=10, tpm=10_000)}) as hosts:
        running = hosts.occupied(caller, pool, hosts.first)
        hosts.second.go.set()
        caller.complete(hosts.router, "moves", model="any")
        hosts.first.go.set()
        running[0].result(PROMPTLY)
        limits = {name: each.limits for name, each in hosts.router.stats().deployments.items()}
        used = {name: (each and (each.requests, each.waiting)) for name, each in limits.items()}
        assert used == {"a/m": (1, 0), "b/m": (1, 0)}


# -- Looks


class Mini(ollama.FakeOllama):
    """An Ollama whose first chat runs until `go` is set. If it `hangs`, it never lists its loaded models."""

    def __init__(self, *, hangs: bool = False) -> None:
        super().__init__(["m", "n"], on_chat=self._chats)
        self.began, self.go, self.waits, self.looked = (threading.Event() for _ in range(4))
        self.hangs = hangs

    def hear(self, event: Event) -> None:
        if isinstance(event, Queued):
            self.waits.set()

    def router(self) -> Router:
        backend = OllamaBackend("mini", base_url=self.url, max_concurrency=1)
        return Router([backend], on_event=self.hear)

    def _answer(self, request: Request) -> Iterable[Step]:
        if request.target == "/api/ps":
            self.looked.set()
            if self.hangs:
                return [Hang()]
        return super()._answer(request)

    def _chats(self, request: Request) -> Iterable[Step]:
        if not self.began.is_set():
            yield Set(self.began)
            yield Wait(self.go)
        yield from ollama.json_answer(ollama.merged(ollama.chat_lines(ollama.ScriptedReply(), "m")))


def test_a_waiting_call_looks_what_is_loaded_and_gives_its_connection_back(
    caller: Caller, pool: ThreadPoolExecutor
) -> None:
    with Mini() as server, server.router() as router:
        calls = [in_thread(pool, caller, router, "x", model="mini/m")]
        assert server.began.wait(PROMPTLY)
        calls += [in_thread(pool, caller, router, "y", model=f"mini/{model}") for model in "mn"]
        assert server.looked.wait(PROMPTLY), "two models are waited for"
        server.go.set()
        assert {call.result(PROMPTLY).text for call in calls} == {"Hello there."}
        stats = router.stats().backends["mini"]
        assert (stats.busy_connections, stats.in_flight, stats.queued) == (0, 0, 0)
        assert {request.target for request in server.requests} == {"/api/chat", "/api/ps", "/api/show"}


async def test_a_call_that_is_cancelled_while_it_looks_leaves_the_queue() -> None:
    with Mini(hangs=True) as server:
        async with server.router() as router:
            first = asyncio.create_task(router.acomplete("x", model="mini/m"))
            assert await asyncio.to_thread(server.began.wait, PROMPTLY)
            others = [asyncio.create_task(router.acomplete("y", model=f"mini/{model}")) for model in "mn"]
            assert await asyncio.to_thread(server.looked.wait, PROMPTLY)
            for call in others:
                call.cancel()
            stopped = await asyncio.gather(*others, return_exceptions=True)
            assert [type(each) for each in stopped] == [asyncio.CancelledError] * 2
            assert await asyncio.to_thread(server.wait_closed, PROMPTLY), "its connection is closed"
            server.go.set()
            await first
            stats = router.stats().backends["mini"]
            assert (stats.busy_connections, stats.in_flight, stats.slots_held, stats.queued) == (0, 0, 0, 0)
            assert len(server.chats) == 1
