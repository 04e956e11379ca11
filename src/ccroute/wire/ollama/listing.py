"""Reads Ollama's lists of models: `/api/tags`, `/api/ps` and `/api/show`.

Knows their shapes; must not know the server. Raises `ProtocolError` for any other body.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from ccroute.wire.listing import tokens
from ccroute.wire.reading import listed, load_object, mapping, text, wrong

if TYPE_CHECKING:
    from ccroute.types import LoadedModel

_NUM_CTX: Final = re.compile(r"^num_ctx\s+(\d{1,9})\s*$", re.MULTILINE)
_RUNNER_OPTION: Final = re.compile(
    r"^(num_batch|num_gpu|main_gpu|use_mmap|num_thread)\s+(\S+)\s*$", re.MULTILINE
)
_FILE: Final = re.compile(r"^(?:FROM|ADAPTER) .*\bsha256-([0-9a-f]{64})\s*$", re.MULTILINE)


def read_tags(body: bytes) -> dict[str, int | None]:
    """Return the names of the installed models. `/api/tags` does not give their context windows."""
    tags = load_object(body)
    if "models" not in tags:
        wrong("the list of models holds no models", body)
    return {name: None for model in listed(tags["models"]) if (name := text(mapping(model).get("name")))}


def read_forwarded(body: bytes) -> list[str]:
    """Return the names of the models in `/api/tags` that the server does not run itself."""
    models = map(mapping, listed(load_object(body).get("models")))
    return [text(model.get("name")) for model in models if model.get("remote_host")]


def read_ps(body: bytes) -> list[LoadedModel]:
    """Return the models in memory."""
    from ccroute.types import LoadedModel  # loaded at its first use

    models = map(mapping, listed(load_object(body).get("models")))
    return [
        LoadedModel(
            name=name,
            size=tokens(model.get("size")),
            context_window=tokens(model.get("context_length")),
            expires=_instant(text(model.get("expires_at"))),
        )
        for model in models
        if (name := text(model.get("name")))
    ]


def _instant(written: str) -> datetime | None:
    """The instant that a server wrote in ISO 8601, with its zone; None for any other text."""
    try:
        instant = datetime.fromisoformat(written)
    except ValueError:
        return None
    return instant if instant.tzinfo else None


class Shown(NamedTuple):
    """What `/api/show` tells of a model.

    trained: the largest possible context, in tokens.
    num_ctx: the context that its Modelfile asks for, in tokens.
    files:   the digests of the files that are loaded for it: its weights, projectors and adapters.
    options: the options of its Modelfile that need a runner of their own, but for `num_ctx`.
    """

    trained: int | None
    num_ctx: int | None
    files: tuple[str, ...]
    options: tuple[tuple[str, str], ...]


def read_show(body: bytes) -> Shown:
    """Return a model's context, from `model_info["<architecture>.context_length"]` and a line of
    `parameters`, and what its runner is made of, from lines of `modelfile` and `parameters`."""
    shown = load_object(body)
    info = mapping(shown.get("model_info"))
    trained = info.get(f"{text(info.get('general.architecture'))}.context_length")
    parameters = text(shown.get("parameters"))
    found = _NUM_CTX.search(parameters)
    return Shown(
        tokens(trained),
        tokens(int(found[1])) if found else None,
        tuple(_FILE.findall(text(shown.get("modelfile")))),
        tuple(sorted(_RUNNER_OPTION.findall(parameters))),
    )
