"""Which waiting call gets a free slot at which host: decided by the models that are loaded there.

Pure: no lock, no clock, no I/O. `runtime.limiter` drives `Hosts`; a simulator drives it in virtual time.
"""

from __future__ import annotations

from ccroute.routing.scheduling.estimates import Estimate
from ccroute.routing.scheduling.host import Grant, Host, HostLimits, Loaded
from ccroute.routing.scheduling.hosts import Hosts
from ccroute.routing.scheduling.places import Choice, Place, Queue
from ccroute.routing.scheduling.policies import RECHECK, ArrivalOrder, LoadedFirst, Scheduler

__all__ = [
    "RECHECK",
    "ArrivalOrder",
    "Choice",
    "Estimate",
    "Grant",
    "Host",
    "HostLimits",
    "Hosts",
    "Loaded",
    "LoadedFirst",
    "Place",
    "Queue",
    "Scheduler",
]
