"""Finds the deployments of a model name: exact aliases, `backend/model` names, then patterns in order."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, NotRequired, TypeAlias, TypeGuard, TypeVar, get_args

from typing_extensions import TypedDict  # pydantic reads it, and wants this one before Python 3.12

from ccroute.errors import ConfigError, UnknownModelError
from ccroute.routing.names import close_matches, did_you_mean

Strategy = Literal["weighted", "least-busy", "latency", "cost", "ordered"]
"""How the deployments of one alias are balanced; see `AliasTable`."""
K = TypeVar("K", bound=str | re.Pattern[str])


class Balanced(TypedDict):
    """Several targets, as a list or with their weights, and the alias's own strategy."""

    targets: str | Sequence[str] | Mapping[str, float]
    strategy: NotRequired[Strategy]


Target: TypeAlias = str | Sequence[str] | Mapping[str, float] | Balanced
"""One name, a list of names, names with weights, or one of these with a strategy."""


class Resolution(NamedTuple):
    """The `backend/model` deployments of a name in the table's order, their weights and strategy."""

    alias: str
    deployments: tuple[str, ...]
    weights: tuple[float, ...]
    strategy: Strategy = "weighted"


class AliasTable(Mapping[str, Target]):
    """A mapping from aliases, as text, to their targets.

    A key is a name, a glob (the text of its `*` and `?` fills the target's `*` and `?`), or a compiled
    regex that must match the whole name (its groups fill the target's template; as a string it is written
    `"re:…"`). A target is a deployment `backend/model`, another alias, a list of these (balanced), or a
    mapping to weights. `{"targets": …, "strategy": …}` adds a strategy to any of them.

    `strategy` decides which of several deployments is tried first: one drawn by "weighted" shares, the
    "least-busy" host, the one with the lowest "latency" or "cost" for the call, or the first as "ordered"
    here. An alias without a strategy has that of its target, if this is one other alias, or else the table's.

    Raises one `ConfigError` with every cycle, empty target and target that does not exist.
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
        exact: dict[str, _Entry] = {}
        faults: list[str] = []
        if not isinstance(aliases, Mapping | None):
            raise ConfigError(f"aliases: give a mapping of names to targets, not {type(aliases).__name__}")
        if fault := _strategy_fault(strategy):
            faults.append(f"strategy: {fault}")
        for key, target in (aliases or {}).items():
            if not isinstance(key, str | re.Pattern):
                faults.append(f"aliases: an alias is a str or a compiled regex, not {key!r}")
                continue
            name = _regex_key(key) if isinstance(key, re.Pattern) else key
            self._targets[name] = target
            entry, found = _entry(target)
            faults += [f"aliases.{name}: {fault}" for fault in found]
            if found:
                entry = _Entry({}, None)  # without targets, so this fault causes no others
            try:
                pattern = _Pattern.of(key, entry)
            except (ValueError, IndexError, re.error) as error:
                faults.append(f"aliases.{name}: {error}")
                continue
            if pattern is None:
                exact[name] = entry
            else:
                self._patterns.append(pattern)
        resolver = _Resolver(exact, self._patterns)
        faults += resolver.faults()
        if faults:
            raise ConfigError(*faults)
        self._exact = {name: self._resolution(name, resolver.flatten(name, ())) for name in exact}
        self._resolver = resolver
        used: list[Strategy] = [strategy]
        for entry in (*exact.values(), *(pattern.entry for pattern in self._patterns)):
            used += () if entry.strategy is None else (entry.strategy,)
        self.strategies = frozenset(used)

    def resolve(self, name: str, backends: Collection[str] | None = None) -> Resolution:
        """The deployments of `name`.

        `backend/model` is a deployment if its backend is in `backends`, or if `backends` is None. Raises
        `UnknownModelError` with close matches.
        """
        known = self._exact.get(name)
        if known is not None:
            return known
        backend, slash, model = name.partition("/")
        if slash and backend and model and (backends is None or backend in backends):
            return Resolution(name, (name,), (1.0,), self.strategy)
        try:
            entry = self._resolver.by_pattern(name, (name,))
        except ValueError as error:  # the target of a pattern is known only now
            raise UnknownModelError(name, hint=str(error)) from None
        if entry is None:
            if not model and backend in (backends or ()):
                raise UnknownModelError(
                    name, hint=f'"{backend}" is a backend: write "{backend}/<model>", or make an alias of it'
                )
            close = close_matches(name, self._targets)
            if slash and backends is not None:
                close = (*close, *(f"{known}/{model}" for known in close_matches(backend, backends)))
            hint = "add it to aliases, or write backend/model"
            if slash and backends is not None:
                hint = f'there is no alias of that name, and no backend "{backend}"'
            raise UnknownModelError(name, close, hint=hint)
        return self._resolution(name, entry)

    def deployments(self) -> dict[str, list[str]]:
        """Every deployment that an exact alias leads to, with these aliases."""
        found: dict[str, list[str]] = {}
        for name, resolution in self._exact.items():
            for deployment in resolution.deployments:
                found.setdefault(deployment, []).append(name)
        return found

    def pattern_targets(self) -> dict[str, tuple[str, ...]]:
        """For each pattern, its targets of the form `backend/model`, as templates."""
        return {p.name: tuple(t for t in p.entry.weights if "/" in t) for p in self._patterns}

    def __getitem__(self, name: str) -> Target:
        return self._targets[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __len__(self) -> int:
        return len(self._targets)

    def __repr__(self) -> str:
        return f"AliasTable({self._targets!r}, strategy={self.strategy!r})"

    def _resolution(self, name: str, entry: _Entry) -> Resolution:
        weights = entry.weights
        return Resolution(name, tuple(weights), tuple(weights.values()), entry.strategy or self.strategy)


class _Entry(NamedTuple):
    """An alias's targets with their weights, and its own strategy if it has one."""

    weights: Mapping[str, float]
    strategy: Strategy | None


class _Pattern(NamedTuple):
    """A glob or regex key, its regex, and its targets as templates for `re.Match.expand`."""

    name: str
    regex: re.Pattern[str]
    entry: _Entry

    @classmethod
    def of(cls, key: str | re.Pattern[str], entry: _Entry) -> _Pattern | None:
        if isinstance(key, re.Pattern):
            return cls._checked(_regex_key(key), key, entry)
        if key.startswith("re:"):
            return cls._checked(key, re.compile(key[3:]), entry)
        wildcards = len(_WILDCARD.findall(key))
        if not wildcards:
            return None
        regex = "".join({"*": "(.*)", "?": "(.)"}.get(c, re.escape(c)) for c in key)
        weights = {_template(target, wildcards): weight for target, weight in entry.weights.items()}
        return cls._checked(key, re.compile(regex, re.DOTALL), entry._replace(weights=weights))

    @classmethod
    def _checked(cls, name: str, regex: re.Pattern[str], entry: _Entry) -> _Pattern:
        # With an empty alternative the regex matches "", so expand() can check each template's groups.
        empty = re.compile(f"{regex.pattern}|", regex.flags).fullmatch("")
        for target in entry.weights:
            if empty is not None:
                empty.expand(target)
        return cls(name, regex, entry)

    def match(self, name: str) -> _Entry | None:
        found = self.regex.fullmatch(name)
        if found is None:
            return None
        weights = {found.expand(target): weight for target, weight in self.entry.weights.items()}
        return self.entry._replace(weights=weights)


_WILDCARD = re.compile(r"[*?]")
_MAX_PATH = 50
"""Aliases between a name and its deployments at most."""


def _template(target: str, wildcards: int) -> str:
    """A glob's target as a template: its n-th wildcard becomes the n-th group."""
    numbers = iter(range(1, wildcards + 1))

    def group(_: re.Match[str]) -> str:
        number = next(numbers, None)
        if number is None:
            raise ValueError(f'target "{target}" has more wildcards than the alias')
        return rf"\g<{number}>"

    return _WILDCARD.sub(group, target.replace("\\", r"\\"))


class _Resolver:
    """Follows aliases of aliases."""

    def __init__(self, exact: Mapping[str, _Entry], patterns: Sequence[_Pattern]) -> None:
        self._exact = exact
        self._patterns = patterns
        self._flat: dict[str, _Entry] = {}

    def flatten(self, name: str, path: tuple[str, ...]) -> _Entry:
        """The deployments of an exact alias. Raises `ValueError` for a cycle or an unknown target."""
        found = self._flat.get(name)  # many paths may lead there
        if found is None:
            found = self._flat[name] = self._merge(self._exact[name], (*path, name))
        return found

    def by_pattern(self, name: str, path: tuple[str, ...]) -> _Entry | None:
        for pattern in self._patterns:
            entry = pattern.match(name)
            if entry is not None:
                return self._merge(entry, path)
        return None

    def faults(self) -> list[str]:
        faults = {}
        for name in self._exact:
            try:
                self.flatten(name, ())
            except ValueError as error:
                faults[name] = str(error)
        return [f"aliases.{name}: {fault}" for name, fault in faults.items()]

    def _merge(self, entry: _Entry, path: tuple[str, ...]) -> _Entry:
        if len(path) > _MAX_PATH:  # a pattern may lead to itself with a new name each time
            raise ValueError(f"is a cycle: {' → '.join(path[:3])} → …")
        merged: dict[str, float] = {}
        strategy = entry.strategy
        for target, weight in entry.weights.items():
            followed = self._follow(target, path)
            for deployment, share in followed.weights.items():
                merged[deployment] = merged.get(deployment, 0) + weight * share
            if strategy is None and len(entry.weights) == 1:
                strategy = followed.strategy
        return _Entry(merged, strategy)

    def _follow(self, target: str, path: tuple[str, ...]) -> _Entry:
        # A target equal to its own name is the deployment: `ollama/llama3` → `ollama/llama3` is common.
        if target in self._exact and not (target == path[-1] and "/" in target):
            if target in path:
                raise ValueError(f"is a cycle: {' → '.join((*path, target))}")
            return self.flatten(target, path)
        if "/" in target.strip("/"):
            return _Entry({target: 1.0}, None)
        if target not in path:
            matched = self.by_pattern(target, (*path, target))
            if matched is not None:
                return matched
        close = did_you_mean(target, self._exact.keys() - {target})
        raise ValueError(f'"{target}" is neither an alias nor backend/model{close}')


def _regex_key(regex: re.Pattern[str]) -> str:
    """A compiled regex as text for a file, with its flags."""
    flags = "".join(letter for letter, flag in _FLAGS.items() if regex.flags & flag)
    return f"re:(?{flags}){regex.pattern}" if flags else f"re:{regex.pattern}"


_FLAGS = {"a": re.ASCII, "i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE}


def targets(target: object) -> object:
    """An alias's targets without its strategy."""
    return target["targets"] if is_balanced(target) and "targets" in target else target


def is_balanced(target: object) -> TypeGuard[Mapping[str, object]]:
    """Whether a target is `{"targets": …, "strategy": …}`.

    A mapping to weights may have the same keys, for aliases with these names: then its values are numbers.
    """
    return isinstance(target, Mapping) and any(
        isinstance(target.get(key), str | Sequence | Mapping) for key in Balanced.__annotations__
    )


def _entry(target: object) -> tuple[_Entry, list[str]]:
    """An alias's targets and strategy, and their faults."""
    strategy: Any = None
    faults = []
    if is_balanced(target):
        strategy = target.get("strategy")
        if strategy is not None and (fault := _strategy_fault(strategy)):
            faults.append(fault)
        faults += [
            f'unknown key "{key}" beside targets{did_you_mean(str(key), Balanced.__annotations__)}'
            for key in target.keys() - Balanced.__annotations__.keys()
        ]
        target = target.get("targets")
    weights, more = _weights(target)
    return _Entry(weights, strategy), faults + more


def _weights(target: object) -> tuple[dict[str, float], list[str]]:
    if isinstance(target, str):
        target = [target]
    elif target is not None and (isinstance(target, bytes) or not isinstance(target, Mapping | Sequence)):
        return {}, [f"give a target, a list of targets or a mapping to weights, not {type(target).__name__}"]
    if not target:
        return {}, ["has no target; give a deployment such as backend/model"]
    faults = [
        f"a target must be a name, not {name!r}"
        for name in target
        if not isinstance(name, str) or not name.strip()
    ]
    if isinstance(target, Mapping):
        faults += [
            f"the weight of {name} must be a positive number, not {weight!r}"
            for name, weight in target.items()
            if isinstance(weight, bool)
            or not isinstance(weight, int | float)
            or not 0 < weight < float("inf")
        ]
    if faults:
        return {}, faults
    return dict(target if isinstance(target, Mapping) else dict.fromkeys(target, 1.0)), []


def _strategy_fault(strategy: object) -> str | None:
    known = get_args(Strategy)
    return None if strategy in known else f'unknown strategy "{strategy}", known are {", ".join(known)}'
