"""Taking a lock without waiting, and without losing it to an interrupt."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial


def try_lock(lock: threading.Lock) -> Iterator[bool]:
    """Take `lock` before each turn of a `for` loop; the loop ends when another holder has the lock.

    The body is `try: … finally: lock.release()`. With `if lock.acquire(blocking=False)`, an interrupt could
    come between `acquire` and `try`, and the lock would stay taken. Python raises no interrupt between a
    step of `for` and its body, and this iterator takes the lock inside that step.
    """
    return iter(partial(lock.acquire, blocking=False), False)
