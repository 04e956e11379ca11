"""Merges several sources. If two define a name, the later one wins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ccroute.config.native.settings import Settings, Table
from ccroute.config.reading.source import Ignored, Place, Source


@dataclass(slots=True)
class Merged:
    """The settings of all sources, and the source that each part of them is from.

    `left_out` are the places whose values had a fault and are not in the settings. `implied` are backends
    that no source defines, but that an agent's address may need. `absent` are names that lead nowhere, each
    with the reason.
    """

    settings: Settings
    left_out: frozenset[Place] = frozenset()
    implied: frozenset[str] = frozenset()
    absent: Mapping[str, str] = field(default_factory=dict)
    _sources: dict[Place, Source] = field(default_factory=dict)

    @property
    def sources(self) -> Iterable[Source]:
        """Every source that a part of the settings is from."""
        return dict.fromkeys(self._sources.values())

    def source(self, place: Place) -> Source | None:
        """The source of what is at `place`: a section's name, or a section and a name in it."""
        return self._sources.get(place[:2], self._sources.get(place[:1]))

    def where(self, place: Place) -> str:
        """A place as messages write it, with its source."""
        return (self.source(place) or Source("")).where(place)


def merge(read: Iterable[tuple[Source, Settings]]) -> Merged:
    """One set of settings. What a later source replaces is noted as ignored in the earlier one."""
    merged: dict[str, Any] = {}
    sources: dict[Place, Source] = {}
    left_out: set[Place] = set()
    implied: set[str] = set()
    absent: dict[str, str] = {}
    meant: set[str] = set()
    for source, settings in read:
        left_out.update(source.left_out)
        implied |= source.implied
        absent |= source.absent
        meant |= settings.backends.keys() - source.implied
        for section, value in settings.given().items():
            if isinstance(value, dict):
                # The later source's come first: patterns of aliases are tried in order.
                earlier = merged.get(section, {})
                mute = source.implied if section == "backends" else ()
                new = {
                    name: entry
                    for name, entry in value.items()
                    if name not in earlier or (name not in mute and not _is_empty(entry))
                }
                merged[section] = new | {name: entry for name, entry in earlier.items() if name not in new}
                places: list[Place] = [(section, name) for name in new]
            else:
                both = isinstance(value, Table) and isinstance(merged.get(section), Table)
                merged[section] = merged[section].model_copy(update=value.given()) if both else value
                places = [(section,)]
            for place in places:
                if (earlier_source := sources.get(place)) is not None:
                    earlier_source.ignored.append(
                        Ignored(earlier_source.where(place), f"{source.where(place)} comes later and wins")
                    )
                sources[place] = source
    return Merged(
        Settings.model_construct(**merged), frozenset(left_out), frozenset(implied - meant), absent, sources
    )


def _is_empty(entry: object) -> bool:
    """Whether `entry` is an empty table, such as a group with only a name. It replaces no earlier entry."""
    return isinstance(entry, Table) and not entry.model_fields_set
