"""The kinds of backends that a configuration file can name: ccroute's own, registered ones, and those of
installed packages (entry points of the group `ccroute.backends`, loaded when a file names one)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from ccroute.backends.anthropic import AnthropicBackend
from ccroute.backends.backend import Backend, BackendOptions
from ccroute.backends.ollama import OllamaBackend
from ccroute.backends.openai import OpenAIBackend
from ccroute.backends.origin import parse_base_url
from ccroute.backends.presets import PRESETS, Preset
from ccroute.errors import ConfigError
from ccroute.http.origin import Origin

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP: Final = "ccroute.backends"
B = TypeVar("B", bound=Backend)


@dataclass(frozen=True, slots=True)
class BackendKind:
    """A kind of backend that a configuration file names as `kind = "…"`.

    `make` is its class, or `OpenAIBackend` with a preset. `origin` is the origin of its `default_url`. The
    other fields are as in `Backend`.
    """

    make: Callable[..., Backend]
    origin: Origin | None
    key_variable: str | None
    model_prefixes: tuple[str, ...]

    @property
    def options(self) -> frozenset[str]:
        """The keywords that a table of this kind may give."""
        parameters = inspect.signature(self.make).parameters
        open_ended = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
        common = BackendOptions.__annotations__ if open_ended else ()
        return frozenset({*parameters, *common}) - {"name", "preset"}


def register(backend: type[B]) -> type[B]:
    """Let configuration files name this class by its `kind`; also a decorator.

    Raises `ConfigError` for a class without a `kind` of its own.
    """
    if not backend.kind:
        raise ConfigError(f"{backend.__qualname__} has no kind: set the class attribute kind to a short name")
    known = _KINDS.get(backend.kind)
    if known and repr(known.make) != repr(backend):  # a notebook's cell may define the class again
        raise ConfigError(
            f'{backend.__qualname__}: the kind "{backend.kind}" is taken; set the class attribute kind to '
            "another name"
        )
    _add(backend.kind, backend, backend)
    return backend


def registered() -> Mapping[str, BackendKind]:
    """Return the kinds that are known without loading a package."""
    return _KINDS


def well_known() -> list[str]:
    """Return the kinds that need no table: a model's name may begin with one of them."""
    return [name for name, kind in _KINDS.items() if kind.model_prefixes]


def kind_names() -> list[str]:
    """Return all kinds, also those of packages that are not loaded."""
    return list(dict.fromkeys([*_KINDS, *(point.name for point in _entry_points())]))


def find_kind(name: str) -> BackendKind | None:
    """Return the kind of that name, or None. Loads the kind's package if needed.

    Raises `ConfigError` if the package cannot be loaded or gives no backend.
    """
    if name not in _KINDS:
        points = [point for point in _entry_points() if point.name == name]
        if not points:
            return None
        if len(points) > 1:
            packages = " and ".join(sorted(map(_package, points)))
            raise ConfigError(f'"{name}" is a kind of {packages}: uninstall all but one')
        [point] = points
        try:
            backend = point.load()
            if not (isinstance(backend, type) and issubclass(backend, Backend)):
                raise TypeError(f"{point.value} is no subclass of ccroute.Backend")
            if backend.kind != name:
                raise TypeError(f'{point.value} has the kind "{backend.kind}"')
            register(backend)
        except Exception as error:
            raise ConfigError(
                f'"{name}" is a kind of {_package(point)}, which cannot be loaded '
                f"({type(error).__name__}: {error}): update or uninstall it"
            ) from error
    return _KINDS[name]


def _entry_points() -> Iterable[EntryPoint]:
    from importlib.metadata import entry_points  # slow to import, and only files that name a kind need it

    return entry_points(group=GROUP)


def _package(point: EntryPoint) -> str:
    return f"the package {point.dist.name} {point.dist.version}" if point.dist else point.value


def _add(name: str, make: Callable[..., Backend], usual: type[Backend] | Preset) -> None:
    url = usual.default_url
    origin = None if url is None else parse_base_url(name, url)[0]
    _KINDS[name] = BackendKind(make, origin, usual.key_variable, tuple(usual.model_prefixes))


_KINDS: Final[dict[str, BackendKind]] = {}
for _own in (AnthropicBackend, OllamaBackend):
    register(_own)
for _name, _preset in PRESETS.items():
    _add(_name, partial(OpenAIBackend, preset=_name), _preset)
