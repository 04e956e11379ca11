"""Waits that another thread may end: one for threads, one for tasks of an event loop.

Must not know what a call waits for. Waking never waits, so a finaliser may do it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import weakref
from collections.abc import Sequence

from ccroute.runtime.clock import LONGEST_WAIT


class ThreadWaiter:
    """Lets a thread wait. A bare lock wakes the thread: unlike an `Event`, releasing a lock never waits."""

    def __init__(self) -> None:
        self.owner: object = threading.current_thread()  # not its id: a later thread may get the same one
        loop = asyncio._get_running_loop()
        self.blocks: Sequence[object] = (self.owner,) if loop is None else (self.owner, weakref.ref(loop))
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def wait(self, until: float) -> bool:
        """Wait for `wake`. False if the instant `until` (monotonic) came first."""
        return self._asleep.acquire(timeout=min(max(until - time.monotonic(), 0.0), LONGEST_WAIT))

    def wake(self) -> bool:
        """End the wait. Always True: the thread still exists."""
        with contextlib.suppress(RuntimeError):  # already woken
            self._asleep.release()
        return True


class TaskWaiter:
    """Lets a task wait on its own loop."""

    blocks: Sequence[object] = ()
    _awake = False
    _future: asyncio.Future[bool] | None = None

    def __init__(self) -> None:
        # Weak: a slot must not keep a loop alive that was dropped without close().
        self._loop = weakref.ref(asyncio.get_running_loop())
        self.owner: object = self._loop

    async def wait(self, until: float) -> bool:
        """Wait for `wake`. False if the instant `until` (monotonic) came first."""
        if self._awake:
            return True
        loop = asyncio.get_running_loop()
        self._future = loop.create_future()
        timer = loop.call_later(min(until - time.monotonic(), LONGEST_WAIT), self._end, False)
        try:
            return await self._future
        finally:
            timer.cancel()
            self._future = None

    def wake(self) -> bool:
        """End the wait, from any thread; False if the loop is closed or gone."""
        loop = self._loop()
        if loop is None:
            return False
        try:
            loop.call_soon_threadsafe(self._end, True)
        except RuntimeError:
            return False
        return True

    def _end(self, woken: bool) -> None:
        self._awake = self._awake or woken
        if self._future is not None and not self._future.done():
            self._future.set_result(woken)
