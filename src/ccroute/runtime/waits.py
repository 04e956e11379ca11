"""Waiting that another thread may end: a thread's wait, and a task's on its own loop.

Knows how to wait until an instant and how to be woken; must not know what for. Waking never waits, so a
finaliser may do it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import weakref
from collections.abc import Sequence

from ccroute.runtime.clock import LONGEST


class ThreadWaiter:
    """A thread that waits. A bare lock wakes it: unlike an `Event`, releasing one never waits."""

    def __init__(self) -> None:
        self.owner: object = threading.current_thread()  # not its id, which a later thread may have again
        loop = asyncio._get_running_loop()
        self.blocks: Sequence[object] = (self.owner,) if loop is None else (self.owner, weakref.ref(loop))
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def wait(self, until: float) -> bool:
        """Until it is woken; False when `until` (monotonic) passed first."""
        return self._asleep.acquire(timeout=min(max(until - time.monotonic(), 0.0), LONGEST))

    def wake(self) -> bool:
        """End the wait; True, because the thread is there to see it."""
        with contextlib.suppress(RuntimeError):  # woken before
            self._asleep.release()
        return True


class TaskWaiter:
    """A task that waits on its own loop."""

    blocks: Sequence[object] = ()
    _awake = False
    _future: asyncio.Future[bool] | None = None

    def __init__(self) -> None:
        # Weak: a held slot must not keep a loop alive that was dropped without close().
        self._loop = weakref.ref(asyncio.get_running_loop())
        self.owner: object = self._loop

    async def wait(self, until: float) -> bool:
        """Until it is woken; False when `until` (monotonic) passed first."""
        if self._awake:
            return True
        loop = asyncio.get_running_loop()
        self._future = loop.create_future()
        timer = loop.call_later(min(until - time.monotonic(), LONGEST), self._end, False)
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
