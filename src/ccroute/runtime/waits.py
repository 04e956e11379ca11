"""Waits that another thread may end: one for threads, one for tasks of an event loop.

Must not know what a call waits for. Waking never waits, so a finaliser may do it.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ccroute.http.streams import LONGEST_WAIT
from ccroute.http.streams.event_loops import call_soon, current_loop

if TYPE_CHECKING:
    import anyio


class ThreadWaiter:
    """Lets a thread wait, once or several times.

    A bare lock wakes the thread: unlike an `Event`, releasing a lock never waits.
    """

    _blocks: Sequence[object] | None = None

    def __init__(self, *, is_ours: bool = True) -> None:
        """is_ours: this thread will wait. Otherwise it is a new one, which has no loop and no other call."""
        self.owner: object = None
        if is_ours:
            self.owner = threading.current_thread()  # not its id: a later thread may get the same one
        else:
            self._blocks = ()
        self._asleep = threading.Lock()
        self._asleep.acquire()

    @property
    def blocks(self) -> Sequence[object]:
        """The thread, and the loop that it runs when this is first asked: when the call has to wait."""
        if self._blocks is None:
            loop = current_loop()
            self._blocks = (self.owner,) if loop is None else (self.owner, weakref.ref(loop))
        return self._blocks

    async def wait(self, until: float) -> bool:
        """Wait for `wake`, without an event loop. False if the instant `until` (monotonic) came first."""
        return self._asleep.acquire(timeout=_seconds(until))

    def wake(self) -> bool:
        """End the wait. Always True: the thread still exists."""
        with contextlib.suppress(RuntimeError):  # already woken
            self._asleep.release()
        return True


class TaskWaiter:
    """Lets a task wait on its own loop, once or several times."""

    blocks: Sequence[object] = ()
    _awake = False
    _event: anyio.Event | None = None  # only during a wait: it may refer to the loop

    def __init__(self) -> None:
        # Weak: a slot must not keep a loop alive that was dropped without close().
        self._loop = weakref.ref(current_loop())
        self.owner: object = self._loop

    async def wait(self, until: float) -> bool:
        """Wait for `wake`. False if the instant `until` (monotonic) came first."""
        import anyio  # slow to import, and most calls never wait

        if not self._awake:
            self._event = anyio.Event()
            try:
                with anyio.move_on_after(_seconds(until)):
                    await self._event.wait()
            finally:
                self._event = None
        woken, self._awake = self._awake, False
        return woken

    def wake(self) -> bool:
        """End the wait, from any thread; False if the loop has ended."""
        loop = self._loop()
        return loop is not None and call_soon(loop, self._end)

    def _end(self) -> None:
        self._awake = True
        if self._event is not None:
            self._event.set()


def _seconds(until: float) -> float:
    return min(max(until - time.monotonic(), 0.0), LONGEST_WAIT)
