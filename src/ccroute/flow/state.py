"""What all calls of one router share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from ccroute.accounting import BaseLedger
from ccroute.accounting.counts import Counts
from ccroute.accounting.tokens import TokenCounter, estimate
from ccroute.backends import Backend, Origin
from ccroute.routing import (
    AgentTable,
    AliasTable,
    Health,
    Load,
    RateLimits,
    RefusedParameters,
    RetryBudget,
    Tables,
)
from ccroute.routing.arguments import Configuration
from ccroute.routing.scheduling.waiting_cost import Waits
from ccroute.types import Request, RetryPolicy, Timeout
from ccroute.types.clock import Clock

if TYPE_CHECKING:
    from ccroute.flow.attempt.context import AttemptContext
    from ccroute.observe import Listener
    from ccroute.routing import Deployment
    from ccroute.routing.budgets.budgets import Budgets
    from ccroute.routing.budgets.reservation import Reservation
    from ccroute.routing.scheduling import Grant
    from ccroute.types import LoadedModel

_NO_TABLES: Final = Tables([], AliasTable(), AgentTable({}))


class LimitedHosts(Protocol):
    """The hosts that serve only so many calls at a time, as a flow sees them. Nothing here waits, except that
    `predicted` takes a lock for a moment."""

    def __contains__(self, origin: Origin, /) -> bool: ...

    def predicted(self, option: Deployment, priority: int) -> float:
        """Seconds until it would begin to answer a call that came now, a load included. 0.0 at a host without
        a limit."""
        ...

    def measured(self, grant: Grant, load: float | None, service: float) -> None:
        """A call was answered: the server loaded for `load` seconds (None: unknown) and worked for `service`
        seconds, without loading."""
        ...

    def answered(self, grant: Grant) -> None:
        """A call was answered, or its answer begins: its model is loaded."""
        ...

    def listed(self, backend: Backend, models: Sequence[LoadedModel]) -> None:
        """The backend's server has these models loaded."""
        ...


class RouterState(NamedTuple):
    """The router's tables and policies, where it records and reports, and what it has learned.

    Each call reads the router's state once. A reload replaces it as a whole: calls that run go on with the
    old tables and policies. What was learned is shared by both; it is kept by the identity of a deployment or
    a backend, so only what stays the same finds it again.
    """

    retry: RetryPolicy
    timeout: Timeout
    clock: Clock
    drop_params: bool
    health: Health
    retry_budget: RetryBudget
    rate_limits: RateLimits
    load: Load
    ledger: BaseLedger
    emit: Listener
    refused_parameters: RefusedParameters
    hosts: LimitedHosts
    """The hosts that serve only so many calls at a time."""
    waits: Waits
    counts: Counts
    """What its calls came to."""
    count_tokens: TokenCounter = estimate
    tables: Tables = _NO_TABLES
    baseline: str | None = None
    max_queue: int = 0
    budgets: Budgets | None = None
    """The reservations and the waiting attempts; None until a configuration has budgets."""
    reserve: Callable[[AttemptContext], Reservation | None] | None = None
    """Reserves what an attempt may spend. None: the configuration has no budgets."""

    def configured(self, given: Configuration) -> RouterState:
        """This state with another configuration."""
        on = given.health == "on"
        self.load.measure_latency("latency" in given.tables.aliases.strategies)
        budgets, reserve = self.budgets, None
        if given.tables.budgets is not None:  # most routers have none
            from ccroute.flow.waits import spending
            from ccroute.routing.budgets.budgets import Budgets

            budgets = budgets or Budgets(self.ledger.budget_store(), self.clock)
            reserve = partial(spending.reserve, given.tables.budgets, budgets)
        return self._replace(
            tables=given.tables,
            retry=given.retry,
            timeout=given.timeout,
            baseline=given.baseline,
            drop_params=given.drop_params,
            max_queue=given.max_queue,
            budgets=budgets,
            reserve=reserve,
            health=self.health if self.health.on == on else Health(self.clock, self.emit, on=on),
        )

    def timeout_of(self, request: Request) -> Timeout:
        """The call's own limits over the router's; a bare number is the total."""
        given = request.timeout
        if given is None:
            return self.timeout
        return given if isinstance(given, Timeout) else replace(self.timeout, total=given)

    def after_fork(self) -> None:
        """Replace locks in a forked child, and forget calls that run in the parent."""
        self.health.after_fork()
        self.retry_budget.after_fork()
        self.rate_limits.after_fork()
        self.load.after_fork()
        if self.budgets is not None:
            self.budgets.after_fork()
        self.ledger.after_fork()
        self.counts.restart(self.clock.monotonic())


def new_state(
    clock: Clock,
    emit: Listener,
    ledger: BaseLedger,
    hosts: LimitedHosts,
    count_tokens: TokenCounter | None,
) -> RouterState:
    """The state of a new router, which has no configuration and has learned nothing yet."""
    return RouterState(
        retry=RetryPolicy(),
        timeout=Timeout(),
        clock=clock,
        drop_params=False,
        health=Health(clock, emit),
        retry_budget=RetryBudget(clock.monotonic),
        rate_limits=RateLimits(clock.monotonic),
        load=Load(clock.monotonic),
        ledger=ledger,
        emit=emit,
        refused_parameters=RefusedParameters(),
        hosts=hosts,
        waits=Waits(),
        counts=Counts(clock.monotonic()),
        count_tokens=count_tokens or estimate,
    )
