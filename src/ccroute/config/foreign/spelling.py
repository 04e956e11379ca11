"""Which spellings of a key are the same key, and which known key a wrong one may mean."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ccroute.routing.names import slug

_CLOSE = 0.75


def folded(key: object) -> str:
    """Return the same text for `fallbackModel`, `fallback_model` and `Fallback-Model`."""
    return slug(str(key)).replace("-", "")


def is_local_only(key: object) -> bool:
    """Whether a key is `local_only`. Privacy depends on it, so every spelling counts."""
    return folded(key) == "localonly"


def misspelt(key: object, known: Iterable[str], present: Iterable[object] = ()) -> str | None:
    """The known key closest to `key`, without those that are `present` beside it; None if none is close."""
    there = set(map(folded, present)) - {folded(key)}
    # The first of several spellings is the one to suggest.
    candidates = {folded(name): name for name in reversed(tuple(known)) if folded(name) not in there}
    close = difflib.get_close_matches(folded(key), candidates, n=1, cutoff=_CLOSE)
    return candidates[close[0]] if close else None
