"""The sleep of a call that another call may end. Must not know what it waits for, nor how it sleeps."""

from __future__ import annotations

from typing import Protocol


class Waiter(Protocol):
    """Something that sleeps. `wake` never waits; False: it is gone."""

    def wake(self) -> bool: ...


class Sleeper:
    """A call that sleeps until it may go on.

    woken: whether it was woken since it last looked.
    """

    woken = False
    _waiter: Waiter | None = None

    def sleeps(self, waiter: Waiter) -> bool:
        """From now on `waiter` is woken if there is something to look at. False: there is; do not sleep."""
        self._waiter = waiter
        return not self.woken

    def wake(self) -> bool:
        """Let it look again. Never waits. False if the call is gone."""
        self.woken = True
        return self._waiter is None or self._waiter.wake()
