"""Collects a router's statistics from its health, load, limiters and connections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ccroute.backends import Backend
from ccroute.flow import RouterState
from ccroute.runtime.limiter import Limiters
from ccroute.types.stats import BackendStats, DeploymentStats, HealthStats, RouterStats

if TYPE_CHECKING:
    from ccroute.http.connections import Connections

_ON = HealthStats.model_construct()


def router_stats(
    backends: Mapping[str, Backend], state: RouterState, limiters: Limiters, connections: Connections
) -> RouterStats:
    """The router's state now, as plain data. Waits only for the lock of the router's health."""
    breakers, credentials = state.health.stats()
    slots, opened = limiters.stats(), connections.stats()
    hosts = {}
    for name, backend in backends.items():
        limit, links = slots.get(backend.origin), opened.get(backend.origin)
        hosts[name] = BackendStats(
            in_flight=state.load.in_flight(backend.origin),
            slots=None if limit is None else limit.limit,
            slots_held=0 if limit is None else limit.held,
            queued=0 if limit is None else limit.waiting,
            idle_connections=0 if links is None else links.idle,
            busy_connections=0 if links is None else links.in_use,
            credential=credentials.get(name, _ON),
        )
    deployments = {
        name: DeploymentStats(in_flight=in_flight, success_rate=rate, health=breakers.get(name, _ON))
        for name, (in_flight, rate) in state.load.stats().items()
    }
    return RouterStats(backends=hosts, deployments=deployments)
