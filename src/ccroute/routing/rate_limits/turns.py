"""One window and who waits for room in it: the state behind a lock, whose holder calls this.

Knows instants, which are handed in; must not know locks, clocks or what is sent.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import takewhile
from typing import TYPE_CHECKING

from ccroute.errors import RateLimitError
from ccroute.routing.acquired import AttemptOutcome, Unavailable
from ccroute.routing.rate_limits.window import Limit, Room, Step, Window
from ccroute.routing.sleeper import Sleeper
from ccroute.types import Usage

if TYPE_CHECKING:
    from ccroute.routing.rate_limits.limits import RateLimits


class Turn(Sleeper):
    """One request's turn under a limit: it waits for it, and then counts until a minute after it began.

    step:   where it is counted; None while it waits.
    room:   when it comes, as far as is known.
    share:  its tokens, at most the whole limit.
    since:  the instant at which it began to wait; 0: it does not.
    waited: seconds that it waited until its turn came.
    """

    step: Step | None = None
    room = Room(0.0, "")
    share = 0
    waited = 0.0
    since = 0.0
    _settled = False

    def __init__(self, limits: RateLimits, state: LimitState, tokens: int) -> None:
        self._limits = limits
        self.state = state
        self.tokens = tokens

    @property
    def reason(self) -> Unavailable:
        """Why it has to wait."""
        return why_not(self.state.limit, self.room)

    def wait(self) -> float:
        """Seconds until the turn comes. 0: it has come; the request is sent now, and counts from now on.

        Called again after a sleep of that time, or earlier if the call was woken: see `sleeps`.
        """
        return self._limits.wait(self)

    def settle(self, outcome: AttemptOutcome | None = None) -> None:
        """Give back everything if nothing was sent (None). For an attempt that was sent, `used` is called."""
        if outcome is None:
            self.used(None)

    def used(self, usage: Usage | None) -> None:
        """What the request used; None: nothing was sent. Only the first call counts. Never waits."""
        if not self._settled:
            self._settled = True
            if usage is None:
                self._limits.settle(self, None)
            elif self.state.limit.tpm is not None:
                self._limits.settle(self, usage.total_tokens)


class LimitState:
    """One deployment's or agent's window, and who waits for room in it, in the order of arrival."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.window = Window()
        self.queue: OrderedDict[Turn, None] = OrderedDict()
        self.queued_tokens = 0

    def unavailable(self, now: float, tokens: int) -> Unavailable | None:
        """Why a request may not be sent now; None: it may."""
        return None if self._has_room(now, tokens) else why_not(self.limit, self._room(now, tokens))

    def take(self, limits: RateLimits, now: float, tokens: int) -> Turn | None:
        """A turn that has come; None if there is no room."""
        if not self._has_room(now, tokens):
            return None
        turn = Turn(limits, self, tokens)
        turn.step = self.window.add(now, 1, tokens)
        return turn

    def queue_up(self, limits: RateLimits, now: float, tokens: int) -> Turn:
        """A turn behind all others; it may come at once."""
        turn = Turn(limits, self, tokens)
        self._join(turn, now)
        return turn

    def _has_room(self, now: float, tokens: int) -> bool:
        """No call waits, and it fits."""
        self.window.forget(now)
        if self.queue:
            self.advance(now)
        return not self.queue and self.window.fits(self.limit, tokens)

    def advance(self, now: float, *, changed: bool = False) -> None:
        """Let those at the front go for whom there is room. The next one is woken to see how long it has to
        wait now."""
        self.window.forget(now)
        while self.queue and self.window.fits(self.limit, (turn := next(iter(self.queue))).tokens):
            self._leave(turn)
            changed = True
            if turn.wake():
                turn.step = self.window.add(now, 1, turn.tokens)
        if changed and self.queue:
            next(iter(self.queue)).wake()

    def _join(self, turn: Turn, now: float, *, front: bool = False) -> None:
        """Put a turn into the queue. It may come at once."""
        turn.since = turn.since or now
        turn.share = self._share(turn.tokens)
        self.queue[turn] = None
        self.queued_tokens += turn.share
        if front:
            self.queue.move_to_end(turn, last=False)
        self.advance(now)
        if turn.step is None:
            turn.room = self._room(now, turn.tokens, turn)

    def wait(self, turn: Turn, now: float) -> float:
        """See `Turn.wait`."""
        self.advance(now)
        turn.woken = False
        if turn.since:
            turn.waited, turn.since = turn.waited + now - turn.since, now
        if turn.step is not None:
            self._start(turn, turn.step, now)
        if turn.step is not None:
            turn.since = 0.0
            return 0.0
        turn.room = self._room(now, turn.tokens, turn)
        return turn.room.at - now

    def settle(self, turn: Turn, tokens: int | None, at: float) -> None:
        """See `Turn.used`. More tokens than were reserved count from the instant `at` on."""
        step, turn.step = turn.step, None  # after an interrupt it may be settled again
        if turn in self.queue:
            self._leave(turn)
        elif step is not None and tokens is None:
            self.window.take_back(step, 1, turn.tokens)
        elif step is not None and tokens is not None:
            if tokens <= turn.tokens:
                self.window.take_back(step, 0, turn.tokens - tokens)
            else:
                self.window.add(at, 0, tokens - turn.tokens)
        if self.queue:
            self.advance(at, changed=True)

    def _start(self, turn: Turn, step: Step, now: float) -> None:
        """A turn that has come begins now, so it counts from now on. If it comes so late that others have
        used its room, it is the next."""
        if self.window.renew(step, now):
            return
        self.window.take_back(step, 1, turn.tokens)
        turn.step = None
        if self.window.fits(self.limit, turn.tokens):
            turn.step = self.window.add(now, 1, turn.tokens)
        else:
            self._join(turn, now, front=True)

    def _leave(self, turn: Turn) -> None:
        del self.queue[turn]
        self.queued_tokens -= turn.share

    def _share(self, tokens: int) -> int:
        """What has to be free for so many tokens."""
        return tokens if self.limit.tpm is None else min(tokens, self.limit.tpm)

    def _room(self, now: float, tokens: int, turn: Turn | None = None) -> Room:
        """When `turn`, or a request behind the whole queue, may be sent."""
        requests, before = len(self.queue), self.queued_tokens
        if turn is not None and turn is next(reversed(self.queue)):  # as for nearly every request
            requests, before = requests - 1, before - turn.share
        elif turn is not None:
            ahead = list(takewhile(lambda each: each is not turn, self.queue))
            requests, before = len(ahead), sum(each.share for each in ahead)
        return self.window.room(self.limit, now, requests + 1, before + self._share(tokens))


def why_not(limit: Limit, room: Room) -> Unavailable:
    """Why a limit lets no request through, as the call and its error say it."""
    why = f"its limit {room.limit} is reached"
    if limit.of == "agent":
        error = RateLimitError(f"agent {limit.name} is at its limit {room.limit}")
    else:
        error = RateLimitError(why, backend=limit.name.partition("/")[0], deployment=limit.name)
    return Unavailable(room.at, why, error, cooling=True, limited=True)
