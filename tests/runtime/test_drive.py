"""The drivers, by flows made by hand: what each effect does, and that every end gives back what is held."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

import pytest

from ccroute import OpenAIBackend
from ccroute.accounting import PriceBook
from ccroute.backends import HttpRequest
from ccroute.flow.effects import (
    Emit,
    Enter,
    Flow,
    Granted,
    Leave,
    Queued,
    Read,
    Send,
    Sleep,
    Stopped,
    Wait,
)
from ccroute.http.message import Failure, PreparedRequest, Reply
from ccroute.routing.tables.deployments import make_deployment
from ccroute.runtime.drive import AsyncDrive, Drive
from ccroute.runtime.limiter import FULL, LATE, STUCK, Limiter
from ccroute.runtime.waits import TaskWaiter
from ccroute.types import Chunk

PROMPTLY = 5.0
"""Seconds that a test waits for what must happen at once, before it calls it lost."""
FOREVER = float("inf")
Mode = Literal["sync", "async"]
both = pytest.mark.parametrize("mode", ["sync", "async"])


class Exchange:
    """An exchange whose answer is a list of pieces, or of errors to raise; `blocks` waits for its release."""

    def __init__(self, *pieces: Any, blocks: str = "", sent: bool = False) -> None:
        self.pieces = [*pieces]
        self.blocks = blocks
        self.sent = sent
        self.released = threading.Event()
        self.waits = threading.Event()

    def next(self, name: str) -> Any:
        self.sent = self.sent or not self.blocks
        if self.blocks == name:
            self.waits.set()
            assert self.released.wait(PROMPTLY)
            return Failure("broken", "released", sent=self.sent)
        piece = self.pieces.pop(0)
        if isinstance(piece, BaseException):
            raise piece
        return piece

    async def send(self) -> Any:
        return self.next("send")

    async def read(self, until: float) -> Any:
        return self.next("read")

    def release(self) -> None:
        self.released.set()


class AsyncExchange(Exchange):
    async def send(self) -> Any:
        await asyncio.sleep(0)
        return await asyncio.to_thread(self.next, "send") if self.blocks == "send" else self.next("send")

    async def read(self, until: float) -> Any:
        return await asyncio.to_thread(self.next, "read") if self.blocks == "read" else self.next("read")


class FakeConnections:
    """Connections that give out these exchanges, one after another."""

    def __init__(self, *exchanges: Any) -> None:
        self.exchanges = [*exchanges]

    def exchange(
        self, request: PreparedRequest, connect: float | None, until: float, *, blocking: bool
    ) -> Any:
        given = self.exchanges.pop(0)
        if isinstance(given, Exception):
            raise given
        return given


BACKEND = OpenAIBackend("a", base_url="http://gpu.test:1/v1", max_concurrency=1)
FREE = OpenAIBackend("free", base_url="http://free.test")
HERE, ELSEWHERE = (make_deployment(f"{each.name}/m", each, "m", PriceBook()) for each in (BACKEND, FREE))
SEND = Send(FREE.prepare(HttpRequest("/chat", b"{}"))[0], None, FOREVER)


def new_limiter(backend: OpenAIBackend, max_queue: int) -> Limiter:
    limiter = Limiter()
    limiter.configure([backend], max_queue)
    return limiter


def driver(mode: Mode, flow: Flow[Any], *exchanges: Any, limiter: Limiter | None = None) -> Any:
    kind: Any = Drive if mode == "sync" else AsyncDrive
    return kind(flow, FakeConnections(*exchanges), limiter or new_limiter(BACKEND, 9))


def exchange(mode: Mode, *pieces: Any, **about: Any) -> Exchange:
    return (Exchange if mode == "sync" else AsyncExchange)(*pieces, **about)


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def advance(drive: Any) -> Any:
    """The next chunks of a driver of either kind."""
    return drive.advance() if isinstance(drive, Drive) else asyncio.run(_awaited(drive.advance()))


def texts(drive: Any) -> list[str]:
    """Drive to the end."""
    found = []
    while (chunks := advance(drive)) is not None:
        found += [chunk.text for chunk in chunks]
    return found


# -- What each effect does


@both
def test_each_effect_gives_its_result_to_the_flow(mode: Mode) -> None:
    seen: list[Any] = []

    def flow() -> Flow[str]:
        seen.append((yield Enter((ELSEWHERE,), 0)))
        seen.append((yield Wait(FOREVER)))
        seen.append((yield Read(FOREVER)))
        seen.append((yield SEND))
        seen.append((yield Read(FOREVER)))
        yield Emit([Chunk(text="one")])
        seen.append((yield Sleep(0.01)))
        yield Emit([Chunk(text="two")])
        yield Leave()
        yield Leave()
        return "end"

    first = exchange(mode, Reply(200, {}), b"data")
    drive = driver(mode, flow(), first)
    with pytest.raises(RuntimeError, match="not ended"):
        drive.finished()
    assert texts(drive) == ["one", "two"]
    assert seen == [Granted(), Granted(), None, Reply(200, {}), b"data", None]
    assert (drive.result, drive.finished(), drive.over) == ("end", "end", True)
    assert first.released.is_set()


@both
def test_a_second_send_gives_up_the_first_connection(mode: Mode) -> None:
    def flow() -> Flow[str]:
        yield SEND
        yield SEND
        assert first.released.is_set()
        assert not second.released.is_set()
        return "end"

    first, second = exchange(mode, Reply(200, {})), exchange(mode, Reply(200, {}))
    drive = driver(mode, flow(), first, second)
    assert advance(drive) is None
    assert second.released.is_set()


@both
@pytest.mark.parametrize("where", ["no exchange", "send", "read"])
def test_a_flow_may_handle_an_error_and_go_on(mode: Mode, where: str) -> None:
    def flow() -> Flow[str]:
        try:
            yield SEND
            yield Read(FOREVER)
        except ValueError:
            yield Sleep(0)
        return "end"

    broken = {"no exchange": ValueError(), "send": exchange(mode, ValueError())}
    drive = driver(mode, flow(), broken.get(where, exchange(mode, Reply(200, {}), ValueError())))
    assert advance(drive) is None
    assert drive.result == "end"


@both
def test_an_error_of_the_flow_gives_everything_back(mode: Mode) -> None:
    def flow() -> Flow[str]:
        yield Enter((HERE,), 0)
        yield SEND
        raise ValueError("a bug")

    limiter, sent = new_limiter(BACKEND, 9), exchange(mode, Reply(200, {}))
    drive = driver(mode, flow(), sent, limiter=limiter)
    with pytest.raises(ValueError, match="a bug"):
        advance(drive)
    assert (sent.released.is_set(), held(limiter), drive.over) == (True, (0, 0), True)


# -- Interrupts, cancellation and close()


class ClosingFlow:
    """A flow that notes how it ended."""

    def __init__(self, *effects: Any) -> None:
        self.effects = effects
        self.by: BaseException | None = None
        self.sent: bool | None = None

    def flow(self) -> Flow[str]:
        try:
            for effect in self.effects:  # noqa: UP028 - a tuple takes no results
                yield effect
        except Stopped as stop:
            self.by, self.sent = stop.error, stop.sent
            raise
        except BaseException as error:
            self.by = error
            raise
        return "end"


@both
@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt("k"), asyncio.CancelledError(), SystemExit(3)])
def test_an_interrupted_send_says_whether_it_was_sent(mode: Mode, sent: bool, error: BaseException) -> None:
    flow, asked = ClosingFlow(SEND), exchange(mode, error, blocks="nothing", sent=sent)
    drive = driver(mode, flow.flow(), asked)
    with pytest.raises(type(error)) as caught:
        advance(drive)
    assert caught.value.args == error.args
    assert (flow.by, flow.sent) == (error, sent)
    assert not isinstance(caught.value.__context__, Stopped)
    assert (asked.released.is_set(), drive.over) == (True, True)


@both
def test_an_interrupted_read_reaches_the_flow_as_it_is(mode: Mode) -> None:
    flow, error = ClosingFlow(SEND, Read(FOREVER)), KeyboardInterrupt()
    drive = driver(mode, flow.flow(), exchange(mode, Reply(200, {}), error))
    with pytest.raises(KeyboardInterrupt):
        advance(drive)
    assert (flow.by, flow.sent) == (error, None)


async def test_a_cancelled_task_stops_its_send() -> None:
    flow, asked = ClosingFlow(SEND), AsyncExchange(blocks="send")
    drive = driver("async", flow.flow(), asked)
    task = asyncio.create_task(drive.advance())
    await asyncio.to_thread(asked.waits.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (type(flow.by), flow.sent) == (asyncio.CancelledError, False)
    assert asked.released.is_set()


@both
@pytest.mark.parametrize("where", ["send", "read"])
def test_close_from_another_thread_ends_an_exchange(mode: Mode, where: str) -> None:
    flow, asked = ClosingFlow(SEND, Read(FOREVER)), exchange(mode, Reply(200, {}), blocks=where, sent=True)
    drive = driver(mode, flow.flow(), asked)
    with ThreadPoolExecutor() as pool:
        reads = pool.submit(advance, drive)
        assert asked.waits.wait(PROMPTLY)
        drive.close()
        assert reads.result(PROMPTLY) is None
    assert (type(flow.by), flow.sent) == (GeneratorExit, True if where == "send" else None)
    assert (drive.over, drive.result) == (True, None)
    assert advance(drive) is None, "it stays closed"


@both
def test_close_from_another_thread_ends_a_sleep(mode: Mode) -> None:
    sleeps = threading.Event()

    def flow() -> Flow[str]:
        sleeps.set()
        yield Sleep(60)
        return "end"

    drive = driver(mode, flow())
    with ThreadPoolExecutor() as pool:
        reads = pool.submit(advance, drive)
        assert sleeps.wait(PROMPTLY)
        drive.close()
        assert reads.result(PROMPTLY) is None
    assert drive.over


@both
@pytest.mark.parametrize("effect", [SEND, Sleep(60), Emit([Chunk(text="late")])])
def test_a_call_closed_by_its_own_flow_begins_nothing_more(mode: Mode, effect: Any) -> None:
    def flow() -> Flow[str]:
        drive.close()
        yield effect
        return "end"

    asked = exchange(mode, blocks="send")
    drive = driver(mode, flow(), asked)
    assert advance(drive) is None
    assert not asked.waits.is_set()
    assert (drive.over, drive.result) == (True, None)


@both
def test_a_paused_call_is_closed_where_it_stands(mode: Mode) -> None:
    flow, asked = ClosingFlow(SEND, Emit([Chunk(text="one")])), exchange(mode, Reply(200, {}))
    drive = driver(mode, flow.flow(), asked)
    assert advance(drive)
    drive.close()
    drive.close()
    assert type(flow.by) is GeneratorExit
    assert (asked.released.is_set(), drive.over, advance(drive)) == (True, True, None)


def test_a_flow_is_driven_by_one_thread_at_a_time() -> None:
    asked = Exchange(blocks="send")
    drive = driver("sync", ClosingFlow(SEND).flow(), asked)
    with ThreadPoolExecutor() as pool:
        reads = pool.submit(advance, drive)
        assert asked.waits.wait(PROMPTLY)
        with pytest.raises(RuntimeError, match="already being read"):
            advance(drive)
        drive.close()
        assert reads.result(PROMPTLY) is None


def test_a_forked_child_closes_only_its_own_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    flow, asked = ClosingFlow(SEND, Emit([Chunk(text="one")])), Exchange(Reply(200, {}))
    drive = driver("sync", flow.flow(), asked)
    advance(drive)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        drive.close()
    assert (drive.over, flow.by, asked.released.is_set()) == (False, None, True)
    drive.close()


def test_an_interrupted_call_is_freed_without_gc() -> None:
    stops: list[weakref.ref[Stopped]] = []

    def flow() -> Flow[str]:
        try:
            yield SEND
        except Stopped as stop:
            stops.append(weakref.ref(stop))
            raise
        return "end"

    class Interrupted(Exchange):
        def send(self) -> Any:
            raise KeyboardInterrupt

    drive = driver("sync", flow(), Interrupted())
    dropped = weakref.ref(drive)
    gc.disable()
    try:
        with contextlib.suppress(KeyboardInterrupt):
            drive.advance()
        del drive
        assert (stops[0](), dropped()) == (None, None)
    finally:
        gc.enable()


# -- Slots: real threads and real loops


def held(limiter: Limiter) -> tuple[int, int]:
    """How many slots of the host are held, and how many calls wait."""
    return limiter.stats()[BACKEND.origin][:2]


class SlotCall:
    """A call that asks for a slot, keeps it as a paused stream does, and gives it back at its end."""

    def __init__(
        self, limiter: Limiter, mode: Mode = "sync", *, priority: int = 0, seconds: float = PROMPTLY
    ) -> None:
        self.answer: Any = "not asked"
        self.ahead: int | None = None
        self.queued = threading.Event()
        self.on_queued: Callable[[], object] = lambda: None
        self.priority, self.seconds = priority, seconds
        self.drive = driver(mode, self._flow(), limiter=limiter)

    def _flow(self) -> Flow[str]:
        answer = yield Enter((HERE,), self.priority)
        if isinstance(answer, Queued):
            self.ahead = answer.ahead
            self.queued.set()
            self.on_queued()
            answer = yield Wait(time.monotonic() + self.seconds)
        self.answer = answer
        yield Emit([Chunk(text="inside")])
        yield Emit([Chunk(text="still inside")])
        yield Leave()
        return "end"

    def begin(self) -> Any:
        """Ask for the slot; what the flow was answered."""
        self.drive.advance()
        return self.answer

    async def abegin(self) -> Any:
        await self.drive.advance()
        return self.answer

    def end(self) -> None:
        self.drive.close()


class LimitedHost:
    """The limiter of one host, and calls that wait in threads and loops of their own."""

    def __init__(self, limit: int = 1, max_queue: int = 1000) -> None:
        backend = OpenAIBackend("a", base_url="http://gpu.test:1/v1", max_concurrency=limit)
        self.limiter = new_limiter(backend, max_queue)
        self.pool = ThreadPoolExecutor(64)
        self._loops: list[tuple[asyncio.AbstractEventLoop, threading.Thread]] = []

    @property
    def held(self) -> tuple[int, int]:
        return held(self.limiter)

    def call(self, mode: Mode = "sync", **about: Any) -> SlotCall:
        return SlotCall(self.limiter, mode, **about)

    def take(self) -> SlotCall:
        """A call of another thread that has a slot."""
        call = self.call()
        thread = threading.Thread(target=call.begin)  # not in the pool, where it could ask again
        thread.start()
        thread.join()
        assert call.answer.option == 0
        return call

    def wait(self, **about: Any) -> tuple[SlotCall, Future[Any]]:
        """A call that waits in a thread of its own, from now on."""
        call = self.call(**about)
        future = self.pool.submit(call.begin)
        assert call.queued.wait(PROMPTLY)
        return call, future

    def loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        self._loops.append((loop, thread))
        return loop

    def await_in(self, loop: asyncio.AbstractEventLoop, **about: Any) -> tuple[SlotCall, Future[Any]]:
        """A call that waits in a task on a loop of another thread, from now on."""
        call = self.call("async", **about)
        future = asyncio.run_coroutine_threadsafe(call.abegin(), loop)
        assert call.queued.wait(PROMPTLY)
        return call, future

    def close(self) -> None:
        self.pool.shutdown()
        for loop, thread in self._loops:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


@pytest.fixture
def host() -> Iterator[LimitedHost]:
    host = LimitedHost()
    yield host
    host.close()


def test_threads_and_tasks_of_two_loops_share_the_slots() -> None:
    host = LimitedHost(3)
    inside, most = 0, 0
    guard = threading.Lock()
    served: Counter[str] = Counter()
    together = threading.Event()

    def came(who: str) -> None:
        nonlocal inside, most
        with guard:
            inside += 1
            most = max(most, inside)
            served[who] += 1
            if inside == 3:
                together.set()

    def goes(call: SlotCall) -> None:
        nonlocal inside
        with guard:
            inside -= 1
        call.end()

    def by_thread(name: str) -> None:
        for _ in range(20):
            call = host.call()
            assert isinstance(call.begin(), Granted)
            came(name)
            together.wait(PROMPTLY)  # the first three stay until all three are inside
            goes(call)

    async def by_task(name: str) -> None:
        for _ in range(20):
            call = host.call("async")
            assert isinstance(await call.abegin(), Granted)
            came(name)
            while not together.is_set():
                await asyncio.sleep(0)
            goes(call)

    async def tasks(name: str) -> None:
        await asyncio.gather(*(by_task(f"{name}{n}") for n in range(5)))

    work = [host.pool.submit(by_thread, f"t{n}") for n in range(20)]
    work += [asyncio.run_coroutine_threadsafe(tasks(name), host.loop()) for name in "xy"]
    for each in work:
        each.result(20)
    assert most == 3
    assert (len(served), set(served.values())) == (30, {20})
    assert host.held == (0, 0)
    host.close()


def test_threads_and_tasks_stand_in_one_queue(host: LimitedHost) -> None:
    first = host.take()
    loop = host.loop()
    line = [
        host.wait(),
        host.await_in(loop),
        host.wait(priority=1),
        host.await_in(loop, priority=1),
        host.wait(),
        host.await_in(host.loop(), priority=2),
    ]
    assert [call.ahead for call, _ in line] == [0, 1, 2, 3, 4, 5]
    first.end()
    for left, number in zip(range(5, -1, -1), (5, 2, 3, 0, 1, 4), strict=True):
        call, future = line[number]
        assert isinstance(future.result(PROMPTLY), Granted)
        assert host.held == (1, left)
        call.end()
    assert host.held == (0, 0)


def test_a_wait_ends_at_its_deadline(host: LimitedHost) -> None:
    first = host.take()
    for mode in ("sync", "async"):
        for seconds in (0.2, -1):
            call = host.call(mode, seconds=seconds)
            began = time.monotonic()
            answer = call.begin() if mode == "sync" else asyncio.run(call.abegin())
            assert answer is LATE
            assert max(seconds, 0) <= time.monotonic() - began < 0.25
            assert host.held == (1, 0), "it has left the queue"
            call.end()
    first.end()
    assert isinstance(host.call().begin(), Granted)


@both
def test_a_slot_that_came_before_the_wait_began_is_taken(host: LimitedHost, mode: Mode) -> None:
    first = host.take()

    def flow() -> Flow[Any]:
        yield Enter((HERE,), 0)
        first.end()
        if mode == "async":
            yield SEND  # gives the loop a turn, in which the task is woken
        answer = yield Wait(FOREVER)
        assert host.held == (1, 0)
        return answer

    drive = driver(mode, flow(), exchange(mode, Reply(200, {})), limiter=host.limiter)
    assert advance(drive) is None
    assert (drive.over, type(drive.result), host.held) == (True, Granted, (0, 0))


def test_a_full_queue_refuses_threads_and_tasks_at_once() -> None:
    host = LimitedHost(max_queue=1)
    first = host.take()
    call, waits = host.wait()
    assert host.call().begin() is FULL
    assert asyncio.run(host.call("async").abegin()) is FULL
    first.end()
    assert isinstance(waits.result(PROMPTLY), Granted)
    call.end()
    host.close()


def test_a_thread_does_not_wait_for_itself(host: LimitedHost) -> None:
    mine = host.call()
    assert isinstance(mine.begin(), Granted)
    assert host.call().begin() is STUCK
    mine.end()


def test_a_thread_waits_for_others_even_if_it_holds_some() -> None:
    host = LimitedHost(2)
    mine, theirs, second = host.call(), host.take(), host.call()
    assert isinstance(mine.begin(), Granted)
    second.on_queued = theirs.end
    assert isinstance(second.begin(), Granted)
    mine.end()
    second.end()
    host.close()


def test_a_slot_belongs_to_the_thread_that_reads_the_stream(host: LimitedHost) -> None:
    handed_over = host.take()
    handed_over.drive.advance()
    assert host.call().begin() is STUCK
    handed_over.end()


def test_a_thread_does_not_wait_for_tasks_of_the_loop_it_blocks(host: LimitedHost) -> None:
    async def both_kinds() -> None:
        task = host.call("async")
        assert isinstance(await task.abegin(), Granted)
        assert host.call().begin() is STUCK
        assert await host.call("async", seconds=0.01).abegin() is LATE, "a task may wait for another"
        task.end()
        mine = host.call()
        assert isinstance(mine.begin(), Granted)
        assert host.call().begin() is STUCK
        mine.end()

    asyncio.run(both_kinds())


def test_a_blocking_call_goes_before_the_tasks_of_its_loop(host: LimitedHost) -> None:
    first = host.take()

    async def both_kinds() -> None:
        waits, task, mine = asyncio.Event(), host.call("async", priority=9), host.call()
        task.on_queued = waits.set
        waiting = asyncio.create_task(task.abegin())
        await waits.wait()
        mine.on_queued = first.end
        assert isinstance(mine.begin(), Granted)
        mine.end()
        assert isinstance(await waiting, Granted)
        task.end()

    asyncio.run(both_kinds())


def test_a_new_thread_does_not_own_an_ended_threads_slot(host: LimitedHost) -> None:
    """Systems give the id of an ended thread to the next one."""

    def in_thread(work: Callable[[], object]) -> tuple[int | None, object]:
        results: list[object] = []
        thread = threading.Thread(target=lambda: results.append(work()))
        thread.start()
        thread.join()
        return thread.ident, results[0]

    first = host.call()
    ident, _ = in_thread(first.begin)

    def with_the_same_id() -> object:
        if threading.get_ident() != ident:
            return "another id"
        second = host.call()
        second.on_queued = first.end
        return second.begin()

    for _ in range(500):
        _, answer = in_thread(with_the_same_id)
        if answer != "another id":
            assert isinstance(answer, Granted)
            return
    pytest.skip("this system gives no thread an id that was used before")


@pytest.mark.parametrize("when", ["while it waits", "in the tick of its grant", "before it runs again"])
async def test_a_cancelled_task_holds_nothing(host: LimitedHost, when: str) -> None:
    first, task, waits = host.take(), host.call("async"), asyncio.Event()
    task.on_queued = waits.set
    waiting = asyncio.create_task(task.abegin())
    await waits.wait()
    following, future = host.wait()
    if when == "while it waits":
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        first.end()
    else:
        first.end()
        if when == "in the tick of its grant":
            waiting.cancel()
        else:
            asyncio.get_running_loop().call_soon(waiting.cancel)
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert isinstance(await asyncio.to_thread(future.result, PROMPTLY), Granted)
    following.end()
    assert host.held == (0, 0)


def test_a_task_of_a_closed_loop_is_passed_over(host: LimitedHost) -> None:
    first, task = host.take(), host.call("async")
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)
    task.on_queued = loop.stop
    waiting = loop.create_task(task.abegin())
    loop.run_forever()
    loop.close()
    following, future = host.wait()
    assert host.held == (1, 2)
    first.end()
    assert isinstance(future.result(PROMPTLY), Granted)
    following.end()
    assert host.held == (0, 0)
    del waiting, task
    gc.collect()


def test_a_slot_of_a_closed_loop_is_free_again(host: LimitedHost) -> None:
    left_open = host.call("async")
    assert isinstance(asyncio.run(left_open.abegin()), Granted)
    assert host.held == (1, 0)
    assert isinstance(host.call().begin(), Granted)
    left_open.end()


def test_a_held_slot_keeps_no_loop_alive(host: LimitedHost) -> None:
    async def begin(call: SlotCall) -> weakref.ref[asyncio.AbstractEventLoop]:
        assert isinstance(await call.abegin(), Granted)
        return weakref.ref(asyncio.get_running_loop())

    call = host.call("async")
    loop = asyncio.run(begin(call))
    gc.collect()
    assert loop() is None
    call.drive.close()
    assert host.held == (0, 0)


def test_a_waiter_whose_loop_is_gone_is_not_woken() -> None:
    async def make() -> TaskWaiter:
        return TaskWaiter()

    waiter = asyncio.run(make())
    gc.collect()
    assert not waiter.wake()


@both
@pytest.mark.parametrize("waited", [False, True], ids=["at once", "after waiting"])
def test_a_call_that_is_dropped_gives_its_slot_back(host: LimitedHost, mode: Mode, waited: bool) -> None:
    first = host.take() if waited else None
    call = host.call(mode)
    call.on_queued = first.end if first is not None else lambda: None
    assert isinstance((call.begin() if mode == "sync" else asyncio.run(call.abegin())), Granted)
    del call, first
    gc.collect()
    assert host.held == (0, 0)


@both
def test_a_flow_that_fails_in_the_queue_leaves_it(host: LimitedHost, mode: Mode) -> None:
    first, call = host.take(), host.call(mode)

    def fails() -> None:
        raise KeyboardInterrupt

    call.on_queued = fails
    with pytest.raises(KeyboardInterrupt):
        advance(call.drive)
    assert host.held == (1, 0)
    first.end()


@both
def test_a_call_that_is_closed_in_the_queue_leaves_it(host: LimitedHost, mode: Mode) -> None:
    first = host.take()
    call, future = host.wait() if mode == "sync" else host.await_in(host.loop())
    call.drive.close()
    assert future.result(PROMPTLY) == "not asked"
    assert host.held == (1, 0)
    assert call.drive.over
    first.end()


def test_to_give_back_while_the_limiter_works_does_not_wait(host: LimitedHost) -> None:
    cycle: list[Any] = [host.take()]
    cycle.append(cycle)
    with host.limiter._inbox.lock:
        cycle.clear()
        gc.collect()
    assert isinstance(host.call().begin(), Granted)


def test_a_host_without_a_limit_has_no_limiter(host: LimitedHost) -> None:
    def flow() -> Flow[Any]:
        return (yield Enter((ELSEWHERE,), 0))

    host.limiter.clear()
    for mode in ("sync", "async"):
        drive = driver(mode, flow(), limiter=host.limiter)
        assert advance(drive) is None
        assert drive.over
