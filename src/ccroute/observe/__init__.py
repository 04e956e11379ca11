"""Events of a router, and the listener that logs them.

Must not know what listeners do with an event, and never lets a listener break a call.
"""

from typing import TYPE_CHECKING

from ccroute.lazy import loader

if TYPE_CHECKING:
    from ccroute.observe.events import (
        AttemptFailed,
        BreakerClosed,
        BreakerOpened,
        CooledDown,
        Event,
        FellBack,
        Interrupted,
        LedgerFailed,
        Listener,
        Loading,
        OverBudget,
        Overridden,
        Queued,
        RateLimited,
        Recovered,
        Reloaded,
        Retried,
        Switched,
        TurnedAway,
        WaitSkipped,
    )

__all__ = [
    "AttemptFailed",
    "BreakerClosed",
    "BreakerOpened",
    "CooledDown",
    "Event",
    "FellBack",
    "Interrupted",
    "LedgerFailed",
    "Listener",
    "Loading",
    "OverBudget",
    "Overridden",
    "Queued",
    "RateLimited",
    "Recovered",
    "Reloaded",
    "Retried",
    "Switched",
    "TurnedAway",
    "WaitSkipped",
]

__getattr__ = loader(__name__, dict.fromkeys(__all__, "ccroute.observe.events"))
