"""`llmGateway.providers`: each enabled one becomes a backend."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ccroute.backends.presets import preset_of_host
from ccroute.backends.registry import kind_names, registered
from ccroute.config.foreign.builder import Builder
from ccroute.config.foreign.section import AnySpelling, Section
from ccroute.config.foreign.servers import Server, host_of
from ccroute.config.foreign.spelling import folded
from ccroute.config.reading.source import Place
from ccroute.routing.names import did_you_mean

PROVIDER_KEYS: Final = (
    "enabled",
    "disabled",
    "providerType",
    "type",
    "baseUrl",
    "apiKeyRef",
    "apiKey",
    "apiVersion",
    "defaultModel",
    "modelAliases",
    "maxRetries",
    "timeoutSecs",
)
OTHER_TYPES: Final[Mapping[str, str]] = {
    "azure-openai": "azure",
    "claude": "anthropic",
    "custom": "openai",
    "llama.cpp": "llamacpp",
    "lm-studio": "openai",
    "openai-compatible": "openai",
    "openai-like": "openai",
}
"""Types of providers that are not the name of a kind of backend."""
_TYPES = {folded(name): kind for name, kind in OTHER_TYPES.items()}
_ADDRESS_NEEDED = {folded(name) for name, kind in OTHER_TYPES.items() if kind == "openai"}
_VARIABLE = re.compile("[A-Z_][A-Z0-9_]*")
_REFERENCE = re.compile(r"env:.*|os\.environ/.*|.*\$.*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Provider:
    """A backend, its name of each model that it lists, and its model for all others."""

    server: Server
    place: Place
    default: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    retries: int | None = None


def read_provider(name: str, table: Mapping[str, Any], place: Place, builder: Builder) -> Provider | None:
    """Add the provider's backend and return it; None if its type is unknown, which is a fault."""
    section = AnySpelling(builder, (table, place), PROVIDER_KEYS)
    url = section.text("baseUrl")
    kind = _kind(name, url, section)
    if kind is None:
        return None
    backend: dict[str, Any] = {"kind": kind}
    if url:
        # With that type, the file means Ollama's own API.
        backend["base_url"] = url.rstrip("/").removesuffix("/v1") if kind == "ollama" else url.rstrip("/")
    if key := _key(section):
        backend["api_key"] = key
    if version := section.text("apiVersion"):
        if kind == "azure" or preset_of_host(host_of(url)) == "azure":
            backend["api_version"] = version
        else:
            section.ignore("apiVersion", "only Azure's API needs a version")
    if "timeoutSecs" in section:
        backend["timeout"] = {"total": section.get("timeoutSecs")}
    builder.backends[name] = backend
    builder.comes_from(place, "backends", name)
    natives = (("kind", "providerType"), ("base_url", "baseUrl"), ("api_version", "apiVersion"))
    for native, key in natives:
        builder.comes_from(section.place(key), "backends", name, native)
    builder.comes_from(section.place(_key_of(section)), "backends", name, "api_key")
    builder.comes_from(section.place("timeoutSecs"), "backends", name, "timeout")
    builder.comes_from(section.place("timeoutSecs"), "backends", name, "timeout", "total")
    names = {alias: model for alias, model, _ in section.texts("modelAliases")}
    default = section.text("defaultModel")
    prefixes = (f"{name}/", *(found.model_prefixes if (found := registered().get(kind)) else ()))
    return Provider(
        Server(name, prefixes),
        place,
        names.get(default, default) if default else None,
        names,
        section.whole("maxRetries"),
    )


def _kind(name: str, url: str | None, section: Section) -> str | None:
    """The kind of backend, by the provider's type, else by its id, else that of most servers."""
    key = "type" if "providerType" not in section and "type" in section else "providerType"
    given = section.text(key)
    said = folded(given or name)
    kind = ({folded(each): each for each in registered()} | _TYPES).get(said)
    if kind is None:
        kind = next((each for each in kind_names() if folded(each) == said), None)  # of a package
    if kind is None and given is None and url:
        return "openai"
    if kind is None:
        known = sorted({*kind_names(), *OTHER_TYPES})
        text = f'unknown type "{given}"{did_you_mean(given, known)}' if given else "is missing"
        section.fault(key, f"{text}; the types are {', '.join(known)}")
    elif not url and said in _ADDRESS_NEEDED:
        section.fault("baseUrl", "is missing")
        return None
    return kind


def _key_of(section: Section) -> str:
    return "apiKeyRef" if section.raw("apiKeyRef") else "apiKey"


def _key(section: Section) -> str | None:
    """The provider's key. A reference may be a variable's name alone, and is never sent itself."""
    given = section.raw("apiKeyRef")
    if not given:
        return section.text("apiKey")
    if isinstance(given, str) and _VARIABLE.fullmatch(given):
        given = f"env:{given}"
    if isinstance(given, str) and _REFERENCE.fullmatch(given):
        key: str | None = section.builder.expand(given, section.place("apiKeyRef"))
        return key
    section.fault("apiKeyRef", "should be a reference to a variable: write env:NAME")
    return None
