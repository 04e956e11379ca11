"""Keys as people write them: which spellings are one key, and which known key a wrong one may mean.

Knows spellings; must not know what any key means, but that `local_only` may be written in many ways.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_NO_LETTER = re.compile(r"[\W_]+")
_CLOSE = 0.75


def folded(key: object) -> str:
    """`fallbackModel`, `fallback_model` and `Fallback-Model` are one key."""
    return _NO_LETTER.sub("", str(key)).lower()


def is_local_only(key: object) -> bool:
    """Privacy hangs on it, so every spelling counts."""
    return folded(key) == "localonly"


def misspelt(key: object, known: Iterable[str], present: Iterable[object] = ()) -> str | None:
    """The known key that `key` seems to be meant for; one that is `present` beside it is not."""
    there = set(map(folded, present)) - {folded(key)}
    # The first of several spellings is the one to suggest.
    candidates = {folded(name): name for name in reversed(tuple(known)) if folded(name) not in there}
    close = difflib.get_close_matches(folded(key), candidates, n=1, cutoff=_CLOSE)
    return candidates[close[0]] if close else None
