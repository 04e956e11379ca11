"""Requests and tokens per minute: limits, the window in which they count, and turns under them.

A router without limits loads only `RateLimits`.
"""

from typing import TYPE_CHECKING

from ccroute.lazy import loader
from ccroute.routing.rate_limits.limits import RateLimits

if TYPE_CHECKING:
    from ccroute.routing.rate_limits.turns import Turn
    from ccroute.routing.rate_limits.window import Limit

__all__ = ["Limit", "RateLimits", "Turn"]

__getattr__ = loader(
    __name__,
    {
        "Limit": "ccroute.routing.rate_limits.window",
        "Turn": "ccroute.routing.rate_limits.turns",
    },
)
