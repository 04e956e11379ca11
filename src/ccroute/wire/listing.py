"""Reads the list of models at `/v1/models`, of OpenAI, Anthropic and servers that imitate them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ccroute.types import JSON
from ccroute.wire.reading import listed, load_object, mapping, text, wrong

if TYPE_CHECKING:
    from ccroute.types import LoadedModel

_WINDOWS: Final = ("context_window", "context_length", "max_model_len", "max_input_tokens")
"""The names of the window at OpenRouter and others, LocalAI, vLLM, LiteLLM."""
_LISTS: Final = ("data", "running", "loaded_models")
_LOADED: Final = ("loaded", "ready")


def read_model_list(body: bytes) -> dict[str, int | None]:
    """Return the model ids of a list, each with its context window in tokens, or None.

    Raises `ProtocolError` for any other body."""
    models = load_object(body).get("data")
    if not isinstance(models, list):
        wrong("the list of models holds no data", body)
    found = (mapping(model) for model in models)
    return {text(model["id"]): _window(model) for model in found if text(model.get("id"))}


def read_served(body: bytes) -> list[LoadedModel]:
    """Return the models in memory, from the list of a server that lists what it serves.

    llama.cpp's router lists others, too, and says of each whether it is loaded:
    https://github.com/ggml-org/llama.cpp/tree/master/tools/server#get-models-list-available-models
    llama-swap lists those that run or come or go: https://github.com/mostlygeek/llama-swap/pull/65
    LocalAI: https://localai.io/docs/reference/system-info/
    """
    from ccroute.types import LoadedModel  # loaded at its first use

    answer = load_object(body)
    models = map(mapping, listed(next((answer[key] for key in _LISTS if key in answer), None)))
    return [
        LoadedModel(
            name=name, size=tokens(mapping(model.get("meta")).get("size")), context_window=_window(model)
        )
        for model in models
        if (name := text(model.get("id") or model.get("model"))) and _is_loaded(model)
    ]


def _is_loaded(model: dict[str, JSON]) -> bool:
    """Whether a model of a list is in memory, as it is where the server says nothing else."""
    state = mapping(model.get("status")).get("value") or model.get("state") or "loaded"
    return state in _LOADED


def _window(model: dict[str, JSON]) -> int | None:
    # llama.cpp's n_ctx is the window of one slot. Its n_ctx_train may be more than it serves.
    found = [*(model.get(name) for name in _WINDOWS), mapping(model.get("meta")).get("n_ctx")]
    return next(filter(None, map(tokens, found)), None)


def tokens(value: object) -> int | None:
    """Return `value` if it is a number of tokens or bytes, a positive int, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
