"""The state of a router: `stats()` from what it counts itself, `health()` from its backends' lists."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from functools import reduce
from typing import TYPE_CHECKING

from ccroute.accounting.counts import Count
from ccroute.flow import Flow, RouterState
from ccroute.flow.listings import check
from ccroute.runtime.drive import AsyncDrive, Drive
from ccroute.runtime.limiter import Limiter
from ccroute.types import BackendHealth
from ccroute.types.inspection.stats import (
    AgentStats,
    BackendStats,
    CallCounts,
    DeploymentStats,
    HealthStats,
    RouterStats,
)

if TYPE_CHECKING:
    from ccroute.http.connections import Connections

_ON = HealthStats.model_construct()


def router_stats(state: RouterState, limiter: Limiter, connections: Connections) -> RouterStats:
    """The router's state now, as plain data. Waits only for its locks, and with budgets for its ledger."""
    breakers, credentials = state.health.stats()
    counts = state.counts.by_deployment()
    of_backends = defaultdict[str, Count](Count)
    for (name, _), count in counts.items():
        of_backends[name] = of_backends[name].plus(count)
    slots, models, opened = limiter.stats(), limiter.models(), connections.stats()
    backends, hosts = state.tables.backends, {}
    for name, backend in backends.items():
        limit, links = slots.get(backend.origin), opened.get(backend.origin)
        hosts[name] = BackendStats(
            in_flight=state.load.in_flight(backend.origin),
            slots=None if limit is None else limit.limit,
            slots_held=0 if limit is None else limit.held,
            queued=0 if limit is None else limit.waiting,
            models=models.get(backend.origin, {}),
            idle_connections=0 if links is None else links.idle,
            busy_connections=0 if links is None else links.in_use,
            credential=credentials.get(backend.credential_identity, _ON),
            counts=_shown(of_backends[name]),
        )
    limits = state.rate_limits.stats()
    current = {backend.identity for backend in backends.values()}
    deployments = {
        load.name: DeploymentStats(
            in_flight=load.in_flight,
            success_rate=load.success_rate,
            health=breakers.get(identity, _ON),
            limits=limits.get(("deployment", identity)),
            counts=_shown(counts.get((load.name.partition("/")[0], load.name))),
        )
        for identity, load in state.load.stats().items()
        if load.backend in current
    }
    agents = {name: AgentStats(limits=each) for (of, name), each in limits.items() if of == "agent"}
    budgets = {}
    if state.tables.budgets is not None:
        from ccroute.flow.budget_stats import budget_stats  # most routers have no budgets

        budgets = budget_stats(state)
    return RouterStats(
        backends=hosts,
        deployments=deployments,
        agents=agents,
        budgets=budgets,
        uptime=state.clock.monotonic() - state.counts.since,
        counts=_shown(reduce(Count.plus, counts.values(), Count())),
    )


def _shown(count: Count | None) -> CallCounts:
    return CallCounts() if count is None else CallCounts(**asdict(count))


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
