"""`router.stats()`: what the router is doing now, through the public API alone."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.conftest import Caller
from tests.support.ollama import FakeOllama, ScriptedReply
from tests.support.openai_like import chat, chat_sse
from tests.support.scripted import Hang, Reply, Request, ScriptedServer, Set, Wait, answer, stream

from ccroute import OllamaBackend, OpenAIBackend, RetryPolicy, Router, errors
from ccroute.accounting.counts import MOST_NEW
from ccroute.observe import Event, Queued
from ccroute.types import BackendStats, CallCounts, DeploymentStats, HealthStats, ModelStats

ANSWER, BUSY = answer(json=chat("fine")), answer(503, body="busy")
SILENT = stream([*chat_sse(["so far"], usage=None, finish=None, done=False), Hang()])
ONCE, TWICE = RetryPolicy(attempts=1), RetryPolicy(attempts=2, per_deployment=1)


def fail(caller: Caller, router: Router, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(errors.BackendError):
            caller.complete(router, "hi", model="main/m")


def health(router: Router) -> HealthStats:
    return router.stats().deployments["main/m"].health


def test_a_new_router_has_backends_and_no_deployments() -> None:
    with Router([OpenAIBackend("main"), OllamaBackend("small", max_concurrency=2)]) as router:
        stats = router.stats()
    assert stats.backends == {"main": BackendStats(), "small": BackendStats(slots=2)}
    assert stats.deployments == {}


def test_a_busy_host_has_its_slots_held_and_calls_queued(caller: Caller) -> None:
    here, go, queued = threading.Event(), threading.Event(), threading.Event()

    def listen(event: Event) -> None:
        if isinstance(event, Queued):
            queued.set()

    with ScriptedServer([[Set(here), Wait(go), *ANSWER], ANSWER]) as server, ThreadPoolExecutor(2) as pool:
        backend = OpenAIBackend("main", base_url=server.url, max_concurrency=1)
        with Router([backend], default_model="main/m", on_event=listen) as router:
            calls = [pool.submit(caller.complete, router, "hi") for _ in range(2)]
            try:
                assert here.wait(5)
                assert queued.wait(5)
                busy = router.stats()
            finally:
                go.set()
            assert [call.result().text for call in calls] == ["fine"] * 2
            rest = router.stats()
    assert busy.backends["main"] == BackendStats(
        in_flight=2, slots=1, slots_held=1, queued=1, busy_connections=1
    )
    assert busy.deployments == {"main/m": DeploymentStats(in_flight=2)}
    kept = 1 if caller.mode == "sync" else 0  # a loop that ends closes its connections
    counts = rest.backends["main"].counts
    assert rest.backends["main"] == BackendStats(slots=1, idle_connections=kept, counts=counts)
    assert (counts.requests, counts.wait > 0) == (2, True)
    assert rest.counts == rest.deployments["main/m"].counts == counts


def test_a_stream_is_in_flight_until_it_is_closed(caller: Caller) -> None:
    def now() -> tuple[int, int, int]:
        stats = router.stats().backends["main"]
        return stats.in_flight, stats.busy_connections, stats.idle_connections

    def seen() -> list[tuple[int, int, int]]:
        router.complete("hi")
        found = [now()]
        with router.stream("hi") as running:
            next(running)
            found.append(now())
        return [*found, now()]

    async def awaited() -> list[tuple[int, int, int]]:
        await router.acomplete("hi")
        found = [now()]
        async with router.astream("hi") as running:
            await anext(running)
            found.append(now())
        return [*found, now()]

    with ScriptedServer([ANSWER, SILENT]) as server:
        with Router([OpenAIBackend("main", base_url=server.url)], default_model="main/m") as router:
            found = asyncio.run(awaited()) if caller.mode == "async" else seen()
    assert found == [(0, 0, 1), (1, 1, 0), (0, 0, 0)]


def test_backends_at_one_origin_share_slots_and_connections(caller: Caller) -> None:
    with ScriptedServer([SILENT]) as server:
        backends = [OpenAIBackend(name, base_url=server.url, max_concurrency=2) for name in ("a", "b")]
        with Router(backends) as router, router.stream("hi", model="a/m") as running:
            next(running)
            stats = router.stats()
    assert stats.backends["a"] == stats.backends["b"]
    assert stats.backends["b"] == BackendStats(in_flight=1, slots=2, slots_held=1, busy_connections=1)


def test_an_open_breaker_is_off_then_probed_then_on(caller: Caller) -> None:
    here, go = threading.Event(), threading.Event()
    with (
        ScriptedServer([*[BUSY] * 5, [Set(here), Wait(go), *ANSWER]]) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        with Router([OpenAIBackend("main", base_url=server.url)], retry=ONCE) as router:
            fail(caller, router, 4)
            assert health(router) == HealthStats()
            fail(caller, router)
            off = router.stats().deployments["main/m"]
            # Nobody else is left, so the next call is its probe, before its time.
            probe = pool.submit(caller.complete, router, "hi", model="main/m")
            try:
                assert here.wait(5)
                probed = health(router)
            finally:
                go.set()
            probe.result()
            assert health(router) == HealthStats()
    assert (off.health.state, off.health.reason) == ("off", "5 failures in a row")
    assert 20 < off.health.seconds_left <= 36
    assert off.success_rate < 0.5
    assert (probed.state, probed.reason) == ("probing", "5 failures in a row")


def test_a_breaker_for_one_caller_says_so(caller: Caller) -> None:
    with ScriptedServer([answer(500, body="oops")], repeat=True) as server:
        with Router([OpenAIBackend("main", base_url=server.url)], retry=ONCE) as router:
            fail(caller, router, 5)
            found = health(router)
    assert (found.state, found.reason) == ("off", "5 failures in a row (only for 1 of the callers)")


@pytest.mark.parametrize(
    ("reply", "state", "reason", "seconds"),
    [
        (answer(429, headers={"retry-after": "30"}), "cooling", "asked for a pause", 30),
        (
            answer(404, json={"error": {"code": "model_not_found"}}),
            "off",
            "refused: ModelNotFoundError, HTTP 404",
            300,
        ),
    ],
    ids=["Retry-After", "no such model"],
)
def test_a_deployment_without_calls_says_why(
    caller: Caller, reply: Reply, state: str, reason: str, seconds: float
) -> None:
    with ScriptedServer([reply]) as server:
        with Router([OpenAIBackend("main", base_url=server.url)], retry=ONCE) as router:
            fail(caller, router)
            found = health(router)
    assert (found.state, found.reason) == (state, reason)
    assert 0 < found.seconds_left <= seconds


def test_a_refused_key_is_the_health_of_its_backend(caller: Caller) -> None:
    with ScriptedServer([answer(401, body="no")]) as server:
        backend = OpenAIBackend("main", base_url=server.url, api_key="sk-0123456789")
        with Router([backend], retry=ONCE) as router:
            fail(caller, router)
            stats = router.stats()
    credential = stats.backends["main"].credential
    assert (credential.state, credential.reason) == ("off", "refused: AuthenticationError, HTTP 401")
    assert credential.seconds_left > 0
    assert stats.deployments["main/m"].health == HealthStats()


def test_a_host_shows_its_models_who_is_loaded_and_who_waits(caller: Caller) -> None:
    here, go, queued = threading.Event(), threading.Event(), threading.Event()

    def says(_: Request) -> ScriptedReply:
        here.set()
        assert go.wait(5)
        return ScriptedReply()

    def listen(event: Event) -> None:
        if isinstance(event, Queued):
            queued.set()

    with FakeOllama(["big", "small"], on_chat=says) as ollama, ThreadPoolExecutor(3) as pool:
        backends = [OllamaBackend(name, ollama.url, max_concurrency=1) for name in ("mini", "same")]
        with Router(backends, on_event=listen) as router:
            first = pool.submit(caller.complete, router, "hi", model="mini/big")
            try:
                assert here.wait(5)
                second = pool.submit(caller.complete, router, "hi", model="mini/small")
                assert queued.wait(5)
                busy = router.stats().backends
            finally:
                go.set()
            assert first.result().text == second.result().text == "Hello there."
            rest = router.stats()
    assert set(busy["mini"].models) == {"big", "small"}
    assert (busy["mini"].models["big"].loaded_for or 0) > 0
    assert busy["mini"].models["small"] == ModelStats(waiting=1)
    assert busy["same"].models.keys() == busy["mini"].models.keys(), "it is the same host"
    small = rest.backends["mini"].models["small"]
    assert (small.loaded_for or 0) > 0
    assert small.waiting == 0
    assert (rest.counts.loads, rest.counts.load_seconds) == (2, 4.8)
    assert rest.backends["mini"].counts.wait > 0


def test_a_host_that_loads_nothing_on_demand_has_no_models(caller: Caller) -> None:
    with ScriptedServer([ANSWER]) as server:
        backend = OpenAIBackend("main", base_url=server.url, max_concurrency=1)
        with Router([backend]) as router:
            caller.complete(router, "hi", model="main/m")
            assert router.stats().backends["main"].models == {}


def test_counts_are_those_of_a_report_by_backend_and_deployment(caller: Caller) -> None:
    hosted = {"model": "m", "message": {"role": "assistant", "content": "fine"}, "done": True}
    loads = [answer(json=hosted | {"load_duration": load}) for load in (2_500_000_000, 30_000_000)]
    with ScriptedServer([BUSY], repeat=True) as busy, ScriptedServer(loads) as free:
        backends = [OpenAIBackend("main", base_url=busy.url), OllamaBackend("mini", free.url)]
        aliases, fallbacks = {"fast": "main/m"}, {"fast": ["mini/m"]}
        with Router(backends, aliases=aliases, fallbacks=fallbacks, retry=TWICE) as router:
            for _ in range(2):
                assert caller.complete(router, "hi", model="fast").text == "fine"
            stats, total = router.stats(), router.report().total
    loaded = CallCounts(requests=2, attempts=2, loads=1, load_seconds=2.5)
    assert stats.deployments["mini/m"].counts == stats.backends["mini"].counts == loaded
    assert stats.backends["main"].counts == CallCounts(attempts=2, failures=2)
    assert stats.counts.model_dump() == {name: total[name] for name in CallCounts.model_fields}
    assert stats.uptime > 0


def test_every_call_of_many_threads_is_counted(caller: Caller) -> None:
    with ScriptedServer([ANSWER], repeat=True) as server, ThreadPoolExecutor(8) as pool:
        with Router([OpenAIBackend("main", base_url=server.url)], default_model="main/m") as router:
            for call in [pool.submit(caller.complete, router, "hi") for _ in range(200)]:
                call.result()
            assert len(router._state.counts) <= MOST_NEW
            assert router.stats().counts.requests == 200


def test_stats_are_json(caller: Caller) -> None:
    with ScriptedServer([BUSY], repeat=True) as server:
        with Router([OpenAIBackend("main", base_url=server.url)], retry=ONCE) as router:
            fail(caller, router, 5)
            stats = router.stats()
    assert json.loads(json.dumps(stats.model_dump())) == stats.model_dump()
    again = json.loads(stats.model_dump_json())
    assert again["deployments"]["main/m"]["health"]["state"] == "off"
    assert type(stats).model_validate(again) == stats


def test_stats_are_there_after_close(caller: Caller) -> None:
    with ScriptedServer([ANSWER]) as server:
        with Router([OpenAIBackend("main", base_url=server.url)]) as router:
            caller.complete(router, "hi", model="main/m")
        stats = router.stats()
    assert stats.backends["main"] == BackendStats(counts=CallCounts(requests=1, attempts=1))
    assert stats.counts == CallCounts(requests=1, attempts=1)
