"""Runs a flow: performs each effect and sends its result back into the flow.

One text serves both drivers: what `Drive` awaits never suspends. A stream is the same run, paused at each
`Emit`. A driver owns the flow's connection and slot; it gives both back when the flow ends, without waiting.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from ccroute.flow.effects import (
    Effect,
    Emit,
    Enter,
    Flow,
    Granted,
    Leave,
    Look,
    Queued,
    Read,
    Send,
    Sleep,
    Stopped,
    Wait,
)
from ccroute.http.message import Failure
from ccroute.http.streams.blocking import run
from ccroute.runtime.limiter import Limiter, Slot, Waiter
from ccroute.runtime.waits import TaskWaiter, ThreadWaiter
from ccroute.types import Chunk

if TYPE_CHECKING:
    from ccroute.http.connections import Connections
    from ccroute.http.message import Exchange

T = TypeVar("T")


class _Driver(Generic[T]):
    """A flow, its connection and slot, and how they end."""

    _blocking: ClassVar[bool]

    def __init__(self, flow: Flow[T], connections: Connections, limiter: Limiter) -> None:
        self._flow = flow
        self._connections = connections
        self._limiter = limiter
        self._exchange: Exchange | None = None
        self._slot: Slot | None = None
        self._waiter: Waiter | None = None  # woken by close()
        self._lock = threading.Lock()
        self._running: object = None  # the call of advance() that runs the flow, or close()
        self._begun: tuple[Effect, Granted | Queued | Failure | None] | None = None  # what `begin` left
        self._closed = False
        self._process = os.getpid()
        self.over = False
        self.result: T | None = None

    def finished(self) -> T:
        """What the flow returned. Raises `RuntimeError` before the flow's end."""
        if self.result is None:
            raise RuntimeError("the flow has not ended, or it was closed: it has no result")
        return self.result

    def begin(self) -> None:
        """Run the flow to its first effect. If it asks for a slot, ask: so calls are queued in the order in
        which they begin, whichever thread or task is the first to run. Never waits."""
        effect, entered = self._flow.send(None), None
        if type(effect) is Enter:
            entered = self._enter(effect, ThreadWaiter(is_ours=False) if self._blocking else TaskWaiter())
        self._begun = effect, entered

    def close(self) -> None:
        """End the call and close its connection at once.

        If another thread or task runs the flow, its wait ends, and it ends the flow itself. In a forked
        child, only the child's copy of the connection is closed: the call belongs to the parent.
        """
        if self._process != os.getpid():
            if self._exchange is not None:
                self._exchange.release()
            return
        with self._lock:
            self._closed, runs = True, self._running is not None
            self._running = self._running or self
        if runs:
            self._interrupt()
            return
        try:
            self._stop(None if self._begun is None else self._begun[0])
        finally:
            self._running = None

    def _interrupt(self) -> None:
        """End what the flow waits for."""
        exchange, waiter = self._exchange, self._waiter
        if exchange is not None:
            exchange.release()
        if waiter is not None:
            waiter.wake()

    def _claim(self, reader: object) -> bool:
        """Claim the flow for one reader; False if the call was closed. Raises if another reader runs it."""
        with self._lock:
            if self._closed:
                return False
            if self._running is not None:
                raise RuntimeError("this stream is already being read, by another thread or task")
            self._running = reader
        return True

    def _pause(self) -> bool:
        """Let go of the flow until the next `advance`; False if the call was closed meanwhile."""
        with self._lock:
            if not self._closed:
                self._running = None
                return True
        return False

    def _enter(self, effect: Enter, waiter: Waiter) -> Granted | Queued | Failure:
        self._slot = slot = Slot(self._limiter, waiter)
        return slot.enter(effect.options, effect.priority)

    async def _wait(self, effect: Wait) -> Granted | Look | Queued | Failure | None:
        """The result of a `Wait`; None after `close`."""
        if self._slot is None:
            return Granted()
        slot = self._slot
        self._waiter = slot.waiter
        while not self._closed:
            found = slot.poll(effect.until, effect.decides)
            if not isinstance(found, float | int):
                return found
            await slot.waiter.wait(found)
        return None

    def _new_waiter(self) -> ThreadWaiter | TaskWaiter:
        """A waiter, which close() wakes."""
        self._waiter = waiter = ThreadWaiter() if self._blocking else TaskWaiter()
        if self._closed:
            waiter.wake()
        return waiter

    def _new_exchange(self, effect: Send) -> Exchange:
        """An exchange, which the call owns. Releases the one before."""
        if self._exchange is not None:
            self._exchange.release()
        self._exchange = self._connections.exchange(
            effect.request, effect.connect, effect.until, blocking=self._blocking
        )
        return self._exchange

    def _error_for_flow(self, effect: Effect | None, error: BaseException) -> BaseException:
        """The error to throw into the flow after `error` interrupted `effect`. For a `Send` it is `Stopped`,
        unless `error` is an `Exception`: a bug or an unusable transport, which the flow may handle."""
        if type(effect) is not Send or isinstance(error, Exception):
            return error
        return Stopped(error, sent=self._exchange is not None and self._exchange.sent)

    def _stop(self, effect: Effect | None) -> None:
        """End the flow, which is waiting for the result of `effect`."""
        try:
            if type(effect) is Send:
                with contextlib.suppress(Stopped, StopIteration):
                    self._flow.throw(self._error_for_flow(effect, GeneratorExit()))
            self._flow.close()
        finally:
            self._release()

    def _end_attempt(self) -> None:
        """Release the exchange, then the slot. After a complete answer its connection is already kept."""
        # Set to None only afterwards: after an interrupt in between, `_release` does the rest.
        if self._exchange is not None:
            self._exchange.release()
            self._exchange = None
        if self._slot is not None:
            self._slot.settle()
            self._slot = None

    def _release(self) -> None:
        self.over = True
        if self._exchange is not None or self._slot is not None:
            self._end_attempt()

    async def _advance(self) -> Sequence[Chunk] | None:
        """Run the flow to its next chunks. None at its end, where `result` is set, and after `close`."""
        reader, effect = object(), None
        try:
            if not self._claim(reader):
                return None
            flow = self._flow
            if self._slot is not None and self._blocking:
                self._slot.waiter.owner = threading.current_thread()
            result: Any = None
            if self._begun is None:
                effect = flow.send(None)
            else:
                (effect, result), self._begun = self._begun, None
                if type(effect) is Enter:
                    effect = flow.send(result)
            while True:
                result = None
                try:
                    if type(effect) is Read:
                        if self._exchange is not None:
                            result = await self._exchange.read(effect.until)
                    elif type(effect) is Emit:
                        if self._pause():
                            return effect.chunks
                    elif type(effect) is Send:
                        exchange = self._new_exchange(effect)
                        result = None if self._closed else await exchange.send()
                    elif type(effect) is Enter:
                        result = self._enter(effect, self._new_waiter())
                    elif type(effect) is Wait:
                        result = await self._wait(effect)
                    elif type(effect) is Leave:
                        self._end_attempt()
                    elif type(effect) is Sleep:
                        waiter = self._new_waiter()
                        if effect.sleeper is None or effect.sleeper.sleeps(waiter):
                            await waiter.wait(time.monotonic() + effect.seconds)
                except BaseException as error:
                    try:
                        effect = flow.throw(self._error_for_flow(effect, error))
                        continue
                    except Stopped:
                        pass  # `error` itself is raised below
                    raise
                if self._closed:
                    self._stop(effect)
                    return None
                effect, result = flow.send(result), None  # no frame keeps a server's text
        except StopIteration as end:
            self.result = end.value
            self._release()
            return None
        except BaseException:
            if self._running is reader:
                self._stop(effect)  # an interrupt between two effects did not pass through the flow
            raise
        finally:
            if self._running is reader:
                self._running = None


def stop_all(drives: Sequence[_Driver[Any]]) -> None:
    """End calls that other threads or tasks run, or will run. Never waits, so a finaliser may do it.

    First all of them know, so that none goes on with the slot that another one gives back.
    """
    for drive in drives:
        drive._closed = True
    for drive in drives:
        drive._interrupt()


class Drive(_Driver[T]):
    """Runs a flow with blocking calls."""

    _blocking = True

    def advance(self) -> Sequence[Chunk] | None:
        """Run the flow to its next chunks. None at its end, where `result` is set, and after `close`."""
        return run(self._advance())


class AsyncDrive(_Driver[T]):
    """Runs a flow on the running event loop."""

    _blocking = False

    advance = _Driver._advance
