"""What providers' models take, model by model: data with its sources, no code that depends on a name.

A user's own `Model(…)` of a backend wins over what stands here, field by field, so nobody has to wait for
a release. Only what differs from the usual is listed; an unknown name gets the usual.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from ccroute.types import Model

Wire = Literal["openai", "anthropic", "ollama"]


class Known(NamedTuple):
    """Facts of the models whose bare name matches `names` (a regex, matched whole, lower case).

    The bare name is what follows the last slash, dots written as hyphens. `source` is the page that says so,
    `seen` the day it was read (ISO date).
    """

    wire: Wire
    names: str
    facts: Model
    source: str
    seen: str


KNOWN: Final[tuple[Known, ...]] = (
    Known(
        "ollama",
        "gpt-oss([:-].*)?",
        Model(thinking="levels", efforts=("low", "medium", "high")),  # true and false mean nothing to it
        "https://docs.ollama.com/capabilities/thinking",
        "2026-11-21",
    ),
    Known(
        "ollama",
        r"(llama[23](-\d)?|codellama|tinyllama|gemma[23]?n?|codegemma|qwen2(-5)?(-?coder|vl)?|codeqwen"
        r"|mistral(-nemo|-small|-large)?|mixtral|codestral|phi[34](-5|-mini)?|starcoder2?|deepseek-coder(-v2)?"
        r"|deepseek-v2(-5)?|command-r(-plus)?|llava(-llama3)?)(:.*)?",
        Model(thinking="none"),
        "https://ollama.com/library",
        "2026-11-21",
    ),
)
"""The first entry that matches counts."""

NOTHING: Final = Model()


@lru_cache(maxsize=1024)
def known(wire: Wire, model: str) -> Model:
    """What is known of a model by its name; an empty `Model` if nothing is."""
    bare = model.lower().rpartition("/")[2].replace(".", "-")
    return next(
        (entry.facts for entry in KNOWN if entry.wire == wire and re.fullmatch(entry.names, bare)), NOTHING
    )
