"""How many extra attempts a sick backend may be sent, whoever asks: a budget, not a rate.

Pure: the clock is injected; one lock, held for a few additions.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

TOKENS = 10.0
"""What a backend's budget holds at most, and at first."""
PER_CALL = 0.1
"""What each call's first attempt at a backend adds."""
PER_SECOND = 1 / 30
"""What time adds."""


class RetryBudget:
    """Tokens per backend; only what is not full is kept."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._left: dict[str, tuple[float, float]] = {}  # tokens, and when they were counted
        self._lock = threading.Lock()

    def first(self, backend: str) -> None:
        """A call makes its first attempt at `backend`."""
        if backend in self._left:
            with self._lock:
                self._put(backend, self._tokens(backend) + PER_CALL)

    def allows(self, backend: str, cost: float) -> bool:
        """Whether another attempt that costs so many tokens would be paid for."""
        return backend not in self._left or self._tokens(backend) >= cost

    def take(self, backend: str, cost: float) -> bool:
        """Pay for another attempt at `backend`; False, and nothing is taken, where too little is left."""
        with self._lock:
            left = self._tokens(backend) - cost
            if left < 0:
                return False
            self._put(backend, left)
            return True

    def after_fork(self) -> None:
        """In a forked child: the lock may be held by a thread that is not here."""
        self._lock = threading.Lock()

    def _tokens(self, backend: str) -> float:
        tokens, at = self._left.get(backend, (TOKENS, 0.0))
        return min(TOKENS, tokens + (self._monotonic() - at) * PER_SECOND)

    def _put(self, backend: str, tokens: float) -> None:
        if tokens >= TOKENS:
            self._left.pop(backend, None)
        else:
            self._left[backend] = (tokens, self._monotonic())
