"""Many requests at once, blocking, on asyncio and on trio, on real sockets."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import os
import signal
import threading
import tracemalloc
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import anyio
import httpx
import pytest
from tests.conftest import Caller
from tests.support import loops
from tests.support.loops import on_all_loops
from tests.support.openai_like import chat, usage
from tests.support.scripted import Hang, Request, ScriptedServer, Step, Wait, answer, refused_port

from ccroute import (
    Agent,
    AliasTable,
    AsyncBatch,
    Batch,
    Completion,
    OpenAIBackend,
    Price,
    RetryPolicy,
    Router,
)
from ccroute import errors as e
from ccroute.flow import CallContext
from ccroute.routing.scheduling import ArrivalOrder
from ccroute.runtime.batches import requests as unbegun
from ccroute.runtime.batches.calls import MOST_UNREAD
from ccroute.types import Progress

ONCE = RetryPolicy(attempts=1)
Answer = Completion | e.CcrouteError


class Many:
    """A batch of either kind, in an async test."""

    def __init__(self, caller: Caller, router: Router, requests: Any, **options: Any) -> None:
        method = router.complete_many if caller.mode == "sync" else router.acomplete_many
        self.batch: Batch | AsyncBatch = method(requests, **options)

    async def next(self) -> Any:
        """The next answer; None at the end."""
        if isinstance(self.batch, Batch):
            return next(self.batch, None)
        return await anext(self.batch, None)

    async def all(self) -> list[Any]:
        found = []
        while (answer := await self.next()) is not None:
            found.append(answer)
        return found

    async def __aenter__(self) -> Many:
        if isinstance(self.batch, Batch):
            assert self.batch.__enter__() is self.batch
        else:
            assert await self.batch.__aenter__() is self.batch
        return self

    async def __aexit__(self, *error: Any) -> None:
        if isinstance(self.batch, Batch):
            self.batch.__exit__(*error)
        else:
            await self.batch.__aexit__(*error)


def answers(caller: Caller, router: Router, requests: Any, **options: Any) -> list[Any]:
    found: list[Any] = caller.run(lambda: Many(caller, router, requests, **options).all())
    return found


def echo(request: Request) -> list[Step]:
    """The prompt itself."""
    return answer(json=chat(request.json["messages"][-1]["content"], model=request.json["model"]))


def backend(server: ScriptedServer, name: str = "main", **options: Any) -> OpenAIBackend:
    return OpenAIBackend(name, base_url=server.url, **options)


def served(server: ScriptedServer) -> list[str]:
    return [request.json["messages"][-1]["content"] for request in server.requests]


def in_order(found: Sequence[Any]) -> list[Any]:
    assert sorted(each.index for each in found) == list(range(len(found)))
    return sorted(found, key=lambda each: each.index)


# What is given and what comes out


@on_all_loops
def test_each_request_is_answered_and_its_answer_says_which_one_it_is(caller: Caller) -> None:
    with ScriptedServer(echo) as server:
        router = Router([backend(server)])
        requests = [
            "a prompt",
            {"prompt": "a mapping"},
            {"messages": [{"role": "user", "content": "messages"}], "model": "main/other"},
        ]
        found = in_order(answers(caller, router, requests, model="main/m", max_tokens=5))
        assert [each.text for each in found] == ["a prompt", "a mapping", "messages"]
        assert [each.route.deployment for each in found] == ["main/m", "main/m", "main/other"]
        assert {request.json["max_tokens"] for request in server.requests} == {5}
        alone = caller.complete(router, "a prompt", model="main/m")
    assert alone.index is None
    assert "index" not in found[1].model_dump()
    assert Completion.model_validate_json(found[1].model_dump_json()).index is None


def test_a_batch_of_nothing_is_over_at_once(caller: Caller) -> None:
    router = Router([OpenAIBackend(base_url="http://127.0.0.1:9")])
    assert answers(caller, router, []) == []
    assert answers(caller, router, iter([])) == []


@on_all_loops
def test_what_fails_comes_as_the_error_of_its_request(caller: Caller) -> None:
    def script(request: Request) -> list[Step]:
        fails = "fails" in request.json["messages"][-1]["content"]
        return answer(400, json={"error": {"message": "no"}}) if fails else echo(request)

    with ScriptedServer(script) as server:
        router = Router([backend(server)], retry=ONCE)
        requests: list[Any] = [
            "a",
            "it fails",
            {"prompt": 7},
            {"prompt": "d", "model": "other"},
            {},
            {"prompt": "f"},
        ]
        found = in_order(answers(caller, router, requests, model="main/m"))
    assert [type(each) for each in found] == [
        Completion,
        e.InvalidRequestError,
        e.InvalidRequestError,
        e.UnknownModelError,
        e.InvalidRequestError,
        Completion,
    ]
    assert [attempt.status for attempt in found[1].attempts] == [400]
    assert found[1].__traceback__ is None, "it keeps no frame of its call"


@on_all_loops
@pytest.mark.parametrize(
    ("requests", "options", "words"),
    [
        (["a", {"prompt": "a", "temprature": 1}], {}, r"requests\[1\]: there is no argument 'temprature'"),
        (["a"], {"max_token": 1}, "there is no argument 'max_token'"),
        (["a"], {"prompt": "for all"}, "there is no argument 'prompt'"),
        (["a", 7], {}, r"requests\[1\] must be a mapping of keywords or a str, not a int"),
        ([{7: "a"}], {}, "there is no argument '7'"),
        ("a prompt", {}, "must be a list of requests, not a str"),
        ({"prompt": "a"}, {}, "must be a list of requests, not a dict"),
        (7, {}, "must be a list of requests, not a int"),
    ],
)
def test_what_is_no_request_is_refused_before_anything_is_sent(
    caller: Caller, requests: Any, options: Mapping[str, Any], words: str
) -> None:
    router = Router([OpenAIBackend("main", base_url="http://127.0.0.1:9")])

    async def make() -> Many:
        return Many(caller, router, requests, **options)

    with pytest.raises(TypeError, match=words):
        caller.run(make)


def test_a_request_without_a_length_is_refused_when_it_is_read(caller: Caller) -> None:
    async def scenario() -> None:
        async with Many(caller, router, (each for each in requests), model="main/m") as many:
            with pytest.raises(TypeError, match=r"requests\[1\]: there is no argument 'promt'"):
                await many.all()
            assert await many.next() is None

    requests = [{"prompt": "a"}, {"promt": "b"}]
    with ScriptedServer(lambda request: [Hang()]) as server:
        router = Router([backend(server)])
        caller.run(scenario)


def test_no_call_at_a_time_is_refused() -> None:
    with pytest.raises(ValueError, match="concurrency must be at least 1"):
        Router([OpenAIBackend(base_url="http://127.0.0.1:9")]).complete_many([], concurrency=0)


@pytest.mark.parametrize("wrong", [{"concurrency": "3"}, {"concurrency": True}, {"on_progress": 3}])
def test_a_wrong_keyword_of_the_batch_is_named(wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"{next(iter(wrong))} must be"):
        Router([OpenAIBackend(base_url="http://127.0.0.1:9")]).complete_many([], **wrong)


def test_a_closed_router_begins_no_batch(caller: Caller) -> None:
    router = Router([OpenAIBackend(base_url="http://127.0.0.1:9")])
    router.close()
    with pytest.raises(e.RouterClosedError):
        answers(caller, router, ["a"])


@pytest.mark.parametrize("slots", [None, 1])
def test_an_error_of_the_program_ends_the_batch_and_is_raised(caller: Caller, slots: int | None) -> None:
    class Broken(OpenAIBackend):
        def encode(self, request: Any, model: str, stream: bool) -> Any:
            raise ZeroDivisionError

    refused = f"http://127.0.0.1:{refused_port()}"
    with ScriptedServer(lambda request: [Hang()]) as server:
        router = Router([backend(server), Broken("broken", base_url=refused, max_concurrency=slots)])
        with pytest.raises(ZeroDivisionError):
            answers(
                caller,
                router,
                [{"model": "main/m"}, {"model": "broken/m"}],
                messages=[{"role": "user", "content": "hi"}],
            )
        assert server.wait_idle()


# Order, hosts and bounds


class OneModelHost:
    """A server that loads one model at a time, and counts the loads."""

    def __init__(self) -> None:
        self.loaded = ""
        self.loads = 0

    def __call__(self, request: Request) -> list[Step]:
        model = request.json["model"]
        self.loads += model != self.loaded
        self.loaded = model
        return echo(request)


@on_all_loops
def test_a_host_loads_each_model_of_a_batch_once(caller: Caller) -> None:
    host = OneModelHost()
    models = "aabacaabaabaab" * 3  # as 14 agents ask: 9 for a, 4 for b, 1 for c
    with ScriptedServer(host) as server:
        router = Router([backend(server, max_concurrency=1, memory_gb=8)], scheduler=ArrivalOrder())
        found = answers(caller, router, [{"prompt": "hi", "model": f"main/{each}"} for each in models])
    assert [each.model for each in in_order(found)] == [*models]
    assert host.loads == 3


def test_an_agents_rules_decide_where_its_requests_may_be_served(caller: Caller) -> None:
    host = OneModelHost()
    with ScriptedServer(host) as server, ScriptedServer(echo) as paid:
        backends = [backend(server, max_concurrency=1, memory_gb=8, local=True), backend(paid, "paid")]
        table = AliasTable(
            {"a": ["main/a", "paid/a"], "b": {"targets": ["main/b", "paid/b"], "strategy": "ordered"}}
        )
        agents = {"private": Agent("a", local_only=True), "steady": "b"}
        router = Router(backends, table, agents, scheduler=ArrivalOrder())
        requests = [{"agent": agent, "prompt": "hi"} for agent in ("private", "steady", 7, "nobody") * 6]
        found = in_order(answers(caller, router, requests))
    assert {each.route.deployment for each in found[::4]} == {"main/a"}
    assert {each.route.deployment for each in found[1::4]} == {"main/b"}
    assert {type(each) for each in found[2::4]} == {e.InvalidRequestError}
    assert {type(each) for each in found[3::4]} == {e.UnknownAgentError}
    assert host.loads == 2


def test_requests_of_unknown_number_are_grouped_as_far_as_they_are_read_ahead(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def requests() -> Iterator[Any]:
        nonlocal read
        for each in "ab" * 30:
            with reads:
                read += 1
                reads.notify_all()
            yield {"prompt": "hi", "model": f"main/{each}"}

    def script(request: Request) -> list[Step]:
        with reads:  # the answer takes as long as the reading ahead
            assert reads.wait_for(lambda: read >= min(len(server.requests) + 20, 60), timeout=5)
        return host(request)

    monkeypatch.setattr(unbegun, "READ_AHEAD", 20)
    host, read, reads = OneModelHost(), 0, threading.Condition()
    with ScriptedServer(script) as server:
        router = Router([backend(server, max_concurrency=1, memory_gb=8)], scheduler=ArrivalOrder())
        found = answers(caller, router, requests())
    assert len(found) == 60
    assert 2 <= host.loads <= 8


def test_a_higher_priority_begins_first(caller: Caller) -> None:
    requests = [{"prompt": str(each), "priority": each} for each in (0, 1, 2, 3)]
    with ScriptedServer(echo) as server:
        router = Router([backend(server, max_concurrency=1)])
        answers(caller, router, requests, model="main/m")
        assert served(server) == ["3", "2", "1", "0"]


@on_all_loops
@pytest.mark.parametrize("models", [("slow/m", "fast/m"), ("both", "both")])
def test_a_fast_host_does_not_wait_for_a_slow_one(caller: Caller, models: tuple[str, str]) -> None:
    """Also if each request is drawn to one of the two: those for the slow host wait until it has room."""
    is_over = threading.Event()

    async def scenario() -> None:
        async with Many(caller, router, requests, concurrency=4) as many:
            for _ in range(25):
                assert (await many.next()).route.backend == "fast"
                assert router.stats().backends["slow"].in_flight <= 2
            is_over.set()
            assert {each.route.backend for each in await many.all()} == {"slow", "fast"}

    requests = [{"prompt": "hi", "model": name} for name in models * 40]
    with (
        ScriptedServer(lambda request: [Wait(is_over), *echo(request)]) as slow,
        ScriptedServer(echo) as fast,
    ):
        backends = [backend(slow, "slow", max_concurrency=1), backend(fast, "fast")]
        router = Router(backends, {"both": ["slow/m", "fast/m"]})
        caller.run(scenario)


@on_all_loops
def test_hosts_of_the_same_model_share_the_work(caller: Caller) -> None:
    together = threading.Barrier(2)

    def script(request: Request) -> list[Step]:
        together.wait(5)  # until the other host serves a call, too
        return echo(request)

    with ScriptedServer(script) as one, ScriptedServer(script) as other:
        backends = [backend(one, "one", max_concurrency=1), backend(other, "other", max_concurrency=1)]
        router = Router(backends, AliasTable({"both": ["one/m", "other/m"]}, strategy="least-busy"))
        found = answers(caller, router, ["hi"] * 10, model="both")
        assert [type(each) for each in found] == [Completion] * 10
        assert len(one.requests) == len(other.requests) == 5


@on_all_loops
def test_a_host_without_a_limit_gets_so_many_calls_at_a_time(caller: Caller) -> None:
    together = threading.Barrier(3)

    def script(request: Request) -> list[Step]:
        together.wait(5)
        return echo(request)

    with ScriptedServer(script) as server:
        router = Router([backend(server)])
        found = answers(caller, router, ["hi"] * 9, model="main/m", concurrency=3)
        assert [type(each) for each in found] == [Completion] * 9
        assert server.connections == 3


def test_when_a_host_fails_its_calls_go_elsewhere_and_no_more_than_usual(caller: Caller) -> None:
    most = 0

    def script(request: Request) -> list[Step]:
        nonlocal most
        most = max(most, router.stats().backends["other"].in_flight)
        return echo(request)

    with ScriptedServer(script) as server:
        local = OpenAIBackend("local", base_url=f"http://127.0.0.1:{refused_port()}", max_concurrency=1)
        agents = {"coder": Agent("local/m", fallback=["other/m"])}
        router = Router([local, backend(server, "other")], {}, agents, retry=RetryPolicy(base=0, max=0))
        found = answers(caller, router, ["hi"] * 60, agent="coder", concurrency=5)
        assert {each.route.backend for each in found} == {"other"}
    assert 3 < most <= 7


def test_a_calls_time_begins_with_the_call(caller: Caller) -> None:
    with ScriptedServer(lambda request: [Wait(0.1), *echo(request)]) as server:
        router = Router([backend(server, max_concurrency=1)])
        found = answers(caller, router, ["hi"] * 5, model="main/m", timeout=0.4)
    assert [type(each) for each in found] == [Completion] * 5


def test_a_slow_reader_holds_back_the_calls(caller: Caller) -> None:
    async def scenario() -> None:
        async with Many(caller, router, ["hi"] * 200, model="main/m", concurrency=4) as many:
            await many.next()
            while router.stats().backends["main"].in_flight:
                await anyio.sleep(0.005)
            assert len(server.requests) <= MOST_UNREAD + 4
            assert len(await many.all()) == 199

    with ScriptedServer(echo) as server:
        router = Router([backend(server)])
        caller.run(scenario)


# Progress


@on_all_loops
def test_progress_is_told_before_each_answer(caller: Caller) -> None:
    def script(request: Request) -> list[Step]:
        if request.json["messages"][-1]["content"] == "b":
            return answer(400, json={"error": {"message": "no"}})
        return answer(json=chat("hi", usage=usage(1_000_000, 0)))

    told: list[Progress] = []
    with ScriptedServer(script) as server:
        router = Router([backend(server)], prices={"main/m": Price(2, 0)}, retry=ONCE)
        answers(caller, router, ["a", "b", "c"], model="main/m", concurrency=1, on_progress=told.append)
        assert [(each.done, each.total, each.failed, each.cost) for each in told] == [
            (1, 3, 0, Decimal(2)),
            (2, 3, 1, Decimal(2)),
            (3, 3, 1, Decimal(4)),
        ]
        assert 0 < told[0].seconds < told[2].seconds
        answers(caller, router, iter("ab"), model="main/n", on_progress=told.append)
    assert (told[-1].total, told[-1].cost) == (None, None), "the price of this model is unknown"


def test_an_error_of_the_listener_is_only_logged(caller: Caller, caplog: pytest.LogCaptureFixture) -> None:
    def listener(progress: Progress) -> None:
        raise ZeroDivisionError

    with ScriptedServer(echo) as server:
        router = Router([backend(server)])
        assert len(answers(caller, router, ["a", "b"], model="main/m", on_progress=listener)) == 2
    assert caplog.messages[0].startswith("on_progress raised ZeroDivisionError in ")


def test_a_listener_may_end_the_batch(caller: Caller) -> None:
    def listener(progress: Progress) -> None:
        if progress.done == 2:
            many[0].batch._calls.close()

    async def scenario() -> None:
        many.append(Many(caller, router, ["a"] * 9, model="main/m", on_progress=listener))
        assert len(await many[0].all()) == 2

    many: list[Many] = []
    with ScriptedServer(echo) as server:
        router = Router([backend(server)])
        caller.run(scenario)


# The end


def one_then_silence(first: str = "first") -> Any:
    """A script that answers one prompt, and keeps all others waiting."""
    return lambda request: echo(request) if first in str(request.json) else [Hang()]


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ccroute batch"]


REQUESTS = ["first", *["silence"] * 20]


@on_all_loops
@pytest.mark.parametrize("how", ["leave the block", "drop it", "the router closes"])
def test_an_end_in_the_middle_closes_all_connections_and_leaves_nobody(caller: Caller, how: str) -> None:
    async def scenario() -> None:
        many = Many(caller, router, REQUESTS, model="main/m", concurrency=5)
        assert (await many.next()).text == "first"
        await loops.in_thread(server.wait_requests, 6)
        if how == "leave the block":
            async with many:
                pass
            assert not workers()
        elif how == "drop it":
            del many
        else:
            router.close()
            assert not workers()
            with pytest.raises(e.RouterClosedError, match="the rest of the batch was not asked"):
                await many.next()
            assert await many.next() is None
        assert await loops.in_thread(lambda: server.wait_closed(count=5))
        while workers():
            await anyio.sleep(0.001)
        await loops.nobody_else()

    with ScriptedServer(one_then_silence()) as server:
        router = Router([backend(server)])
        caller.run(scenario)
        assert len(server.requests) == 6
        rows = [row.outcome for row in router.rows()]
    assert sorted(rows) == ["cancelled"] * 5 + ["ok"]


def test_the_end_of_a_batch_leaves_no_thread(caller: Caller) -> None:
    async def scenario() -> None:
        assert len(await Many(caller, router, REQUESTS, model="main/m").all()) == 21
        assert not workers()
        assert not router._batches

    with ScriptedServer(echo) as server:
        router = Router([backend(server)])
        caller.run(scenario)


@pytest.mark.parametrize("caller", ["async", "trio"], indirect=True)
def test_a_cancelled_reader_ends_the_calls(caller: Caller) -> None:
    async def scenario() -> None:
        many = Many(caller, router, ["silence"] * 9, model="main/m", concurrency=3)
        await loops.cancelled(many.next, when=lambda: loops.in_thread(server.wait_requests, 3))
        assert await loops.in_thread(lambda: server.wait_closed(count=3))
        assert await many.next() is None
        await loops.nobody_else()

    with ScriptedServer(one_then_silence()) as server:
        router = Router([backend(server)])
        caller.run(scenario)
        assert len(server.requests) == 3


def test_a_batch_whose_loop_has_ended_says_so_in_another_loop() -> None:
    with ScriptedServer(one_then_silence()) as server:
        batch = Router([backend(server)]).acomplete_many(["first", *["silence"] * 3], model="main/m")
        asyncio.run(anext_of(batch))
        with pytest.raises(RuntimeError, match="event loop"):
            asyncio.run(anext_of(batch))


async def anext_of(batch: AsyncIterator[Any]) -> Any:
    return await anext(batch)


def test_an_interrupt_ends_the_calls() -> None:
    def script(request: Request) -> list[Step]:
        if request.json["messages"][-1]["content"] == "last":
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return [Hang()]

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    with ScriptedServer(script) as server:
        batch = Router([backend(server)]).complete_many(["a", "b", "last"], model="main/m")
        try:
            with pytest.raises(KeyboardInterrupt):
                next(batch)
        finally:
            signal.signal(signal.SIGINT, before)
        assert server.wait_closed(count=3)
        assert next(batch, None) is None
        batch.close()
        assert not workers()


def test_calls_that_wait_for_a_slot_end_with_the_batch(caller: Caller) -> None:
    async def scenario() -> None:
        async with Many(caller, router, ["first", *["silence"] * 5], model="main/m") as many:
            await many.next()
            await loops.in_thread(server.wait_requests, 2)
        stats = router.stats().backends["main"]
        assert (stats.slots_held, stats.queued) == (0, 0)

    with ScriptedServer(one_then_silence()) as server:
        router = Router([backend(server, max_concurrency=1)])
        caller.run(scenario)
        assert server.wait_closed()
        assert len(server.requests) == 2


def test_a_router_that_closes_leaves_the_answers_that_came(caller: Caller) -> None:
    async def scenario() -> None:
        many = Many(caller, router, ["a", "b"], model="main/m")
        await many.next()
        while router.stats().backends["main"].in_flight:
            await anyio.sleep(0.001)
        router.close()
        assert isinstance(await many.next(), Completion)
        with pytest.raises(e.RouterClosedError):
            await many.next()

    with ScriptedServer(echo) as server:
        router = Router([backend(server)])
        caller.run(scenario)


@on_all_loops
def test_two_readers_of_one_batch_are_refused(caller: Caller) -> None:
    async def second() -> None:
        await loops.in_thread(server.wait_requests)
        with pytest.raises(RuntimeError, match="already being read, by another thread or task"):
            await many[0].next()
        is_over.set()

    async def scenario() -> None:
        many.append(Many(caller, router, ["a"], model="main/m"))
        if caller.mode == "sync":
            thread = threading.Thread(target=lambda: loops.run("async", second))
            thread.start()
            assert isinstance(await many[0].next(), Completion)
            thread.join()
        else:
            await loops.at_once(lambda run: run(), [many[0].next, second])

    is_over, many = threading.Event(), list[Many]()
    with ScriptedServer(lambda request: [Wait(is_over), *echo(request)]) as server:
        router = Router([backend(server)])
        caller.run(scenario)


def test_a_forked_child_does_not_read_its_parents_batch(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        many = Many(caller, router, ["a", "b"], model="main/m")
        await many.next()
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: -1)
            with pytest.raises(RuntimeError, match="belongs to the process that began it"):
                await many.next()
        assert isinstance(await many.next(), Completion)

    with ScriptedServer(echo) as server:
        router = Router([backend(server)])
        caller.run(scenario)


def test_a_call_that_fails_before_it_asks_for_a_slot_is_its_own_error(caller: Caller) -> None:
    class Picky(OpenAIBackend):
        def encode(self, request: Any, model: str, stream: bool) -> Any:
            if model == "bad":
                raise e.InvalidRequestError("no")
            return super().encode(request, model, stream)

    with ScriptedServer(echo) as server:
        router = Router([Picky("main", base_url=server.url, max_concurrency=1)])
        requests = [{"prompt": "hi", "model": f"main/{name}"} for name in ("good", "bad", "good")]
        found = in_order(answers(caller, router, requests))
    assert [type(each) for each in found] == [Completion, e.InvalidRequestError, Completion]


def test_a_thread_that_cannot_start_ends_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with ScriptedServer(echo) as server:
        router = Router([backend(server, max_concurrency=1)])
        batch = router.complete_many(["a"], model="main/m")
        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="can't start"):
            patch.setattr(threading.Thread, "start", start)
            next(batch)
        assert router.stats().backends["main"].slots_held == 0
        batch.close()
    assert next(batch, None) is None


def test_an_interrupt_before_the_batch_is_made_does_no_harm() -> None:
    Batch.__new__(Batch).__del__()


# Other things


def test_a_thread_has_the_context_variables_of_the_reader() -> None:
    seen, trace = list[str](), contextvars.ContextVar("trace", default="")
    with ScriptedServer([answer(400)], repeat=True) as server:
        router = Router([backend(server)], on_event=lambda event: seen.append(trace.get()))
        trace.set("mine")
        list(router.complete_many(["a"], model="main/m"))
    assert {*seen} == {"mine"}


@on_all_loops
def test_a_batch_shows_how_far_it_is(caller: Caller) -> None:
    async def scenario() -> None:
        many = Many(caller, router, ["a", "b"], model="main/m")
        assert repr(many.batch).endswith("Batch: 0 of 2 answers, 0 failed, nothing received yet>")
        await many.next()
        assert repr(many.batch).endswith("Batch: 1 of 2 answers, 0 failed, running>")
        await many.all()
        assert repr(many.batch).endswith("Batch: 2 of 2 answers, 0 failed, over>")
        assert "0 answers" in repr(Many(caller, router, iter(["a"])).batch)

    with ScriptedServer(echo) as server:
        router = Router([backend(server)])
        caller.run(scenario)


def in_memory() -> httpx.MockTransport:
    body = json.dumps(chat("hi")).encode()
    return httpx.MockTransport(lambda request: httpx.Response(200, content=body))


@on_all_loops
def test_of_ten_thousand_requests_only_those_that_run_have_a_plan(caller: Caller) -> None:
    async def scenario() -> None:
        async with Many(caller, router, ["hi"] * 10_000, model="main/m") as many:
            for _ in range(200):
                assert isinstance(await many.next(), Completion)
            assert sum(isinstance(each, CallContext) for each in gc.get_objects()) < 100
            assert len(workers()) <= 32

    router = Router([OpenAIBackend("main", base_url="http://127.0.0.1:9")], transport=in_memory())
    caller.run(scenario)


def test_requests_of_unknown_number_take_no_more_memory_than_those_read_ahead(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        prompts = (f"{each}" * 20_000 for each in range(10_000, 10_150))
        many = Many(caller, router, prompts, model="main/m", concurrency=4)
        tracemalloc.start()
        try:
            assert len(await many.all()) == 150
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert most < 8e6, "all of them have 15 MB"

    monkeypatch.setattr(unbegun, "READ_AHEAD", 20)
    router = Router([OpenAIBackend("main", base_url="http://127.0.0.1:9")], transport=in_memory())
    caller.run(scenario)
