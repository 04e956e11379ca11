"""Slots seen through the public API: a host serves so many calls at a time, and none is lost."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.conftest import Caller
from tests.support import ollama
from tests.support.openai_like import chat, chat_sse
from tests.support.scripted import Request, ScriptedServer, Set, Step, Wait, answer, stream
from tests.support.steps import Link

from ccroute import (
    Agent,
    AliasTable,
    LoadedFirst,
    OllamaBackend,
    OpenAIBackend,
    RetryPolicy,
    Router,
    Scheduler,
)
from ccroute.backends import Backend
from ccroute.errors import ConfigError, OverloadedError, QueueTimeoutError
from ccroute.observe import Event, FellBack, Queued, Retried
from ccroute.routing.scheduling import Choice
from ccroute.routing.scheduling import Host as SchedulingHost

PROMPTLY = 5.0
"""Seconds that a test waits for what must happen at once, before it calls it lost."""
ONCE = RetryPolicy(attempts=1)


class Presence(Step):
    """Notes at a `Host` that a request is being served (+1), or is not any more (-1)."""

    def __init__(self, host: Host, by: int) -> None:
        self.host, self.by = host, by

    def play(self, link: Link) -> None:
        with self.host.guard:
            self.host.now += self.by
            self.host.most = max(self.host.most, self.host.now)


class Host(ScriptedServer):
    """Answers on OpenAI's wire; its first request, when `go` is set. Knows how many it served at a time.

    `served` holds the prompts in the order in which they came.
    """

    def __init__(self) -> None:
        super().__init__(self._answers)
        self.guard = threading.Lock()
        self.now = self.most = 0
        self.first, self.go = threading.Event(), threading.Event()
        self.queued = threading.Semaphore(0)
        self.events: list[Event] = []

    @property
    def served(self) -> list[str]:
        return [request.json["messages"][-1]["content"] for request in self.requests]

    def hear(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Queued):
            self.queued.release()

    def backend(self, name: str = "a", limit: int | None = 1, **options: Any) -> OpenAIBackend:
        return OpenAIBackend(name, base_url=self.url, max_concurrency=limit, **options)

    def router(self, *backends: Backend, **options: Any) -> Router:
        return Router(list(backends) or [self.backend()], on_event=self.hear, **options)

    def one_waits(self) -> None:
        assert self.queued.acquire(timeout=PROMPTLY), "no call waits"

    def heard(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    def _answers(self, request: Request) -> Iterable[Step]:
        yield Presence(self, +1)
        if not self.first.is_set():
            yield Set(self.first)
            yield Wait(self.go)
        if request.json.get("stream"):
            *most, last = chat_sse(["so", " far"])
            yield from stream(most, end=False)
            yield Presence(self, -1)
            yield from [*stream([last])][1:]
        else:
            yield Presence(self, -1)
            yield from answer(json=chat(request.json["messages"][-1]["content"]))


def in_thread(pool: ThreadPoolExecutor, caller: Caller, router: Router, *args: Any, **options: Any) -> Any:
    return pool.submit(caller.complete, router, *args, **options)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def test_calls_never_overlap_at_a_host_that_serves_one(caller: Caller, pool: ThreadPoolExecutor) -> None:
    with Host() as host, host.router() as router:
        calls = [in_thread(pool, caller, router, f"{n}", model="a/m") for n in range(6)]
        for _ in range(5):
            host.one_waits()
        host.go.set()
        assert {call.result(PROMPTLY).text for call in calls} == set("012345")
        assert (host.most, len(host.requests)) == (1, 6)


def test_an_ollama_serves_one_call_at_a_time(caller: Caller, pool: ThreadPoolExecutor) -> None:
    began, go, waits = threading.Event(), threading.Event(), threading.Event()

    def chats(request: Request) -> Iterable[Step]:
        yield Set(began)
        yield Wait(go)
        yield from ollama.json_answer(ollama.merged(ollama.chat_lines(ollama.ScriptedReply(), "m")))

    def hear(event: Event) -> None:
        if isinstance(event, Queued):
            waits.set()

    with ollama.FakeOllama(["m"], on_chat=chats) as server:
        backend = OllamaBackend("home", base_url=server.url, max_concurrency=1)
        with Router([backend], on_event=hear) as router:
            first = in_thread(pool, caller, router, "x", model="home/m")
            assert began.wait(PROMPTLY)
            second = in_thread(pool, caller, router, "y", model="home/m")
            assert waits.wait(PROMPTLY)
            assert len(server.chats) == 1
            go.set()
            assert first.result(PROMPTLY).text == second.result(PROMPTLY).text == "Hello there."


@pytest.mark.parametrize("how", ["read to its end", "closed", "dropped"])
def test_the_slot_is_held_until_a_stream_is_over(caller: Caller, pool: ThreadPoolExecutor, how: str) -> None:
    with Host() as host, host.router() as router:
        host.go.set()
        held = router.stream("first", model="a/m")
        next(held)
        other = in_thread(pool, caller, router, "second", model="a/m")
        host.one_waits()
        assert host.served == ["first"]
        if how == "closed":
            held.close()
        elif how == "dropped":
            del held
            gc.collect()
        else:
            assert "".join(chunk.text for chunk in held) in {"so far", " far"}
        assert other.result(PROMPTLY).text == "second"


async def test_the_slot_is_held_until_an_async_stream_is_over() -> None:
    with Host() as host:
        host.go.set()
        waits = asyncio.Event()

        def hear(event: Event) -> None:
            if isinstance(event, Queued):
                waits.set()

        async with Router([host.backend()], on_event=hear) as router:
            async with router.astream("first", model="a/m") as held:
                await anext(held)
                other = asyncio.create_task(router.acomplete("second", model="a/m"))
                await waits.wait()
                assert host.served == ["first"]
            assert (await other).text == "second"


def test_backends_at_one_host_share_the_smallest_limit(caller: Caller, pool: ThreadPoolExecutor) -> None:
    with Host() as host:
        with host.router(host.backend("wide", 5), host.backend("narrow", 1)) as router:
            first = in_thread(pool, caller, router, "first", model="wide/m")
            assert host.first.wait(PROMPTLY)
            second = in_thread(pool, caller, router, "second", model="wide/m")
            host.one_waits()
            host.go.set()
            assert first.result(PROMPTLY).text == "first"
            assert second.result(PROMPTLY).text == "second"
            assert host.most == 1


def test_a_higher_priority_goes_first(caller: Caller, pool: ThreadPoolExecutor) -> None:
    with Host() as host, host.router() as router:
        calls = [in_thread(pool, caller, router, "running", model="a/m")]
        assert host.first.wait(PROMPTLY)
        for prompt, priority in (("usual", 0), ("later", -1), ("urgent", 5), ("usual too", 0)):
            calls.append(in_thread(pool, caller, router, prompt, model="a/m", priority=priority))
            host.one_waits()
        host.go.set()
        for call in calls:
            call.result(PROMPTLY)
        assert host.served == ["running", "urgent", "usual", "usual too", "later"]


def test_a_call_that_waits_is_an_event(caller: Caller, pool: ThreadPoolExecutor) -> None:
    with Host() as host, host.router() as router:
        first = in_thread(pool, caller, router, "first", model="a/m")
        assert host.first.wait(PROMPTLY)
        second = in_thread(pool, caller, router, "second", model="a/m")
        host.one_waits()
        host.go.set()
        first.result(PROMPTLY)
        second.result(PROMPTLY)
        (event,) = host.heard(Queued)
        assert isinstance(event, Queued)
        assert (event.deployment, event.ahead) == ("a/m", 0)


def test_a_full_queue_sends_the_call_elsewhere(caller: Caller, pool: ThreadPoolExecutor) -> None:
    with Host() as host, Host() as spare:
        spare.go.set()
        backends = host.backend(), spare.backend("b")
        in_order = AliasTable({"any": ["a/m", "b/m"]}, strategy="ordered")
        with host.router(*backends, aliases=in_order, max_queue=0) as router:
            first = in_thread(pool, caller, router, "first", model="a/m")
            assert host.first.wait(PROMPTLY)
            second = caller.complete(router, "second", model="any")
            assert (second.text, second.route.backend) == ("second", "b")
            missed, _ = second.route.attempts
            assert (missed.failure, missed.error, missed.cost) == ("not_sent", "QueueTimeoutError", 0)
            host.go.set()
            first.result(PROMPTLY)


@pytest.mark.parametrize("trigger", ["availability", "rate_limit"])
def test_a_full_queue_is_a_matter_of_availability(
    caller: Caller, pool: ThreadPoolExecutor, trigger: str
) -> None:
    with Host() as host, Host() as spare:
        spare.go.set()
        agents = {"py": Agent("a/m", fallback=["b/m"], triggers=[trigger])}  # type: ignore[list-item]
        backends = host.backend(), spare.backend("b")
        with host.router(*backends, agents=agents, max_queue=0, retry=ONCE) as router:
            first = in_thread(pool, caller, router, "first", model="a/m")
            assert host.first.wait(PROMPTLY)
            if trigger == "availability":
                second = caller.complete(router, "second", agent="py")
                assert second.route.fallback
                assert [type(event) for event in host.events][-1] is FellBack
            else:
                with pytest.raises(QueueTimeoutError, match=r"a/m: .*queue is full"):
                    caller.complete(router, "second", agent="py")
            host.go.set()
            first.result(PROMPTLY)


def test_a_host_busy_until_the_deadline_is_a_queue_timeout(caller: Caller, pool: ThreadPoolExecutor) -> None:
    with Host() as host, host.router() as router:
        first = in_thread(pool, caller, router, "first", model="a/m")
        assert host.first.wait(PROMPTLY)
        began = time.monotonic()
        with pytest.raises(QueueTimeoutError, match="busy until the deadline") as caught:
            caller.complete(router, "second", model="a/m", timeout=0.3)
        assert time.monotonic() - began < 0.4
        assert [attempt.failure for attempt in caught.value.attempts] == ["not_sent"]
        host.go.set()
        first.result(PROMPTLY)
        assert host.served == ["first"]


def test_a_nested_call_on_a_host_with_one_slot_is_refused() -> None:
    with Host() as host, host.router() as router:
        host.go.set()
        for _ in router.stream("outer", model="a/m"):
            with pytest.raises(QueueTimeoutError, match="by this thread"):
                router.complete("inner", model="a/m")
            break
        assert host.heard(Retried) == [], "what can never end is not tried again"
        assert router.complete("after", model="a/m").text == "after"


async def test_a_blocking_call_is_refused_if_its_loop_holds_all_slots() -> None:
    with Host() as host, host.router() as router:
        host.go.set()
        async with router.astream("outer", model="a/m") as outer:
            await anext(outer)
            with pytest.raises(QueueTimeoutError, match="event loop"):
                router.complete("inner", model="a/m")
            assert host.heard(Retried) == []


def test_a_failed_call_gives_its_slot_back(caller: Caller) -> None:
    with ScriptedServer([answer(503)], repeat=True) as server:
        backend = OpenAIBackend("a", base_url=server.url, max_concurrency=1)
        with Router([backend], retry=ONCE, health="off") as router:
            for _ in range(3):  # without a slot it would be a QueueTimeoutError
                with pytest.raises(OverloadedError):
                    caller.complete(router, "x", model="a/m")


# -- A scheduler of the caller's own


class LastFirst:
    """Serves the newest queue first; may be broken."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.hosts: set[str] = set()

    def choose(self, host: SchedulingHost, choices: Sequence[Choice], now: float) -> Choice:
        self.hosts.add(host.origin.host)
        if self.error is not None:
            raise self.error
        return max(choices, key=lambda each: each.queue.oldest)


def served_by(scheduler: Scheduler | None, caller: Caller, pool: ThreadPoolExecutor) -> list[str]:
    """The order in which three calls with priorities of their own are served, after one that runs."""
    with Host() as host, host.router(scheduler=scheduler) as router:
        calls = [in_thread(pool, caller, router, "running", model="a/m")]
        assert host.first.wait(PROMPTLY)
        for prompt, priority in (("urgent", 2), ("usual", 1), ("later", 0)):
            calls.append(in_thread(pool, caller, router, prompt, model="a/m", priority=priority))
            host.one_waits()
        host.go.set()
        for call in calls:
            call.result(PROMPTLY)
        return host.served[1:]


def test_a_scheduler_of_ones_own_decides_who_is_next(caller: Caller, pool: ThreadPoolExecutor) -> None:
    scheduler = LastFirst()
    assert served_by(scheduler, caller, pool) == ["later", "usual", "urgent"]
    assert scheduler.hosts == {"127.0.0.1"}
    assert served_by(None, caller, pool) == served_by(LoadedFirst(max_wait=60), caller, pool)


def test_a_broken_scheduler_breaks_no_call(
    caller: Caller, pool: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    assert served_by(LastFirst(KeyError("a bug")), caller, pool) == ["urgent", "usual", "later"]
    assert [record.message.split(" in ")[0] for record in caplog.records if record.levelname == "ERROR"] == [
        "scheduler LastFirst raised KeyError"
    ]


@pytest.mark.parametrize("given", [LoadedFirst, "loaded", object(), lambda host, choices, now: None])
def test_a_scheduler_that_is_none_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match="scheduler= takes an object with a method choose"):
        Router([OpenAIBackend("a", base_url="http://gpu.test")], scheduler=given)


def test_a_reload_keeps_the_scheduler(caller: Caller) -> None:
    with Host() as host:
        host.go.set()
        scheduler, config = LastFirst(), {"backends": {"a": {"kind": "openai", "base_url": host.url}}}
        with Router.from_config(config, scheduler=scheduler) as router:
            router.reload({"backends": {"a": {**config["backends"]["a"], "max_concurrency": 1}}})
            assert caller.complete(router, "hi", model="a/m").text == "hi"
            assert router._limiter._scheduler._scheduler is scheduler  # type: ignore[attr-defined]
