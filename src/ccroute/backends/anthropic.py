"""Anthropic's Messages API, and servers that speak it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Unpack

from ccroute.backends.base import BackendOptions, HttpRequest, json_bytes
from ccroute.backends.codec import Codec, WireBackend
from ccroute.types import Completion, Request
from ccroute.types.signatures import explains
from ccroute.wire import anthropic as wire
from ccroute.wire.fields import tool_marks
from ccroute.wire.listing import read_model_list

OFFICIAL = "https://api.anthropic.com"
KEY_ENV = "ANTHROPIC_API_KEY"


class AnthropicBackend(WireBackend):
    """A server with `POST {base_url}/v1/messages`; a trailing `/v1` of `base_url` is optional.

    The other keywords are those of `Backend`.
    """

    codec: ClassVar[Codec] = wire
    speaks = "anthropic"

    @explains("Backend", BackendOptions.__annotations__)
    def __init__(
        self, name: str = "anthropic", *, base_url: str | None = None, **common: Unpack[BackendOptions]
    ) -> None:
        super().__init__(name, (base_url or OFFICIAL).rstrip("/").removesuffix("/v1"), **common)
        self._sends_beta = any(header == b"anthropic-beta" for header, _ in self._fixed)

    def encode(self, request: Request, model: str, stream: bool) -> HttpRequest:
        form = self._form(request, model)
        body = wire.encode(request, model, stream=stream, facts=self.model(model), form=form)
        return HttpRequest("/v1/messages", json_bytes(body))

    def listing(self) -> HttpRequest | None:
        return HttpRequest("/v1/models?limit=1000", method="GET")

    def read_listing(self, body: bytes) -> Mapping[str, int | None]:
        return read_model_list(body)

    def refusals(self, request: Request, model: str) -> Mapping[str, str]:
        form = self._form(request, model)
        refused = wire.refusals(request, self.model(model), form, beta=self._sends_beta)
        if request.tools and not (self._sends_beta or self._is_official()):
            refused |= tool_marks(request)
        return refused

    def check(self, request: Request, answer: Completion) -> None:
        wire.check_form(request, answer)

    def credential(self, key: str) -> Mapping[str, str]:
        return {"x-api-key": key}

    def missing_key(self) -> str | None:
        if not self._is_official():
            return None
        return f"no API key: set {KEY_ENV} (read by Router.from_config), or give api_key="

    def _is_official(self) -> bool:
        return str(self.origin) == OFFICIAL

    def _form(self, request: Request, model: str) -> wire.Form | None:
        if request.response_format is None:
            return None
        described = self.models.get(model)
        sure = self._is_official() or (described is not None and described.schema is not None)
        return wire.answer_form(request, self.model(model), sure=sure)

    def _fixed_headers(self, headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
        return super()._fixed_headers(
            {"anthropic-version": "2023-06-01"} | {k.lower(): v for k, v in headers.items()}
        )
