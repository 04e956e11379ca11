"""Checks a router's arguments: one error lists all faults."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from ccroute.accounting import PriceBook
from ccroute.accounting.prices import PriceLike
from ccroute.backends import Backend
from ccroute.errors import ConfigError
from ccroute.routing.agents import Agent, AgentTable
from ccroute.routing.aliases import AliasTable, Target
from ccroute.routing.tables import Tables

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


def make_tables(
    faults: Faults,
    backends: object,
    aliases: AliasTable | Mapping[str, Target] | None,
    agents: Mapping[str, Agent | str] | None,
    groups: Mapping[str, Agent] | None,
    prices: PriceBook | Mapping[str, PriceLike] | None,
    **options: Any,
) -> Tables:
    """A router's tables from its arguments, and from `options` for `Tables`. Raises `ConfigError` with
    `faults` and all faults of the arguments."""
    hosts = faults.collect(lambda: check_backends(backends), list[Backend]())
    table = faults.collect(
        lambda: aliases if isinstance(aliases, AliasTable) else AliasTable(aliases), AliasTable()
    )
    known = faults.collect(lambda: AgentTable({} if agents is None else agents, groups), AgentTable({}))
    book = faults.collect(lambda: prices if isinstance(prices, PriceBook) else PriceBook(prices), PriceBook())
    faults.raise_if_any()
    return Tables(hosts, table, known, prices=book, **options)
