"""Rows 50, 53 and 59: callers that leave a probe, forget a stream, or press Ctrl-C."""

from __future__ import annotations

import contextlib
import gc
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from anyio.lowlevel import checkpoint
from tests.faults.harness import IN_A_ROW, row
from tests.faults.parallel import (
    Host,
    ParallelHarness,
    Subject,
    half_open,
    locks,
)
from tests.faults.servers import OPENAI, SO_FAR
from tests.support import loops
from tests.support.scripted import Hang, Reply, Send, Set, Wait, answer, head
from tests.support.steps import Link
from tests.test_canaries import PROMPT

from ccroute import AsyncStream
from ccroute.errors import OverloadedError
from ccroute.observe import BreakerClosed, BreakerOpened, Queued

BUSY, ANSWER = answer(503, body="busy"), answer(json=OPENAI.whole)
SILENT = [*OPENAI.stream(*OPENAI.begun, Hang())]
PAUSE = 0.25
"""Seconds between two interrupts, if the first one was in vain."""


# -- a probe -------------------------------------------------------------------------------------------------


def left(parallel: ParallelHarness, subject: Subject, host: Host, how: str) -> None:
    """A stream is begun and then left: closed, dropped, or taken away from its reader."""
    reading = threading.Event()
    host.plays([*OPENAI.stream(*OPENAI.begun, Wait(reading), Interrupt())])

    async def aleave() -> None:
        stream = subject.router.astream(PROMPT)
        assert (await anext(stream)).text == SO_FAR
        if how == "closed":
            await stream.aclose()
        elif how == "stopped":
            await loops.cancelled(stream.__anext__, when=checkpoint)
        del stream
        await loops.nobody_else()

    def leave() -> None:
        stream = subject.router.stream(PROMPT)
        assert next(stream).text == SO_FAR
        if how == "closed":
            stream.close()
        elif how == "stopped":
            with pytest.raises(KeyboardInterrupt):
                reading.set()
                next(stream)

    leave() if parallel.mode == "sync" else parallel.caller.run(aleave)


def stopped(parallel: ParallelHarness, subject: Subject, host: Host) -> None:
    """A call is taken away from its caller before anything has come back."""
    reading, before = threading.Event(), len(host.requests)
    host.plays([Wait(reading), Interrupt()])

    async def astop() -> None:
        async def sent() -> None:
            assert await loops.in_thread(host.wait_requests, before + 1)

        await loops.cancelled(partial(subject.router.acomplete, PROMPT), when=sent)

    def stop() -> None:
        reading.set()
        with pytest.raises(KeyboardInterrupt):
            subject.router.complete(PROMPT)

    stop() if parallel.mode == "sync" else parallel.caller.run(astop)


def faulty(parallel: ParallelHarness) -> tuple[Subject, Host]:
    """A router whose only server is due for a probe."""
    host = parallel.server(BUSY)
    subject = parallel.router(host)
    for _ in range(IN_A_ROW):
        with pytest.raises(OverloadedError):
            parallel.caller.complete(subject.router, PROMPT)
    half_open(subject.router)
    return subject, host


@row(50, "probe cancelled")
@pytest.mark.parametrize("how", ["closed", "dropped", "stopped"])
def test_a_probe_left_after_its_first_content_closes_the_breaker(parallel: ParallelHarness, how: str) -> None:
    subject, host = faulty(parallel)
    left(parallel, subject, host, how)
    parallel.check_rest(subject)
    host.plays()
    parallel.answers(subject)
    assert subject.event_log.count(BreakerOpened) == subject.event_log.count(BreakerClosed) == 1


@row(50, "probe cancelled")
def test_a_stopped_probe_gives_its_lease_back_and_counts_for_nothing(parallel: ParallelHarness) -> None:
    subject, host = faulty(parallel)
    before = subject.router.stats().deployments["main/m"].health
    assert (before.state, before.seconds_left) == ("off", 0)
    for _ in range(3):  # each of them is the one probe that may be sent
        stopped(parallel, subject, host)
        parallel.check_rest(subject)
    assert subject.router.stats().deployments["main/m"].health == before
    assert len(host.requests) == IN_A_ROW + 3
    host.plays()
    parallel.answers(subject)
    assert subject.event_log.count(BreakerOpened) == subject.event_log.count(BreakerClosed) == 1


@row(50, "probe cancelled")
@pytest.mark.parametrize("how", ["closed", "dropped", "stopped"])
def test_calls_that_are_left_do_not_open_a_breaker(parallel: ParallelHarness, how: str) -> None:
    host = parallel.server()
    subject = parallel.router(host)
    for _ in range(2 * IN_A_ROW):
        left(parallel, subject, host, how)
    assert subject.event_log.count(BreakerOpened) == 0
    assert [row.outcome for row in subject.ledger.rows()] == ["cancelled"] * 2 * IN_A_ROW


# -- an iterator that nobody reads any more ------------------------------------------------------------------


@row(53, "iterator abandoned")
@pytest.mark.parametrize("how", ["dropped", "in a cycle", "in another thread", "after its loop"])
def test_an_abandoned_stream_ends_its_call(parallel: ParallelHarness, how: str) -> None:
    host = parallel.server(SILENT)
    subject = parallel.router(host)
    router, held = subject.router, list[Any]()

    def abandon() -> None:
        if how == "in a cycle" and held:
            held[0].itself = held[0]
        if how == "in another thread":
            with ThreadPoolExecutor(1) as pool:
                pool.submit(held.clear).result()
        held.clear()
        gc.collect()

    async def begin() -> None:
        held.append(router.astream(PROMPT))
        assert (await anext(held[0])).text == SO_FAR
        if how != "after its loop":
            abandon()
            assert await loops.in_thread(host.wait_closed, 1)
            await loops.nobody_else()

    if parallel.mode != "sync":
        parallel.caller.run(begin)
    else:
        held.append(router.stream(PROMPT))
        assert next(held[0]).text == SO_FAR
    abandon()
    assert host.wait_closed(1)
    parallel.check_rest(subject)
    [row] = subject.ledger.rows()
    assert (row.outcome, row.final, row.usage.output > 0, row.usage.estimated) == (
        "cancelled",
        True,
        True,
        True,
    )


@row(53, "iterator abandoned")
def test_a_stream_collected_while_locks_are_held_does_not_wait(parallel: ParallelHarness) -> None:
    host = parallel.server(SILENT)
    subject = parallel.router(host)
    router = subject.router

    def drop(held: list[Any]) -> None:
        with contextlib.ExitStack() as stack:
            for lock in (*locks(router), subject.ledger._lock):
                stack.enter_context(lock)
            held.clear()

    async def abandon() -> None:
        held = [router.astream(PROMPT)]
        assert (await anext(held[0])).text == SO_FAR
        drop(held)
        assert await loops.in_thread(host.wait_closed, 1)
        await loops.nobody_else()

    if parallel.mode != "sync":
        parallel.caller.run(abandon)
    else:
        started = [router.stream(PROMPT)]
        assert next(started[0]).text == SO_FAR
        drop(started)
        assert host.wait_closed(1)
    assert [row.outcome for row in subject.ledger.rows()] == ["cancelled"]
    host.plays()
    parallel.answers(subject)


@row(53, "iterator abandoned")
def test_a_stream_that_was_never_read_is_no_call(parallel: ParallelHarness) -> None:
    host = parallel.server()
    subject = parallel.router(host)

    async def ask() -> AsyncStream:
        return subject.router.astream(PROMPT)

    stream: Any = subject.router.stream(PROMPT) if parallel.mode == "sync" else parallel.caller.run(ask)
    del stream
    gc.collect()
    assert subject.ledger.rows() == []
    assert host.connections == 0


# -- a call that is over -------------------------------------------------------------------------------------


@row(53, "iterator abandoned")
@pytest.mark.parametrize("how", ["answered", "failed", "stream", "stream left"])
def test_a_call_that_is_over_is_freed_at_once(parallel: ParallelHarness, how: str) -> None:
    # A cycle would keep its prompt in memory until the garbage collector comes.
    reply = {"answered": ANSWER, "failed": BUSY, "stream": OPENAI.stream(*OPENAI.events)}.get(how, SILENT)
    host = parallel.server(reply)
    subject = parallel.router(host)

    async def aask() -> None:
        with contextlib.suppress(OverloadedError):  # here, because asyncio keeps what a task raises
            await subject.router.acomplete(PROMPT)

    def ask() -> None:
        if how == "stream left":
            left(parallel, subject, host, "closed")
        elif how == "stream":
            parallel.caller.stream(subject.router, PROMPT)
        elif parallel.mode != "sync":
            parallel.caller.run(aask)
        else:
            with contextlib.suppress(OverloadedError):
                subject.router.complete(PROMPT)

    def plans() -> int:
        return sum(type(each).__name__ in {"Plan", "CallContext"} for each in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        ask()
        assert plans() == 0
    finally:
        gc.enable()


# -- Ctrl-C -------------------------------------------------------------------------------------------------


class Interrupt:
    """A step that does to the test's own thread what Ctrl-C does, until it hangs up.

    Once is not always enough: what comes just before a system call does not end it.
    """

    def play(self, link: Link) -> None:
        while True:
            interrupt()
            link.wait(None, PAUSE)


def interrupt() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


@row(59, "KeyboardInterrupt while reading")
@pytest.mark.parametrize(
    ("stream", "reply"),
    [
        (False, [Interrupt()]),
        (False, [Send(head(200, {"content-length": "100"}) + b"{"), Interrupt()]),
        (True, [Interrupt()]),
        (True, [*OPENAI.stream(*OPENAI.opening, Interrupt())]),
    ],
    ids=["before the head", "inside the body", "before the stream", "before its content"],
)
def test_an_interrupt_while_the_call_waits_ends_it(
    parallel: ParallelHarness, stream: bool, reply: Reply
) -> None:
    host = parallel.server(reply)
    subject = parallel.router(host)
    with pytest.raises(KeyboardInterrupt):
        if stream:
            parallel.caller.stream(subject.router, PROMPT)
        else:
            parallel.caller.complete(subject.router, PROMPT)
    was_cancelled(parallel, subject, host, content=False)


@row(59, "KeyboardInterrupt while reading")
def test_an_interrupt_while_a_stream_is_read_ends_the_call(parallel: ParallelHarness) -> None:
    first_chunk = threading.Event()
    host = parallel.server([*OPENAI.stream(*OPENAI.begun, Wait(first_chunk), Interrupt())])
    subject = parallel.router(host)

    async def aread() -> None:
        async for chunk in subject.router.astream(PROMPT):
            assert chunk.text == SO_FAR
            first_chunk.set()

    def read() -> None:
        for chunk in subject.router.stream(PROMPT):
            assert chunk.text == SO_FAR
            first_chunk.set()

    with pytest.raises(KeyboardInterrupt):
        read() if parallel.mode == "sync" else parallel.caller.run(aread)
    was_cancelled(parallel, subject, host, content=True)


def was_cancelled(parallel: ParallelHarness, subject: Subject, host: Host, *, content: bool) -> None:
    assert host.wait_closed(1)
    parallel.check_rest(subject)
    [row] = subject.ledger.rows()
    assert (row.outcome, row.final) == ("cancelled", True)
    assert row.usage.input > 0
    assert (row.usage.output > 0) is content
    assert row.cost


@row(59, "KeyboardInterrupt while reading")
def test_an_interrupt_in_the_queue_leaves_the_queue(parallel: ParallelHarness) -> None:
    here, free = threading.Event(), threading.Event()
    host = parallel.server([Set(here), Wait(free), *ANSWER])
    subject, over = parallel.router(host), threading.Event()

    def interrupt_who_waits() -> None:
        subject.event_log.wait(Queued)
        while not over.is_set():
            interrupt()
            over.wait(PAUSE)

    with parallel.meanwhile(subject):
        try:
            assert here.wait(5)
            with ThreadPoolExecutor(1) as pool:
                pool.submit(interrupt_who_waits)
                with pytest.raises(KeyboardInterrupt):
                    parallel.caller.complete(subject.router, PROMPT)
                over.set()
            stats = subject.router.stats().backends["main"]
            assert (stats.slots_held, stats.queued) == (1, 0)
        finally:
            free.set()
    parallel.check_rest(subject)
    assert Counter((row.outcome, row.cost == 0) for row in subject.ledger.rows()) == {
        ("ok", False): 1,
        ("cancelled", True): 1,
    }
