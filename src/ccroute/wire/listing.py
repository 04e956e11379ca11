"""The list of models that OpenAI's and Anthropic's imitators give at `/v1/models`."""

from typing import Final

from ccroute.types import JSON
from ccroute.wire.reading import load_object, mapping, text, wrong

_WINDOWS: Final = ("context_window", "context_length", "max_model_len", "max_input_tokens")
"""OpenRouter and others, LocalAI, vLLM, LiteLLM."""


def read_model_list(body: bytes) -> dict[str, int | None]:
    """The model ids of OpenAI's or Anthropic's list, each with its context window where it says so.

    Raises `ProtocolError` for what is no list."""
    models = load_object(body).get("data")
    if not isinstance(models, list):
        wrong("the list of models holds no data", body)
    found = (mapping(model) for model in models)
    return {text(model["id"]): _window(model) for model in found if text(model.get("id"))}


def _window(model: dict[str, JSON]) -> int | None:
    # llama.cpp's n_ctx is of each slot; n_ctx_train is not what it serves.
    found = [*(model.get(name) for name in _WINDOWS), mapping(model.get("meta")).get("n_ctx")]
    return next(filter(None, map(tokens, found)), None)


def tokens(value: object) -> int | None:
    """A number of tokens, None if `value` is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
