"""The file's names: which deployments each leads to, and how they are balanced."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ccroute.config.foreign.builder import Builder
from ccroute.config.foreign.section import Section
from ccroute.config.litellm.model_list.entries import Entry
from ccroute.config.reading.source import Place

STRATEGIES: Final = {
    "simple-shuffle": "weighted",
    "least-busy": "least-busy",
    "latency-based-routing": "latency",
    "cost-based-routing": "cost",
    "usage-based-routing": "least-busy",
    "usage-based-routing-v2": "least-busy",
}
_RARELY: Final = 1e-9
"""The weight of a deployment that LiteLLM never draws while another can answer."""
_SHARES: Final = ("weight", "rpm", "tpm")


def read_strategy(router: Section) -> str:
    """The strategy of all names."""
    given = router.text("routing_strategy")
    if given is None:
        return "weighted"
    known = STRATEGIES.get(given.lower().replace("_", "-"))
    if known is None:
        router.warn(
            "routing_strategy",
            f"is not known; names are balanced by their weights. Known are {', '.join(STRATEGIES)}",
        )
    elif given.startswith("usage-based"):
        router.ignore(
            "routing_strategy",
            "least-busy instead: calls go to the host with the fewest in flight",
        )
    return known or "weighted"


class Routes:
    """`targets` are the aliases of the native table. `tiers` are the aliases that come after a name's own
    targets, for entries of a lower `order`."""

    def __init__(self, builder: Builder, strategy: str) -> None:
        self._builder = builder
        self._strategy = strategy
        self.targets: dict[str, Any] = {}
        self.tiers: dict[str, list[str]] = {}
        self.sizes: dict[str, int] = {}

    def add(self, name: str, entries: Sequence[Entry]) -> None:
        """Add the alias of the entries of one name."""
        self._builder.comes_from((*entries[0].place, "model_name"), "aliases", name)
        for entry in entries:
            self._builder.comes_from((*entry.place, "litellm_params", "model"), "aliases", name)
        self.sizes[name] = len({entry.deployment for entry in entries})
        tiers = _tiers(entries)
        if len(tiers) > 1 and (all(len(tier) == 1 for tier in tiers) or "*" in name):
            ordered = [entry.deployment for tier in tiers for entry in tier]
            self.targets[name] = {"targets": list(dict.fromkeys(ordered)), "strategy": "ordered"}
            return
        first, *others = tiers
        self.targets[name] = self._balanced(first)
        for number, tier in enumerate(others, 2):
            after = f"{name} (order {number})"
            self.targets[after] = self._balanced(tier)
            self._builder.comes_from(tier[0].place, "aliases", after)
            self.tiers.setdefault(name, []).append(after)

    def alias(self, name: str, models: list[str], place: Place) -> None:
        """Add another name for a model, or for several."""
        if name in self.targets:
            self._builder.warn(place, "is a model_name, too; requests go to what the alias says")
        self._builder.comes_from(place, "aliases", name)
        self.targets[name] = models[0] if len(models) == 1 else models
        self.sizes[name] = sum(self.sizes.get(model, 1) for model in models)
        if tiers := [tier for model in models for tier in self.tiers.get(model, ())]:
            self.tiers[name] = tiers

    def native(self) -> dict[str, Any]:
        """The aliases, the most specific pattern first, as LiteLLM tries them."""
        return dict(
            sorted(self.targets.items(), key=lambda item: -len(item[0]) if "*" in item[0] else -math.inf)
        )

    def _balanced(self, entries: Sequence[Entry]) -> Any:
        """One target, a list, or targets with weights."""
        shares = _shares(entries) if self._strategy == "weighted" else [1.0] * len(entries)
        weights: dict[str, float] = {}
        for entry, share in zip(entries, shares, strict=True):
            weights[entry.deployment] = weights.get(entry.deployment, 0.0) + share
        names = list(weights)
        if len(names) == 1:
            return names[0]
        return weights if len(set(weights.values())) > 1 else names


def _shares(entries: Sequence[Entry]) -> list[float]:
    """Weights as LiteLLM's simple-shuffle draws them: by `weight`, else `rpm`, else `tpm`, whichever the
    first entry has; an entry without it, or with 0, is never drawn.
    https://github.com/BerriAI/litellm/blob/main/litellm/router_strategy/simple_shuffle.py"""
    key = next((key for key in _SHARES if key in entries[0].weights), None)
    amounts = [float(entry.weights.get(key or "", 0)) for entry in entries]
    return [amount or _RARELY for amount in amounts] if any(amounts) else [1.0] * len(entries)


def _tiers(entries: Sequence[Entry]) -> list[list[Entry]]:
    """The entries by `order`, the lowest first; those without come last."""
    orders = sorted({entry.order for entry in entries if entry.order is not None})
    tiers = [[entry for entry in entries if entry.order == order] for order in orders]
    rest = [entry for entry in entries if entry.order is None]
    return [*tiers, rest] if rest else tiers


def read_aliases(router: Section) -> Iterable[tuple[str, list[str], Place]]:
    """`model_group_alias`: name → model, or `{model, hidden}`; some files have a list."""
    for name, given in router.table("model_group_alias").items():
        place = (*router.place("model_group_alias"), name)
        model = given.get("model") if isinstance(given, Mapping) else given
        models = [each for each in (model if isinstance(model, list) else [model]) if isinstance(each, str)]
        if models == [name]:
            router.builder.ignore(place, "is the model's own name")
        elif models:
            yield name, models, place
        else:
            router.builder.fault(place, "should be a model's name, or a table with model")
