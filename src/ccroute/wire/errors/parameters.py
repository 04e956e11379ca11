"""Finds the refused parameter of a call in a server's error, by the names that servers use."""

import re
from collections.abc import Callable
from functools import cache
from typing import Final

from ccroute.types.request import PARAMETERS

_WITHOUT: Final = {"max_tokens", "tools", "tool_choice", "response_format", "extra"}
"""Parameters that cannot be left out of a request."""
_PLAIN_WORDS: Final = {"stop", "seed", "user"}
"""Names that are also ordinary words. They count only in the error's `param` field, or in quotes."""

_NAMES: Final = {
    **{name: name for name in PARAMETERS - _WITHOUT - _PLAIN_WORDS},
    "stop_sequences": "stop",
    "thinking": "reasoning_effort",
    "reasoningeffort": "reasoning_effort",
    "output_config.effort": "reasoning_effort",
    "effort parameter": "reasoning_effort",
}
"""Servers' names for parameters, in lower case, and ccroute's names."""


def refused_parameter(field: str, words: str, is_quoted: Callable[[str], bool] | None = None) -> str | None:
    """Return the parameter that an error names in its `param` field (`field`), else first in its text.

    Parameters that cannot be left out, such as tools, do not count. A name that `is_quoted` finds in the
    request does not count either.
    """
    named = field.lower()
    if named in _NAMES or named in _PLAIN_WORDS:
        return _NAMES.get(named, named)
    found = _named().search(words)
    if found is None or (is_quoted and is_quoted(found[0])):
        return None
    name = found[0].lower()
    return _NAMES.get(name) or name[1:-1]


@cache
def _named() -> re.Pattern[str]:
    """A name in a text. Compiled at its first use, because that is slow."""
    return re.compile(
        "|".join([rf"\b{re.escape(name)}\b" for name in sorted(_NAMES, key=len, reverse=True)])
        + rf"|['\"`\u2018\u201c](?:{'|'.join(sorted(_PLAIN_WORDS))})['\"`\u2019\u201d]",
        re.IGNORECASE,
    )
