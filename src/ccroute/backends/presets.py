"""How the servers that imitate OpenAI differ from it: configuration, not classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from ccroute.wire.openai import Dialect

_OPENAI_LIKE: Final = Dialect()
PresetName = Literal[
    "openai", "azure", "deepseek", "litellm", "llamacpp", "localai", "openrouter", "tgi", "vllm"
]


@dataclass(frozen=True, slots=True)
class Preset:
    """What `OpenAIBackend(preset=…)` stands for.

    base_url:    where it is when nothing else is said.
    dialect:     how its request bodies differ.
    key_env:     the variable its key is usually kept in; only for its official address.
    runs_models: whether the server computes answers itself, so that its address tells whether it
                 is local. A proxy on loopback may forward to a paid API.
    key_header:  the header for the key, where it is not `Authorization: Bearer`.
    path:        of the chat endpoint; `{model}` is filled in.
    """

    base_url: str | None = None
    dialect: Dialect = _OPENAI_LIKE
    key_env: str | None = None
    runs_models: bool = False
    key_header: str | None = None
    path: str = "/chat/completions"


_OPENAI = Dialect(max_tokens="max_completion_tokens", developer_role=True)
_SELF_HOSTED = Dialect(top_k=True)

COMPATIBLE: Final = Preset()
"""What is assumed of a server that is not OpenAI's own and has no preset: what nearly all understand."""

PRESETS: Final[Mapping[PresetName, Preset]] = {
    "openai": Preset("https://api.openai.com/v1", _OPENAI, "OPENAI_API_KEY"),
    "azure": Preset(
        None,
        _OPENAI,
        key_header="api-key",
        path="/openai/deployments/{model}/chat/completions",
    ),
    "deepseek": Preset("https://api.deepseek.com/v1", Dialect(json_schema=False), "DEEPSEEK_API_KEY"),
    "litellm": Preset("http://localhost:4000/v1", _SELF_HOSTED),
    "llamacpp": Preset("http://localhost:8080/v1", _SELF_HOSTED, runs_models=True),
    "localai": Preset("http://localhost:8080/v1", _SELF_HOSTED, runs_models=True),
    "openrouter": Preset("https://openrouter.ai/api/v1", _SELF_HOSTED, "OPENROUTER_API_KEY"),
    "tgi": Preset("http://localhost:8080/v1", _SELF_HOSTED, runs_models=True),
    "vllm": Preset("http://localhost:8000/v1", _SELF_HOSTED, runs_models=True),
}
