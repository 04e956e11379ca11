"""Lets an agent's alternative models take the place of a model that no source and no caller defines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from ccroute.backends.registry import well_known
from ccroute.config.merge import Merged
from ccroute.config.references import alias_table, with_callers
from ccroute.errors import UnknownModelError


def use_alternatives(merged: Merged, overrides: Mapping[str, Any]) -> None:
    """Change such agents' models to the first of their alternatives that exists, and note it as ignored."""
    agents = merged.settings.agents
    if not merged.alternatives:
        return
    is_defined = _definitions(merged, overrides)
    for name, models in merged.alternatives.items():
        model = agents[name].model
        found = next(filter(is_defined, models), None)
        if model is not None and found is not None and not is_defined(model):
            merged.ignore(("agents", name, "model"), f'"{model}" has no target: ccproxyMapping is used')
            agents[name] = agents[name].model_copy(update={"model": found})


def _definitions(merged: Merged, overrides: Mapping[str, Any]) -> Callable[[str], bool]:
    """Whether a model's name has a target, or would have one without the faults of its target."""
    settings = merged.settings
    table, _ = alias_table(with_callers(overrides.get("aliases") or {}, settings.aliases), settings.strategy)
    faulty = {place[1] for place in merged.left_out if place[0] == "aliases" and place[1:]}
    backends = {*settings.backends, *well_known(), *(each.name for each in overrides.get("backends") or ())}

    @cache
    def is_defined(name: str) -> bool:
        try:
            return name in faulty or bool(table.resolve(name, backends))
        except UnknownModelError:
            return False

    return is_defined
