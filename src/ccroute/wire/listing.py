"""Reads the list of models at `/v1/models`, of OpenAI, Anthropic and servers that imitate them."""

from typing import Final

from ccroute.types import JSON
from ccroute.wire.reading import load_object, mapping, text, wrong

_WINDOWS: Final = ("context_window", "context_length", "max_model_len", "max_input_tokens")
"""The names of the window at OpenRouter and others, LocalAI, vLLM, LiteLLM."""


def read_model_list(body: bytes) -> dict[str, int | None]:
    """Return the model ids of a list, each with its context window in tokens, or None.

    Raises `ProtocolError` for any other body."""
    models = load_object(body).get("data")
    if not isinstance(models, list):
        wrong("the list of models holds no data", body)
    found = (mapping(model) for model in models)
    return {text(model["id"]): _window(model) for model in found if text(model.get("id"))}


def _window(model: dict[str, JSON]) -> int | None:
    # llama.cpp's n_ctx is the window of one slot. Its n_ctx_train may be more than it serves.
    found = [*(model.get(name) for name in _WINDOWS), mapping(model.get("meta")).get("n_ctx")]
    return next(filter(None, map(tokens, found)), None)


def tokens(value: object) -> int | None:
    """Return `value` if it is a number of tokens, a positive int, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
