"""The state of a router at one moment, as plain data: `router.stats()`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Literal, TypeVar

from ccroute.display import rounded_usd
from ccroute.types.route import Frozen

HealthState = Literal["on", "off", "probing", "cooling"]
"""on: gets calls. off: a breaker is open, or a key or a model was refused. probing: one call is on its way to
find out whether it answers again. cooling: the server asked for a pause."""


class HealthStats(Frozen):
    """Whether something gets calls. After `seconds_left` one call probes it, or the pause ends."""

    state: HealthState = "on"
    reason: str = ""
    seconds_left: float = 0.0


class LimitStats(Frozen):
    """The rate limits of a deployment or an agent: `requests` and `tokens` of the last minute count towards
    `rpm` and `tpm` (None: no limit, and not counted). `waiting` calls wait for room."""

    rpm: int | None = None
    requests: int = 0
    tpm: int | None = None
    tokens: int = 0
    waiting: int = 0


class CallCounts(Frozen):
    """What calls came to since the router began, in the columns of a report.

    requests: calls whose deciding attempt is among these `attempts`, of which `failures` failed.
    wait:     seconds that all attempts waited before they began: for a slot, a rate limit or a budget.
    loads:    the attempts for which a server loaded the model, which took `load_seconds` in all.
    """

    requests: int = 0
    attempts: int = 0
    failures: int = 0
    wait: float = 0.0
    loads: int = 0
    load_seconds: float = 0.0


class DeploymentStats(Frozen):
    """One deployment that was asked before. `success_rate` is the share of its recent calls that succeeded,
    0 to 1; `limits` is None where it has none; `counts` are since the router began."""

    in_flight: int = 0
    success_rate: float = 1.0
    health: HealthStats = HealthStats.model_construct()
    limits: LimitStats | None = None
    counts: CallCounts = CallCounts.model_construct()


class AgentStats(Frozen):
    """One agent with a limit that made a call."""

    limits: LimitStats


class ModelStats(Frozen):
    """A model of a host that loads models on demand, as its answers and its server's lists have shown.

    loaded_for: seconds since its load began, or since it was seen first; None: it is not loaded.
    usual_load: seconds that it takes to load; None: not measured.
    waiting:    calls that wait for it. A call that several hosts may serve counts at each.
    """

    loaded_for: float | None = None
    usual_load: float | None = None
    waiting: int = 0


class BackendStats(Frozen):
    """One backend's host. Backends at one origin share its slots, queue, models and connections.

    in_flight:          calls to the host that have not ended, those in the queue included.
    slots:              how many calls the host serves at a time; None where there is no limit.
    slots_held, queued: slots that are taken, and calls that wait for one.
    models:             the models of a host with a limit that loads them on demand.
    idle_connections, busy_connections: open connections; always 0 with a `transport=` of your own.
    credential:         the health of its key.
    counts:             of this backend's calls, since the router began.
    """

    in_flight: int = 0
    slots: int | None = None
    slots_held: int = 0
    queued: int = 0
    models: Mapping[str, ModelStats] = {}
    idle_connections: int = 0
    busy_connections: int = 0
    credential: HealthStats = HealthStats.model_construct()
    counts: CallCounts = CallCounts.model_construct()


class BudgetStats(Frozen):
    """One budget and its window. Money is USD.

    limit, spent, reserved: in this window: the most that may be spent (None: any amount), what is spent, and
                            what the calls in flight may still cost. `token_limit`, `tokens_spent` and
                            `tokens_reserved` are the same in tokens.
    waiting:                calls that wait for this budget.
    resets_at:              when the window ends (UTC); None: never.

    `spent` and `reserved` are None if the ledger cannot be read. For a budget of each session, they are None
    in `stats()`: ask `explain(session=…)`.
    """

    name: str
    per: str
    then: str
    limit: Decimal | None = None
    spent: Decimal | None = None
    reserved: Decimal | None = None
    token_limit: int | None = None
    tokens_spent: int | None = None
    tokens_reserved: int | None = None
    waiting: int = 0
    resets_at: datetime | None = None

    def __str__(self) -> str:
        parts = []
        if self.limit is not None:
            parts.append(_so_far(self.limit, self.spent, self.reserved, rounded_usd))
        if self.token_limit is not None:
            parts.append(_so_far(self.token_limit, self.tokens_spent, self.tokens_reserved, _tokens))
        if self.waiting:
            parts.append(f"{self.waiting} waiting")
        ends = "" if self.resets_at is None else f" until {self.resets_at:%Y-%m-%d %H:%M} UTC"
        window = "in total" if self.per == "total" else f"per {self.per}{ends}"
        return f"budget {self.name}: {', '.join(parts)}; {window}"


A = TypeVar("A", Decimal, int)


def _so_far(limit: A, spent: A | None, reserved: A | None, written: Callable[[A], str]) -> str:
    if spent is None or reserved is None:
        return f"at most {written(limit)}"
    held = f" and {written(reserved)} reserved" if reserved else ""
    return f"{written(spent)} of {written(limit)} spent{held}"


def _tokens(number: int) -> str:
    return f"{number:,} tokens"


class RouterStats(Frozen):
    """A router at one moment, by the names of backends, deployments, agents and budgets.

    uptime: seconds since it began; `counts` are those of all calls that ended since then.
    """

    backends: Mapping[str, BackendStats]
    deployments: Mapping[str, DeploymentStats]
    agents: Mapping[str, AgentStats] = {}
    budgets: Mapping[str, BudgetStats] = {}
    uptime: float = 0.0
    counts: CallCounts = CallCounts.model_construct()
