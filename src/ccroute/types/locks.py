"""Taking a lock so that no interrupt can leave it taken, and not waiting for one at all."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Generic, TypeAlias, TypeVarTuple

Lock: TypeAlias = "threading.Lock | threading.RLock"
Arguments = TypeVarTuple("Arguments")


def lock_tries(lock: Lock) -> Callable[[], Iterator[bool]]:
    """A function for `for _ in tries():`. It takes `lock` before each turn of the loop; the loop ends when
    another holder has the lock.

    The body is `try: … finally: lock.release()`. With `if lock.acquire(blocking=False)`, an interrupt could
    come between `acquire` and `try`, and the lock would stay taken. Python raises no interrupt between a
    step of `for` and its body, and the iterator takes the lock inside that step.
    """
    return partial(iter, partial(lock.acquire, blocking=False), False)


def lock_turn(lock: Lock) -> Callable[[], Iterator[bool]]:
    """The same, but it waits for the lock. The body leaves the loop after its first turn."""
    return partial(iter, lock.acquire, False)


class Inbox(deque[tuple[*Arguments]], Generic[*Arguments]):
    """A lock, and what has to be done with it by those who must not wait for it: a finaliser may run in the
    middle of anything, also of this thread's own turn with the lock. They append the arguments of `apply`,
    and then `drain`.

    The others write `with inbox.lock: inbox.read(); …`, and `drain` after it, for what came meanwhile. An
    interrupt may let `apply` do the same twice, but loses nothing.
    """

    def __init__(self, apply: Callable[[*Arguments], None]) -> None:
        super().__init__()
        self._apply = apply
        self.renew()

    def renew(self) -> None:
        """Replace the lock in a forked child: a thread that is not here may hold it."""
        self.lock = threading.Lock()
        self._tries = lock_tries(self.lock)

    def read(self) -> None:
        """Apply what was appended; only with the lock."""
        while self:
            try:  # taken out only after it was applied, so that no interrupt loses it
                self._apply(*self[0])
            except Exception:
                self.popleft()
                raise
            self.popleft()

    def drain(self) -> None:
        """Apply what was appended, unless another holds the lock: it does so after its turn. Never waits."""
        while self:
            for _ in self._tries():
                try:
                    self.read()
                finally:
                    self.lock.release()
                break
            else:  # the holder of the lock comes here too, and may be a frame below this one
                return
