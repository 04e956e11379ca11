"""Rules in another tool's file that a native table cannot hold: they apply to agents and names of all
sources."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ccroute.config.reading.source import Place


@dataclass(frozen=True, slots=True)
class Additions:
    """Rules that hold once all sources are known.

    routed:       agent → what chooses its model from the model that it has so far.
    alternatives: agent → models to use, the first that exists, if the one that this file gives it has no
                  target in any source.
    every_agent:  keys for each agent that does not have them.
    implied:      backends that are needed only if a name leads to them.
    absent:       names that the file has, but that lead nowhere, each with the reason.
    """

    routed: dict[str, Callable[[str | None], str | None]] = field(default_factory=dict)
    alternatives: dict[str, list[str]] = field(default_factory=dict)
    every_agent: dict[str, Any] = field(default_factory=dict)
    implied: set[str] = field(default_factory=set)
    absent: dict[str, str] = field(default_factory=dict)


Translated: TypeAlias = tuple[dict[str, Any], Additions]
"""The native table of another tool's file, and its other rules."""


def routed(agent: str) -> Place:
    """The place, in `Source.renamed`, of a rule about an agent."""
    return ("routed", agent)
