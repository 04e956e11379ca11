"""Checks that every name of a model or a backend exists, once all sources are merged."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ccroute.errors import ConfigError, UnknownModelError
from ccroute.routing import AliasTable
from ccroute.routing.names import did_you_mean
from ccroute.routing.tables.aliases import Strategy, Target, targets

Aliases: TypeAlias = dict[str | re.Pattern[str], Target]

# A wildcard or a group of a pattern: its backend is known only when a name matches.
_TEMPLATE = re.compile(r"[*?\\]")

_FEW = 3
"""As many places that use an unknown name are listed."""

STAND_IN = "-/-"
"""The target of an alias whose own target has a fault."""


def alias_name(key: str | re.Pattern[str]) -> str:
    return f"re:{key.pattern}" if isinstance(key, re.Pattern) else key


def alias_table(aliases: Aliases, strategy: Strategy) -> tuple[AliasTable, dict[str, list[str]]]:
    """The alias table, and its faults by name.

    A table with faults is replaced by one with the same names, so that a faulty alias is reported once.
    """
    try:
        return AliasTable(aliases, strategy=strategy), {}
    except ConfigError as error:
        faults = error.faults
    names = sorted(map(alias_name, aliases), key=len, reverse=True)
    located: dict[str, list[str]] = {}
    for fault in faults:
        name = next(name for name in names if fault.startswith(f"aliases.{name}: "))
        located.setdefault(name, []).append(fault.removeprefix(f"aliases.{name}: "))
    usable = {key: STAND_IN for key in aliases if not _is_broken(alias_name(key))}
    return AliasTable(usable), located


def with_callers(over: Mapping[Any, Any], under: Mapping[str, Target]) -> Aliases:
    """The caller's aliases first, then those of the sources that they do not replace."""
    names = set(map(alias_name, over))
    return {**over, **{name: target for name, target in under.items() if name not in names}}


def _is_broken(name: str) -> bool:
    if name.startswith("re:"):
        try:
            re.compile(name[3:])
        except re.error:
            return True
    return False


@dataclass(slots=True)
class Directory:
    """The names of backends and aliases. `wanted` are the well-known backends that a name needs.

    `unknown` has a message for each unknown name, with the places that use it. `absent` has names that a
    source does not give a target, each with the reason.
    """

    table: AliasTable
    names: frozenset[str]
    backends: set[str]
    disabled: set[str]
    well_known: Collection[str]
    absent: Mapping[str, str]
    wanted: list[str] = field(default_factory=list)
    _unknown: dict[str, list[str]] = field(default_factory=dict)
    _undefined: dict[str, str] = field(default_factory=dict)

    def check_alias(self, name: str, target: object, where: str) -> None:
        """Check that an alias's deployments have a backend."""
        for deployment in target_names(target):
            backend, slash, _ = deployment.partition("/")
            is_alias = deployment in self.names and deployment != name
            if slash and deployment != STAND_IN and not is_alias and not _TEMPLATE.search(backend):
                self._check_backend(backend, deployment, where)

    def check_model(self, name: str, where: str) -> None:
        """Check that a model's name exists."""
        try:
            self.table.resolve(name, self.backends)
        except UnknownModelError:
            backend, slash, model = name.partition("/")
            if name in self.absent:
                self._report(absence(name, self.absent), where)
            elif slash and model:
                self._check_backend(backend, name, where)
            else:
                self._undefined.setdefault(name, f'unknown alias "{name}"{did_you_mean(name, self.names)}')
                self._report(self._undefined[name], where)

    def faults(self) -> list[tuple[str, str]]:
        """Every unknown name with the places that use it. The last alias of them says how to define all."""
        unlike = [name for name, text in self._undefined.items() if text.endswith(f'"{name}"')]
        targets = ", ".join(f'"{name}": "backend/model"' for name in unlike)
        each = "each" if len(unlike) > 1 else "it"
        advice = f"; give {each} a target, as in aliases={{{targets}}}"
        last = self._undefined[unlike[-1]] if unlike else None
        return [
            (joined(users), text + advice if text == last else text) for text, users in self._unknown.items()
        ]

    def _check_backend(self, backend: str, name: str, where: str) -> None:
        if backend in self.backends:
            return
        if backend in self.disabled:
            self._report(f'backend "{backend}" of "{name}" is disabled', where)
        elif backend in self.well_known:
            self.backends.add(backend)
            self.wanted.append(backend)
        else:
            close = did_you_mean(name, self.names) or did_you_mean(
                backend, {*self.backends, *self.well_known}
            )
            self._report(f'unknown backend "{backend}" in "{name}"{close}', where)

    def _report(self, text: str, where: str) -> None:
        self._unknown.setdefault(text, []).append(where)


def joined(users: Sequence[str]) -> str:
    """`a, b and 30 more`."""
    if len(users) <= _FEW:
        return ", ".join(users)
    return f"{users[0]}, {users[1]} and {len(users) - 2} more"


def absence(name: str, absent: Mapping[str, str]) -> str:
    """The fault of a name that a source has, but gives no target."""
    return f'"{name}" leads nowhere, because {absent[name]}'


def target_names(target: object) -> list[str]:
    target = targets(target)
    if isinstance(target, str):
        return [target]
    names = target if isinstance(target, Mapping | Sequence) else ()
    return [name for name in names if isinstance(name, str)]
