"""Limits the calls at hosts: a call that finds no free slot waits in a queue that threads and tasks share."""

from ccroute.runtime.limiter.limiter import LOOK_EVERY, OVERDUE, UNANSWERED, Limiter, LimiterStats
from ccroute.runtime.limiter.slot import FULL, LATE, STUCK, Slot, Waiter

__all__ = [
    "FULL",
    "LATE",
    "LOOK_EVERY",
    "OVERDUE",
    "STUCK",
    "UNANSWERED",
    "Limiter",
    "LimiterStats",
    "Slot",
    "Waiter",
]
