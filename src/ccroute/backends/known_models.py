"""The parameters that providers' models accept: data with its sources.

Each field of a caller's own `Model(…)` replaces the field here, so a new model does not need a release. Only
differences from the usual are listed. An unknown name gets the usual.
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

    The bare name is what follows the last slash, dots written as hyphens. `source` is the page with the
    facts, `seen` the day it was read (ISO date). `preset`: the entry counts only for this preset of
    `OpenAIBackend`, because other servers accept more for the same model.
    """

    wire: Wire
    names: str
    facts: Model
    source: str
    seen: str
    preset: str = ""


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
    """Return a pattern for models given as `opus-4-5`. Gateways also write `4-5-opus`."""
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
"""A model that always thinks: its efforts lack `none`. `tool_choice` in `refuses` means a forced tool."""
_FREE_CHOICE = replace(_NEWEST, refuses=None)
_CAN_STOP = replace(_FREE_CHOICE, efforts=("none", *_WORDS))
_ASKED = replace(_CAN_STOP, thinking="adaptive")
_FOUR_SIX = replace(_ASKED, sampling="one", efforts=("none", "low", "medium", "high", "max"))


def _entry(names: str, facts: Model, source: str = _GUIDE) -> Known:
    return Known("anthropic", names, facts, source, _SEEN)


_CLAUDE: Final = (
    _entry(r"(?:.*[^a-z])?claude-(?:instant|v?[12](?!\d)).*", replace(_MUTE, max_output=4096), _MODELS),
    _entry(_claude("opus-3", "sonnet-3", "haiku-3"), replace(_MUTE, max_output=4096), _MODELS),
    _entry(_claude("sonnet-3-5", "haiku-3-5"), replace(_MUTE, max_output=8192), _MODELS),
    _entry(_claude("sonnet-3-7"), replace(_BUDGET, sampling="any", max_output=64_000), _MODELS),
    _entry(_claude("opus-4", "opus-4-0", "opus-4-1"), replace(_BUDGET, max_output=32_000)),
    _entry(_claude("sonnet-4", "sonnet-4-0"), replace(_BUDGET, max_output=64_000)),
    _entry(
        _claude("opus-4-5", "sonnet-4-5", "haiku-4-5"), replace(_BUDGET, schema="format", max_output=64_000)
    ),
    _entry(_claude("opus-4-6", "sonnet-4-6"), _FOUR_SIX),
    _entry(_claude("opus-4-7", "opus-4-8"), _ASKED),
    _entry(_claude("opus-5", "sonnet-5"), _CAN_STOP),
    _entry(_claude("fable-5", "mythos-5", "mythos-preview"), _FREE_CHOICE, _FABLE),
    _entry(r"(?:.*[^a-z])?claude-(?:.*-)?haiku.*", _CAN_STOP, _GUIDES + "haiku-5-5/migration-guide"),
    # Opus 5.5, Sonnet 5.5, Fable 5.1, and every name that is not listed: it is newer, or means the newest.
    _entry(r"(?:.*[^a-z])?claude(?:[-:@].*)?", _NEWEST, _GUIDES + "opus-5-5/migration-guide"),
)


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
# `max_tokens` is refused under this name: `max_completion_tokens` is sent.
_FIXED = ("max_tokens", "frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "top_logprobs")
_WORDS_5 = ("none", "low", "medium", "high", "xhigh")


def _reasoning(
    *efforts: str,
    sampling: Literal["none", "not_thinking"] = "none",
    stop: bool = False,
    apart: bool = False,
) -> Model:
    """Return a thinking model of OpenAI. It accepts no penalties and no sampling parameters.

    `stop`: it accepts stop sequences. `apart`: it accepts no effort with tools at `/chat/completions`.
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
    # xAI: the name shows which models think. Most of these accept no effort.
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


# -- Ollama -------------------------------------------------------------------------------------------------

_OLLAMA: Final = (
    Known(
        "ollama",
        "gpt-oss([:-].*)?",
        Model(thinking="levels", efforts=("low", "medium", "high")),  # it ignores true and false
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

KNOWN: Final[tuple[Known, ...]] = (*_CLAUDE, *_OPENAI, *_OLLAMA)
"""The first entry that matches counts."""

NOTHING: Final = Model()


@lru_cache(maxsize=1024)
def known(wire: Wire, model: str, preset: str = "") -> Model:
    """Return what is known of a model by its name; an empty `Model` if it is unknown."""
    bare = model.lower().rpartition("/")[2].replace(".", "-")
    asked = (entry for entry in KNOWN if entry.wire == wire and entry.preset in ("", preset))
    return next((entry.facts for entry in asked if re.fullmatch(entry.names, bare)), NOTHING)
