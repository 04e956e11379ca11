"""Ollama's native API; its `/v1` imitation ignores the context window and hides errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Unpack

from ccroute.backends.base import BackendOptions, HttpRequest, json_bytes
from ccroute.backends.codec import Codec, WireBackend
from ccroute.errors import ConfigError
from ccroute.types import Request
from ccroute.wire import ollama as wire
from ccroute.wire.listing import read_show, read_tags


class OllamaBackend(WireBackend):
    """A server with `POST {base_url}/api/chat`.

    `keep_alive` is how long a model stays loaded after a call, in Ollama's own form (`"5m"`,
    seconds, -1 for ever). A model with a `context_window` always gets it as `num_ctx`: a value that
    drifts would reload the model. The other keywords are those of `Backend`.
    """

    codec: ClassVar[Codec] = wire
    speaks = "ollama"
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
        if self.target(HttpRequest("")).endswith("/v1"):
            raise ConfigError(f"backend {name}: Ollama's native API has no /v1; leave it out of base_url")

    def keeps(self, model: str) -> bool:
        return self.local and not _in_the_cloud(model)

    def is_free(self, model: str) -> bool:
        return not _in_the_cloud(model)

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
        return HttpRequest("/api/chat", json_bytes(body))

    def listing(self) -> HttpRequest | None:
        return HttpRequest("/api/tags", method="GET")

    def read_listing(self, body: bytes) -> Mapping[str, int | None]:
        return read_tags(body)

    def details(self, model: str) -> HttpRequest | None:
        return HttpRequest("/api/show", json_bytes({"model": model}))

    def read_details(self, body: bytes) -> int | None:
        return read_show(body)

    def refusals(self, request: Request, model: str) -> Mapping[str, str]:
        return wire.refusals(request)


def _in_the_cloud(model: str) -> bool:
    """Whether Ollama forwards this model to ollama.com: its tag is `cloud` or ends in `-cloud`."""
    tag = model.rpartition(":")[2]
    return tag == "cloud" or tag.endswith("-cloud")
