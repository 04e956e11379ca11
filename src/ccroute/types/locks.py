"""Taking a lock without waiting, and without losing it to an interrupt."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial


def lock_tries(lock: threading.Lock | threading.RLock) -> Callable[[], Iterator[bool]]:
    """A function for `for _ in tries():`. It takes `lock` before each turn of the loop; the loop ends when
    another holder has the lock.

    The body is `try: … finally: lock.release()`. With `if lock.acquire(blocking=False)`, an interrupt could
    come between `acquire` and `try`, and the lock would stay taken. Python raises no interrupt between a
    step of `for` and its body, and the iterator takes the lock inside that step.
    """
    return partial(iter, partial(lock.acquire, blocking=False), False)
