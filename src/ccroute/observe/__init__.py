"""Events of a router, and the listener that logs them.

Must not know what listeners do with an event, and never lets a listener break a call.
"""

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
    Overridden,
    Queued,
    Recovered,
    Retried,
    TurnedAway,
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
    "Overridden",
    "Queued",
    "Recovered",
    "Retried",
    "TurnedAway",
]
