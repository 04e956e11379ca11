"""What an entry says about its model: windows, prices, limits, and defaults for requests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ccroute.backends.known_models import known
from ccroute.config.foreign.section import Section
from ccroute.config.litellm.keys import BODY, OLLAMA_OPTIONS, PARAMETERS
from ccroute.config.litellm.model_list.prices import read_price
from ccroute.config.reading.source import Place
from ccroute.types.request import PARAMETERS as OURS

_EFFORTS: Final = {"disable": "none", "xhigh": "max"}
_BUDGETS: Final = ((4096, "high"), (2048, "medium"), (0, "low"))
"""LiteLLM's own sizes of a thinking budget, in tokens."""
_NAMES: Final = {"max_completion_tokens": "max_tokens", "thinking": "reasoning_effort", "functions": "tools"}
_KNOWN_FACTS: Final = ("max_output", "sampling", "thinking", "efforts", "schema", "refuses", "prefill")
_PARAMETERS: Final = frozenset(PARAMETERS.split())
_OPTIONS: Final = frozenset(OLLAMA_OPTIONS.split())
_BODY: Final = _OPTIONS | frozenset(BODY.split())


class Facts:
    """The keys of a model's table, and the place of each in the file."""

    def __init__(self) -> None:
        self.table: dict[str, Any] = {}
        self.places: dict[str, Place] = {}

    def put(self, key: str, value: Any, place: Place) -> None:
        if value is not None:
            self.table[key] = value
            self.places[key] = place


def read_facts(params: Section, info: Section, entry: Section, kind: str, provider: str) -> Facts:
    """`entry` is the entry itself, where some files have the limits of requests."""
    facts = Facts()
    base = info.text("base_model")
    if base is not None:
        described = known("anthropic" if kind == "anthropic" else "openai", base, kind)
        for key in _KNOWN_FACTS:
            facts.put(key, _as_list(getattr(described, key)), info.place("base_model"))
    both = Section(params.builder, *info.layers, *params.layers)
    window = params.whole("num_ctx") if kind == "ollama" else None
    if window:
        facts.put("context_window", window, params.place("num_ctx"))
    elif window := both.whole("max_input_tokens"):
        facts.put("context_window", window, both.place("max_input_tokens"))
    elif kind != "ollama" and "num_ctx" in params:
        params.ignore("num_ctx", "only Ollama has it")
    _read_most(both, info, facts)
    if price := read_price(Section(params.builder, *params.layers, *info.layers), provider):
        facts.put("price", *price)
    for key in ("rpm", "tpm"):
        section = params if key in params else entry
        if (limit := section.whole(key)) is not None and limit > 0:
            facts.put(key, limit, section.place(key))
    _read_params(params, kind, facts)
    _read_drops(params, facts)
    return facts


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _read_most(both: Section, info: Section, facts: Facts) -> None:
    """The longest answer. `max_tokens` of `model_info` is that only beside a larger window: alone, files have
    the window there as often as the answer."""
    most = both.whole("max_output_tokens")
    if most:
        facts.put("max_output", most, both.place("max_output_tokens"))
    elif most := info.whole("max_tokens"):
        if most < facts.table.get("context_window", 0):
            facts.put("max_output", most, info.place("max_tokens"))
        else:
            info.ignore(
                "max_tokens",
                "may be the window or the longest answer: write max_input_tokens and max_output_tokens",
            )


def _read_params(params: Section, kind: str, facts: Facts) -> None:
    """Defaults for requests to the model."""
    found = {key: params.get(key) for key in params if key in _PARAMETERS}
    places = [params.place(key) for key in found]
    for key in ("max_tokens", "max_completion_tokens", "num_predict"):
        if (most := params.whole(key)) and "max_tokens" not in found:
            found["max_tokens"] = most
            places.append(params.place(key))
    extra = dict(_body(params, kind))
    effort = found.get("reasoning_effort")
    if isinstance(effort, Mapping):
        effort = effort.get("effort")
    if effort is not None:
        found["reasoning_effort"] = _EFFORTS.get(str(effort), effort)
    if "thinking" in params:
        thinking = params.table("thinking")
        places.append(params.place("thinking"))
        if kind == "anthropic":
            extra["thinking"] = dict(thinking)
        else:
            found.setdefault("reasoning_effort", _effort(thinking))
    if extra:
        found["extra"] = extra
        places += [params.place(key) for key in ("extra_body", *extra) if key in params]
    if found:
        facts.put("params", {key: value for key, value in found.items() if value is not None}, places[0])
        for key in found:
            if key in params:
                facts.places[f"params.{key}"] = params.place(key)


def _effort(thinking: Mapping[str, Any]) -> str:
    budget = thinking.get("budget_tokens")
    if thinking.get("type") == "disabled":
        return "none"
    size = budget if isinstance(budget, int) else 0
    return next(word for least, word in _BUDGETS if size >= least)


def _body(params: Section, kind: str) -> Iterator[tuple[str, Any]]:
    """Fields of the provider's own. Ollama has most of them in `options`."""
    given = {key: params.get(key) for key in params if key in _BODY}
    given |= params.table("extra_body")
    if kind != "ollama":
        yield from given.items()
        return
    inner = given.pop("options", {})
    options = dict(inner) if isinstance(inner, Mapping) else {}
    for key, value in given.items():
        if key in _OPTIONS or key in {
            "min_p",
            "temperature",
            "top_p",
            "top_k",
            "num_predict",
            "num_ctx",
            "seed",
        }:
            options[key] = value
        else:
            yield key, value
    if options:
        yield "options", options


def _read_drops(params: Section, facts: Facts) -> None:
    drops = []
    for name, place in params.entries("additional_drop_params"):
        ours = _NAMES.get(name, name) if isinstance(name, str) else ""
        if not ours:
            params.builder.fault(place, "should be a parameter's name")
        elif ours in OURS:
            drops.append(ours)
        elif re.fullmatch(r"\w+", name):
            drops.append(f"extra.{name}")
        else:
            params.ignore("additional_drop_params", "names whole parameters only, no fields inside them")
    if drops:
        facts.put("drops", list(dict.fromkeys(drops)), params.place("additional_drop_params"))
