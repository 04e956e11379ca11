"""How many extra attempts a sick backend may be sent, whoever asks: a budget, not a rate.

Pure: the clock is injected; one lock, held for a few additions.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from ccroute.routing.acquired import AttemptOutcome

TOKENS = 10.0
"""What a backend's budget holds at most, and at first."""
PER_CALL = 0.1
"""What each call's first attempt at a backend adds."""
PER_SECOND = 1 / 30
"""What time adds."""


class RetryTokens:
    """What one further attempt cost; it is given back where the attempt is not made."""

    __slots__ = ("_backend", "_budget", "_tokens")

    def __init__(self, budget: RetryBudget, backend: str, tokens: float) -> None:
        self._budget = budget
        self._backend = backend
        self._tokens = tokens

    def settle(self, outcome: AttemptOutcome | None = None) -> None:
        """The attempt is over, or was not made (None); only the first call counts."""
        tokens, self._tokens = self._tokens, 0.0
        if outcome is None and tokens:
            self._budget.returned.append((self._backend, tokens))


class RetryBudget:
    """Tokens per backend; only what is not full is kept."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.left: dict[str, tuple[float, float]] = {}  # tokens, and when they were counted
        self.returned: deque[tuple[str, float]] = deque()
        self._lock = threading.Lock()

    def first(self, backend: str) -> None:
        """A call makes its first attempt at `backend`."""
        if backend in self.left:
            with self._lock:
                self._put(backend, self._tokens(backend) + PER_CALL)

    def allows(self, backend: str, cost: float) -> bool:
        """Whether another attempt that costs so many tokens would be paid for."""
        if self.returned:
            with self._lock:
                self._put_back()
        return backend not in self.left or self._tokens(backend) >= cost

    def take(self, backend: str, cost: float) -> RetryTokens | None:
        """Pay for another attempt at `backend`; None, and nothing is taken, where too little is left."""
        with self._lock:
            self._put_back()
            left = self._tokens(backend) - cost
            if left < 0:
                return None
            self._put(backend, left)
            return RetryTokens(self, backend, cost)

    def after_fork(self) -> None:
        """In a forked child: the lock may be held by a thread that is not here."""
        self._lock = threading.Lock()

    def _put_back(self) -> None:
        """Count what was given back, only with the lock: settling takes none, as a finaliser may do it."""
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
