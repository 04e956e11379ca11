"""What a router was configured from: reads it again, and notices when one of its files was written.

Knows files and their times; must not know what a router does with what they say.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ccroute.config.load import read
from ccroute.config.reading.source import Given, Stamp, stamp
from ccroute.errors import ConfigError

EVERY = 1.0
"""Seconds between two looks at the files of a watched router."""

_log = logging.getLogger("ccroute")


class Sources:
    """Files and mappings, the environment for their secrets, and the overrides: the arguments of
    `Router.from_config`."""

    def __init__(
        self,
        given: Given | Sequence[Given],
        env: Mapping[str, str] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        self._given = given
        self._env = env
        self._overrides = dict(overrides or {})
        if isinstance(backends := self._overrides.get("backends"), Iterator):
            self._overrides["backends"] = [*backends]  # they are needed more than once
        self._files: dict[Path, Stamp | None] = {}
        self._next_look = 0.0

    def replaced_by(self, given: Given | Sequence[Given]) -> Sources:
        """Another source with the same environment and the same overrides."""
        return Sources(given, self._env, self._overrides)

    def read(self) -> dict[str, Any]:
        """The keyword arguments for a router, as `load` gives them."""
        loaded = read(self._given, self._env, self._overrides)
        self._files = dict(loaded.files)
        self._given = _absolute(self._given)  # the program may change its working directory
        return loaded.options

    def is_due(self, now: float) -> bool:
        """Whether it is time for another look at the files; `now` is monotonic."""
        if now < self._next_look:
            return False
        self._next_look = now + EVERY
        return True

    def have_changed(self) -> bool:
        """Whether a file was written since it was last read or tried. False while one is missing: it is being
        replaced."""
        found = {path: stamp(path) for path in self._files}
        if None in found.values() or found == self._files:
            return False
        self._files = found  # also if they turn out to be bad: each change is tried once
        return True

    def failed(self, error: Exception) -> None:
        """Log that what was written cannot be used, unless a file is being replaced just now."""
        missing = {path: None for path in self._files if stamp(path) is None}
        if missing:
            self._files |= missing  # tried again when it is back
            return
        text = str(error) if isinstance(error, ConfigError) else type(error).__name__
        _log.warning("config: not reloaded, the router goes on with what it has: %s", text)


def _absolute(given: Given | Sequence[Given]) -> Given | Sequence[Given]:
    if isinstance(given, str | os.PathLike):
        return os.path.abspath(given)
    if isinstance(given, Mapping):
        return given
    return [one if isinstance(one, Mapping) else os.path.abspath(one) for one in given]
