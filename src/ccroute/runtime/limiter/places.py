"""What the schedule has to know of backends and deployments: limits of hosts, and places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ccroute.backends import Backend
from ccroute.routing.scheduling import HostLimits, Place

if TYPE_CHECKING:
    from ccroute.routing import Deployment


def host_limits(backends: Sequence[Backend]) -> HostLimits | None:
    """The limits of a host from its backends: the smallest count. None: it has no limit."""
    slots = [each.max_concurrency for each in backends if each.max_concurrency is not None]
    memory = [each.memory_gb for each in backends if each.memory_gb is not None]
    if not slots:
        return None
    return HostLimits(min(slots), any(map(loads_models, backends)), min(memory, default=None))


def place_of(option: Deployment, limits: HostLimits) -> Place:
    """Where a deployment is served. At a host that loads no models on demand, all models are alike."""
    if not limits.loads_models:
        return Place(option.backend.origin, "")
    return Place(option.backend.origin, runner(option.backend, option.model), option.info.memory_gb)


def loads_models(backend: Backend) -> bool:
    """Whether the server loads models on demand."""
    return backend.kind == "ollama" or backend.memory_gb is not None


def runner(backend: Backend, model: str) -> str:
    """What the server loads for a model."""
    return backend.names(model)[0]
