"""A router's arguments, checked: every fault is collected before one error lists them all."""

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
    """What is wrong with a router's arguments: first every keyword whose value is of the wrong kind."""

    def __init__(self, **given: tuple[object, Any, str]) -> None:
        super().__init__(
            f"{name}= takes {what}, not {type(value).__name__}"
            for name, (value, kind, what) in given.items()
            if not isinstance(value, kind)
        )

    def collect(self, make: Callable[[], T], otherwise: T) -> T:
        """What `make` gives; if it raises `ConfigError`, its faults are collected."""
        try:
            return make()
        except ConfigError as error:
            self += error.faults
        return otherwise

    def raise_if_any(self) -> None:
        """One `ConfigError` with all of them."""
        if self:
            raise ConfigError(*self)


def check_backends(given: object) -> list[Backend]:
    """The backends as a list. Raises `ConfigError` for anything else among them."""
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
    """A router's tables from its arguments; `options` are those of `Tables`. Raises `ConfigError` with
    `faults` and everything else that is wrong."""
    nobody: list[Backend] = []
    hosts = faults.collect(lambda: check_backends(backends), nobody)
    table = faults.collect(
        lambda: aliases if isinstance(aliases, AliasTable) else AliasTable(aliases), AliasTable()
    )
    known = faults.collect(lambda: AgentTable({} if agents is None else agents, groups), AgentTable({}))
    book = faults.collect(lambda: prices if isinstance(prices, PriceBook) else PriceBook(prices), PriceBook())
    faults.raise_if_any()
    return Tables(hosts, table, known, prices=book, **options)
