"""Checks a router's arguments, when it is made and when it is reloaded: one error lists all faults."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from ccroute.accounting import BaseLedger, MemoryLedger, PriceBook, open_ledger
from ccroute.backends import Backend
from ccroute.errors import ConfigError
from ccroute.routing.plan import warn_of_remote
from ccroute.routing.tables.agents import AgentTable
from ccroute.routing.tables.aliases import AliasTable
from ccroute.routing.tables.prices import how_to_compare, is_known, warn_of_unpriced, warn_of_unused
from ccroute.routing.tables.tables import Tables
from ccroute.types import RetryPolicy, Timeout

T = TypeVar("T")


class Faults(list[str]):
    """The faults of a router's arguments; it starts with every keyword that has a value of the wrong type."""

    def __init__(self, **given: tuple[object, Any, str]) -> None:
        super().__init__(
            f"{name}= takes {what}, not {type(value).__name__}"
            for name, (value, kind, what) in given.items()
            if not isinstance(value, kind)
        )

    def collect(self, make: Callable[[], T], otherwise: T) -> T:
        """The result of `make`; if that raises `ConfigError`, add its faults and return `otherwise`."""
        try:
            return make()
        except ConfigError as error:
            self += error.faults
        return otherwise

    def raise_if_any(self) -> None:
        """Raise one `ConfigError` with all faults, if there are any."""
        if self:
            raise ConfigError(*self)


def check_backends(given: object) -> list[Backend]:
    """The backends as a list. Raises `ConfigError` for each value that is not a backend."""
    if isinstance(given, Backend | str | Mapping) or not isinstance(given, Iterable):
        raise ConfigError(f"backends: give a list of backends, not {type(given).__name__}")
    backends = list(given)
    if faults := [
        f"backends[{i}]: give a Backend such as OllamaBackend(), not {type(each).__name__}"
        for i, each in enumerate(backends)
        if not isinstance(each, Backend)
    ]:
        raise ConfigError(*faults)
    return backends


class Configuration(NamedTuple):
    """The checked arguments. The fields are those of `Router`. A reload replaces all but the ledger, which is
    not open yet; `made_ledger`: it was made here, so its router closes it."""

    tables: Tables
    retry: RetryPolicy
    timeout: Timeout
    baseline: str | None
    drop_params: bool
    health: str
    max_queue: int
    ledger: BaseLedger
    made_ledger: bool


def checked(
    backends: object,
    aliases: Any = None,
    agents: Any = None,
    *,
    retry: Any = None,
    timeout: Any = None,
    prices: Any = None,
    ledger: object = None,
    baseline: Any = None,
    groups: Any = None,
    drop_params: bool = False,
    health: Any = "on",
    max_queue: Any = 1000,
    on_event: object = None,
    trust_env: object = False,
    count_tokens: object = None,
    transport: object = None,
    scheduler: object = None,
    **of_tables: Any,
) -> Configuration:
    """A router's configuration from its keyword arguments, with the same defaults.

    `of_tables` are arguments of `Tables`. Raises `ConfigError` with all faults; logs a warning for each price
    that is never used, and for each agent and each budget that would always refuse calls.
    """
    faults = Faults(
        retry=(retry, RetryPolicy | None, "a RetryPolicy"),
        timeout=(timeout, Timeout | int | float | None, "a number of seconds or a Timeout"),
        max_queue=(max_queue, int, "a number of calls"),
        on_event=(on_event, Callable | None, "a function of one event"),
        default_model=(of_tables.get("default_model"), str | None, "a model's name"),
        baseline=(baseline, str | None, "a model's name"),
    )
    if health not in ("on", "off"):
        faults.append(f'health= is "on" or "off", not {health!r}')
    if inspect.iscoroutinefunction(on_event):
        faults.append("on_event= takes a plain function, because a coroutine would not be awaited")
    if scheduler is not None and (
        isinstance(scheduler, type) or not callable(getattr(scheduler, "choose", None))
    ):
        faults.append(
            f"scheduler= takes an object with a method choose, such as LoadedFirst(), not {scheduler!r:.80}"
        )
    if isinstance(max_queue, int) and max_queue < 0:
        faults.append(f"max_queue= is a number of calls, 0 or more, not {max_queue}")
    memory: tuple[BaseLedger, bool] = MemoryLedger(), True
    store, made_ledger = faults.collect(lambda: open_ledger(ledger), memory)
    hosts = faults.collect(lambda: check_backends(backends), list[Backend]())
    table = faults.collect(
        lambda: aliases if isinstance(aliases, AliasTable) else AliasTable(aliases), AliasTable()
    )
    known = faults.collect(lambda: AgentTable({} if agents is None else agents, groups), AgentTable({}))
    book = faults.collect(lambda: prices if isinstance(prices, PriceBook) else PriceBook(prices), PriceBook())
    faults.raise_if_any()
    tables = Tables(hosts, table, known, prices=book, **of_tables)
    warn_of_unused(tables, baseline)
    warn_of_remote(tables)
    if tables.budgets is not None:
        from ccroute.routing.budgets.warnings import warn_of_refusals  # most routers have none

        warn_of_refusals(tables)
    if baseline is not None and not is_known(tables, baseline):
        raise ConfigError(f'baseline: unknown model "{baseline}"; {how_to_compare(baseline)}')
    if baseline is not None:
        warn_of_unpriced(tables, baseline)
    return Configuration(
        tables,
        retry or RetryPolicy(),
        Timeout(total=timeout) if isinstance(timeout, int | float) else timeout or Timeout(),
        baseline,
        drop_params,
        health,
        max_queue,
        store,
        made_ledger,
    )
