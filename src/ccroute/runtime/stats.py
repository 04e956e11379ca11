"""Collects a router's statistics from its health, load, limiters and connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccroute.flow import RouterState
from ccroute.runtime.limiter import Limiters
from ccroute.types.inspection.stats import AgentStats, BackendStats, DeploymentStats, HealthStats, RouterStats

if TYPE_CHECKING:
    from ccroute.http.connections import Connections

_ON = HealthStats.model_construct()


def router_stats(state: RouterState, limiters: Limiters, connections: Connections) -> RouterStats:
    """The router's state now, as plain data. Waits only for the locks of its health and its rate limits."""
    breakers, credentials = state.health.stats()
    slots, opened = limiters.stats(), connections.stats()
    backends, hosts = state.tables.backends, {}
    for name, backend in backends.items():
        limit, links = slots.get(backend.origin), opened.get(backend.origin)
        hosts[name] = BackendStats(
            in_flight=state.load.in_flight(backend.origin),
            slots=None if limit is None else limit.limit,
            slots_held=0 if limit is None else limit.held,
            queued=0 if limit is None else limit.waiting,
            idle_connections=0 if links is None else links.idle,
            busy_connections=0 if links is None else links.in_use,
            credential=credentials.get(backend.credential_identity, _ON),
        )
    limits = state.rate_limits.stats()
    current = {backend.identity for backend in backends.values()}
    deployments = {
        load.name: DeploymentStats(
            in_flight=load.in_flight,
            success_rate=load.success_rate,
            health=breakers.get(identity, _ON),
            limits=limits.get(("deployment", identity)),
        )
        for identity, load in state.load.stats().items()
        if load.backend in current
    }
    agents = {name: AgentStats(limits=each) for (of, name), each in limits.items() if of == "agent"}
    return RouterStats(backends=hosts, deployments=deployments, agents=agents)
