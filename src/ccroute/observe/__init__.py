"""What happens inside a router while it works, told to whoever listens.

Knows small values; must not know what they are told for, and never lets a listener break a call.
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
