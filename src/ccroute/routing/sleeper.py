"""A call that sleeps until another call wakes it. Must not know what it waits for, or how it sleeps."""

from __future__ import annotations

from typing import Protocol


class Waiter(Protocol):
    """The sleep of one call. `wake` ends it, and never waits; False: the call has ended."""

    def wake(self) -> bool: ...


class Sleeper:
    """A call that sleeps until it may go on.

    woken: whether it was woken since it last looked.
    """

    woken = False
    _waiter: Waiter | None = None

    def sleeps(self, waiter: Waiter) -> bool:
        """From now on, `wake` also wakes `waiter`. False: the call was woken already, so it must not
        sleep."""
        self._waiter = waiter
        return not self.woken

    def wake(self) -> bool:
        """Wake the call, so that it looks again. Never waits. False if the call has ended."""
        self.woken = True
        return self._waiter is None or self._waiter.wake()
