"""OpenAI and every server that speaks its chat completions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Unpack
from urllib.parse import quote, urlsplit

from ccroute.backends.base import BackendOptions, HttpRequest, json_bytes
from ccroute.backends.codec import Codec, WireBackend
from ccroute.backends.presets import COMPATIBLE, PRESETS, PresetName
from ccroute.errors import ConfigError
from ccroute.types import Request
from ccroute.wire import openai as wire
from ccroute.wire.listing import read_model_list


class OpenAIBackend(WireBackend):
    """A server with `POST {base_url}/chat/completions`.

    `base_url` without a path means `/v1`; any path is used as it is. `preset` names what kind of
    server it is (`llamacpp`, `vllm`, `tgi`, `localai`, `litellm`, `deepseek`, `azure`, `openrouter`)
    where that changes what it understands. For Azure, `api_version` is the date it asks for.
    The other keywords are those of `Backend`.
    """

    codec: ClassVar[Codec] = wire
    speaks = "openai"

    def __init__(
        self,
        name: str = "openai",
        *,
        base_url: str | None = None,
        preset: PresetName = "openai",
        api_version: str | None = None,
        **common: Unpack[BackendOptions],
    ) -> None:
        if preset not in PRESETS:
            raise ConfigError(
                f'backend {name}: unknown preset "{preset}", known are {", ".join(sorted(PRESETS))}'
            )
        self.preset = preset
        self._preset = PRESETS[preset]
        self.runs_models = self._preset.runs_models
        self._query = f"?api-version={quote(api_version)}" if api_version else ""
        base_url = base_url or self._preset.base_url
        if base_url is None:
            raise ConfigError(f"backend {name}: {preset} has no usual address; give base_url=")
        super().__init__(name, base_url, **common)
        if not self._prefix and preset != "azure":
            self._prefix = "/v1"
        if preset == "openai" and not self._is_official():
            self._preset = COMPATIBLE

    def encode(self, request: Request, model: str, stream: bool) -> HttpRequest:
        body = wire.encode(request, model, stream=stream, dialect=self._preset.dialect)
        path = self._preset.path.replace("{model}", quote(model, safe="")) + self._query
        return HttpRequest(path, json_bytes(body))

    def listing(self) -> HttpRequest | None:
        return HttpRequest("/models", method="GET")

    def read_listing(self, body: bytes) -> Mapping[str, int | None]:
        return read_model_list(body)

    def refusals(self, request: Request, model: str) -> Mapping[str, str]:
        return wire.refusals(request, self._preset.dialect)

    def credential(self, key: str) -> Mapping[str, str]:
        header = self._preset.key_header
        return {header: key} if header else super().credential(key)

    def missing_key(self) -> str | None:
        if self._preset.key_env is None or not self._is_official():
            return None
        return f"no API key: set {self._preset.key_env} (read by Router.from_config), or give api_key="

    def _is_official(self) -> bool:
        return self.origin.host == urlsplit(self._preset.base_url or "").hostname
