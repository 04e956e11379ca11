"""Servers as other tools' files name them: by an address and a key.

Knows addresses; must not know which agents use them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from ccroute.backends import OllamaBackend
from ccroute.backends.registry import registered, well_known
from ccroute.config.foreign.builder import Builder
from ccroute.config.foreign.external_names import ExternalNames
from ccroute.config.reading.source import Place

URL_KEYS: Final = ("baseUrl", "base_url", "url")
API_KEYS: Final = ("apiKey", "api_key")
SERVER_KEYS: Final = frozenset({*URL_KEYS, *API_KEYS, "enabled", "disabled"})


class Address(NamedTuple):
    """A server's address and key, with variables replaced; None if an entry does not give them."""

    url: str | None
    key: str | None

    @classmethod
    def of(cls, entry: Mapping[str, Any], place: Place, builder: Builder) -> Address:
        found: list[str | None] = []
        for spellings in (URL_KEYS, API_KEYS):
            given = next((spelling for spelling in spellings if entry.get(spelling)), None)
            value = None if given is None else builder.expand(entry[given], (*place, given))
            if given is not None and not isinstance(value, str | None):
                builder.fault((*place, given), "should be a string")
            found.append(value.rstrip("/") if isinstance(value, str) else None)
        return cls(*found)


@dataclass(frozen=True, slots=True)
class Server:
    """A backend. `prefixes` may be before a model's name in the file, but are not sent."""

    backend: str
    prefixes: tuple[str, ...] = ()

    @classmethod
    def add(
        cls, name: str, address: Address, entry: Mapping[str, Any], place: Place, builder: Builder
    ) -> Server:
        """Add a backend at the address that an entry gives, and return it."""
        found = recognise(address.url)
        table = {"kind": found.kind, "base_url": address.url, "api_key": address.key}
        builder.backends[name] = {key: value for key, value in table.items() if value is not None}
        builder.comes_from(place, "backends", name)
        for native, spellings in (("base_url", URL_KEYS), ("api_key", API_KEYS)):
            for spelling in spellings:
                if entry.get(spelling):
                    builder.comes_from((*place, spelling), "backends", name, native)
        return cls(name, found.prefixes)

    def deployment(self, model: str) -> str:
        for prefix in self.prefixes:
            model = model.removeprefix(prefix)
        return f"{self.backend}/{model}"


class Recognised(NamedTuple):
    """The kind of a server, a short name for it, and the possible prefixes of its models' names."""

    kind: str
    name: str
    prefixes: tuple[str, ...] = ()


def recognise(url: str | None) -> Recognised:
    """What is known from a server's address."""
    try:
        parts = urlsplit(url or "")
        host, port = parts.hostname or "", parts.port
    except ValueError:  # building the backend says what is wrong with it
        return Recognised("openai", "backend")
    for name, kind in registered().items():
        official = kind.origin
        if official is not None and official.scheme == "https" and official.host == host:
            return Recognised(name, name, kind.model_prefixes)
    # Under /v1 Ollama imitates OpenAI, and the file asks for that.
    if port == urlsplit(OllamaBackend.default_url).port and not parts.path.strip("/"):
        here = host in {"localhost", "127.0.0.1", "::1"}
        return Recognised("ollama", "ollama" if here else _short(host), OllamaBackend.model_prefixes)
    return Recognised("openai", _short(host))


def host_of(url: str | None) -> str:
    """An address's host; "" if it has none."""
    try:
        return urlsplit(url or "").hostname or ""
    except ValueError:  # building the backend says what is wrong with it
        return ""


def _short(host: str) -> str:
    """`ccproxy.example.com` → `ccproxy`; a number, or what would be a provider's name, stays whole."""
    first = host.removeprefix("api.").partition(".")[0]
    return (host if first.isdigit() or first in well_known() else first) or "backend"


def name_of_host(address: Address, builder: Builder, external: ExternalNames) -> str:
    """A name from the address that no other server has, and with which no alias (`name/…`) begins.

    The backend of that name is needed only if a name leads to it.
    """
    aliases = (*builder.aliases, *external.aliases)

    def is_free(name: str) -> bool:
        known = name in builder.backends or external.takes(name, *address)
        return not known and not any(alias.startswith(f"{name}/") for alias in aliases)

    free = free_name(recognise(address.url).name, is_free)
    builder.additions.implied.add(free)
    return free


def free_name(name: str, is_free: Callable[[str], bool]) -> str:
    """`name`, or else the first of `name-2`, `name-3`, … that is free."""
    return next(filter(is_free, (name if n == 1 else f"{name}-{n}" for n in count(1))))
