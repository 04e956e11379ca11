"""Taking a lock so that no interrupt can leave it taken."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

Lock: TypeAlias = "threading.Lock | threading.RLock"


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
