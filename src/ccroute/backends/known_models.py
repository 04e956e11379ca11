"""What providers' models take, model by model: data with its sources, no code that depends on a name.

A user's own `Model(…)` of a backend wins over what stands here, field by field, so nobody has to wait for
a release. Only what differs from the usual is listed; an unknown name gets the usual.
"""

from __future__ import annotations

import re
from dataclasses import replace
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


# -- Claude -------------------------------------------------------------------------------------------------

_GUIDE = "https://github.com/anthropics/skills/blob/main/skills/claude-api/shared/model-migration.md"
_MODELS = "https://platform.claude.com/docs/en/about-claude/models/overview"
_GUIDES = "https://platform.claude.com/docs/en/models/"
_FABLE = "https://github.com/withceleste/celeste-python/pull/393"
_SEEN = "2026-11-21"

# Before the name: a region, a platform (`us.anthropic.`, `databricks-`). After it: a date, `-latest`,
# `-v1:0`, `@20250929`, `:thinking`; but no further number, because 4-5 is another model than 4.
_BEFORE, _AFTER = "(?:.*[^a-z])?claude-", r"(?:(?:-(?!\d{1,2}(?!\d))|[@:]).*)?"


def _claude(*models: str) -> str:
    """The names of some models, each as `opus-4-5`; gateways also write `4-5-opus`."""
    turned = ["-".join([*model.split("-")[1:], model.split("-")[0]]) for model in models]
    return f"{_BEFORE}(?:{'|'.join([*models, *turned])}){_AFTER}"


_WORDS = ("low", "medium", "high", "xhigh", "max")
_MUTE = Model(thinking="none", schema="tool")
_BUDGET = Model(thinking="budget", sampling="one", schema="tool", prefill=True)
_NEWEST = Model(
    thinking="adaptive_on",
    efforts=_WORDS,
    sampling="none",
    schema="format",
    refuses=("tool_choice",),
    prefill=False,
    max_output=128_000,
)
"""What always thinks: its efforts lack `none`. With `tool_choice` in `refuses`, a forced one is meant."""
_FREE_CHOICE = replace(_NEWEST, refuses=None)
_CAN_STOP = replace(_FREE_CHOICE, efforts=("none", *_WORDS))
_ASKED = replace(_CAN_STOP, thinking="adaptive")
_FOUR_SIX = replace(_ASKED, sampling="one", efforts=("none", "low", "medium", "high", "max"))


def _known(names: str, facts: Model, source: str = _GUIDE) -> Known:
    return Known("anthropic", names, facts, source, _SEEN)


_CLAUDE: Final = (
    _known(r"(?:.*[^a-z])?claude-(?:instant|v?[12](?!\d)).*", replace(_MUTE, max_output=4096), _MODELS),
    _known(_claude("opus-3", "sonnet-3", "haiku-3"), replace(_MUTE, max_output=4096), _MODELS),
    _known(_claude("sonnet-3-5", "haiku-3-5"), replace(_MUTE, max_output=8192), _MODELS),
    _known(_claude("sonnet-3-7"), replace(_BUDGET, sampling="any", max_output=64_000), _MODELS),
    _known(_claude("opus-4", "opus-4-0", "opus-4-1"), replace(_BUDGET, max_output=32_000)),
    _known(_claude("sonnet-4", "sonnet-4-0"), replace(_BUDGET, max_output=64_000)),
    _known(
        _claude("opus-4-5", "sonnet-4-5", "haiku-4-5"), replace(_BUDGET, schema="format", max_output=64_000)
    ),
    _known(_claude("opus-4-6", "sonnet-4-6"), _FOUR_SIX),
    _known(_claude("opus-4-7", "opus-4-8"), _ASKED),
    _known(_claude("opus-5", "sonnet-5"), _CAN_STOP),
    _known(_claude("fable-5", "mythos-5", "mythos-preview"), _FREE_CHOICE, _FABLE),
    _known(r"(?:.*[^a-z])?claude-(?:.*-)?haiku.*", _CAN_STOP, _GUIDES + "haiku-5-5/migration-guide"),
    # Opus 5.5, Sonnet 5.5, Fable 5.1, and every name that is not listed: it is newer, or means the newest.
    _known(r"(?:.*[^a-z])?claude(?:[-:@].*)?", _NEWEST, _GUIDES + "opus-5-5/migration-guide"),
)

KNOWN: Final[tuple[Known, ...]] = _CLAUDE
"""The first entry that matches counts."""

NOTHING: Final = Model()


@lru_cache(maxsize=1024)
def known(wire: Wire, model: str) -> Model:
    """What is known of a model by its name; an empty `Model` if nothing is."""
    bare = model.lower().rpartition("/")[2].replace(".", "-")
    return next(
        (entry.facts for entry in KNOWN if entry.wire == wire and re.fullmatch(entry.names, bare)), NOTHING
    )
