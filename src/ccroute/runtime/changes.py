"""What a reload has changed, by name. Knows the parts of a configuration, must not know files."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ccroute.backends import Backend
from ccroute.flow import RouterState
from ccroute.observe import Reloaded

_log = logging.getLogger("ccroute")


def changes(before: RouterState, after: RouterState) -> Reloaded:
    """The names that were added, removed and changed, such as `agents.python-expert` and `retry`."""
    old, new = _parts(before), _parts(after)
    return Reloaded(
        added=tuple(name for name in new if name not in old),
        removed=tuple(name for name in old if name not in new),
        changed=tuple(name for name in new if name in old and new[name] != old[name]),
    )


def warn_of_fixed(fixed: Mapping[str, object], options: Mapping[str, Any]) -> None:
    """Log a warning for each option that a router keeps from its beginning, if it is another one now."""
    for name, value in fixed.items():
        if name in options and options[name] != value:
            _log.warning("config: %s has changed, which a reload does not take over: make a new router", name)


def _parts(state: RouterState) -> dict[str, object]:
    """Every part of a configuration by its name. Groups are in their agents."""
    tables = state.tables
    sections: Mapping[str, Mapping[str, object]] = {
        "backends": {name: _settings(backend) for name, backend in tables.backends.items()},
        "aliases": tables.aliases,
        "agents": dict(tables.agents.items()),
        "fallbacks": tables.fallbacks,
        "prices": {name: tables.prices.find(name) for name in tables.prices},
        "budgets": {need.name: need.budget for need in tables.budgets or ()},
    }
    return {
        f"{section}.{name}": part for section, parts in sections.items() for name, part in parts.items()
    } | {
        "strategy": tables.aliases.strategy,
        "default_model": tables.default_model,
        "agent_override": tables.agent_override,
        "unknown_agent": tables.unknown_agent,
        "baseline": state.baseline,
        "retry": state.retry,
        "timeout": state.timeout,
        "drop_params": state.drop_params,
        "health": state.health.on,
        "max_queue": state.max_queue,
    }


def _settings(backend: Backend) -> Mapping[str, object]:
    """What a backend was made with, as far as this is known from its public attributes, its key and its
    headers."""
    known = vars(backend).copy()  # a call in another thread may keep something there
    public = {name: value for name, value in known.items() if not name.startswith("_")}
    del public["last_fingerprint"]
    return public | {"identity": backend.identity, "credential_identity": backend.credential_identity}
