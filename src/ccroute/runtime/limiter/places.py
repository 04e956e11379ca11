"""What the schedule has to know of backends and deployments: limits of hosts, and places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ccroute.backends import Backend
from ccroute.routing.scheduling import Host, HostLimits, Place

if TYPE_CHECKING:
    from ccroute.routing import Deployment


def host_limits(backends: Sequence[Backend]) -> HostLimits | None:
    """The limits of a host from its backends: the smallest count. None: it has no limit."""
    slots = [each.max_concurrency for each in backends if each.max_concurrency is not None]
    memory = [each.memory_gb for each in backends if each.memory_gb is not None]
    if not slots:
        return None
    return HostLimits(min(slots), any(each.loads_models for each in backends), min(memory, default=None))


def place_of(option: Deployment, host: Host) -> Place:
    """Where a deployment is served. At a host that loads no models on demand, all models are alike."""
    if not host.limits.loads_models:
        return host.place
    return Place(option.backend.origin, option.backend.runner(option.model), option.info.memory_gb)
