"""The walk of one call, as generators that yield effects and get their results back.

Knows plans, backends and prices; must not know sockets, loops, threads or time of its own. A
transport's failure comes back as a value; only cancellation and bugs are thrown into a flow.
"""

from ccroute.flow.call import call
from ccroute.flow.call_context import CallContext
from ccroute.flow.effects import Flow
from ccroute.flow.state import RouterState, new_state

__all__ = ["CallContext", "Flow", "RouterState", "call", "new_state"]
