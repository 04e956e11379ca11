"""Ollama's native API; its `/v1` imitation ignores the context window and hides errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Unpack

from pydantic_core import to_json

from ccroute.backends.base import Backend, BackendOptions, HttpRequest
from ccroute.errors import BackendError, RequestError
from ccroute.types import Completion, Request
from ccroute.wire import ollama as wire

if TYPE_CHECKING:
    from ccroute.wire.codec import StreamDecoder


class OllamaBackend(Backend):
    """A server with `POST {base_url}/api/chat`.

    `keep_alive` is how long a model stays loaded after a call, in Ollama's own form (`"5m"`,
    seconds, -1 for ever). A model with a `context_window` always gets it as `num_ctx`: a value that
    drifts would reload the model. The other keywords are those of `Backend`.
    """

    runs_models = True

    def __init__(
        self,
        name: str = "ollama",
        base_url: str = "http://localhost:11434",
        *,
        keep_alive: str | int | None = None,
        **common: Unpack[BackendOptions],
    ) -> None:
        common.setdefault("max_concurrency", 1)  # OLLAMA_NUM_PARALLEL's own default
        super().__init__(name, base_url, **common)
        self.keep_alive = keep_alive

    @property
    def free(self) -> bool:
        return True

    def encode(self, request: Request, model: str, stream: bool) -> HttpRequest:
        window = self.model(model).context_window
        body = wire.encode(
            request,
            model,
            stream=stream,
            context_window=window,
            keep_alive=self.keep_alive,
            think_levels=model.startswith("gpt-oss"),  # so far the only ones that take levels
        )
        return HttpRequest("/api/chat", to_json(body))

    def decode(self, status: int, headers: Mapping[str, str], body: bytes) -> Completion:
        return wire.decode(body)

    def decoder(self, status: int, headers: Mapping[str, str]) -> StreamDecoder:
        return wire.Decoder()

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> BackendError | RequestError:
        return wire.error(status, headers, body)

    def refusals(self, request: Request, model: str) -> Mapping[str, str]:
        return wire.refusals(request)
