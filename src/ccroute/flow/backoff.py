"""How long a call waits before it asks the same deployment again. The only user of tenacity."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from ccroute.errors import CcrouteError
from ccroute.types import RetryPolicy

if TYPE_CHECKING:
    from tenacity import RetryCallState

POLL, LONGEST_POLL = 0.25, 2.0
"""Seconds until a server that is loading is asked again, doubling up to the longest, less some jitter."""
_MOST_DOUBLINGS = 64

_log = logging.getLogger("ccroute")


def poll_wait(polls: int, asked: float | None, random: Callable[[], float]) -> float:
    """Seconds until a server that is loading is asked again. `polls`: how often it was asked again before.

    asked: the seconds that the server asks for; ignored if they are less than `POLL`.
    """
    if asked is not None and asked >= POLL:
        return asked
    longest = min(LONGEST_POLL, POLL * 2.0 ** min(polls, _MOST_DOUBLINGS))
    return longest * (1 + random()) / 2


def backoff(policy: RetryPolicy, tries: int, error: CcrouteError, random: Callable[[], float]) -> float:
    """Seconds before a deployment is tried again that has failed `tries` times, the last time with `error`.

    Full jitter, `uniform(0, min(max, base * 2**n))` before the n-th retry, counted from 0; or as the policy's
    own strategy says.
    """
    if policy.wait is not None:
        try:
            return _strategy_wait(policy.wait, tries, error)
        except Exception as fault:  # a fallback may still answer
            _log.error("RetryPolicy.wait raised %s: waiting as without it", type(fault).__name__)
    return random() * min(policy.max, policy.base * 2.0 ** min(tries - 1, _MOST_DOUBLINGS))


def _strategy_wait(wait: Callable[[RetryCallState], float], tries: int, error: CcrouteError) -> float:
    """Seconds, as tenacity's strategy says of the failed attempt."""
    from tenacity import RetryCallState, Retrying  # only a policy with a strategy of its own needs it

    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = tries
    state.set_exception((type(error), error, error.__traceback__))
    return max(0.0, float(wait(state)))
