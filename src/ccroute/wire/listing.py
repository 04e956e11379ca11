"""Lists of models as the servers give them: `/v1/models`, Ollama's `/api/tags` and `/api/show`.

Knows their shapes; must not know who is asked. What is no list is a `ProtocolError`.
"""

from typing import Final

from ccroute.types import JSON
from ccroute.wire.reading import listed, load_object, mapping, text, wrong

_WINDOWS: Final = ("context_window", "context_length", "max_model_len", "max_input_tokens")
"""OpenRouter and others, LocalAI, vLLM, LiteLLM."""


def read_model_list(body: bytes) -> dict[str, int | None]:
    """The model ids of OpenAI's or Anthropic's list, each with its context window where it is told."""
    models = load_object(body).get("data")
    if not isinstance(models, list):
        wrong("the list of models holds no data", body)
    found = (mapping(model) for model in models)
    return {text(model["id"]): _window(model) for model in found if text(model.get("id"))}


def read_tags(body: bytes) -> dict[str, int | None]:
    """The names of the models that Ollama has installed; it does not tell their windows here."""
    tags = load_object(body)
    if "models" not in tags:
        wrong("the list of models holds no models", body)
    return {name: None for model in listed(tags["models"]) if (name := text(mapping(model).get("name")))}


def read_show(body: bytes) -> int | None:
    """A model's context length, in tokens: `model_info["<architecture>.context_length"]`."""
    info = mapping(load_object(body).get("model_info"))
    architecture = text(info.get("general.architecture"))
    return _tokens(info.get(f"{architecture}.context_length"))


def _window(model: dict[str, JSON]) -> int | None:
    told = (model.get(name) for name in _WINDOWS)
    meta = mapping(model.get("meta")).get("n_ctx_train")  # llama.cpp
    return next((window for window in (*map(_tokens, told), _tokens(meta)) if window), None)


def _tokens(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
