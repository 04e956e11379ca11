"""A native table in the making, for the readers of other tools' shapes.

Knows where in the file each part comes from; must not know any of those shapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from pydantic import TypeAdapter, ValidationError

from ccroute.config.secrets import MISSING, Environment
from ccroute.config.source import Place, Source
from ccroute.config.spelling import is_local_only, misspelt

NOT_ROUTING = "says nothing about which model answers"

_SWITCH = TypeAdapter(bool)


class Draft:
    """Backends, aliases, agents and groups as they are found. Whatever is added has its secrets expanded."""

    def __init__(self, environment: Environment, source: Source) -> None:
        self._environment = environment
        self._source = source
        self.backends: dict[str, dict[str, Any]] = {}
        self.aliases: dict[str, list[str]] = {}
        self.agents: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, dict[str, Any]] = {}

    def table(self) -> dict[str, Any]:
        aliases = {name: found[0] if len(found) == 1 else found for name, found in self.aliases.items()}
        return {"backends": self.backends, "aliases": aliases, "agents": self.agents, "groups": self.groups}

    def alias(self, name: str, deployment: str, place: Place) -> None:
        """One more deployment for a name; several are balanced."""
        deployments = self.aliases.setdefault(name, [])
        if deployment not in deployments:
            deployments.append(deployment)
        self.comes_from(place, "aliases", name)

    def expand(self, value: Any, place: Place) -> Any:
        """The value without references to variables; None if one of them is not set."""
        expanded = self._environment.expand(value, place, self._source)
        return None if expanded is MISSING else expanded

    def comes_from(self, place: Place, *native: str | int) -> None:
        """A fault at `native`, a place in the table, is one at `place` in the file; the first such counts."""
        self._source.renamed.setdefault(native, place)

    def origin(self, *native: str) -> Place:
        return self._source.renamed[native]

    def takes_part(self, entry: object, place: Place) -> TypeGuard[Mapping[str, Any]]:
        """Whether it is a table, and not switched off; if not, that is noted."""
        if not isinstance(entry, Mapping):
            self.ignore(place, NOT_ROUTING)
            return False
        disabled = entry.get("enabled") is False or entry.get("disabled") is True
        if disabled:
            self.ignore(place, "is disabled")
        return not disabled

    def local_only(self, entry: Mapping[str, Any], place: Place) -> bool:
        """Whether the entry says `local_only`, in whatever spelling; a value that is no switch is a fault."""
        found = False
        for key, value in entry.items():
            if is_local_only(key):
                expanded = self._environment.expand(value, (*place, key), self._source)
                try:
                    found |= expanded is MISSING or _SWITCH.validate_python(expanded)
                except ValidationError:
                    self.fault((*place, key), "should be true or false")
        return found

    def pass_over(self, key: str, beside: Iterable[str], place: Place, known: Sequence[str]) -> None:
        """Note a key that is not read; a warning where it seems a known one misspelled.

        A known key that is there `beside` it is not what was meant.
        """
        if is_local_only(key):
            self.fault((*place, key), "belongs to an agent or to a group of agents")
            return
        meant = misspelt(key, known, beside)
        if meant is None:
            self.ignore((*place, key), NOT_ROUTING)
        elif is_local_only(meant):
            self.fault((*place, key), unknown_key(meant))
        else:
            self.warn((*place, key), unknown_key(meant))

    def at(self, place: Place) -> str:
        return self._source.at(place)

    def implied(self, backend: str) -> None:
        """A backend that is needed only if something leads to it."""
        self._source.implied.add(backend)

    def ignore(self, place: Place, reason: str) -> None:
        self._source.ignore(place, reason)

    def warn(self, place: Place, text: str) -> None:
        self._source.warn(place, text)

    def fault(self, place: Place, text: str) -> None:
        self._source.fault(self._source.at(place), text)


def unknown_key(meant: str) -> str:
    return f'unknown key, did you mean "{meant}"?'
