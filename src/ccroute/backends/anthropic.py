"""Anthropic's Messages API, and servers that speak it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import ClassVar, Unpack

from ccroute.backends.base import BackendOptions, HttpRequest, json_bytes
from ccroute.backends.codec import Codec, WireBackend
from ccroute.types import Request
from ccroute.wire import anthropic as wire
from ccroute.wire.listing import read_model_list

OFFICIAL = "https://api.anthropic.com"
KEY_ENV = "ANTHROPIC_API_KEY"

_VERSION = re.compile(r"claude-(?:[a-z]+-)?(\d+)(?:-(\d{1,2}))?(?!\d)")


class AnthropicBackend(WireBackend):
    """A server with `POST {base_url}/v1/messages`; a trailing `/v1` of `base_url` is optional.

    The other keywords are those of `Backend`.
    """

    codec: ClassVar[Codec] = wire
    speaks = "anthropic"
    holds_schemas_of = "claude"  # Ollama's imitation takes a schema and ignores it

    def __init__(
        self, name: str = "anthropic", *, base_url: str | None = None, **common: Unpack[BackendOptions]
    ) -> None:
        super().__init__(name, (base_url or OFFICIAL).rstrip("/").removesuffix("/v1"), **common)

    def encode(self, request: Request, model: str, stream: bool) -> HttpRequest:
        body = wire.encode(
            request, model, stream=stream, max_output=self.model(model).max_output, dialect=_dialect(model)
        )
        return HttpRequest("/v1/messages", json_bytes(body))

    def listing(self) -> HttpRequest | None:
        return HttpRequest("/v1/models?limit=1000", method="GET")

    def read_listing(self, body: bytes) -> Mapping[str, int | None]:
        return read_model_list(body)

    def refusals(self, request: Request, model: str) -> Mapping[str, str]:
        return wire.refusals(request, _dialect(model))

    def credential(self, key: str) -> Mapping[str, str]:
        return {"x-api-key": key}

    def missing_key(self) -> str | None:
        official = str(self.origin) == OFFICIAL
        return (
            f"no API key: set {KEY_ENV} (read by Router.from_config), or give api_key=" if official else None
        )

    def _fixed_headers(self, headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
        return super()._fixed_headers(
            {"anthropic-version": "2023-06-01"} | {k.lower(): v for k, v in headers.items()}
        )


@lru_cache(maxsize=256)
def _dialect(model: str) -> wire.Dialect:
    """What a model of that name understands.

    Structured output came with Claude 4.5, adaptive thinking with 4.6 (Anthropic's model overview);
    other names are taken for the newest, and thinking budgets are understood by all.
    """
    found = _VERSION.search(model)
    major, minor = (int(found[1]), int(found[2] or 0)) if found else (4, 5)
    return wire.Dialect(
        schema="format" if (major, minor) >= (4, 5) else "tool",
        thinking="effort" if (major, minor) >= (4, 6) else "budget",
    )
