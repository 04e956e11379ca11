"""The way from files to the keyword arguments for a router.

Every source is opened, recognised by what it holds, brought into the native shape and checked; then
all are merged, and what they name is looked up. Every fault on the way is in one `ConfigError`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ccroute.config.assemble import Assembly
from ccroute.config.merge import merge
from ccroute.config.orchestra import is_orchestra, translate
from ccroute.config.secrets import Environment
from ccroute.config.settings import Settings
from ccroute.config.source import Given, Ignored, Source, open_sources
from ccroute.errors import ConfigError

_log = logging.getLogger("ccroute")


@dataclass(frozen=True, slots=True)
class Loaded:
    """`options` are keyword arguments for `Router`; `ignored` is what was passed over, and why."""

    options: dict[str, Any]
    ignored: tuple[Ignored, ...]


def load(
    sources: Given | Sequence[Given],
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The keyword arguments for `Router`, from a path, a mapping or several of these.

    Secrets come from `env` (None: `os.environ`, read now). Of `overrides`, which are keyword
    arguments too, `backends` and `aliases` are merged over those of the sources; the others
    replace. Raises `ConfigError` with every fault and its place. What this version does not enforce,
    and a provider's usual variable that is not set, are warnings on the logger "ccroute".
    """
    return read(sources, env, overrides).options


def read(
    sources: Given | Sequence[Given],
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Loaded:
    """`load`, together with what it ignored."""
    environment = Environment(os.environ if env is None else env)
    given = dict(overrides or {})
    given["backends"] = list(given.get("backends") or ())
    replaced = {backend.name for backend in given["backends"]}
    opened = open_sources(sources)
    merged = merge(
        [(source, _settings(content, environment, source, replaced)) for source, content in opened]
    )
    assembly = Assembly(merged, environment, given)
    faults = [fault for source, _ in opened for fault in source.faults] + assembly.faults
    if faults:
        raise ConfigError(*dict.fromkeys(f"{where}: {environment.hide(text)}" for where, text in faults))
    for warning in assembly.warnings:
        _log.warning("config: %s", warning)
    return Loaded(assembly.options, tuple(ignored for source, _ in opened for ignored in source.ignored))


def _settings(
    content: Mapping[str, Any], environment: Environment, source: Source, replaced: Iterable[str]
) -> Settings:
    if is_orchestra(content):
        table = translate(content, environment, source)
    else:
        table = environment.expand(_needed(content, replaced), (), source)
    return Settings.checked(table, source)


def _needed(content: Mapping[str, Any], replaced: Iterable[str]) -> dict[str, Any]:
    """Without backends that are disabled or the caller's own: variables missing there are no fault."""
    backends = content.get("backends")
    if not isinstance(backends, Mapping):
        return dict(content)
    needed = {
        name: {"enabled": False} if _is_disabled(backend) else backend
        for name, backend in backends.items()
        if name not in replaced
    }
    return {**content, "backends": needed}


def _is_disabled(backend: object) -> bool:
    return isinstance(backend, Mapping) and backend.get("enabled") is False
