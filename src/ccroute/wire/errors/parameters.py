"""Which of a call's parameters a server refused, by the names that servers give them. Data and one search."""

import re
from collections.abc import Callable
from typing import Final

from ccroute.types.request import PARAMETERS

_WITHOUT: Final = {"max_tokens", "tools", "tool_choice", "response_format", "extra"}
"""What a request cannot do without."""
_PLAIN_WORDS: Final = {"stop", "seed", "user"}
"""Names that are words of any sentence, too: they count only in a field of their own, or in quotes."""

_NAMES: Final = {
    **{name: name for name in PARAMETERS - _WITHOUT - _PLAIN_WORDS},
    "stop_sequences": "stop",
    "thinking": "reasoning_effort",
    "reasoningeffort": "reasoning_effort",
    "output_config.effort": "reasoning_effort",
    "effort parameter": "reasoning_effort",
}
"""What servers write, in lower case, and the parameter of a call that it means."""

_NAMED: Final = re.compile(
    "|".join([rf"\b{re.escape(name)}\b" for name in sorted(_NAMES, key=len, reverse=True)])
    + rf"|['\"`\u2018\u201c](?:{'|'.join(sorted(_PLAIN_WORDS))})['\"`\u2019\u201d]",
    re.IGNORECASE,
)


def refused_parameter(field: str, words: str, is_quoted: Callable[[str], bool] | None = None) -> str | None:
    """The parameter that an error is about: as its `param` field says, else the first that its words name.

    Only what a request can do without: tools and the form of an answer are not among them. A name that
    `is_quoted` finds in the request does not count.
    """
    named = field.lower()
    if named in _NAMES or named in _PLAIN_WORDS:
        return _NAMES.get(named, named)
    found = _NAMED.search(words)
    if found is None or (is_quoted and is_quoted(found[0])):
        return None
    name = found[0].lower()
    return _NAMES.get(name) or name[1:-1]
