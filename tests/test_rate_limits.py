"""Rate limits through the public API, with real servers, threads and event loops."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from tests.conftest import Caller
from tests.support import loops
from tests.support.openai_like import chat, chat_sse
from tests.support.scripted import Request, ScriptedServer, Set, Step, Wait, answer, stream

from ccroute import Agent, Model, OpenAIBackend, Router
from ccroute.errors import RateLimitError
from ccroute.observe import Event, RateLimited
from ccroute.serve.openai import dump_error
from ccroute.types import LimitStats

ANSWER = answer(json=chat("fine", usage={"prompt_tokens": 4, "completion_tokens": 6}))


def backend(server: ScriptedServer, name: str = "main", **limits: int) -> OpenAIBackend:
    return OpenAIBackend(name, base_url=server.url, models={"m": Model(**limits)})  # type: ignore[arg-type]


class Waits:
    """Listens for calls that begin to wait for a limit."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)

    def __call__(self, event: Event) -> None:
        if isinstance(event, RateLimited):
            self.began.release()

    def until(self, calls: int) -> None:
        for _ in range(calls):
            assert self.began.acquire(timeout=5)


@pytest.fixture
def short_minute(monkeypatch: pytest.MonkeyPatch) -> float:
    """A minute of 0.3 seconds."""
    monkeypatch.setattr("ccroute.routing.rate_limits.window.WINDOW", 0.3)
    monkeypatch.setattr("ccroute.routing.rate_limits.window.STEP", 0.001)
    return 0.3


def test_a_call_over_the_limit_fails_before_it_is_sent(caller: Caller) -> None:
    with ScriptedServer([ANSWER] * 2) as server, Router([backend(server, rpm=2)], timeout=20) as router:
        for _ in range(2):
            assert caller.complete(router, "hi", model="main/m").text == "fine"
        began = time.monotonic()
        with pytest.raises(RateLimitError, match="its limit rpm=2 is reached") as caught:
            caller.complete(router, "hi", model="main/m")
        assert time.monotonic() - began < 5
        stats = router.stats()
    assert caught.value.retry_after is not None
    assert 50 < caught.value.retry_after <= 60
    status, body = dump_error(caught.value)
    assert (status, body["error"]["type"]) == (429, "rate_limit_error")
    assert len(server.requests) == 2
    assert stats.deployments["main/m"].limits == LimitStats(rpm=2, requests=2)
    assert stats.agents == {}


def test_a_call_over_the_limit_waits_for_its_turn(caller: Caller, short_minute: float) -> None:
    streamed = stream(chat_sse(["fine"]))
    with ScriptedServer([ANSWER, streamed, ANSWER]) as server, Router([backend(server, rpm=1)]) as router:
        began = time.monotonic()
        assert caller.complete(router, "hi", model="main/m").text == "fine"
        assert caller.stream(router, "hi", model="main/m").text == "fine"
        assert caller.complete(router, "hi", model="main/m").text == "fine"
        assert time.monotonic() - began >= 2 * short_minute


def test_an_agent_over_its_limit_waits_for_its_turn(caller: Caller, short_minute: float) -> None:
    with ScriptedServer([ANSWER] * 3) as server:
        agents = {"coder": Agent("main/m", rpm=1), "tester": Agent("main/m")}
        with Router([backend(server)], agents=agents) as router:
            began = time.monotonic()
            caller.complete(router, "hi", agent="coder")
            caller.complete(router, "hi", agent="tester")
            waited = caller.complete(router, "hi", agent="Coder")
            assert time.monotonic() - began >= short_minute
            stats = router.stats()
    assert any("agent coder waited 0." in reason for reason in waited.route.reasons)
    assert stats.agents["coder"].limits == LimitStats(rpm=1, requests=1)
    assert stats.agents.keys() == {"coder"}
    assert stats.deployments["main/m"].limits is None


def test_tokens_that_come_back_let_the_next_call_go_at_once(caller: Caller) -> None:
    here, go, waits = threading.Event(), threading.Event(), Waits()
    with ScriptedServer([[Set(here), Wait(go), *ANSWER], ANSWER]) as server, ThreadPoolExecutor(2) as pool:
        with Router([backend(server, tpm=100)], timeout=100, on_event=waits) as router:
            ask = partial(caller.complete, router, "hi", model="main/m", max_tokens=80)
            first = pool.submit(ask)
            assert here.wait(5)
            second = pool.submit(ask)
            waits.until(1)
            assert router.stats().deployments["main/m"].limits == LimitStats(
                requests=1, tpm=100, tokens=85, waiting=1
            )
            began = time.monotonic()
            go.set()
            assert [first.result(5).text, second.result(5).text] == ["fine"] * 2
            assert time.monotonic() - began < 5
            assert router.stats().deployments["main/m"].limits == LimitStats(requests=2, tpm=100, tokens=20)


@pytest.mark.parametrize("mode", ["async", "trio"])
def test_a_task_that_is_cancelled_gives_its_place_to_the_next(mode: loops.Mode) -> None:
    waits = Waits()

    async def main() -> None:
        call = partial(router.acomplete, "hi", model="main/m", timeout=100)
        await call()
        await loops.cancelled(call, when=lambda: loops.in_thread(waits.until, 1))
        assert limits() == LimitStats(rpm=1, requests=1)

    def limits() -> Any:
        return router.stats().deployments["main/m"].limits

    with ScriptedServer([ANSWER]) as server, Router([backend(server, rpm=1)], on_event=waits) as router:
        loops.run(mode, main)


def test_a_stream_that_is_closed_stops_waiting() -> None:
    waits = Waits()
    with ScriptedServer([ANSWER]) as server, ThreadPoolExecutor(1) as pool:
        with Router([backend(server, rpm=1)], on_event=waits, timeout=100) as router:
            router.complete("hi", model="main/m")
            waiting = router.stream("hi", model="main/m")
            reading = pool.submit(list, waiting)
            waits.until(1)
            waiting.close()
            assert reading.result(5) == []
            assert router.stats().deployments["main/m"].limits == LimitStats(rpm=1, requests=1)


def all_at_once(router: Router, each: int, **options: Any) -> list[bool]:
    """Calls of as many threads, tasks of asyncio and tasks of trio: whether each was answered."""
    answered: list[bool] = []
    start = threading.Barrier(each + 2)
    options = {"model": "main/m", **options}

    def ask() -> None:
        try:
            router.complete("hi", **options)
        except RateLimitError:
            answered.append(False)
        else:
            answered.append(True)

    async def aask(_: int) -> None:
        try:
            await router.acomplete("hi", **options)
        except RateLimitError:
            answered.append(False)
        else:
            answered.append(True)

    def begin(job: Callable[[], object]) -> None:
        start.wait(5)
        job()

    with ThreadPoolExecutor(each + 2) as pool:
        jobs = [pool.submit(begin, ask) for _ in range(each)]
        for mode in ("async", "trio"):
            tasks = partial(loops.run, mode, loops.at_once, aask, range(each))
            jobs.append(pool.submit(begin, tasks))
        for job in jobs:
            job.result(20)
    assert len(answered) == 3 * each
    return answered


def test_threads_and_tasks_at_once_share_one_limit() -> None:
    with ScriptedServer(lambda request: ANSWER) as server:
        with Router([backend(server, rpm=7)], timeout=20) as router:
            answered = all_at_once(router, 10)
    assert sum(answered) == len(server.requests) == 7


def test_threads_and_tasks_that_wait_all_get_their_turn(short_minute: float) -> None:
    came: list[float] = []

    def script(request: Request) -> list[Step]:
        came.append(time.monotonic())
        return [*ANSWER]

    with ScriptedServer(script) as server, Router([backend(server, rpm=5)], timeout=20) as router:
        assert all(all_at_once(router, 5))
        assert router.stats().deployments["main/m"].limits.waiting == 0  # type: ignore[union-attr]
    assert len(came) == 15
    # On its way a request may lose some of the time.
    gaps = [after - first for first, after in zip(sorted(came), sorted(came)[5:], strict=False)]
    assert min(gaps) > short_minute * 0.5


def test_a_sync_call_inside_a_loop_does_not_wait_for_its_own_tasks(short_minute: float) -> None:
    waits = Waits()

    async def main() -> None:
        router.complete("hi", model="main/m")
        task = asyncio.create_task(router.acomplete("hi", model="main/m"))
        await asyncio.to_thread(waits.until, 1)
        assert (
            router.complete("hi", model="main/m").text == "fine"
        )  # nothing else runs on this loop meanwhile
        assert (await task).text == "fine"

    with ScriptedServer([ANSWER] * 3) as server:
        with Router([backend(server, rpm=1)], on_event=waits, timeout=20) as router:
            asyncio.run(main())


def test_the_limits_of_a_file_hold(caller: Caller) -> None:
    with ScriptedServer([ANSWER]) as server:
        config = {
            "backends": {"main": {"kind": "openai", "base_url": server.url, "models": {"m": {"rpm": 1}}}},
            "groups": {"coders": {"model": "main/m", "rpm": 1, "agents": ["go", "rust"]}},
            "timeout": 10,
        }
        with Router.from_config(config, env={}) as router:
            caller.complete(router, "hi", agent="go")
            with pytest.raises(RateLimitError, match="agent go is at its limit rpm=1"):
                caller.complete(router, "hi", agent="go")
            with pytest.raises(RateLimitError, match="main/m: not sent: its limit rpm=1 is reached"):
                caller.complete(router, "hi", agent="rust")


def test_explain_tells_of_limits_and_takes_nothing(caller: Caller) -> None:
    with ScriptedServer([ANSWER] * 2) as server:
        backends = backend(server, rpm=1), backend(server, "other", tpm=100)
        agents = {"coder": Agent("any", rpm=2)}
        aliases = {"any": {"targets": ["main/m", "other/m"], "strategy": "ordered"}}
        with Router(backends, aliases, agents, timeout=20) as router:  # type: ignore[arg-type]
            for _ in range(3):
                assert [each.allowed for each in router.explain("hi", agent="coder").candidates] == [
                    True,
                    True,
                ]
            caller.complete(router, "hi", agent="coder")
            for _ in range(3):
                main, other = router.explain("hi", agent="coder").candidates
                assert (main.allowed, other.allowed) == (False, True)
                assert main.why_not in [
                    f"its limit rpm=1 is reached; there is room in {s} s" for s in (59, 60)
                ]
            caller.complete(router, "hi", agent="coder")
            plan = router.explain("hi", agent="coder", max_tokens=90)
            assert any(
                reason.startswith("agent coder: its limit rpm=2 is reached; its turn comes in")
                for reason in plan.reasons
            )
            waits = router.explain("hi", model="main/m", timeout=100)
            assert any(reason.startswith("the call waits ") for reason in waits.reasons)
            stats = router.stats()
    assert stats.deployments["main/m"].limits == LimitStats(rpm=1, requests=1)
    assert stats.deployments["other/m"].limits == LimitStats(tpm=100, requests=1, tokens=10)
    assert stats.agents["coder"].limits == LimitStats(rpm=2, requests=2)


def test_a_reload_keeps_what_was_sent_and_takes_the_new_limits(caller: Caller) -> None:
    with ScriptedServer([ANSWER] * 3) as server:

        def config(deployments: int | None, agents: int | None) -> dict[str, Any]:
            model = {"rpm": deployments}
            return {
                "backends": {"main": {"kind": "openai", "base_url": server.url, "models": {"m": model}}},
                "agents": {"coder": {"model": "main/m", "rpm": agents}},
                "timeout": 10,
            }

        with Router.from_config(config(1, 1), env={}) as router:
            ask = partial(caller.complete, router, "hi", agent="coder")
            ask()
            router.reload(config(2, 1))
            with pytest.raises(RateLimitError, match="agent coder is at its limit rpm=1"):
                ask()
            router.reload(config(2, 5))
            ask()
            with pytest.raises(RateLimitError, match="its limit rpm=2 is reached"):
                ask()
            router.reload(config(None, None))
            ask()
