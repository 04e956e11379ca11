"""Collects a router's statistics from its health, load, limiters and connections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ccroute.backends import Backend
from ccroute.flow import RouterState
from ccroute.runtime.limiter import Limiters
from ccroute.types.stats import AgentStats, BackendStats, DeploymentStats, HealthStats, RouterStats

if TYPE_CHECKING:
    from ccroute.http.connections import Connections

_ON = HealthStats.model_construct()


def router_stats(
    backends: Mapping[str, Backend], state: RouterState, limiters: Limiters, connections: Connections
) -> RouterStats:
    """The router's state now, as plain data. Waits only for the locks of its health and its rate limits."""
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
    limits = state.rate_limits.stats()
    deployments = {
        name: DeploymentStats(
            in_flight=in_flight,
            success_rate=rate,
            health=breakers.get(name, _ON),
            limits=limits.get(("deployment", name)),
        )
        for name, (in_flight, rate) in state.load.stats().items()
    }
    agents = {name: AgentStats(limits=each) for (of, name), each in limits.items() if of == "agent"}
    return RouterStats(backends=hosts, deployments=deployments, agents=agents)
