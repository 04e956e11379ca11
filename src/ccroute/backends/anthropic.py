"""Anthropic's Messages API, and servers that speak it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Unpack

from ccroute.backends.backend import Backend, BackendOptions, Headers
from ccroute.backends.codec import HttpRequest, json_bytes
from ccroute.types import JSON, Completion, Request
from ccroute.types.signatures import explains
from ccroute.wire import anthropic as wire
from ccroute.wire.decoding import StreamDecoder
from ccroute.wire.fields import tool_marks

_OFFICIAL = "https://api.anthropic.com"


class AnthropicBackend(Backend):
    """A server with `POST {base_url}/v1/messages`; a trailing `/v1` of `base_url` is optional.

    The other keywords are those of `Backend`.
    """

    kind = "anthropic"
    default_url = _OFFICIAL
    key_variable = "ANTHROPIC_API_KEY"
    model_prefixes = ("anthropic/",)
    wire_name = "anthropic"
    usual_output = wire.DEFAULT_MAX_TOKENS

    @explains("Backend", BackendOptions.__annotations__)
    def __init__(
        self, name: str = "anthropic", *, base_url: str | None = None, **common: Unpack[BackendOptions]
    ) -> None:
        super().__init__(name, (base_url or _OFFICIAL).rstrip("/").removesuffix("/v1"), **common)
        self._sends_beta = any(header == b"anthropic-beta" for header, _ in self._headers)
        self._last_form: tuple[JSON, str, str | None, wire.Form | None] = (None, "", None, None)

    def encode(self, request: Request, model: str, stream: bool) -> HttpRequest:
        form, asked = None, request.response_format
        if asked is not None:
            # `refusals` has just computed the form, which costs a walk through the whole schema.
            schema, of_model, effort, form = self._last_form
            if schema is not asked or of_model != model or effort != request.reasoning_effort:
                form = self._form(request, model)
        facts = self._facts.get(model) or self.model(model)
        body = wire.encode(request, model, stream=stream, facts=facts, form=form)
        return HttpRequest("/v1/messages", json_bytes(body))

    def decode(self, status: int, headers: Mapping[str, str], body: bytes) -> Completion:
        return wire.decode(body)

    def decoder(self, status: int, headers: Mapping[str, str]) -> StreamDecoder:
        return wire.Decoder()

    def listing(self) -> HttpRequest | None:
        return HttpRequest("/v1/models?limit=1000", method="GET")

    def serves(self, model: str, listed: Collection[str]) -> bool | None:
        """Anthropic lists dated names only, and takes `…-latest`, `…-0` or no date for them, too:
        https://docs.anthropic.com/en/docs/about-claude/models/overview"""
        undated = re.escape(model.removesuffix("-latest").removesuffix("-0"))
        is_alias = any(re.fullmatch(rf"{undated}-\d{{8}}", name) for name in listed)
        return is_alias or super().serves(model, listed)

    def refusals(self, request: Request, model: str) -> Mapping[str, str]:
        form = None
        if request.response_format is not None:
            form = self._form(request, model)
            self._last_form = (request.response_format, model, request.reasoning_effort, form)
        facts = self._facts.get(model) or self.model(model)
        refused = wire.refusals(request, facts, form, beta=self._sends_beta)
        if request.tools and not (self._sends_beta or self.is_official):
            refused |= tool_marks(request)
        return refused

    def check(self, request: Request, answer: Completion) -> None:
        wire.check_form(request, answer)

    def charges(self, answer: Completion) -> bool:
        """A refusal before any output is free, though it says what the prompt has:
        https://docs.anthropic.com/en/api/handling-stop-reasons"""
        return answer.raw_finish_reason != "refusal" or answer.usage.output > 0

    def key_headers(self, key: str) -> Mapping[str, str]:
        return {"x-api-key": key}

    def _form(self, request: Request, model: str) -> wire.Form | None:
        described = self.models.get(model)
        sure = self.is_official or (described is not None and described.schema is not None)
        return wire.answer_form(request, self.model(model), sure=sure)

    def _own_headers(self, headers: Mapping[str, str]) -> Headers:
        return super()._own_headers(
            {"anthropic-version": "2023-06-01"} | {k.lower(): v for k, v in headers.items()}
        )
