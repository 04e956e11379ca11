"""Names that the caller and the other sources define, for a file whose agents have servers of their own.

Such a name keeps its meaning. A server that the file needs gets a name that means no other server.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ccroute.backends import Backend
from ccroute.backends.registry import registered
from ccroute.config.foreign.spelling import folded
from ccroute.config.reading.secrets import Environment
from ccroute.config.reading.source import Source
from ccroute.config.references import alias_name
from ccroute.http.origin import Origin
from ccroute.routing.tables.aliases import Target

_CALLERS = object()
"""The caller's own backend is used with the key it has."""
_PORTS = {"http": 80, "https": 443}


class _External(NamedTuple):
    """A backend with an external name: its origin and its key, if they are known."""

    origin: str | None
    key: object = None


class ExternalNames:
    """`chosen` are the caller's aliases; `aliases` are the names that other sources define.

    `backends` are those of other sources. `contents` are the other sources, each in its own shape or already
    in the native one.
    """

    def __init__(
        self,
        chosen: Mapping[Any, Target],
        backends: Iterable[Backend],
        contents: Collection[Mapping[str, Any]],
        environment: Environment,
    ) -> None:
        self.chosen = {alias_name(key): target for key, target in chosen.items()}
        self.aliases = frozenset(
            name for content in contents for name in _aliases(content) if isinstance(name, str)
        )
        self._backends = {
            name: known for content in contents for name, known in _backends(content, environment)
        }
        self.backends = frozenset(self._backends)
        self._backends |= {backend.name: _External(str(backend.origin), _CALLERS) for backend in backends}

    def takes(self, backend: str, url: str | None, key: str | None) -> bool:
        """Whether the external name means another server, or the same one with another key."""
        known = self._backends.get(backend)
        if known is None:
            return False
        same = known.origin is not None and known.origin == _origin(url)
        return not same or (key is not None and known.key not in (key, _CALLERS))

    def is_backend(self, name: str) -> bool:
        """Whether the caller or another source has a backend of that name."""
        return name in self._backends

    def is_callers(self, name: str) -> bool:
        """Whether the caller gives a backend of that name."""
        return name in self._backends and self._backends[name].key is _CALLERS


def _origin(url: object) -> str | None:
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        return str(Origin(parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme]))
    except (ValueError, KeyError):  # reading the table reports what is wrong
        return None


def _backends(content: Mapping[str, Any], environment: Environment) -> Iterator[tuple[str, _External]]:
    kinds = registered()
    for name, table in _table(content.get("backends")).items():
        kind = kinds.get(str(_table(table).get("kind", name)))
        given = {key: _table(table).get(key) for key in ("base_url", "api_key")}
        said = environment.expand(given, ("backends", name), Source(""))
        yield (
            name,
            _External(
                _origin(said.get("base_url") or (str(kind.origin) if kind else None)), said.get("api_key")
            ),
        )
    for name in _endpoints(content):
        yield name, _External(None)


def _aliases(content: Mapping[str, Any]) -> Iterator[object]:
    yield from _table(content.get("aliases"))
    for row in entries if isinstance(entries := content.get("model_list"), list) else ():  # LiteLLM's
        yield _table(row).get("model_name")
    for endpoint in map(_table, _endpoints(content).values()):
        models = endpoint.get("models")
        names = [*models, *models.values()] if isinstance(models, Mapping) else models
        yield from names if isinstance(names, list) else ()
        yield from _table(endpoint.get("aliases"))
        yield from _table(endpoint.get("modelAliases"))


def _endpoints(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The endpoints of another orchestra file, and the providers of its gateway."""
    folded_keys = {folded(key): key for key in content}
    routing = _table(content.get(folded_keys.get("llmrouting", "")))
    gateway = _table(content.get(folded_keys.get("llmgateway", "")))
    return {**_table(gateway.get("providers")), **_table(routing.get("endpoints"))}


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
