"""The walk of one call, as generators that yield effects and get their results back.

Knows plans, backends and prices; must not know sockets, loops, threads or time of its own. A
transport's failure comes back as a value; only cancellation and bugs are thrown into a flow.
"""

from ccroute.flow.call import call
from ccroute.flow.context import Ticket
from ccroute.flow.desk import Desk
from ccroute.flow.discover import discover
from ccroute.flow.effects import Effect, Emit, Enter, Failure, Flow, Leave, Read, Record, Reply, Send, Sleep
from ccroute.flow.log import CallLog

__all__ = [
    "CallLog",
    "Desk",
    "Effect",
    "Emit",
    "Enter",
    "Failure",
    "Flow",
    "Leave",
    "Read",
    "Record",
    "Reply",
    "Send",
    "Sleep",
    "Ticket",
    "call",
    "discover",
]
