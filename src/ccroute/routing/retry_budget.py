"""Limits the extra attempts at a failing backend, for all callers together.

Does no I/O: the clock is injected. The one lock protects a few additions.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from ccroute.routing.acquired import AttemptOutcome

TOKENS = 10.0
"""Tokens of a full budget; each backend starts with one."""
PER_CALL = 0.1
"""Tokens that each call's first attempt at a backend adds."""
PER_SECOND = 1 / 30
"""Tokens that each second adds."""


class RetryTokens:
    """The cost of one extra attempt. It is given back if the attempt is not made."""

    __slots__ = ("_backend", "_budget", "_tokens")

    def __init__(self, budget: RetryBudget, backend: str, tokens: float) -> None:
        self._budget = budget
        self._backend = backend
        self._tokens = tokens

    def settle(self, outcome: AttemptOutcome | None = None) -> None:
        """End the attempt. None: it was not made, so give the tokens back. Only the first call counts."""
        tokens, self._tokens = self._tokens, 0.0
        if outcome is None and tokens:
            self._budget.returned.append((self._backend, tokens))


class RetryBudget:
    """Tokens per backend, by its identity. A full budget has no entry."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.left: dict[str, tuple[float, float]] = {}  # tokens, and the instant of their count
        self.returned: deque[tuple[str, float]] = deque()
        self._lock = threading.Lock()

    def first(self, backend: str) -> None:
        """Count a call's first attempt at `backend`, which adds tokens."""
        if backend in self.left:
            with self._lock:
                self._put(backend, self._tokens(backend) + PER_CALL)

    def not_made(self, backend: str) -> None:
        """Take back what `first` added: the attempt went to another backend."""
        if backend in self.left:
            with self._lock:
                self._put(backend, max(self._tokens(backend) - PER_CALL, 0.0))

    def allows(self, backend: str, cost: float) -> bool:
        """Whether `backend` has the tokens for another attempt. Takes none."""
        if self.returned:
            with self._lock:
                self._put_back()
        return backend not in self.left or self._tokens(backend) >= cost

    def take(self, backend: str, cost: float) -> RetryTokens | None:
        """Take the tokens for another attempt at `backend`; None if too few are left."""
        with self._lock:
            self._put_back()
            left = self._tokens(backend) - cost
            if left < 0:
                return None
            self._put(backend, left)
            return RetryTokens(self, backend, cost)

    def after_fork(self) -> None:
        """Replace the lock in a forked child: a thread of the parent may hold it."""
        self._lock = threading.Lock()

    def _put_back(self) -> None:
        """Add the tokens given back; the caller has the lock. `settle` takes no lock: finalisers call it."""
        while self.returned:
            backend, tokens = self.returned.popleft()
            self._put(backend, self._tokens(backend) + tokens)

    def _tokens(self, backend: str) -> float:
        tokens, at = self.left.get(backend, (TOKENS, 0.0))
        return min(TOKENS, tokens + (self._monotonic() - at) * PER_SECOND)

    def _put(self, backend: str, tokens: float) -> None:
        if tokens >= TOKENS:
            self.left.pop(backend, None)
        else:
            self.left[backend] = (tokens, self._monotonic())
