"""Which spellings of a key are the same key, and which known key a wrong one may mean."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import lru_cache

from ccroute.routing.names import slug

_CLOSE = 0.75


def folded(key: object) -> str:
    """Return the same text for `fallbackModel`, `fallback_model` and `Fallback-Model`."""
    return _folded(str(key))


@lru_cache(1024)  # a hundred agents have the same keys
def _folded(key: str) -> str:
    return slug(key).replace("-", "")


def is_local_only(key: object) -> bool:
    """Whether a key is `local_only`. Privacy depends on it, so every spelling counts."""
    return folded(key) == "localonly"


def misspelt(key: object, known: Iterable[str], present: Iterable[object] = ()) -> str | None:
    """The known key closest to `key`, without those that are `present` beside it; None if none is close."""
    known = tuple(known)
    close = _close(folded(key), known)
    if not close:
        return None
    there = set(map(folded, present)) - {folded(key)}
    meant = next((folded(name) for name in close if folded(name) not in there), None)
    spellings = [name for name in known if folded(name) == meant]
    return max(spellings, key=lambda name: _likeness(str(key), name), default=None)


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


@lru_cache(1024)
def _close(key: str, known: tuple[str, ...]) -> list[str]:
    """The known keys that resemble a folded one, the closest first."""
    candidates = {folded(name): name for name in known}
    close = difflib.get_close_matches(key, candidates, n=max(1, len(candidates)), cutoff=_CLOSE)
    return [candidates[name] for name in close]


_SWITCHES = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


def as_switch(value: object) -> bool | None:
    """The boolean that a value means, also one that is written as a text or a number; None if none."""
    return _SWITCHES.get(str(value).strip().lower())
