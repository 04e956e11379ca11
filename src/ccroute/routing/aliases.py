"""Model names → deployments: exact aliases, direct `backend/model` names, then patterns in order."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar, get_args

from ccroute.errors import ConfigError, UnknownModelError
from ccroute.routing.names import close_matches, did_you_mean

Strategy = Literal["weighted", "least-busy", "latency", "cost", "ordered"]
"""How the deployments of one alias are balanced; `ccroute.routing.balance` says what each looks at."""
K = TypeVar("K", bound=str | re.Pattern[str])
Target: TypeAlias = str | Sequence[str] | Mapping[str, float]
"""One name, several that are balanced, or several with their weights."""


class Resolution(NamedTuple):
    """What a name leads to: `backend/model` deployments and their weights, in the table's order."""

    alias: str
    deployments: tuple[str, ...]
    weights: tuple[float, ...]


class AliasTable(Mapping[str, Target]):
    """Aliases and what they stand for; a mapping from each key, as text, to its target.

    A key is a name, a glob (`*` and `?`; each match is carried over into the target's `*` or `?`),
    or a compiled regex that must match the whole name (its groups fill the target's template; as a
    string it is written `"re:…"`). A target is a deployment `backend/model`, another alias, a list
    of these (balanced), or a mapping to weights.

    `strategy` says which of several deployments is tried first: one drawn by "weighted" shares, the
    "least-busy" host, the one with the lowest "latency" or "cost" for the call, or as "ordered" here.

    Cycles, empty targets and dead ends are refused here, all in one `ConfigError`.
    """

    def __init__(
        self,
        aliases: Mapping[K, Target] | None = None,
        *,
        strategy: Strategy = "weighted",
    ) -> None:
        self.strategy: Strategy = strategy
        self._targets: dict[str, Target] = {}
        self._patterns: list[_Pattern] = []
        exact: dict[str, dict[str, float]] = {}
        faults: list[str] = []
        if strategy not in get_args(Strategy):
            faults.append(
                f'strategy: unknown strategy "{strategy}", known are {", ".join(get_args(Strategy))}'
            )
        for key, target in (aliases or {}).items():
            name = _written(key) if isinstance(key, re.Pattern) else key
            self._targets[name] = target
            weights = _weights(target)
            if found := _faults(name, weights):
                faults += found
                weights = {}  # what follows it has no further fault because of this one
            try:
                pattern = _Pattern.of(key, weights)
            except (ValueError, IndexError, re.error) as error:
                faults.append(f"aliases.{name}: {error}")
                continue
            if pattern is None:
                exact[name] = weights
            else:
                self._patterns.append(pattern)
        resolver = _Resolver(exact, self._patterns)
        faults += resolver.faults()
        if faults:
            raise ConfigError(*faults)
        self._exact = {name: _resolution(name, resolver.flatten(name, ())) for name in exact}
        self._resolver = resolver

    def resolve(self, name: str, backends: Collection[str] | None = None) -> Resolution:
        """The deployments `name` stands for.

        `backends` are the names that make `backend/model` a direct deployment; without it every
        name with a slash is one. Raises `UnknownModelError` with close matches.
        """
        known = self._exact.get(name)
        if known is not None:
            return known
        backend, slash, model = name.partition("/")
        if slash and backend and model and (backends is None or backend in backends):
            return Resolution(name, (name,), (1.0,))
        try:
            weights = self._resolver.by_pattern(name, (name,))
        except ValueError as error:  # what a pattern makes of a name is seen only now
            raise UnknownModelError(name, hint=str(error)) from None
        if weights is None:
            close = close_matches(name, self._targets)
            if slash and backends is not None:
                close = (*close, *(f"{known}/{model}" for known in close_matches(backend, backends)))
            raise UnknownModelError(name, close, hint="add it to aliases, or write backend/model")
        return _resolution(name, weights)

    def deployments(self) -> dict[str, list[str]]:
        """Every deployment that an exact alias leads to, with the aliases that do."""
        found: dict[str, list[str]] = {}
        for name, resolution in self._exact.items():
            for deployment in resolution.deployments:
                found.setdefault(deployment, []).append(name)
        return found

    def pattern_targets(self) -> dict[str, tuple[str, ...]]:
        """Each pattern's targets that name a deployment, as written."""
        return {p.name: tuple(t for t in p.targets if "/" in t) for p in self._patterns}

    def __getitem__(self, name: str) -> Target:
        return self._targets[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __len__(self) -> int:
        return len(self._targets)

    def __repr__(self) -> str:
        return f"AliasTable({self._targets!r}, strategy={self.strategy!r})"


@dataclass(frozen=True, slots=True)
class _Pattern:
    """A glob or regex key, its regex, and its targets as templates for `re.Match.expand`."""

    name: str
    regex: re.Pattern[str]
    targets: dict[str, float]

    @classmethod
    def of(cls, key: str | re.Pattern[str], weights: dict[str, float]) -> _Pattern | None:
        if isinstance(key, re.Pattern):
            return cls._checked(_written(key), key, weights)
        if key.startswith("re:"):
            return cls._checked(key, re.compile(key[3:]), weights)
        wildcards = len(_WILDCARD.findall(key))
        if not wildcards:
            return None
        regex = "".join({"*": "(.*)", "?": "(.)"}.get(c, re.escape(c)) for c in key)
        return cls._checked(
            key, re.compile(regex, re.DOTALL), {_template(t, wildcards): w for t, w in weights.items()}
        )

    @classmethod
    def _checked(cls, name: str, regex: re.Pattern[str], targets: dict[str, float]) -> _Pattern:
        # With an empty alternative the regex matches "", so expand() can check each template's groups.
        empty = re.compile(f"{regex.pattern}|", regex.flags).fullmatch("")
        for target in targets:
            if empty is not None:
                empty.expand(target)
        return cls(name, regex, targets)

    def match(self, name: str) -> dict[str, float] | None:
        found = self.regex.fullmatch(name)
        return (
            None
            if found is None
            else {found.expand(target): weight for target, weight in self.targets.items()}
        )


_WILDCARD = re.compile(r"[*?]")
_LONGEST_WAY = 50
"""Names between the first one and its deployments."""


def _template(target: str, wildcards: int) -> str:
    """A glob's target as a template: its n-th wildcard is the key's n-th match."""
    numbers = iter(range(1, wildcards + 1))

    def group(_: re.Match[str]) -> str:
        number = next(numbers, None)
        if number is None:
            raise ValueError(f'target "{target}" has more wildcards than the alias')
        return rf"\g<{number}>"

    return _WILDCARD.sub(group, target.replace("\\", r"\\"))


class _Resolver:
    """Follows aliases of aliases."""

    def __init__(self, exact: Mapping[str, Mapping[str, float]], patterns: Sequence[_Pattern]) -> None:
        self._exact = exact
        self._patterns = patterns

    def flatten(self, name: str, path: tuple[str, ...]) -> dict[str, float]:
        """The deployments behind an exact alias; raises ValueError for a cycle or a dead end."""
        return self._merge(self._exact[name], (*path, name))

    def by_pattern(self, name: str, path: tuple[str, ...]) -> dict[str, float] | None:
        for pattern in self._patterns:
            weights = pattern.match(name)
            if weights is not None:
                return self._merge(weights, path)
        return None

    def faults(self) -> list[str]:
        faults = {}
        for name in self._exact:
            try:
                self.flatten(name, ())
            except ValueError as error:
                faults[name] = str(error)
        return [f"aliases.{name}: {fault}" for name, fault in faults.items()]

    def _merge(self, targets: Mapping[str, float], path: tuple[str, ...]) -> dict[str, float]:
        if len(path) > _LONGEST_WAY:  # a pattern may lead to itself by ever new names
            raise ValueError(f"is a cycle: {' → '.join(path[:3])} → …")
        merged: dict[str, float] = {}
        for target, weight in targets.items():
            for deployment, share in self._follow(target, path).items():
                merged[deployment] = merged.get(deployment, 0) + weight * share
        return merged

    def _follow(self, target: str, path: tuple[str, ...]) -> dict[str, float]:
        # A target equal to its own name is the deployment: `ollama/llama3` → `ollama/llama3` is common.
        if target in self._exact and not (target == path[-1] and "/" in target):
            if target in path:
                raise ValueError(f"is a cycle: {' → '.join((*path, target))}")
            return self.flatten(target, path)
        if "/" in target.strip("/"):
            return {target: 1.0}
        if target not in path:
            matched = self.by_pattern(target, (*path, target))
            if matched is not None:
                return matched
        close = did_you_mean(target, self._exact.keys() - {target})
        raise ValueError(f'"{target}" is neither an alias nor backend/model{close}')


def _written(regex: re.Pattern[str]) -> str:
    """A compiled regex as a file would hold it, flags included."""
    flags = "".join(letter for letter, flag in _FLAGS.items() if regex.flags & flag)
    return f"re:(?{flags}){regex.pattern}" if flags else f"re:{regex.pattern}"


_FLAGS = {"a": re.ASCII, "i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE}


def _weights(target: object) -> dict[str, float]:
    if isinstance(target, str):
        return {target: 1.0}
    if isinstance(target, Mapping):
        return dict(target)
    if isinstance(target, Sequence):
        # What is no name is kept, in a form that can be a key, for its fault to be told.
        named: dict[Any, float] = {tuple(t) if isinstance(t, list | dict) else t: 1.0 for t in target}
        return named
    return {}


def _faults(name: str, weights: Mapping[str, float]) -> list[str]:
    place = f"aliases.{name}"
    if not weights:
        return [f"{place}: has no target; give a deployment such as backend/model"]
    return [
        f"{place}: a target must be a name, not {target!r}"
        for target in weights
        if not isinstance(target, str) or not target.strip()
    ] + [
        f"{place}: the weight of {target} must be a positive number, not {weight!r}"
        for target, weight in weights.items()
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf")
    ]


def _resolution(name: str, weights: Mapping[str, float]) -> Resolution:
    return Resolution(name, tuple(weights), tuple(weights.values()))
