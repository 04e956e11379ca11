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
    `seen` the day it was read (ISO date). `preset`: only at this preset of `OpenAIBackend`, where the same
    model takes more at other servers.
    """

    wire: Wire
    names: str
    facts: Model
    source: str
    seen: str
    preset: str = ""


# -- OpenAI-compatible --------------------------------------------------------------------------------------

_AZURE = "https://learn.microsoft.com/azure/foundry/openai/how-to/reasoning"
_VERCEL = "https://github.com/vercel/ai/blob/main/packages/openai/src/openai-language-model-capabilities.ts"
_GPT_5_4 = "https://github.com/getzep/graphiti/issues/1395"
_TOOLS = "https://github.com/pipecat-ai/pipecat/issues/4043"
_GPT_5_6 = "https://github.com/livekit/agents/pull/7169"
_OPENAI_STOP = "https://github.com/BittnerPierre/AI-Agent-Casebook/issues/133"
_GROK = "https://docs.x.ai/docs/guides/reasoning"
_MISTRAL = "https://docs.mistral.ai/capabilities/reasoning"
_KIMI = "https://cloud.baidu.com/doc/qianfan-docs/s/Wm95lyynv"
_KIMI_3 = (
    "https://dev.to/aihubmix/"
    "kimi-k31-pro-migration-guide-five-400s-one-404-and-the-claude-code-codex-config-13k"
)
_CLAUDE_GUIDE = "https://github.com/anthropics/skills/blob/main/skills/claude-api/shared/model-migration.md"
_READ = "2026-11-21"

# After the name: a date (`-2025-08-07`, `-20250807`), and what OpenRouter adds (`:online`).
_DATED = r"(?:-\d{4}-?\d\d-?\d\d)?(?::.*)?"
# Without `max_tokens`: its new name is sent.
_FIXED = ("max_tokens", "frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "top_logprobs")
_WORDS_5 = ("none", "low", "medium", "high", "xhigh")


def _reasoning(
    *efforts: str,
    sampling: Literal["none", "not_thinking"] = "none",
    stop: bool = False,
    apart: bool = False,
) -> Model:
    """A model of OpenAI's that thinks: it takes no penalties, and its sampling is its own.

    `stop`: it takes stop sequences. `apart`: it takes no effort beside tools at `/chat/completions`.
    """
    refuses = (*_FIXED, *(() if stop else ("stop",)), *(("reasoning_effort with tools",) if apart else ()))
    return Model(sampling=sampling, efforts=efforts, refuses=refuses)


_ONE_CALL = Model(
    sampling="none", efforts=("low", "medium", "high"), refuses=(*_FIXED, "stop", "parallel_tool_calls")
)
_OPENAI: Final = (
    Known("openai", r"(?:chatgpt|gpt-(?:3|4)).*", Model(thinking="none"), _VERCEL, _READ),
    Known("openai", r"gpt-5-chat.*", Model(thinking="none"), _VERCEL, _READ),
    Known("openai", r"gpt-5-\d-chat.*", _reasoning("medium"), _AZURE, _READ),
    Known("openai", rf"o1{_DATED}", _reasoning("low", "medium", "high", stop=True), _AZURE, _READ),
    Known(
        "openai",
        rf"o3-mini{_DATED}",
        replace(_ONE_CALL, refuses=(*_FIXED, "parallel_tool_calls")),
        _AZURE,
        _READ,
    ),
    Known("openai", rf"o3{_DATED}", _reasoning("low", "medium", "high"), _AZURE, _READ),
    Known("openai", rf"o4-mini{_DATED}", _ONE_CALL, _AZURE, _READ),
    Known(
        "openai",
        rf"gpt-5(?:-mini|-nano)?{_DATED}",
        _reasoning("minimal", "low", "medium", "high"),
        _OPENAI_STOP,
        _READ,
    ),
    Known(
        "openai",
        rf"gpt-5-1{_DATED}",
        _reasoning("none", "low", "medium", "high", sampling="not_thinking"),
        _AZURE,
        _READ,
    ),
    Known("openai", rf"gpt-5-2{_DATED}", _reasoning(*_WORDS_5, sampling="not_thinking"), _VERCEL, _READ),
    Known(
        "openai",
        rf"gpt-5-4(?:-mini|-nano){_DATED}",
        _reasoning(*_WORDS_5, sampling="not_thinking", stop=True, apart=True),
        _GPT_5_4,
        _READ,
    ),
    Known(
        "openai",
        rf"gpt-5-4{_DATED}",
        _reasoning(*_WORDS_5, sampling="not_thinking", apart=True),
        _TOOLS,
        _READ,
    ),
    Known("openai", rf"gpt-5-5{_DATED}", _reasoning(*_WORDS_5, apart=True), _TOOLS, _READ),
    Known("openai", rf"gpt-5-6(?:-sol|-terra|-luna)?{_DATED}", _reasoning(*_WORDS_5, "max"), _GPT_5_6, _READ),
    Known(
        "openai", rf"gpt-6-astra{_DATED}", _reasoning("low", "medium", "high", "xhigh", "max"), _VERCEL, _READ
    ),
    Known("openai", rf"gpt-6-(?:sol|luna){_DATED}", _reasoning(*_WORDS_5, "max"), _VERCEL, _READ),
    Known("openai", r"gpt-oss.*", Model(efforts=("low", "medium", "high")), _AZURE, _READ),
    # xAI's own: which of them thinks is in the name, and those that do take no word for how hard.
    Known(
        "openai",
        r"grok-.*-non-reasoning.*",
        Model(thinking="none", refuses=("frequency_penalty", "presence_penalty")),
        _GROK,
        _READ,
    ),
    Known("openai", r"grok-3-mini.*", Model(efforts=("low", "high")), _GROK, _READ),
    Known(
        "openai",
        r"grok-4-3.*",
        Model(efforts=("none", "low", "medium", "high"), refuses=("frequency_penalty", "presence_penalty")),
        _GROK,
        _READ,
    ),
    Known(
        "openai",
        r"grok-(?:4|code).*",
        Model(efforts=(), refuses=("frequency_penalty", "presence_penalty", "stop")),
        _GROK,
        _READ,
    ),
    Known("openai", r"magistral.*", Model(efforts=()), _MISTRAL, _READ),
    Known("openai", r"mistral-(?:small-2603|medium-3-5).*", Model(efforts=("none", "high")), _MISTRAL, _READ),
    # Moonshot fixes the sampling of its newer models; other servers of the same weights do not.
    Known(
        "openai",
        r"kimi-k3.*",
        Model(
            thinking="effort",
            efforts=("low", "high", "max"),
            sampling="none",
            refuses=("frequency_penalty", "presence_penalty"),
        ),
        _KIMI_3,
        _READ,
        preset="moonshot",
    ),
    Known(
        "openai",
        r"kimi-k2-[56].*",
        Model(thinking="switch", sampling="none", refuses=("frequency_penalty", "presence_penalty")),
        _KIMI,
        _READ,
        preset="moonshot",
    ),
    # Claude behind a gateway.
    Known(
        "openai", r"(?:.*-)?claude-(?:opus-4-[78]|[a-z]+-5).*", Model(sampling="none"), _CLAUDE_GUIDE, _READ
    ),
    Known("openai", r"(?:.*-)?claude-[a-z]+-4.*", Model(sampling="one"), _CLAUDE_GUIDE, _READ),
)

KNOWN: Final[tuple[Known, ...]] = (*_OPENAI,)
"""The first entry that matches counts."""

NOTHING: Final = Model()


@lru_cache(maxsize=1024)
def known(wire: Wire, model: str, preset: str = "") -> Model:
    """What is known of a model by its name; an empty `Model` if nothing is."""
    bare = model.lower().rpartition("/")[2].replace(".", "-")
    asked = (entry for entry in KNOWN if entry.wire == wire and entry.preset in ("", preset))
    return next((entry.facts for entry in asked if re.fullmatch(entry.names, bare)), NOTHING)
