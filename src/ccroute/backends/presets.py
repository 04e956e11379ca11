"""How the servers that imitate OpenAI differ from it: configuration, not classes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

from ccroute.wire.openai.dialect import PLAIN, Dialect

PresetName = Literal[
    "openai",
    "azure",
    "dashscope",
    "deepseek",
    "litellm",
    "llamacpp",
    "llamaswap",
    "localai",
    "mistral",
    "moonshot",
    "openrouter",
    "tgi",
    "vllm",
]


class Preset(NamedTuple):
    """The values that `OpenAIBackend(preset=…)` selects.

    dialect:     how its request bodies differ.
    runs_models: whether the server computes answers itself, so that its address shows whether it
                 is local. A proxy on loopback may forward to a paid API.
    loaded:      where it lists the models in memory: a path outside `/v1`, or "" for its list of models.
                 None: nowhere.
    unload:      the path outside `/v1` that frees a model's memory, with `{model}` in it or in the body.
    key_header:  the header for the key, where it is not `Authorization: Bearer`.
    The others are as in `Backend`.
    """

    default_url: str | None = None
    dialect: Dialect = PLAIN
    key_variable: str | None = None
    model_prefixes: tuple[str, ...] = ()
    runs_models: bool = False
    loads_models: bool = False
    loaded: str | None = None
    unload: str | None = None
    key_header: str | None = None


_OPENAI = Dialect(
    max_tokens="max_completion_tokens",
    developer_role=True,
    own_fields=False,
    most_stops=4,
    call_ids="short",
)
_GATEWAY = Dialect(top_k=True, cache_control=True, tool_images=True)
_SELF_HOSTED = Dialect(top_k=True, one_system=True, null_content=False)
# Thinking is on by default: https://api-docs.deepseek.com/guides/thinking_mode
_DEEPSEEK = Dialect(json_schema=False, thinking="switch", efforts=("low", "high", "max"), thoughts="")
# Usage comes unasked; unknown fields are a 422: https://docs.mistral.ai/api/
_MISTRAL = Dialect(
    include_usage=False, own_fields=False, seed="random_seed", call_ids="nine", blank_answers=False
)
# https://help.aliyun.com/en/model-studio/deep-thinking
_DASHSCOPE = Dialect(top_k=True, thinking="flag")
# An empty text counts as missing: https://platform.moonshot.ai/docs/guide/use-kimi-k2-thinking-model
_MOONSHOT = Dialect(thinking="switch", thoughts=".", blank_answers=False)

PRESETS: Final[Mapping[PresetName, Preset]] = {
    "openai": Preset("https://api.openai.com/v1", _OPENAI, "OPENAI_API_KEY", ("openai/",)),
    "azure": Preset(None, _OPENAI, key_header="api-key"),
    "dashscope": Preset("https://dashscope.aliyuncs.com/compatible-mode/v1", _DASHSCOPE, "DASHSCOPE_API_KEY"),
    "deepseek": Preset("https://api.deepseek.com/v1", _DEEPSEEK, "DEEPSEEK_API_KEY", ("deepseek/",)),
    "litellm": Preset("http://localhost:4000/v1", _GATEWAY),
    # Its router mode: https://github.com/ggml-org/llama.cpp/tree/master/tools/server#using-multiple-models
    "llamacpp": Preset(
        "http://localhost:8080/v1", _SELF_HOSTED, runs_models=True, loaded="", unload="/models/unload"
    ),
    # Its `peers` may be anywhere: https://github.com/mostlygeek/llama-swap
    "llamaswap": Preset(
        "http://localhost:8080/v1",
        _SELF_HOSTED,
        loads_models=True,
        loaded="/running",
        unload="/api/models/unload/{model}",
    ),
    # https://localai.io/docs/reference/system-info/, https://localai.io/docs/features/backend-monitor/
    "localai": Preset(
        "http://localhost:8080/v1",
        _SELF_HOSTED,
        runs_models=True,
        loaded="/system",
        unload="/backend/shutdown",
    ),
    "mistral": Preset("https://api.mistral.ai/v1", _MISTRAL, "MISTRAL_API_KEY"),
    "moonshot": Preset("https://api.moonshot.ai/v1", _MOONSHOT, "MOONSHOT_API_KEY"),
    "openrouter": Preset("https://openrouter.ai/api/v1", _GATEWAY, "OPENROUTER_API_KEY"),
    "tgi": Preset("http://localhost:8080/v1", _SELF_HOSTED, runs_models=True, loaded=""),
    "vllm": Preset("http://localhost:8000/v1", _SELF_HOSTED, runs_models=True, loaded=""),
}

_AZURE_HOSTS: Final = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")
_BY_HOST: Final[Mapping[str | None, PresetName]] = {
    **{
        urlsplit(preset.default_url).hostname: name
        for name, preset in PRESETS.items()
        if preset.default_url and preset.default_url.startswith("https:")
    },
    "api.moonshot.cn": "moonshot",
    "dashscope-intl.aliyuncs.com": "dashscope",
}
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")
_NEW_LIMIT: Final = "2024-09-01"
"""Azure's first API version with `max_completion_tokens` and `stream_options`:
https://github.com/Azure/azure-sdk-for-java/pull/43037"""


def preset_of_host(host: str) -> PresetName | None:
    """Return the preset of a provider's official host, so that its address alone is enough."""
    return "azure" if host.endswith(_AZURE_HOSTS) else _BY_HOST.get(host)


def azure_dialect(api_version: str | None) -> Dialect:
    """Return the dialect of a version of Azure's API; of the newest one without a version."""
    date = _DATE.match(api_version or "")
    is_old = date is not None and date[0] < _NEW_LIMIT
    return _OPENAI._replace(max_tokens="max_tokens", include_usage=False) if is_old else _OPENAI


def azure_root(prefix: str, api_version: str | None) -> str:
    """Return Azure's path between a base URL and `/chat/completions`. `{model}` is replaced later.

    A dated API has a path for each deployment, the v1 API (no version needed) the model in the body:
    https://learn.microsoft.com/azure/foundry/openai/api-version-lifecycle
    """
    if prefix.endswith(("/v1", "/models")) or "/deployments/" in prefix:
        return ""
    return "/openai/deployments/{model}" if api_version else "/openai/v1"
