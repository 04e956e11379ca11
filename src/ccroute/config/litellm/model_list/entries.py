"""Reads `model_list`: each entry is a model behind a server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from ccroute.config.foreign.builder import Builder
from ccroute.config.foreign.section import Layer, Section
from ccroute.config.litellm.budgets import Limit, entry_limit
from ccroute.config.litellm.keys import ENTRY, INFO, PARAMS, note_unread
from ccroute.config.litellm.model_list.facts import Facts, read_facts
from ccroute.config.litellm.model_list.providers import PROVIDERS, REASONS, split
from ccroute.config.litellm.model_list.server import Server, read_server
from ccroute.config.reading.source import Place
from ccroute.routing.names import did_you_mean

_MODES: Final = frozenset({"chat", "completion"})
_SERIES: Final = ("responses/", "o_series/", "gpt5_series/", "chat/")
_MOCK: Final = "answers with a text of the file, without a model (mock_response)"


@dataclass(slots=True)
class Entry:
    """One deployment: `name` is its alias, `model` the name on its server's wire.

    `backend` is known when it has a name.
    """

    name: str
    provider: str
    model: str
    server: Server
    facts: Facts
    place: Place
    id: str | None
    order: Decimal | None
    weights: Mapping[str, Decimal]
    slots: int | None
    budget: Limit | None
    backend: str = ""

    @property
    def deployment(self) -> str:
        return f"{self.backend}/{self.model}"


class Entries:
    """The entries that ccroute can reach. `left_out` has the names of the others, each with the reason."""

    def __init__(
        self,
        builder: Builder,
        credentials: Mapping[str, Layer],
        defaults: tuple[Layer, ...],
    ) -> None:
        self._builder = builder
        self._credentials = credentials
        self._defaults = defaults
        self.found: list[Entry] = []
        self.left_out: dict[str, str] = {}

    def read(self, row: Any, place: Place) -> None:
        if not isinstance(row, Mapping):
            self._builder.fault(place, "should be a table")
            return
        entry = Section(self._builder, (row, place))
        note_unread(self._builder, row, place, ENTRY)
        name = _needed(entry, "model_name")
        own = given, here = entry.layer("litellm_params")
        if "litellm_params" not in entry:
            entry.fault("litellm_params", "is missing")
        if name is None or not isinstance(entry.raw("litellm_params"), Mapping):
            return
        params = Section(self._builder, own, *self._credential(given, here), *self._defaults)
        info = Section(self._builder, entry.layer("model_info"))
        model = _needed(params, "model")
        if model is None:
            return
        if why := _other_use(params, info):
            self._leave_out(name, why, place)
            return
        provider, bare = split(model, params.text("custom_llm_provider"))
        if provider not in PROVIDERS:
            self._unknown(name, provider, model, params)
            provider, bare = "openai_like", model
            if name in self.left_out or "api_base" not in params:
                return
        if not bare.strip():  # `azure/` is LiteLLM's for pictures
            self._leave_out(name, f'"{model}" names no model', (*here, "model"))
            return
        note_unread(self._builder, given, here, PARAMS)
        note_unread(self._builder, *info.layers[0], INFO)
        for one in _organizations(params):
            server = read_server(one, provider, bare)
            if server is not None:
                self.found.append(self._entry(name, provider, bare, server, one, info, entry))

    def _entry(
        self,
        name: str,
        provider: str,
        bare: str,
        server: Server,
        params: Section,
        info: Section,
        entry: Section,
    ) -> Entry:
        model = _on_wire(bare, provider, server)
        facts = read_facts(params, info, entry, server.options["kind"], provider)
        if "*" in model:
            for key in facts.table:
                self._builder.ignore(facts.places[key], "a wildcard's models have no facts of their own")
            facts = Facts()
        place = entry.at
        weights = {}
        for key in ("weight", "rpm", "tpm"):
            section = params if key in params else entry
            if (amount := section.number(key) if key == "weight" else section.whole(key)) is not None:
                weights[key] = Decimal(amount)
        order = params.number("order")
        ident = info.get("id")
        slots = params.whole("max_parallel_requests")
        return Entry(
            name,
            provider,
            model,
            server,
            facts,
            place,
            None if ident is None else str(ident),
            order,
            weights,
            slots,
            entry_limit(params),
        )

    def _credential(self, given: Mapping[str, Any], place: Place) -> Iterator[Layer]:
        name = given.get("litellm_credential_name")
        if name is None:
            return
        if (found := self._credentials.get(name) if isinstance(name, str) else None) is not None:
            yield found
            return
        close = did_you_mean(str(name), self._credentials)
        self._builder.fault(
            (*place, "litellm_credential_name"),
            f"there is no credential of that name in credential_list{close}",
        )

    def _unknown(self, name: str, provider: str, model: str, params: Section) -> None:
        """A provider that ccroute cannot speak to, or a name without a provider."""
        first, slash, _ = model.partition("/")
        key = "custom_llm_provider" if "custom_llm_provider" in params else "model"
        if why := REASONS.get(provider):
            self._leave_out(name, f"{provider} {why}", params.at)
        elif "api_base" in params:
            params.warn(key, "names no provider, so its server is taken to be like OpenAI's: write openai/…")
        elif slash or provider:
            unknown = provider or first
            close = did_you_mean(unknown, PROVIDERS)
            self._leave_out(name, f"{unknown} is no provider that ccroute knows{close}", params.place(key))
        else:
            why = f'"{model}" names no provider: write one before it, as in openai/gpt-4o'
            self._leave_out(name, why, params.place(key))

    def _leave_out(self, name: str, why: str, place: Place) -> None:
        self.left_out.setdefault(name, why)
        self._builder.warn(place, f"{why}; the entry is left out")
        self._builder.ignore(place, why)


def _needed(section: Section, key: str) -> str | None:
    """A string that must be there."""
    value = section.text(key)
    if key not in section:
        section.fault(key, "is missing")
    elif value is not None and not value.strip():
        section.fault(key, "is empty")
        return None
    return value


def _other_use(params: Section, info: Section) -> str | None:
    """Why an entry is no model to chat with; None if it is one."""
    mode = info.text("mode")
    if mode is not None and mode not in _MODES:
        return f"its mode is {mode}, and ccroute only chats"
    if "mock_response" in params:
        return _MOCK
    return "is blocked" if info.flag("blocked") else None


def _organizations(params: Section) -> Iterator[Section]:
    """The parameters for each of several organizations."""
    given = params.get("organization")
    if not isinstance(given, list):
        yield params
        return
    for each in given:
        yield Section(params.builder, ({"organization": each}, params.at), *params.layers)


def _on_wire(model: str, provider: str, server: Server) -> str:
    """The model's name as its server knows it."""
    if provider in {"openai", "azure"}:
        for prefix in _SERIES:
            model = model.removeprefix(prefix)
    if provider == "huggingface" and server.options["kind"] == "openai" and model.count("/") == 2:
        # LiteLLM writes who runs it first, the router last.
        runs, _, rest = model.partition("/")
        return f"{rest}:{runs}"
    prefix = PROVIDERS[provider].prefix
    return model if "/" in model or not prefix else prefix + model
