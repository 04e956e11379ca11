"""Rows 54, 55 and 56: the clock is set, the process stands still, the process forks."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.faults.harness import GRACE, IN_A_ROW, Late, row
from tests.faults.parallel import ParallelHarness, ended, forget, program
from tests.faults.servers import HEALTHY, OPENAI, SO_FAR, Wire
from tests.support.scripted import Hang, Request, Set, Step, Wait, answer
from tests.support.steps import Link
from tests.test_canaries import PROMPT

from ccroute import RetryPolicy
from ccroute.errors import DeadlineExceededError, OverloadedError, StreamInterruptedError
from ccroute.observe import BreakerOpened, CooledDown
from ccroute.runtime.clock import SystemClock

BUSY, ANSWER = answer(503, body="busy"), answer(json=OPENAI.whole)
ONCE_EACH = RetryPolicy(attempts=2, per_deployment=1)
AGAIN = RetryPolicy(attempts=2, per_deployment=2, base=0, max=0)


# -- somebody sets the clock ---------------------------------------------------------------------------------


@dataclass
class WallClock:
    """The clock on the wall, and as a step of a script: it is set, once, by so many seconds."""

    jump: float
    ahead: float = 0.0

    def play(self, link: Link) -> None:
        self.ahead = self.jump


@pytest.fixture(params=[3600.0, -3600.0], ids=["an hour on", "an hour back"])
def wall(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> WallClock:
    """What every reader of the time of day goes by."""
    wall, real, real_ns = WallClock(request.param), time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: real() + wall.ahead)
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + int(wall.ahead * 1e9))
    now = staticmethod(lambda: datetime.now(UTC) + timedelta(seconds=wall.ahead))
    monkeypatch.setattr(SystemClock, "now", now)
    return wall


@row(54, "wall clock ±1 h")
def test_setting_the_clock_during_a_call_changes_nothing(parallel: ParallelHarness, wall: WallClock) -> None:
    host = parallel.server([wall, *ANSWER], [wall, *OPENAI.stream(*OPENAI.events)])
    subject = parallel.router(host)
    asked = datetime.now(UTC)
    reply = parallel.caller.complete(subject.router, PROMPT)
    assert reply.text == HEALTHY
    assert reply.latency < 1
    assert 0 < reply.route.attempts[0].duration < 1
    assert abs(reply.route.attempts[0].started - asked) < timedelta(seconds=5)
    wall.ahead = 0
    result = parallel.caller.stream(subject.router, PROMPT)
    assert result.text == HEALTHY
    assert 0 < result.completion.latency < 1
    for kept in subject.ledger.rows():
        assert kept.latency is not None
        assert 0 < kept.duration <= kept.latency < 1
        assert kept.first_content is None or 0 < kept.first_content <= kept.duration
    parallel.check_rest(subject)
    assert host.connections == (1 if parallel.mode == "sync" else 2)


@row(54, "wall clock ±1 h")
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_clock_that_is_set_moves_no_deadline(
    parallel: ParallelHarness, wall: WallClock, stream: bool
) -> None:
    pieces = OPENAI.stream(*OPENAI.begun, wall, Hang()) if stream else [wall, Hang()]
    subject = parallel.router(parallel.server(pieces))
    began = time.monotonic()
    if stream:
        error: Any = parallel.caller.stream(subject.router, PROMPT, timeout=0.3).error
        assert type(error) is StreamInterruptedError
        error = error.__cause__
    else:
        with pytest.raises(DeadlineExceededError) as caught:
            parallel.caller.complete(subject.router, PROMPT, timeout=0.3)
        error = caught.value
    took = time.monotonic() - began
    assert type(error) is DeadlineExceededError
    assert took >= 0.29
    if took > 0.3 + GRACE:
        raise Late(f"took {took:.3f} s of 0.3 s")


@row(54, "wall clock ±1 h")
def test_a_clock_that_is_set_does_not_close_an_open_breaker(
    parallel: ParallelHarness, wall: WallClock
) -> None:
    faulty, well = parallel.server(BUSY), parallel.server()
    subject = parallel.router(faulty, well, retry=ONCE_EACH)
    for _ in range(IN_A_ROW):
        with pytest.raises(OverloadedError):
            parallel.caller.complete(subject.router, PROMPT, model="main/m")
    assert subject.event_log.count(BreakerOpened) == 1
    for ahead in (wall.jump, 0.0, wall.jump):
        wall.ahead = ahead
        assert parallel.caller.complete(subject.router, PROMPT).route.backend == "other"
    assert len(faulty.requests) == IN_A_ROW


@row(54, "wall clock ±1 h")
@pytest.mark.parametrize(("status", "header"), [(429, {"retry-after": "30"}), (401, {}), (403, {})])
def test_a_clock_that_is_set_ends_no_cooldown(
    parallel: ParallelHarness, wall: WallClock, status: int, header: dict[str, str]
) -> None:
    faulty, well = parallel.server([wall, *answer(status, headers=header)]), parallel.server()
    subject = parallel.router(faulty, well, retry=ONCE_EACH)
    assert parallel.caller.complete(subject.router, PROMPT).route.backend == "other"
    assert subject.event_log.count(CooledDown) == 1
    for ahead in (0.0, wall.jump, 0.0):
        wall.ahead = ahead
        assert parallel.caller.complete(subject.router, PROMPT).route.backend == "other"
    assert len(faulty.requests) == 1
    forget(subject.router)  # it is off for longer than the test


@row(54, "wall clock ±1 h")
def test_setting_the_clock_does_not_change_a_wait(parallel: ParallelHarness, wall: WallClock) -> None:
    limited = answer(429, headers={"retry-after-ms": "150"})
    subject = parallel.router(parallel.server([wall, *limited], ANSWER), retry=AGAIN)
    began = time.monotonic()
    assert parallel.caller.complete(subject.router, PROMPT).text == HEALTHY
    assert 0.15 <= time.monotonic() - began < 1


# -- the process stands still --------------------------------------------------------------------------------

# A program that asks twice: the first call is suspended beyond its deadline.
SUSPENDED = """
import asyncio, json, logging, sys
from functools import partial
from ccroute import OpenAIBackend, Router, errors
from ccroute.accounting import MemoryLedger

url, mode, kind = sys.argv[1:]
logging.getLogger("ccroute").addHandler(logging.NullHandler())
ledger = MemoryLedger()
backend = OpenAIBackend("main", base_url=url, max_concurrency=1)
router = Router([backend], default_model="main/m", ledger=ledger)

def hear(chunk):
    print(json.dumps(chunk.text), flush=True)
    return chunk.text

async def ahear(timeout):
    return [hear(chunk) async for chunk in router.astream("hi", timeout=timeout)]

def run(function, *args):
    if mode == "async":
        return asyncio.run(function(*args))
    import trio
    return trio.run(function, *args)

def ask(timeout):
    if mode != "sync" and kind == "stream":
        return "".join(run(ahear, timeout))
    if mode != "sync":
        return run(partial(router.acomplete, "hi", timeout=timeout)).text
    if kind == "stream":
        return "".join(map(hear, router.stream("hi", timeout=timeout)))
    return router.complete("hi", timeout=timeout).text

try:
    failed = ask(0.3)
except errors.CcrouteError as error:
    failed = [type(error).__name__, type(error.__cause__ or error).__name__, len(error.attempts)]
print(json.dumps([failed, ask(10), [[row.outcome, row.final] for row in ledger.rows()]]))
router.close()
"""


@row(55, "process suspended and resumed")
@pytest.mark.parametrize("kind", ["whole", "stream"])
def test_a_deadline_during_a_suspended_process_fires_once(parallel: ParallelHarness, kind: str) -> None:
    here = threading.Event()
    begun = OPENAI.stream(*OPENAI.begun, Set(here), Hang()) if kind == "stream" else [Set(here), Hang()]
    host = parallel.server(begun, OPENAI.stream(*OPENAI.events) if kind == "stream" else ANSWER)
    with program(SUSPENDED, host.url, parallel.mode, kind) as running:
        assert here.wait(10)
        assert running.stdout is not None
        assert kind == "whole" or json.loads(running.stdout.readline()) == SO_FAR
        os.kill(running.pid, signal.SIGSTOP)
        assert os.WIFSTOPPED(os.waitpid(running.pid, os.WUNTRACED)[1])
        time.sleep(0.4)  # the deadline has to pass
        os.kill(running.pid, signal.SIGCONT)
        resumed = time.monotonic()
        assert host.wait_closed(1)
        assert time.monotonic() - resumed < 0.5
        out, words = running.communicate(timeout=20)
    assert words == ""
    failed, text, rows = json.loads(out.splitlines()[-1])
    error = "StreamInterruptedError" if kind == "stream" else "DeadlineExceededError"
    assert failed == [error, "DeadlineExceededError", 1]
    assert text == HEALTHY
    assert rows == [["interrupted" if kind == "stream" else "failed", True], ["ok", True]]
    assert len(host.requests) == 2


# -- the process forks ---------------------------------------------------------------------------------------

# A program with streams that run and connections that are kept, on a loop and without, forks while other
# threads hold every lock there is. What it says: a line of JSON by the child, then one by the parent.
FORKS = """
import asyncio, gc, json, os, sys, threading
from ccroute import OpenAIBackend, Router
from ccroute.accounting import MemoryLedger

url, child_does, loop = sys.argv[1:]
if loop == "trio":
    import trio
    run, to_thread = trio.run, trio.to_thread.run_sync
else:
    run, to_thread = lambda function: asyncio.run(function()), asyncio.to_thread
ledger = MemoryLedger()
backend = OpenAIBackend("main", base_url=url, max_concurrency=3)
router = Router([backend], default_model="main/m", ledger=ledger, timeout=20)
said, begun, over = {}, threading.Event(), threading.Event()

async def on_a_loop():
    stream = router.astream("their stream")
    text = (await anext(stream)).text
    await router.acomplete("their call")
    begun.set()
    await to_thread(over.wait)
    said["theirs"] = text + "".join([chunk.text async for chunk in stream])
    said["their call"] = (await router.acomplete("their call")).text

def hold(lock):
    with lock:
        held.wait()
        forked.wait()

stream = router.stream("my stream")
text = next(stream).text
router.complete("my call")
there = threading.Thread(target=run, args=[on_a_loop])
there.start()
assert begun.wait(10)

state = router._state
inboxes = [router._limiter._inbox, state.health._inbox, state.rate_limits._inbox]
locks = [state.retry_budget._lock, ledger._lock, *(each.lock for each in inboxes)]
held, forked = threading.Barrier(len(locks) + 1), threading.Event()
holders = [threading.Thread(target=hold, args=[lock]) for lock in locks]
for holder in holders:
    holder.start()
held.wait()

async def in_the_child():
    async with router.astream("the child's stream") as mine:
        text = "".join([chunk.text async for chunk in mine])
    return [(await router.acomplete("the child's call")).text, text]

child = os.fork()
if child == 0:
    before = len(ledger.rows())
    if child_does == "calls":
        said["texts"] = [router.complete("the child's call").text for _ in range(2)]
        said["texts"] += run(in_the_child)
    if child_does != "nothing":
        del stream
        gc.collect()
    if child_does == "calls":
        said["attempts"] = sum(tally.attempts for tally in ledger.tallies().values())
        said["in flight"] = router.stats().backends["main"].in_flight
    said["rows"] = [row.outcome for row in ledger.rows()[before:]]
    print(json.dumps(said), flush=True)
    sys.exit(0)

_, status = os.waitpid(child, 0)
forked.set()
for holder in holders:
    holder.join()
print(json.dumps({"status": status}), flush=True)
assert sys.stdin.readline()
said["mine"] = text + "".join(chunk.text for chunk in stream)
over.set()
there.join()
said["my call"] = router.complete("my call").text
said["rows"] = [row.outcome for row in ledger.rows()]
router.close()
print(json.dumps(said), flush=True)
"""


class Waiting(Wire):
    """The parent's streams wait in the middle until they are let go; everything else is answered at once."""

    go = threading.Event()

    def answer(self, request: Request) -> Iterable[Step]:
        text = request.json["messages"][0]["content"]
        if text in {"my stream", "their stream"}:
            return self.stream(*self.events[:3], Wait(self.go), *self.events[3:])
        return super().answer(request)


@row(56, "fork after use")
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("child_does", ["calls", "drops", "nothing"])
def test_a_fork_after_use_leaves_parent_and_child_a_router_each(
    alone: ParallelHarness, child_does: str, loop: str
) -> None:
    wire = Waiting(*OPENAI)
    wire.go.clear()
    host = alone.server(wire=wire)
    with program(FORKS, host.url, child_does, loop) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        child = json.loads(running.stdout.readline())
        assert json.loads(running.stdout.readline()) == {"status": 0}
        parents, children = connections(host.requests)
        there = host.wait_for(4, hung_up=len(children))
        assert there, f"{host.open_connections} connections are open, {host.closed_by_peer} were closed"
        wire.go.set()
        running.stdin.write("go on\n")
        running.stdin.flush()
        parent = json.loads(running.stdout.readline())
        ended(running)
    calls = 4 if child_does == "calls" else 0
    done = {"texts": [HEALTHY] * 4, "attempts": 6, "in flight": 0}
    assert child == {"rows": ["ok"] * calls} | (done if calls else {})
    assert len(parents) == 4
    assert connections(host.requests) == (parents, children), "what the parent kept was of no use to it"
    texts = dict.fromkeys(("mine", "my call", "theirs", "their call"), HEALTHY)
    assert parent == texts | {"rows": ["ok"] * 6}
    assert len(host.requests) == 6 + calls
    assert host.wait_idle(1)


def connections(requests: list[Request]) -> tuple[set[int], set[int]]:
    """The connections that the parent's requests came on, and the child's."""
    prompts = [(request.json["messages"][0]["content"], request.connection) for request in requests]
    children = {number for prompt, number in prompts if prompt.startswith("the child's")}
    return {number for _, number in prompts} - children, children
