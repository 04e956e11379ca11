"""Requests and tokens per minute: limits, the window in which they count, and turns under them."""

from ccroute.routing.rate_limits.limits import RateLimits
from ccroute.routing.rate_limits.turns import Turn
from ccroute.routing.rate_limits.window import Limit, Room

__all__ = ["Limit", "RateLimits", "Room", "Turn"]
