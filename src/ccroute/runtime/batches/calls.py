"""The calls and answers of a batch, for threads and for tasks.

A call has a thread or a task, which goes on with the batch's next request when the call has ended. None of
them waits for the reader, and none outlives the batch.
"""

from __future__ import annotations

import contextvars
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any, Final, TypeAlias

from ccroute.errors import CcrouteError
from ccroute.flow import call
from ccroute.http.streams.blocking import run
from ccroute.http.streams.event_loops import create_task, current_loop
from ccroute.observe.logging import log_raised
from ccroute.runtime.base import RouterBase
from ccroute.runtime.batches.requests import BatchRequests, Planned
from ccroute.runtime.drive import AsyncDrive, Drive, stop_all
from ccroute.runtime.waits import TaskWaiter, ThreadWaiter
from ccroute.types import Completion
from ccroute.types.locks import lock_tries
from ccroute.types.progress import Progress

Answer: TypeAlias = Completion[Any] | CcrouteError

LOOK_EVERY: Final = 1.0
"""Seconds that the reader waits at most before it looks again: a signal that comes in the moment before a
wait begins is noticed only after it."""
MOST_UNREAD: Final = 32
"""Answers that wait for the reader. At so many, no other request begins until half of them were read."""
GRACE: Final = 1.0
"""Seconds that the end of a batch waits for its threads or tasks, which end by themselves."""


class _Running:
    """A call that runs. `host`: where it was last seen, or what it asks first."""

    __slots__ = ("context", "drive", "host", "number", "places")

    def __init__(self, planned: Planned, drive: Drive[Completion[Any]] | AsyncDrive[Completion[Any]]) -> None:
        self.number, self.places, self.context = planned
        self.host = self.context.plan.candidates[0].deployment.backend.origin
        self.drive = drive


class BatchCalls:
    """The calls and answers of a batch.

    Threads and tasks refer to this, and not to the iterator that the caller has: dropping that ends them. The
    lock guards what begins next. Ending the batch never takes it, because a finaliser may do that.

    blocking: whether the calls have threads, and not tasks of the loop that reads.
    """

    def __init__(
        self,
        router: RouterBase,
        requests: BatchRequests,
        on_progress: Callable[[Progress], object] | None,
        *,
        blocking: bool,
    ) -> None:
        self.total = requests.total
        self.done = 0
        self.failed = 0
        self.is_over = False
        self._cost: Decimal | None = Decimal(0)
        self._began: float | None = None
        self._router = router
        self._requests = requests
        self._on_progress = on_progress
        self._blocking = blocking
        self._running: dict[int, _Running] = {}
        self._threads: set[threading.Thread] = set()
        self._answers: deque[Answer] = deque()
        self._is_full = False  # of answers
        self._failure: BaseException | None = None
        self._ends = False
        self._waiter: ThreadWaiter | TaskWaiter | None = None  # the reader's
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._process = os.getpid()

    # What the reader does.

    async def next(self) -> Answer | None:
        """The next answer; None at the end. Any error but a call's own ends the batch."""
        if self._process != os.getpid():
            raise RuntimeError("this batch belongs to the process that began it")
        for _ in lock_tries(self._reading)():
            try:
                return await self._next()
            except BaseException:
                self.close()
                raise
            finally:
                self._reading.release()
        raise RuntimeError("this batch is already being read, by another thread or task")

    async def _next(self) -> Answer | None:
        if self.is_over:
            return None
        if self._began is None:
            self._began = time.monotonic()
            self._router._batches.add(self)
        while True:
            waiter = self._new_waiter()  # before the look: what changes after it wakes this one
            self._begin_calls()
            with self._lock:
                is_end = self._requests.all_read and not self._requests.order and not self._running
            if self._answers:
                answer = self._answers.popleft()
                self._count(answer, time.monotonic() - self._began)
                return answer
            if self._failure is not None:
                raise self._failure
            if is_end or self._ends:
                self.close()
                await self.ended()
                return None
            await waiter.wait(time.monotonic() + LOOK_EVERY)

    def _begin_calls(self) -> None:
        """Begin what may begin, and read on while there is no answer to give."""
        while True:
            while (running := self._next_call()) is not None:
                self._start(running)
            if self._answers or self._ends or not self._requests.has_room:
                return
            if (request := self._requests.read()) is not None:
                with self._lock:
                    self._requests.add(request)

    def _count(self, answer: Answer, seconds: float) -> None:
        """Count an answer that the reader gets, and tell the progress."""
        self.done += 1
        if isinstance(answer, CcrouteError):
            self.failed += 1
            costs = [attempt.cost for attempt in answer.attempts]
        else:
            costs = [answer.cost]
        for cost in costs:
            self._cost = None if cost is None or self._cost is None else self._cost + cost
        if self._on_progress is not None:
            progress = Progress(self.done, self.total, self.failed, self._cost, seconds)
            try:
                self._on_progress(progress)
            except Exception as error:  # it must not break the batch
                log_raised("on_progress", error, progress)

    # The threads and tasks.

    def _next_call(self) -> _Running | None:
        with self._lock:
            return self._take()

    def _take(self) -> _Running | None:
        """The call that begins now; None: no other may begin. The caller has the lock, and starts it."""
        self._follow()
        while not self._ends and not self._must_wait():
            found = self._requests.take()
            if found is None:
                return None
            if isinstance(found, CcrouteError):
                self._answers.append(found)
                continue
            flow, router = call(found.context, stream=False), self._router
            drive = (Drive if self._blocking else AsyncDrive)(flow, router._connections, router._limiter)
            running = _Running(found, drive)
            if running.host in router._limiter and not self._begin(running):
                continue
            self._running[found.number] = running
            self._requests.order.begin(running.places, running.host)
            return running
        return None

    def _begin(self, running: _Running) -> bool:
        """Queue a call at its host, in the batch's order: a call of another model that came first would make
        the host load that one in between. False if it ended with an error."""
        try:
            running.drive.begin()
        except CcrouteError as error:
            error.index = running.number
            self._answers.append(error.with_traceback(None))
            return False
        except BaseException:
            running.drive.close()
            raise
        return True

    def _must_wait(self) -> bool:
        """Whether the reader comes first. A new thread for each answer that it reads would cost too much."""
        unread = len(self._answers)
        self._is_full = unread >= MOST_UNREAD or (self._is_full and unread > MOST_UNREAD // 2)
        return self._is_full

    def _follow(self) -> None:
        """Note which calls have gone on to another host: their first choice has room for others."""
        order = self._requests.order
        for running in self._running.values():
            latest = running.context.latest
            if latest is not None and (host := latest.candidate.deployment.backend.origin) != running.host:
                order.end(running.places, running.host)
                order.begin(running.places, host)
                running.host = host

    def _start(self, running: _Running) -> None:
        try:
            self._start_work(running)
        except BaseException:
            running.drive.close()
            raise

    def _start_work(self, running: _Running) -> None:
        if not self._blocking:
            create_task(current_loop(), partial(self._work, running))
            return
        work = partial(contextvars.copy_context().run, self._work_here, running)
        thread = threading.Thread(target=work, name="ccroute batch", daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except BaseException:
            self._threads.discard(thread)
            raise

    def _work_here(self, running: _Running) -> None:
        try:
            run(self._work(running))
        finally:
            self._threads.discard(threading.current_thread())

    async def _work(self, running: _Running) -> None:
        """Run a call, and then the next ones."""
        following: _Running | None = running
        try:
            while following is not None:
                running = following
                # `_stop` sees this call among those that run, or its thread or task sees this.
                answer = None if self._ends else await _answer(running.drive)
                if not running.drive.over:
                    running.drive.close()  # the batch ended before it ran: it may be in a queue
                following = self._finished(running, answer)
        except BaseException as error:
            self._running.pop(running.number, None)
            if isinstance(error, Exception):
                self.fail(error)
                return
            # A cancelled task is no cancelled reader, which may read on in another loop.
            self.fail(error if self._blocking else RuntimeError("the batch's event loop ended its tasks"))
            raise

    def _finished(self, running: _Running, answer: Answer | None) -> _Running | None:
        """Keep the answer of a call, and take the next one."""
        with self._lock:
            if isinstance(answer, CcrouteError):
                answer.index = running.number
            elif answer is not None:
                answer._came_as(running.number)
            if answer is not None:
                self._answers.append(answer)
            del self._running[running.number]
            self._requests.order.end(running.places, running.host)
            following = self._take()
        self._wake()
        return following

    # The end. Only `join` and `ended` wait, and nothing here takes the lock.

    def fail(self, error: BaseException) -> None:
        """End the batch; the reader gets the answers that came, and then this error."""
        if not self._ends:
            self._failure = error
        self._stop()

    def close(self) -> None:
        """End the batch: its calls close their connections at once. Finalisers call it, too."""
        self.is_over = True
        self._stop()
        self._answers.clear()

    def _stop(self) -> None:
        self._ends = True
        stop_all([running.drive for running in self._running.copy().values()])
        self._router._batches.discard(self)
        self._wake()

    def join(self) -> None:
        """Wait a moment for the threads of a batch that was closed."""
        until = time.monotonic() + GRACE
        for thread in self._threads - {threading.current_thread()}:
            thread.join(max(until - time.monotonic(), 0.0))

    async def ended(self) -> None:
        """Wait a moment for the threads or tasks of a batch that was closed."""
        self.join()
        until = time.monotonic() + GRACE
        while not self._blocking and time.monotonic() < until:
            waiter = self._new_waiter()
            if not self._running:
                return
            await waiter.wait(until)

    def _new_waiter(self) -> ThreadWaiter | TaskWaiter:
        self._waiter = waiter = ThreadWaiter() if self._blocking else TaskWaiter()
        return waiter

    def _wake(self) -> None:
        if self._waiter is not None:
            self._waiter.wake()


async def _answer(drive: Drive[Completion[Any]] | AsyncDrive[Completion[Any]]) -> Answer | None:
    """The answer of a call, or its error; None if it was stopped."""
    try:
        if isinstance(drive, AsyncDrive):
            await drive.advance()
        else:
            drive.advance()
    except CcrouteError as error:
        return error.with_traceback(None)  # no frame of the call is kept
    return drive.result
