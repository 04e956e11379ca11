"""Runs a flow: performs each effect, owns the connection and the slot it needs, and hands results back.

Two drivers, one that blocks and one that awaits; a stream is the same run, paused at each `Emit`. However
a flow ends, its connection and its slot are given back, without waiting.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ccroute.flow.effects import (
    Effect,
    Emit,
    Enter,
    Failure,
    Flow,
    Leave,
    Queued,
    Read,
    Send,
    Sleep,
    Stopped,
    Wait,
)
from ccroute.runtime.limiter import LATE, Limiters, Slot
from ccroute.runtime.waits import TaskWaiter, ThreadWaiter
from ccroute.types import Chunk

if TYPE_CHECKING:
    from ccroute.runtime.connections import Connections
    from ccroute.runtime.exchange import AsyncExchange, Exchange

T = TypeVar("T")
E = TypeVar("E", "Exchange", "AsyncExchange")
W = TypeVar("W", ThreadWaiter, TaskWaiter)


class _Driver(Generic[T, E, W]):
    """What both drivers share: the flow, what is acquired for it, and the end of both."""

    def __init__(self, flow: Flow[T], connections: Connections, limiters: Limiters) -> None:
        self._flow = flow
        self._connections = connections
        self._limiters = limiters
        self._exchange: E | None = None
        self._slot: Slot | None = None
        self._waiter: W | None = None  # woken by close()
        self._turn = threading.Lock()
        self._running: object = None  # the call of advance() that runs the flow, or close()
        self._closed = False
        self._process = os.getpid()
        self.over = False
        self.result: T | None = None

    def finished(self) -> T:
        """What the flow returned, after its end."""
        assert self.result is not None, "the flow has not ended"
        return self.result

    def close(self) -> None:
        """End the call where it stands; its connection is closed at once.

        While another thread or task runs it, that one's wait ends and it does the rest. In a forked child
        this does nothing: call and connection are the parent's.
        """
        if self._process != os.getpid():
            return
        with self._turn:
            self._closed, runs = True, self._running is not None
            self._running = self._running or self
        if runs:
            exchange, waiter = self._exchange, self._waiter
            if exchange is not None:
                exchange.release()
            if waiter is not None:
                waiter.wake()
            return
        try:
            self._flow.close()
        finally:
            self._release()
            self._running = None

    def _begin(self, reader: object) -> bool:
        """Take the turn to run the flow; False when the call was closed."""
        with self._turn:
            if self._closed:
                return False
            if self._running is not None:
                raise RuntimeError("this stream is already being read, by another thread or task")
            self._running = reader
        return True

    def _paused(self) -> bool:
        """Give the turn back until more is asked for; False when the call was closed meanwhile."""
        with self._turn:
            if not self._closed:
                self._running = None
                return True
        return False

    def _enter(self, effect: Enter, waiter: W) -> Queued | Failure | None:
        limiter = self._limiters.by_origin[effect.backend.origin]
        self._slot = slot = Slot(limiter, self._waits(waiter))
        return slot.enter(effect.priority)

    def _entered(self, woken: bool) -> Failure | None:
        """What the wait for a slot came to. A call that is late gives up its place in the queue at once."""
        if woken or self._slot is None:
            return None
        self._slot.settle()
        return LATE

    def _waits(self, waiter: W) -> W:
        """The call may wait with `waiter` from now on; close() ends that."""
        self._waiter = waiter
        if self._closed:
            waiter.wake()
        return waiter

    def _sends(self, exchange: E) -> E:
        """The call owns `exchange` from now on, and no other."""
        if self._exchange is not None:
            self._exchange.release()
        self._exchange = exchange
        return exchange

    def _interrupted(self, effect: Effect | None, error: BaseException) -> BaseException:
        """What the flow gets where `error` interrupts `effect`. Only a bug, or a transport that is of no use,
        raises an `Exception`: a flow may handle that."""
        if type(effect) is not Send or isinstance(error, Exception):
            return error
        return Stopped(error, sent=self._exchange is not None and self._exchange.sent)

    def _stop(self, effect: Effect | None) -> None:
        """End the flow, which waits for the result of `effect`."""
        try:
            if type(effect) is Send:
                with contextlib.suppress(Stopped, StopIteration):
                    self._flow.throw(self._interrupted(effect, GeneratorExit()))
            self._flow.close()
        finally:
            self._release()

    def _end_attempt(self) -> None:
        """Give up the connection, then the slot; a connection whose answer was read to its end is kept."""
        # Forgotten only when it is done, so that an interrupt in between leaves it to `_release`.
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


class Drive(_Driver[T, "Exchange", ThreadWaiter]):
    """Runs a flow with blocking calls."""

    def advance(self) -> Sequence[Chunk] | None:
        """Go on to the next chunks; None at the end, when `result` is there."""
        reader, effect = object(), None
        try:
            if not self._begin(reader):
                return None
            flow = self._flow
            if self._slot is not None:
                self._slot.waiter.owner = threading.current_thread()
            effect = flow.send(None)
            while True:
                result: Any = None
                try:
                    if type(effect) is Read:
                        if self._exchange is not None:
                            result = self._exchange.read(effect.until)
                    elif type(effect) is Emit:
                        if self._paused():
                            return effect.chunks
                    elif type(effect) is Send:
                        exchange = self._sends(self._connections.exchange(effect))
                        result = None if self._closed else exchange.send()
                    elif type(effect) is Enter:
                        if effect.backend.origin in self._limiters.by_origin:
                            result = self._enter(effect, ThreadWaiter())
                    elif type(effect) is Wait:
                        if self._waiter is not None:
                            result = self._entered(self._waiter.wait(effect.until))
                    elif type(effect) is Leave:
                        self._end_attempt()
                    elif type(effect) is Sleep:
                        self._waits(ThreadWaiter()).wait(time.monotonic() + effect.seconds)
                except BaseException as error:
                    try:
                        effect = flow.throw(self._interrupted(effect, error))
                        continue
                    except Stopped:
                        pass  # `error` itself goes on
                    raise
                if self._closed:
                    self._stop(effect)
                    return None
                effect, result = flow.send(result), None  # no frame keeps a server's words
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


class AsyncDrive(_Driver[T, "AsyncExchange", TaskWaiter]):
    """Runs a flow on the running event loop."""

    async def advance(self) -> Sequence[Chunk] | None:
        """Go on to the next chunks; None at the end, when `result` is there."""
        reader, effect = object(), None
        try:
            if not self._begin(reader):
                return None
            flow = self._flow
            effect = flow.send(None)
            while True:
                result: Any = None
                try:
                    if type(effect) is Read:
                        if self._exchange is not None:
                            result = await self._exchange.read(effect.until)
                    elif type(effect) is Emit:
                        if self._paused():
                            return effect.chunks
                    elif type(effect) is Send:
                        exchange = self._sends(self._connections.aexchange(effect))
                        result = None if self._closed else await exchange.send()
                    elif type(effect) is Enter:
                        if effect.backend.origin in self._limiters.by_origin:
                            result = self._enter(effect, TaskWaiter())
                    elif type(effect) is Wait:
                        if self._waiter is not None:
                            result = self._entered(await self._waiter.wait(effect.until))
                    elif type(effect) is Leave:
                        self._end_attempt()
                    elif type(effect) is Sleep:
                        await self._waits(TaskWaiter()).wait(time.monotonic() + effect.seconds)
                except BaseException as error:
                    try:
                        effect = flow.throw(self._interrupted(effect, error))
                        continue
                    except Stopped:
                        pass  # `error` itself goes on
                    raise
                if self._closed:
                    self._stop(effect)
                    return None
                effect, result = flow.send(result), None  # no frame keeps a server's words
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
