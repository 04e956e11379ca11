"""Two ways to take a lock: so that no interrupt can leave it taken, and without waiting for it."""

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
    return partial(iter, partial(lock.acquire, False), False)


def lock_turn(lock: Lock) -> Callable[[], Iterator[bool]]:
    """The same, but it waits for the lock. The body leaves the loop after its first turn."""
    return partial(iter, lock.acquire, False)


class Inbox(deque[tuple[*Arguments]], Generic[*Arguments]):
    """A lock, with a queue of work for the next holder of the lock.

    Code that must not wait for the lock appends the arguments of `apply`, and then calls `drain`. That is a
    finaliser, which may even interrupt a thread that holds the lock.

    Other code writes `with inbox.lock: inbox.read(); …`, and then calls `drain`, for what was appended in
    between. After an interrupt, `apply` may be called twice with the same arguments, but nothing is lost.
    """

    def __init__(self, apply: Callable[[*Arguments], None]) -> None:
        super().__init__()
        self._apply = apply
        self.renew()

    def renew(self) -> None:
        """Replace the lock in a forked child: a thread of the parent may hold it."""
        self.lock = threading.Lock()
        self._tries = lock_tries(self.lock)

    def read(self) -> None:
        """Apply what was appended. The caller has the lock."""
        while self:
            try:  # removed only after it was applied, so that no interrupt loses it
                self._apply(*self[0])
            except Exception:
                self.popleft()
                raise
            self.popleft()

    def drain(self) -> None:
        """Apply what was appended, unless the lock is held: its holder does so before it returns. Never
        waits."""
        while self:
            for _ in self._tries():
                try:
                    self.read()
                finally:
                    self.lock.release()
                break
            else:  # the holder calls `drain` too; it may be a frame of this same thread
                return
