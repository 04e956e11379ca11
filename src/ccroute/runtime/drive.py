"""Runs a flow: performs each effect, owns what was leased for it, hands results back.

Two drivers, one that blocks and one that awaits; a stream is the same walk, paused at each `Emit`.
However a flow ends, its exchange is released and its last ledger row written, without waiting.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from ccroute.accounting import Ledger, LedgerRow
from ccroute.flow import CallLog, Emit, Enter, Flow, Leave, Read, Record, Send, Sleep, Ticket
from ccroute.observe import LedgerFailed, Listener
from ccroute.runtime.gates import Gates, Permit
from ccroute.runtime.waits import TaskWait, ThreadWait
from ccroute.types import Chunk, Completion

if TYPE_CHECKING:
    from ccroute.runtime.connections import Connections
    from ccroute.runtime.exchange import AsyncExchange, Exchange

T = TypeVar("T")


class Means(NamedTuple):
    """What flows are performed with: one router's connections, gates and ledger, and who is told."""

    connections: Connections
    gates: Gates
    ledger: Ledger
    tell: Listener


class _Drive(Generic[T]):
    """What both drivers share: the flow, what is leased for it, and the end of both."""

    def __init__(self, flow: Flow[T], log: CallLog | None, means: Means) -> None:
        self._flow = flow
        self._log = log
        self._means = means
        self._exchange: Any = None
        self._permit: Permit | None = None
        self._wait: ThreadWait | TaskWait | None = None
        self._turn = threading.Lock()
        self._running: object = None  # whoever runs the flow
        self._closed = False
        self._process = os.getpid()
        self.over = False
        self.result: T | None = None

    def finished(self) -> T:
        """What the flow came to, after its end."""
        assert self.result is not None, "the flow has not ended"
        return self.result

    def so_far(self, ticket: Ticket) -> Completion | None:
        """What has come of the answer, with what it cost; None before anybody was asked."""
        if self._log is None or ticket.asked is None:
            return None
        return self._log.so_far(*ticket.asked)

    def close(self) -> None:
        """End the call where it stands: the connection is closed, what it used is recorded.

        While another thread or task is reading, its wait ends and it does the rest. A forked child
        lets its copy be: call and connection are the parent's.
        """
        if self._process != os.getpid():
            return
        with self._turn:
            self._closed, reading = True, self._running is not None
            self._running = self._running or self
        if reading:
            exchange, wait = self._exchange, self._wait
            if exchange is not None:
                exchange.release()
            if wait is not None:
                wait.wake()
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

    def _waits(self, wait: ThreadWait | TaskWait) -> None:
        """The call is about to wait; whoever closes it ends that."""
        self._wait = wait
        if self._closed:
            wait.wake()

    def _leased(self, exchange: Any) -> Any:
        """An exchange that the call owns from now on; of a closed call it is given up before it begins."""
        if self._exchange is not None:
            self._exchange.release()
        self._exchange = exchange
        if self._closed:
            exchange.release()
        return exchange

    def _end_attempt(self) -> None:
        """Give up the connection, then the place at the host; a connection that is idle again is kept."""
        # Forgotten only when it is done, so that an interrupt in between leaves it to `_release`.
        if self._exchange is not None:
            self._exchange.release()
            self._exchange = None
        if self._permit is not None:
            self._permit.release()
            self._permit = None

    def _release(self) -> None:
        self.over = True
        self._end_attempt()
        row = None if self._log is None else self._log.unsettled
        if row is not None:
            self._settle(row)

    def _settle(self, row: LedgerRow) -> None:
        if self._log is not None:
            self._log.unsettled = None
        self._record(row)

    def _record(self, row: LedgerRow) -> None:
        """Write a row. The answer is worth more than its record, so a ledger that fails is only told of."""
        try:
            self._means.ledger.record(row)
        except Exception as error:
            self._means.tell(LedgerFailed(row.call, row.agent, type(error).__name__))


class Drive(_Drive[T]):
    """Runs a flow with blocking calls."""

    _exchange: Exchange | None

    def advance(self) -> Sequence[Chunk] | None:
        """Go on to the next chunks; None at the end, when `result` is there."""
        reader = object()
        try:
            if not self._begin(reader):
                return None
            flow = self._flow
            if self._permit is not None:
                self._permit.moved(threading.current_thread())
            effect = flow.send(None)
            while True:
                result: Any = None
                try:
                    if type(effect) is Read and self._exchange is not None:
                        result = self._exchange.read(effect.until)
                    elif type(effect) is Emit:
                        if self._paused():
                            return effect.chunks
                    elif type(effect) is Send:
                        exchange = self._leased(self._means.connections.exchange(effect))
                        result = None if self._closed else exchange.send()
                    elif type(effect) is Enter:
                        entered = self._means.gates.enter(effect, self._waits)
                        if type(entered) is Permit:
                            self._permit = entered
                        else:
                            result = entered
                    elif type(effect) is Leave:
                        self._end_attempt()
                    elif type(effect) is Record:
                        self._settle(effect.row)
                    elif type(effect) is Sleep:
                        self._waits(wait := ThreadWait())
                        wait.wait(time.monotonic() + effect.seconds)
                except BaseException as error:
                    effect = flow.throw(error)  # a flow may take it for an answer, and ask for something else
                    continue
                if self._closed:
                    flow.close()
                    self._release()
                    return None
                effect, result = flow.send(result), None  # no frame keeps a server's words
        except StopIteration as end:
            self.result = end.value
            self._release()
            return None
        except BaseException:
            if self._running is reader:
                self._flow.close()  # an interrupt between two effects did not pass through it
                self._release()
            raise
        finally:
            if self._running is reader:
                self._running = None


class AsyncDrive(_Drive[T]):
    """Runs a flow on the running event loop."""

    _exchange: AsyncExchange | None

    async def advance(self) -> Sequence[Chunk] | None:
        """Go on to the next chunks; None at the end, when `result` is there."""
        reader = object()
        try:
            if not self._begin(reader):
                return None
            flow = self._flow
            effect = flow.send(None)
            while True:
                result: Any = None
                try:
                    if type(effect) is Read and self._exchange is not None:
                        result = await self._exchange.read(effect.until)
                    elif type(effect) is Emit:
                        if self._paused():
                            return effect.chunks
                    elif type(effect) is Send:
                        exchange = self._leased(self._means.connections.aexchange(effect))
                        result = None if self._closed else await exchange.send()
                    elif type(effect) is Enter:
                        entered = await self._means.gates.aenter(effect, self._waits)
                        if type(entered) is Permit:
                            self._permit = entered
                        else:
                            result = entered
                    elif type(effect) is Leave:
                        self._end_attempt()
                    elif type(effect) is Record:
                        self._settle(effect.row)
                    elif type(effect) is Sleep:
                        self._waits(wait := TaskWait())
                        await wait.wait(time.monotonic() + effect.seconds)
                except BaseException as error:
                    effect = flow.throw(error)  # a flow may take it for an answer, and ask for something else
                    continue
                if self._closed:
                    flow.close()
                    self._release()
                    return None
                effect, result = flow.send(result), None  # no frame keeps a server's words
        except StopIteration as end:
            self.result = end.value
            self._release()
            return None
        except BaseException:
            if self._running is reader:
                self._flow.close()  # an interrupt between two effects did not pass through it
                self._release()
            raise
        finally:
            if self._running is reader:
                self._running = None
