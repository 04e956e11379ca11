"""The state of a router: `stats()` from what it counts itself, `health()` from its backends' lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccroute.flow import Flow, RouterState
from ccroute.flow.listings import check
from ccroute.runtime.drive import AsyncDrive, Drive
from ccroute.runtime.limiter import Limiter
from ccroute.types import BackendHealth
from ccroute.types.inspection.stats import AgentStats, BackendStats, DeploymentStats, HealthStats, RouterStats

if TYPE_CHECKING:
    from ccroute.http.connections import Connections

_ON = HealthStats.model_construct()


def router_stats(state: RouterState, limiter: Limiter, connections: Connections) -> RouterStats:
    """The router's state now, as plain data. Waits only for its locks, and with budgets for its ledger."""
    breakers, credentials = state.health.stats()
    slots, opened = limiter.stats(), connections.stats()
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
    if state.tables.budgets is None:
        return RouterStats(backends=hosts, deployments=deployments, agents=agents)
    from ccroute.flow.budget_stats import budget_stats  # most routers have no budgets

    return RouterStats(backends=hosts, deployments=deployments, agents=agents, budgets=budget_stats(state))


def check_all(state: RouterState, connections: Connections, limiter: Limiter) -> dict[str, BackendHealth]:
    """The health of each backend, by its name."""
    found = {}
    for name, flow in _checks(state).items():
        drive = Drive(flow, connections, limiter)
        drive.advance()
        found[name] = drive.finished()
    return found


async def acheck_all(
    state: RouterState, connections: Connections, limiter: Limiter
) -> dict[str, BackendHealth]:
    """`check_all`, asking all backends at the same time."""
    from anyio import create_task_group  # loaded at its first use

    drives = {name: AsyncDrive(flow, connections, limiter) for name, flow in _checks(state).items()}
    async with create_task_group() as group:
        for drive in drives.values():
            group.start_soon(drive.advance)
    return {name: drive.finished() for name, drive in drives.items()}


def _checks(state: RouterState) -> dict[str, Flow[BackendHealth]]:
    """The check of each backend, for the models that the tables name."""
    used: dict[str, list[str]] = {name: [] for name in state.tables.backends}
    for name in state.tables.known_deployments():
        owner, _, model = name.partition("/")
        used[owner].append(model)
    return {
        name: check(backend, used[name], state.timeout, state.clock)
        for name, backend in state.tables.backends.items()
    }
