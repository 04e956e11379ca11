"""Compares names: slugs for agents, close matches for unknown names."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NOT_SLUG = re.compile(r"[\W_]+")
_MOST_COMPARED = 2000
"""To compare a name with more than these takes so long that calls and the reading of a file would hang."""


def slug(name: str) -> str:
    """`"Python Expert"` → `"python-expert"`."""
    return _NOT_SLUG.sub("-", name.lower()).strip("-")


def close_matches(name: str, known: Iterable[str]) -> tuple[str, ...]:
    """Up to three known names that `name` may have meant, best first; case does not matter."""
    from difflib import get_close_matches  # only where a name is wrong

    known = [*known]
    if len(known) > _MOST_COMPARED:
        return ()
    by_folded = {candidate.lower(): candidate for candidate in known}
    return tuple(by_folded[match] for match in get_close_matches(name.lower(), by_folded, n=3, cutoff=0.6))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`', did you mean "x"?'`, or an empty string."""
    close = close_matches(name, known)
    return f', did you mean "{close[0]}"?' if close else ""
