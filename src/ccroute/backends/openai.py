"""OpenAI and every server that speaks its chat completions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Unpack
from urllib.parse import quote

from ccroute.backends.backend import Backend, BackendOptions
from ccroute.backends.codec import HttpRequest, json_bytes
from ccroute.backends.known_models import known
from ccroute.backends.origin import check_name, parse_base_url
from ccroute.backends.presets import (
    PRESETS,
    PresetName,
    azure_dialect,
    azure_root,
    preset_of_host,
)
from ccroute.errors import CcrouteError, ConfigError, ContentPolicyError, ContextWindowExceededError
from ccroute.types import Completion, Model, Request
from ccroute.types.signatures import explains
from ccroute.wire import openai as wire
from ccroute.wire.listing import read_served
from ccroute.wire.openai.dialect import PLAIN

if TYPE_CHECKING:
    from ccroute.types import LoadedModel
    from ccroute.wire.decoding import StreamDecoder


_ONE_MODEL = ("llamacpp", "tgi")
"""Servers that answer to any name if they have one model:
https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md,
https://github.com/huggingface/text-generation-inference/pull/1427."""


class OpenAIBackend(Backend):
    """A server with `POST {base_url}/chat/completions`.

    `base_url` without a path means `/v1`; any path is used as it is. `preset` names the kind
    of server (`llamacpp`, `llamaswap`, `vllm`, `tgi`, `localai`, `litellm`, `deepseek`, `azure`,
    `openrouter`, `mistral`, `moonshot`, `dashscope`) where that changes what it understands; a
    provider's official address is enough. `api_version` is the date of Azure's older API; without it,
    its v1 API is used. `finish_required=False` is for servers that never send a finish reason: a stream
    with content that ends in `[DONE]` is then complete. The other keywords are those of `Backend`.
    """

    kind = "openai"
    wire_name = "openai"

    @explains("Backend", BackendOptions.__annotations__)
    def __init__(
        self,
        name: str = "openai",
        *,
        base_url: str | None = None,
        preset: PresetName = "openai",
        api_version: str | None = None,
        finish_required: bool = True,
        **common: Unpack[BackendOptions],
    ) -> None:
        check_name(type(self).__name__, name)  # before an error repeats it
        if preset not in PRESETS:
            raise ConfigError(
                f'backend {name}: unknown preset "{preset}", known are {", ".join(sorted(PRESETS))}'
            )
        base_url = base_url or PRESETS[preset].default_url
        if preset == "openai":
            preset = preset_of_host(parse_base_url(name, base_url or "")[0].host) or preset
        self.preset: PresetName = preset
        self._key_header = PRESETS[preset].key_header
        self.default_url = PRESETS[preset].default_url
        self.key_variable = PRESETS[preset].key_variable
        self.runs_models = PRESETS[preset].runs_models
        self.loads_models = PRESETS[preset].loads_models
        self._query = f"?api-version={quote(api_version)}" if api_version else ""
        self._finish_required = finish_required
        super().__init__(name, base_url, **common)
        self._provider = self.origin.authority  # two servers of one host are two providers
        self._root, self._dialect = "", PRESETS[preset].dialect
        if preset == "azure":
            self._root, self._dialect = azure_root(self._path, api_version), azure_dialect(api_version)
        elif not self._path:
            self._path = "/v1"
        if preset == "openai" and not self.is_official:
            self._dialect = PLAIN  # what nearly every server understands

    @cached_property
    def identity(self) -> str:
        return f"{super().identity} {self.preset}{self._query}"

    def encode(self, request: Request, model: str, stream: bool) -> HttpRequest:
        body = wire.encode(
            request,
            model,
            stream=stream,
            dialect=self._dialect,
            facts=self._facts.get(model) or self.model(model),
            provider=self._provider,
        )
        root = self._root.replace("{model}", quote(model, safe="")) if self._root else ""
        return HttpRequest(f"{root}/chat/completions{self._query}", json_bytes(body))

    def decode(self, status: int, headers: Mapping[str, str], body: bytes) -> Completion:
        return wire.decode(body, provider=self._provider)

    def decoder(self, status: int, headers: Mapping[str, str]) -> StreamDecoder:
        return wire.Decoder(provider=self._provider, finish_required=self._finish_required)

    def listing(self) -> HttpRequest | None:
        root = self._root.removesuffix("/deployments/{model}")
        return HttpRequest(f"{root}/models{self._query}", method="GET")

    def loaded(self) -> HttpRequest | None:
        path = PRESETS[self.preset].loaded
        if path is None:
            return None
        return HttpRequest(path, method="GET", root=True) if path else self.listing()

    def read_loaded(self, body: bytes) -> Sequence[LoadedModel]:
        return read_served(body)

    def unload(self, model: str) -> HttpRequest | None:
        path = PRESETS[self.preset].unload
        if path is None or not self.loads_models:
            return None
        if "{model}" in path:
            return HttpRequest(path.replace("{model}", quote(model, safe="")), root=True)
        return HttpRequest(path, json_bytes({"model": model}), root=True)

    def serves(self, model: str, listed: Collection[str]) -> bool | None:
        found = super().serves(model, listed)
        if self.preset == "azure":
            return found or None  # it lists models, calls name deployments of them
        if self.preset in _ONE_MODEL and len(listed) == 1:
            return found or None
        if self.preset == "openrouter":
            found = found or model.partition(":")[0] in listed  # `:online` and the like are no models
        return found

    def refusals(self, request: Request, model: str) -> Mapping[str, str]:
        return wire.refusals(request, self._dialect, model, self._facts.get(model) or self.model(model))

    def charges_refusal(self, error: CcrouteError) -> bool:
        # It has processed the prompt: https://learn.microsoft.com/azure/ai-services/openai/how-to/manage-costs
        refused = isinstance(error, ContentPolicyError | ContextWindowExceededError)
        return self.preset == "azure" and (refused or getattr(error, "status", None) == 408)

    def key_headers(self, key: str) -> Mapping[str, str]:
        return {self._key_header: key} if self._key_header else super().key_headers(key)

    def _known(self, model: str) -> Model:
        return known("openai", model, self.preset)
