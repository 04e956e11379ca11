"""Reads files and mappings into the keyword arguments for a router.

Each source is opened, recognised by its content, translated into the native shape and checked. Then all are
merged, and the names in them are looked up. One `ConfigError` has all faults.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ccroute.backends import Backend
from ccroute.config import orchestra
from ccroute.config.additions import Additions, Translated
from ccroute.config.alternatives import use_alternatives
from ccroute.config.assemble import Assembly
from ccroute.config.faults import grouped, without_unset
from ccroute.config.foreign.external_names import ExternalNames
from ccroute.config.litellm import is_litellm
from ccroute.config.merge import Merged, merge
from ccroute.config.native.build import implied_key
from ccroute.config.native.checking import checked_settings
from ccroute.config.native.settings import Settings
from ccroute.config.reading.other_tools import looks_like
from ccroute.config.reading.secrets import Environment
from ccroute.config.reading.source import EXPECTED, Given, Ignored, Source, Stamp, open_sources
from ccroute.display import escaped
from ccroute.errors import ConfigError
from ccroute.routing import AliasTable
from ccroute.routing.arguments import Faults, check_backends
from ccroute.routing.tables.agents import checked_agents, checked_fallbacks

if TYPE_CHECKING:
    from ccroute.config.writing.document import MergedSettings

_SHAPES = (
    "known are tables such as backends, aliases and agents; agents in groups or in lists such as "
    "codingAgents; llm_routing.endpoints; llmGateway; agent_model_overrides; routing.agent_rules; "
    "and LiteLLM's model_list"
)
Translate: TypeAlias = Callable[[Mapping[str, Any], Environment, Source, ExternalNames], Translated]
"""The reader of another tool's files."""
_log = logging.getLogger("ccroute")


@dataclass(frozen=True)
class Loaded:
    """`options` are keyword arguments for `Router`; `ignored` lists the keys not read, and why; `files` are
    those that were read."""

    options: dict[str, Any]
    ignored: tuple[Ignored, ...]
    files: Mapping[Path, Stamp | None]
    _merged: Merged
    _names: tuple[str, ...]
    _environment: Environment

    @cached_property
    def settings(self) -> MergedSettings:
        """What the sources say, to be written as one native file."""
        from ccroute.config.writing.document import MergedSettings  # loaded at its first use

        usual = {backend.name: implied_key(backend) for backend in self.options["backends"]}
        return MergedSettings(self._merged, self._names, self.ignored, self._environment, usual)


def load(
    sources: Given | Sequence[Given],
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The keyword arguments for `Router`, from a path, a mapping or several of these.

    Secrets come from `env` (None: `os.environ`, read now). Of `overrides`, which are keyword
    arguments too, `backends` and `aliases` are merged over those of the sources; the others
    replace. Raises `ConfigError` with every fault and its place. Logs a warning on "ccroute" for keys
    that this version does not enforce, for a provider's usual variable that is not set, and for what seems
    misspelled.
    """
    return read(sources, env, overrides).options


def read(
    sources: Given | Sequence[Given],
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    keep_unset: bool = False,
) -> Loaded:
    """Return the result of `load` with all that was found.

    `keep_unset`: a variable that is not set is no fault, because the files are only moved. The options are
    not for a router then.
    """
    environment = Environment(os.environ if env is None else env, keep_unset=keep_unset)
    given = _checked(overrides or {})
    opened = open_sources(sources)
    translated = list(_translated(opened, environment, given))
    merged = merge((source, checked_settings(table, source), beyond) for source, table, beyond in translated)
    use_alternatives(merged, given)
    assembly = Assembly(merged, environment, given)
    read_from = [source for source, _ in opened]
    faults = grouped(chain.from_iterable(source.faults for source in read_from), "environment variable ")
    unknown = [] if any(source.is_unread for source in read_from) else assembly.unknown  # it may define them
    faults += without_unset([*assembly.faults, *unknown], read_from)
    if not faults and not _names_any(merged.settings, given):
        empty = not any(content for _, content in opened)
        what = f"{'is empty' if empty else 'holds no backends, agents or aliases'}; {EXPECTED}"
        if not empty and all(is_litellm(content) for _, content in opened):
            what = "has no models: model_list is missing or empty, and LiteLLM's database is not read"
        faults.append((read_from[0].name if len(read_from) == 1 else "source", what))
    noted = grouped(chain.from_iterable(source.warnings for source in read_from))
    for warning in [*(f"{where}: {text}" for where, text in noted), *assembly.warnings]:
        # Also beside faults: a misspelled key may be the reason of one.
        _log.warning("config: %s", escaped(environment.hide(warning)))
    if faults:
        raise ConfigError(
            *dict.fromkeys(escaped(f"{where}: {environment.hide(text)}") for where, text in faults)
        )
    return Loaded(
        assembly.options,
        tuple(chain.from_iterable(source.ignored() for source in read_from)),
        {path: stamp for source in read_from for path, stamp in source.files.items()},
        replace(merged, settings=assembly.settings),
        tuple(source.name for source in read_from),
        environment,
    )


def _names_any(read: Settings, given: Mapping[str, Any]) -> bool:
    """Whether the sources or the caller name anything that could answer."""
    named = (read.backends, read.aliases, read.agents, read.groups, read.default_model)
    return any((*named, *map(given.get, ("backends", "aliases", "agents", "default_model"))))


def _checked(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The caller's keyword arguments, backends as a list. Raises `ConfigError` for a wrong type."""
    given = dict(overrides)
    faults, none = Faults(), list[Backend]()
    given["backends"] = faults.collect(lambda: check_backends(given.get("backends") or ()), none)
    for section in ("agents", "groups"):
        if given.get(section) is not None:
            list(checked_agents(section, given[section], faults))
    faults += checked_fallbacks(given.get("fallbacks"))[1]
    if not isinstance(given.get("aliases"), Mapping | None):
        faults.collect(lambda: AliasTable(given["aliases"]), None)
    faults.raise_if_any()
    return given


def _translated(
    opened: Sequence[tuple[Source, Mapping[str, Any]]], environment: Environment, given: Mapping[str, Any]
) -> Iterator[tuple[Source, dict[str, Any], Additions]]:
    """Each source with its content in the native shape, secrets expanded, and what it says beyond that."""
    replaced = {backend.name for backend in given["backends"]}
    contents = [content for _, content in opened]
    for i, (source, content) in enumerate(opened):
        if (looks := looks_like(content)) is not None:
            source.fault_file(looks)
            yield source, {}, Additions()
        elif translate := _translator(content):
            others = [*contents[:i], *contents[i + 1 :]]
            external = ExternalNames(given.get("aliases") or {}, given["backends"], others, environment)
            table, additions = translate(content, environment, source, external)
            source.faults = without_unset(source.faults, [source])
            contents[i] = table  # its servers are external to the next source
            yield source, table, additions
        else:
            has_tables = any(value and isinstance(value, Mapping) for value in content.values())
            if has_tables and Settings.model_fields.keys().isdisjoint(content):
                source.fault_file(f"is like no known shape, and was read as the native one; {_SHAPES}")
            yield source, environment.expand(_needed(content, replaced), (), source), Additions()


def _translator(content: Mapping[str, Any]) -> Translate | None:
    """The reader of the format that the content shows; None for the native shape. Most programs need one."""
    if is_litellm(content):
        from ccroute.config.litellm.translate import translate

        return translate
    return orchestra.translate if orchestra.is_orchestra(content) else None


def _needed(content: Mapping[str, Any], replaced: Iterable[str]) -> dict[str, Any]:
    """Return the content without disabled and replaced backends: their variables need not be set."""
    needed = {key: value for key, value in content.items() if key != "$schema"}  # written for editors
    if isinstance(backends := content.get("backends"), Mapping):
        needed["backends"] = {name: table for name, table in backends.items() if name not in replaced}
        for name, table in needed["backends"].items():
            if isinstance(table, Mapping) and table.get("enabled") is False:
                needed["backends"][name] = {"enabled": False}
    return needed
