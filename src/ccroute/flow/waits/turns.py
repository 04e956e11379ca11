"""The wait of a call for its turn under a rate limit: its agent's, or a deployment's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccroute import observe
from ccroute.flow.effects import Flow, sleep_until_woken
from ccroute.flow.state import RouterState
from ccroute.routing.acquired import Unavailable

if TYPE_CHECKING:
    from ccroute.routing.rate_limits import Turn


def turn_comes(
    turn: Turn, state: RouterState, until: float, *, call: str, agent: str | None, deployment: str | None
) -> Flow[Unavailable | None]:
    """Wait for a turn. If it would not come before the instant `until`, return the reason at once.

    call, agent, deployment: who waits, for the event; `deployment` is None for the agent's own limit.
    """
    emitted = False
    while seconds := turn.wait():
        if state.clock.monotonic() + seconds > until:
            return turn.reason
        if not emitted:
            state.emit(observe.RateLimited(call, agent, deployment, turn.room.limit, seconds))
            emitted = True
        yield from sleep_until_woken(seconds, turn)
    return None
