"""Lists of models as the servers give them: `/v1/models`, Ollama's `/api/tags`, `/api/ps` and `/api/show`.

Knows their shapes; must not know who is asked. What is no list is a `ProtocolError`.
"""

import re
from typing import Final, NamedTuple

from ccroute.types import JSON
from ccroute.wire.reading import listed, load_object, mapping, text, wrong

_WINDOWS: Final = ("context_window", "context_length", "max_model_len", "max_input_tokens")
"""OpenRouter and others, LocalAI, vLLM, LiteLLM."""
_NUM_CTX: Final = re.compile(r"^num_ctx\s+(\d{1,9})\s*$", re.MULTILINE)


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


def read_ps(body: bytes) -> dict[str, int | None]:
    """The models that Ollama has in memory, each with the context window it was loaded with."""
    running = listed(load_object(body).get("models") or [])
    models = (mapping(model) for model in running)
    return {
        name: _tokens(model.get("context_length")) for model in models if (name := text(model.get("name")))
    }


class Shown(NamedTuple):
    """What `/api/show` says of a model's context, in tokens: what it was trained for, which is its most,
    and the `num_ctx` that its Modelfile asks for."""

    trained: int | None
    num_ctx: int | None


def read_show(body: bytes) -> Shown:
    """The context of one of Ollama's models: `model_info["<architecture>.context_length"]`, and a line of
    `parameters`."""
    shown = load_object(body)
    info = mapping(shown.get("model_info"))
    trained = info.get(f"{text(info.get('general.architecture'))}.context_length")
    found = _NUM_CTX.search(text(shown.get("parameters")))
    return Shown(_tokens(trained), _tokens(int(found[1])) if found else None)


def _window(model: dict[str, JSON]) -> int | None:
    told = (model.get(name) for name in _WINDOWS)
    meta = mapping(model.get("meta")).get(
        "n_ctx"
    )  # llama.cpp, of each slot; n_ctx_train is not what it serves
    return next((window for window in (*map(_tokens, told), _tokens(meta)) if window), None)


def _tokens(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
