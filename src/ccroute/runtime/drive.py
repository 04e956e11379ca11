"""Runs a flow: performs each effect, owns what was leased for it, hands results back.

Two drivers, one that blocks and one that awaits; a stream is the same walk, paused at each `Emit`.
However a flow ends, its exchange is released and its last ledger row written, without waiting.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ccroute.accounting import Ledger
from ccroute.flow import CallLog, Emit, Flow, Read, Record, Send, Sleep
from ccroute.types import Chunk

if TYPE_CHECKING:
    from ccroute.runtime.connections import Connections
    from ccroute.runtime.exchange import AsyncExchange, Exchange

T = TypeVar("T")

_START: Any = None


class _Drive(Generic[T]):
    """What both drivers share: the flow, and the end of it."""

    def __init__(self, flow: Flow[T], log: CallLog | None, connections: Connections, ledger: Ledger) -> None:
        self._flow = flow
        self._log = log
        self._connections = connections
        self._ledger = ledger
        self._exchange: Any = None
        self._reply: Any = _START
        self._turn = threading.Lock()
        self._running = False
        self._closed = False
        self.result: T | None = None

    def finished(self) -> T:
        """What the flow came to, after its end."""
        assert self.result is not None, "the flow has not ended"
        return self.result

    def close(self) -> None:
        """End the call where it stands: the connection is closed, what it used is recorded.

        While another thread or task is reading, its wait ends and it does the rest.
        """
        with self._turn:
            self._closed, reading = True, self._running
            self._running = True
        if reading:
            exchange = self._exchange
            if exchange is not None:
                exchange.release()
            return
        try:
            self._flow.close()
        finally:
            self._release()
            self._running = False

    def _begin(self) -> bool:
        """Take the turn to run the flow; False when the call was closed."""
        with self._turn:
            if self._closed:
                return False
            if self._running:
                raise RuntimeError("this stream is already being read, by another thread or task")
            self._running = True
        return True

    def _release(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.release()
        row = None if self._log is None else self._log.unsettled
        if self._log is not None and row is not None:
            self._log.unsettled = None
            self._ledger.record(row)


class Drive(_Drive[T]):
    """Runs a flow with blocking calls."""

    _exchange: Exchange | None

    def advance(self) -> Sequence[Chunk] | None:
        """Go on to the next chunks; None at the end, when `result` is there."""
        if not self._begin():
            return None
        flow, result = self._flow, self._reply
        try:
            while True:
                effect, result = flow.send(result), None  # no frame keeps a server's words
                try:
                    if type(effect) is Read and self._exchange is not None:
                        result = self._exchange.read(effect.until)
                    elif type(effect) is Emit:
                        self._reply = None
                        return effect.chunks
                    elif type(effect) is Send:
                        self._release()
                        self._exchange = self._connections.exchange(effect)
                        result = self._exchange.send()
                    elif type(effect) is Record:
                        self._ledger.record(effect.row)
                    elif type(effect) is Sleep:
                        time.sleep(effect.seconds)
                except BaseException as error:
                    flow.throw(error)
                if self._closed:
                    flow.close()
                    self._release()
                    return None
        except StopIteration as end:
            self.result = end.value
            self._release()
            return None
        except BaseException:
            self._release()
            raise
        finally:
            self._running = False


class AsyncDrive(_Drive[T]):
    """Runs a flow on the running event loop."""

    _exchange: AsyncExchange | None

    async def advance(self) -> Sequence[Chunk] | None:
        """Go on to the next chunks; None at the end, when `result` is there."""
        if not self._begin():
            return None
        flow, result = self._flow, self._reply
        try:
            while True:
                effect, result = flow.send(result), None  # no frame keeps a server's words
                try:
                    if type(effect) is Read and self._exchange is not None:
                        result = await self._exchange.read(effect.until)
                    elif type(effect) is Emit:
                        self._reply = None
                        return effect.chunks
                    elif type(effect) is Send:
                        self._release()
                        self._exchange = self._connections.aexchange(effect)
                        result = await self._exchange.send()
                    elif type(effect) is Record:
                        self._ledger.record(effect.row)
                    elif type(effect) is Sleep:
                        await _sleep(effect.seconds)
                except BaseException as error:
                    flow.throw(error)
                if self._closed:
                    flow.close()
                    self._release()
                    return None
        except StopIteration as end:
            self.result = end.value
            self._release()
            return None
        except BaseException:
            self._release()
            raise
        finally:
            self._running = False


async def _sleep(seconds: float) -> None:
    import anyio  # only a call that waits needs it

    await anyio.sleep(seconds)
