"""Fallbacks: LiteLLM's lists of tables as chains of models, and how often a call is tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from ccroute.config.foreign.section import Section, listed
from ccroute.config.reading.source import Place
from ccroute.routing.tables.agents import OTHERS

Chain = list[tuple[str, Place]]
"""Models with the places that name them."""

_USUAL_ATTEMPTS: Final = 3
_MOST: Final = 5
"""LiteLLM's default of `max_fallbacks`: https://docs.litellm.ai/docs/proxy/config_settings"""


def read_chains(router: Section, key: str) -> dict[str, Chain]:
    """By model: its fallbacks. The section is a list of tables, or one table."""
    chains: dict[str, Chain] = {}
    for row, here in router.entries(key):
        if not isinstance(row, Mapping):
            router.builder.fault(here, "should be a table: a model and the list of its fallbacks")
            continue
        if isinstance(here[-1], int) and len(row) != 1:  # LiteLLM does not start with it
            router.builder.fault(here, "should have one key, the model, as in {gpt-4o: [claude-sonnet]}")
            continue
        for name, models in row.items():
            chains.setdefault(name, []).extend(read_models(router, models, (*here, name)))
    return chains


def read_models(router: Section, given: Any, place: Place) -> Iterator[tuple[str, Place]]:
    """A list of models, or one. A model may be a table with parameters of its own."""
    for model, here in listed(given, place):
        if isinstance(model, Mapping) and isinstance(model.get("model"), str):
            router.builder.warn(here, "only its model is read: give these parameters an entry of model_list")
            yield model["model"], (*here, "model")
        elif isinstance(model, str):
            yield model, here
        else:
            router.builder.fault(here, "should be a model's name")


class Fallbacks:
    """`general` and `windows` are the file's chains: for any failure, and for a prompt that is too long."""

    def __init__(
        self, router: Section, aliases: Mapping[str, Sequence[str]], tiers: Mapping[str, Sequence[str]]
    ) -> None:
        self._router = router
        self._aliases = aliases
        self._tiers = tiers
        self.general = read_chains(router, "fallbacks")
        self.windows = read_chains(router, "context_window_fallbacks")
        if "default_fallbacks" in router:
            place = router.place("default_fallbacks")
            models = list(read_models(router, router.get("default_fallbacks"), place))
            self.general.setdefault(OTHERS, []).extend(models)
        most = router.whole("max_fallbacks")
        self._most = _MOST if most is None else most

    def names(self) -> Iterator[tuple[str, Place]]:
        """Every model that a chain names."""
        for chains in (self.general, self.windows):
            for chain in chains.values():
                yield from chain

    def native(self, nowhere: Callable[[str], str | None]) -> dict[str, list[Any]]:
        """The table `fallbacks` of the native shape: the chain of each name that has one.

        `nowhere` says why a name leads nowhere; None if it leads to a model. Such a name is passed over with
        a warning, as LiteLLM goes on to the next fallback.
        """
        native: dict[str, list[Any]] = {}
        warn = self._router.builder.warn
        names = dict.fromkeys([*self._tiers, *self.general, *self.windows])
        for alias, models in self._aliases.items():  # LiteLLM looks a fallback up by what an alias stands for
            if len(models) == 1 and models[0] in names:
                names[alias] = None
        for name in names:
            if "*" in name and name != OTHERS:  # nor does LiteLLM look at the pattern that a name matched
                for _, place in [*self.general.get(name, ()), *self.windows.get(name, ())][:1]:
                    warn(place, f'fallbacks of "{name}" are never used: name the models themselves')
                continue
            chain = self._chain(name)
            if chain and name != OTHERS and (why := nowhere(name)):
                warn(chain[0][1], f'fallbacks of "{name}" are never used: {why}')
                continue
            for model, place in chain:
                if why := nowhere(model_of(model)):
                    warn(place, f'fallback "{model_of(model)}" is passed over: {why}')
                    continue
                known = native.setdefault(name, [])
                self._router.builder.comes_from(place, "fallbacks", name)
                self._router.builder.comes_from(place, "fallbacks", name, len(known))
                known.append(model)
        return native

    def _chain(self, name: str) -> list[tuple[Any, Place]]:
        of = name if name in self.general or name in self.windows else self._aliases.get(name, [name])[0]
        tiers: Chain = [(tier, ("model_list",)) for tier in self._tiers.get(name, ())]
        general: Chain = []
        for model, place in self._following(of, {name, of}, self._most):
            general.append((model, place))
            general += [(tier, place) for tier in self._tiers.get(model, ())]
        known = {model for model, _ in general}
        windows = [
            ({"model": model, "triggers": ["token_limit"]}, place)
            for model, place in self.windows.get(of, ())
            if model not in known
        ]
        return [*tiers, *windows, *general]

    def _following(self, name: str, seen: set[str], depth: int) -> Iterator[tuple[str, Place]]:
        """The fallbacks of a model, each with its own after it: a fallback that fails falls back, too."""
        if depth <= 0:
            return
        for model, place in self.general.get(name, self.general.get(OTHERS, ())):
            if model not in seen:
                seen.add(model)
                yield model, place
                if name != OTHERS:
                    yield from self._following(model, seen, depth - 1)


def model_of(fallback: Any) -> str:
    """The model of a fallback: a name, or a table with triggers."""
    model: str = fallback["model"] if isinstance(fallback, Mapping) else fallback
    return model


def read_retry(
    router: Section, fallbacks: Mapping[str, Sequence[Any]], sizes: Mapping[str, int]
) -> dict[str, Any]:
    """`retry` of the native shape. LiteLLM tries each model `num_retries` times again, ccroute counts the
    attempts of a whole call: enough of them for every deployment of the longest chain, and for fallbacks of
    agents, which another source may have."""
    retries = router.whole("num_retries")
    again = 1 if retries is None else retries

    def size(model: Any) -> int:
        return sizes.get(model_of(model), 1)

    others = fallbacks.get(OTHERS, ())
    lengths = [size(name) + sum(map(size, fallbacks.get(name, others))) for name in sizes]
    longest = max(lengths, default=1)
    retry: dict[str, Any] = {}
    if retries is not None:
        retry = {"per_deployment": retries + 1, "attempts": (retries + 1) * max(longest, _USUAL_ATTEMPTS)}
    elif longest > 1:
        retry = {"attempts": (again + 1) * longest}
    base = router.number("retry_after")
    if base:
        retry |= {"base": float(base), "max": max(8.0, float(base))}
    return retry
