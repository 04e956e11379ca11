"""Waiting that somebody else may end: a thread's, and a task's on its own loop.

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
from typing import TYPE_CHECKING

from ccroute.runtime.clock import patience

if TYPE_CHECKING:
    from ccroute.runtime.gates import Permit


class ThreadWait:
    """A thread that waits. A bare lock wakes it: unlike an `Event`, releasing one never waits."""

    def __init__(self) -> None:
        self.owner: object = threading.current_thread()  # ids are given to the next when a thread ends
        loop = asyncio._get_running_loop()
        self.stops: Sequence[object] = (self.owner,) if loop is None else (self.owner, weakref.ref(loop))
        self.permit: Permit | None = None
        self._shut = threading.Lock()
        self._shut.acquire()

    def wait(self, until: float) -> bool:
        """Until somebody wakes it; False when `until` (monotonic) passed first."""
        left = patience(until - time.monotonic())
        return self._shut.acquire(timeout=-1 if left is None else max(left, 0.0))

    def wake(self) -> bool:
        """End the wait; True, because a thread is always there to see it."""
        with contextlib.suppress(RuntimeError):  # woken before
            self._shut.release()
        return True


class TaskWait:
    """A task that waits on its own loop."""

    stops: Sequence[object] = ()

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._woken: asyncio.Future[bool] = self._loop.create_future()
        self.owner: object = weakref.ref(self._loop)
        self.permit: Permit | None = None

    async def wait(self, until: float) -> bool:
        """Until somebody wakes it; False when `until` (monotonic) passed first."""
        left = patience(until - time.monotonic())
        timer = None if left is None else self._loop.call_later(left, self._set, False)
        try:
            return await self._woken
        finally:
            if timer is not None:
                timer.cancel()

    def wake(self) -> bool:
        """End the wait, from whatever thread; False if the loop is closed."""
        try:
            self._loop.call_soon_threadsafe(self._set, True)
        except RuntimeError:
            return False
        return True

    def _set(self, woken: bool) -> None:
        if not self._woken.done():
            self._woken.set_result(woken)
