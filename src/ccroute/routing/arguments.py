"""What a router is built from, checked: every fault is collected before one error tells them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from ccroute.backends import Backend
from ccroute.errors import ConfigError

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
        if self:
            raise ConfigError(*self)


def check_backends(given: object) -> list[Backend]:
    """The backends as a list; anything else among them is told by what it is."""
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
