"""One window and who waits for room in it: the state behind a lock, whose holder calls this.

Knows instants, which are handed in; must not know locks, clocks or what is sent.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

from ccroute.errors import RateLimitError
from ccroute.routing.acquired import AttemptOutcome, Unavailable
from ccroute.routing.rate_limits.window import Limit, Room, Step, Window

if TYPE_CHECKING:
    from ccroute.routing.rate_limits.limits import RateLimits


class Waiter(Protocol):
    """Something that sleeps. `wake` never waits; False: it is gone."""

    def wake(self) -> bool: ...


class Turn:
    """One request's turn under a limit: it waits for it, and then counts until a minute after it began.

    step:   where it is counted; None while it waits.
    room:   when it comes, as far as is known.
    waited: seconds that it waited.
    """

    __slots__ = (
        "_limits",
        "_settled",
        "_since",
        "_waiter",
        "_woken",
        "room",
        "share",
        "state",
        "step",
        "tokens",
        "waited",
    )

    def __init__(self, limits: RateLimits, state: LimitState, tokens: int, now: float) -> None:
        self._limits = limits
        self._settled = False
        self._waiter: Waiter | None = None
        self._woken = False
        self.state = state
        self.tokens = tokens
        self.share = 0
        self.step: Step | None = None
        self.room = Room(now, "")
        self.waited = 0.0
        self._since = now

    @property
    def reason(self) -> Unavailable:
        """Why it has to wait."""
        return why_not(self.state.limit, self.room)

    def wait(self) -> float:
        """Seconds until its turn comes; 0: it has come, the request is sent now and counts from now on.

        Asked again after a sleep of so many seconds, which may end sooner: see `sleeps`.
        """
        return self._limits.wait(self)

    def sleeps(self, waiter: Waiter) -> bool:
        """From now on `waiter` is woken if the turn comes sooner. False: it did so already; do not sleep."""
        self._waiter = waiter
        return not self._woken

    def wake(self) -> bool:
        """Let it look again how long it has to wait. False if the call is gone."""
        self._woken = True
        return self._waiter is None or self._waiter.wake()

    def looks(self, now: float) -> None:
        """It looks how long it has to wait."""
        self._woken = False
        if self.room.limit:
            self.waited = now - self._since

    def settle(self, outcome: AttemptOutcome | None = None) -> None:
        """None: nothing was sent, so give all of it back. An attempt that was made says what it `used`."""
        if outcome is None:
            self.used(None)

    def used(self, tokens: int | None) -> None:
        """The tokens that the request used; None: nothing was sent. Only the first call counts. Never
        waits."""
        if not self._settled:
            self._settled = True
            if tokens is None or self.state.limit.tpm is not None:
                self._limits.settle(self, tokens)


class LimitState:
    """One deployment's or agent's window, and who waits for room in it, in the order of arrival."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.window = Window()
        self.queue: OrderedDict[Turn, None] = OrderedDict()
        self.queued_tokens = 0

    def tokens(self, tokens: int) -> int:
        """What has to be free for so many tokens."""
        return tokens if self.limit.tpm is None else min(tokens, self.limit.tpm)

    def advance(self, now: float, *, changed: bool = False) -> None:
        """Let those at the front go for whom there is room. The next one is woken to see how long it has to
        wait now."""
        self.window.forget(now)
        while self.queue and self.window.fits(self.limit, (turn := next(iter(self.queue))).tokens):
            self.leave(turn)
            changed = True
            if turn.wake():
                turn.step = self.window.add(now, 1, turn.tokens)
        if changed and self.queue:
            next(iter(self.queue)).wake()

    def join(self, turn: Turn, *, front: bool = False) -> None:
        """Put a turn into the queue."""
        self.queue[turn] = None
        turn.share = self.tokens(turn.tokens)
        self.queued_tokens += turn.share
        if front:
            self.queue.move_to_end(turn, last=False)

    def leave(self, turn: Turn) -> None:
        """Take a turn out of the queue."""
        del self.queue[turn]
        self.queued_tokens -= turn.share

    def start(self, turn: Turn, step: Step, now: float) -> None:
        """A turn that has come begins now, so it counts from now on. If it comes so late that others have
        used its room, it is the next."""
        if self.window.renew(step, now):
            return
        self.window.take_back(step, now, 1, turn.tokens)
        if self.window.fits(self.limit, turn.tokens):
            turn.step = self.window.add(now, 1, turn.tokens)
        else:
            turn.step = None
            self.join(turn, front=True)

    def settle(self, turn: Turn, tokens: int | None, now: float) -> None:
        """See `Turn.used`. More tokens than were reserved count from now on."""
        self.window.forget(now)
        if turn in self.queue:
            self.leave(turn)
        elif turn.step is not None and tokens is None:
            self.window.take_back(turn.step, now, 1, turn.tokens)
        elif turn.step is not None and tokens is not None:
            if tokens <= turn.tokens:
                self.window.take_back(turn.step, now, 0, turn.tokens - tokens)
            else:
                self.window.add(now, 0, tokens - turn.tokens)
        self.advance(now, changed=True)

    def room(self, now: float, tokens: int, turn: Turn | None = None) -> Room:
        """When `turn`, or a request behind the whole queue, may be sent."""
        requests, before = len(self.queue), self.queued_tokens
        if turn is not None:
            requests = before = 0
            for each in self.queue:
                if each is turn:
                    break
                requests, before = requests + 1, before + each.share
        return self.window.room(self.limit, now, requests + 1, before + self.tokens(tokens))


def why_not(limit: Limit, room: Room) -> Unavailable:
    """Why a limit lets no request through, as the call and its error say it."""
    why = f"its limit of {room.limit} is reached"
    if limit.of == "agent":
        error = RateLimitError(f"agent {limit.name}: {why}")
    else:
        error = RateLimitError(why, backend=limit.name.partition("/")[0], deployment=limit.name)
    return Unavailable(room.at, why, error, cooling=True, limited=True)
