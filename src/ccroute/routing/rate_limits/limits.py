"""How much each deployment and each agent may be sent in a minute, for threads, tasks, finalisers at once.

Knows the lock and the clock; must not know what is sent, nor wait for anything: a flow sleeps, and is woken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ccroute.routing.acquired import Unavailable
from ccroute.types.locks import Inbox

if TYPE_CHECKING:
    from ccroute.routing.rate_limits.turns import LimitState, Turn
    from ccroute.routing.rate_limits.window import Limit
    from ccroute.types.inspection.stats import LimitStats


class RateLimits:
    """The windows of one router, one for each deployment and agent that has a limit. The limit is handed in
    with each request, so a window goes on when the limit changes.

    Settling never waits, because a finaliser may do it in the middle of anything: what was settled goes into
    an inbox that the next holder of the lock reads first.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._states: dict[tuple[str, str], LimitState] = {}
        self._inbox = Inbox(_settle)

    def unavailable(self, limit: Limit, tokens: int = 0) -> Unavailable | None:
        """Why a request with this number of tokens may not be sent now, and when it may. None: it may be
        sent. Takes nothing.

        tokens: as `Limit.reserved` says.
        """
        if limit[:2] not in self._states:
            return None
        with self._inbox.lock:
            state, now = self._find(limit)
            found = state.unavailable(now, tokens)
        self._inbox.drain()
        return found

    def take(self, limit: Limit, tokens: int = 0) -> Turn | None:
        """A turn that has come; None if there is no room, or others wait for it."""
        with self._inbox.lock:
            state, now = self._find(limit)
            turn = state.take(self, now, tokens)
        if self._inbox:
            self._inbox.drain()
        return turn

    def queue(self, limit: Limit, tokens: int = 0) -> Turn:
        """A turn behind all others; it may come at once."""
        with self._inbox.lock:
            state, now = self._find(limit)
            turn = state.queue_up(self, now, tokens)
        self._inbox.drain()
        return turn

    def wait(self, turn: Turn) -> float:
        """See `Turn.wait`."""
        with self._inbox.lock:
            now = self._monotonic()
            self._inbox.read()
            seconds = turn.state.wait(turn, now)
        self._inbox.drain()
        return seconds

    def settle(self, turn: Turn, tokens: int | None) -> None:
        """See `Turn.used`. Where no call waits, the next call does the work."""
        self._inbox.append((turn, tokens, self._monotonic()))
        if turn.state.queue:
            self._inbox.drain()

    def stats(self) -> dict[tuple[str, str], LimitStats]:
        """What is used of each limit."""
        with self._inbox.lock:
            now = self._monotonic()
            self._inbox.read()
            found = {key: _stats(state, now) for key, state in self._states.items()}
        self._inbox.drain()
        return found

    def after_fork(self) -> None:
        """In a forked child: the lock may belong to a thread that is not here, and who waits is the parent's.
        What was sent counts on: the servers count it."""
        self._inbox.renew()
        self._inbox.clear()
        for state in self._states.values():
            state.queue.clear()
            state.queued_tokens = 0

    def _find(self, limit: Limit) -> tuple[LimitState, float]:
        """The state of a limit, and the instant; only with the lock."""
        now = self._monotonic()
        if self._inbox:
            self._inbox.read()
        state = self._states.get(limit[:2])
        if state is None:
            from ccroute.routing.rate_limits.turns import LimitState  # only where there is a limit

            state = self._states[limit[:2]] = LimitState(limit)
        state.limit = limit
        return state, now


def _settle(turn: Turn, tokens: int | None, at: float) -> None:
    turn.state.settle(turn, tokens, at)


def _stats(state: LimitState, now: float) -> LimitStats:
    from ccroute.types.inspection.stats import LimitStats  # loaded at its first use

    state.advance(now)
    limit, window = state.limit, state.window
    return LimitStats(
        rpm=limit.rpm,
        requests=window.requests,
        tpm=limit.tpm,
        tokens=window.tokens,
        waiting=len(state.queue),
    )
