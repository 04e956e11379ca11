"""The server of an entry: its address, its key and everything that requests to it have in common."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from ccroute.backends.presets import preset_of_host
from ccroute.backends.registry import registered
from ccroute.config.foreign.section import Section
from ccroute.config.foreign.servers import host_of, recognise
from ccroute.config.litellm.model_list.providers import PROVIDERS, Provider
from ccroute.config.reading.secrets import Environment
from ccroute.config.reading.source import Place

_ENDPOINT: Final = re.compile(r"/(?:chat/completions|completions|messages|api/chat|api/generate)/?$")
_KEY_HEADERS: Final = {"anthropic": "x-api-key", "azure": "api-key"}
"""The header with the key, where it is not Authorization."""
_NEWEST: Final = frozenset({"v1", "latest", "preview"})
"""Words that LiteLLM takes for Azure's API without a date."""
_KEYLESS: Final = frozenset({"ollama", "ollama_chat", "lm_studio", "llamafile", "lemonade", "litellm_proxy"})
"""Servers of the user's own, which often need no key."""


@dataclass(frozen=True, slots=True)
class Server:
    """`options` are the keys of a backend's table; `places` where the entry gives them and the headers.

    name:    what the backend is called if no other has that name.
    warning: what its user should know of its key, or None.
    """

    name: str
    options: Mapping[str, Any]
    places: Mapping[Place, Place]
    warning: str | None

    @property
    def identity(self) -> str:
        """Equal for entries that share a backend."""
        return repr(sorted(self.options.items()))


def read_server(params: Section, provider_name: str, model: str) -> Server | None:
    """The server of an entry; None if it has a fault."""
    provider, environment = PROVIDERS[provider_name], params.builder.environment
    given = next((key for key in ("api_base", "base_url") if params.text(key)), None)
    url = params.text(given) if given else provider.url
    if given is None and environment.get(provider.base):
        url = params.builder.expand(f"${{{provider.base}}}", params.place("api_base"))
    if url is None:
        if given is None and not params.builder.is_faulty(params.place("api_base")):
            variable = f", or set {provider.base}" if provider.base else ""
            params.fault("api_base", f"is missing: {provider_name} has no usual address{variable}")
        return None
    kind, url, version = _address(provider_name, provider, url, model)
    options: dict[str, Any] = {"kind": kind, "base_url": url}
    places: dict[Place, Place] = {("base_url",): params.place(given or "api_base")}
    if kind == "azure":
        version = params.text("api_version") or version or environment.get("AZURE_API_VERSION")
        if version and version not in _NEWEST:
            options["api_version"] = version
    options |= dict(_rest(params, kind))
    for key in ("api_key", "api_version", "keep_alive", "drop_params"):
        if key in params:
            places[key,] = params.place(key)
    api_key, warning = params.text("api_key"), None
    headers, at = _headers(params)
    own = next((name for name in headers if name.lower() == _KEY_HEADERS.get(kind, "authorization")), None)
    if own is not None:
        api_key = headers.pop(own).removeprefix("Bearer ")  # LiteLLM lets the header win
        places["api_key",] = at[own]
    if headers:
        options["headers"] = dict(sorted(headers.items()))
        places |= {("headers", name): at[name] for name in headers}
    if own is None and api_key is None and "api_key" not in params:
        usual, warning = _usual_key(provider_name, provider, url, environment)
        api_key = params.builder.expand(f"${{{usual}}}", params.place("api_key")) if usual else None
    if api_key:
        options["api_key"] = api_key
    return Server(_name(provider_name, provider, kind, url), options, places, warning)


def _address(name: str, provider: Provider, url: str, model: str) -> tuple[str, str, str | None]:
    """The kind of backend, its base URL, and Azure's version if the URL has it.

    An entry may give the whole URL of an endpoint; ccroute takes what is before it.
    """
    kind = provider.kind
    url, _, query = url.strip().partition("?")
    version = next(iter(parse_qs(query).get("api-version", [])), None)
    url = _ENDPOINT.sub("", url.rstrip("/")).rstrip("/")
    try:
        parts = urlsplit(url)
        host, path = parts.hostname or "", parts.path
    except ValueError:  # making the backend says what is wrong with it
        return kind, url, version
    if kind == "ollama" and path.endswith("/v1"):
        kind = "openai"  # Ollama's imitation of OpenAI, which the file asks for
    elif name == "huggingface" and host == "router.huggingface.co":
        kind = "openai"
    elif name == "azure_ai":
        if model.startswith("claude"):
            kind = "anthropic"
            url = url if path.rstrip("/").endswith(("/anthropic", "/v1")) else f"{url}/anthropic"
        elif host.endswith(".services.ai.azure.com"):
            # https://learn.microsoft.com/azure/ai-foundry/foundry-models/concepts/endpoints
            url = url if path else f"{url}/models"
            version = version or "2024-05-01-preview"
        elif preset_of_host(host) != "azure":
            kind = "openai"
    return kind, url, version


def _rest(params: Section, kind: str) -> Iterator[tuple[str, Any]]:
    limits = {"total": params.number("timeout"), "first": params.number("stream_timeout")}
    if timeout := {name: float(seconds) for name, seconds in limits.items() if seconds}:
        yield "timeout", timeout
    if isinstance(params.get("drop_params"), list):
        params.warn("drop_params", "should be true or false; names belong under additional_drop_params")
    elif params.flag("drop_params"):
        yield "drop_params", True
    if kind == "ollama" and "keep_alive" in params:
        yield "keep_alive", params.get("keep_alive")
    verify = params.get("ssl_verify")
    if isinstance(verify, str) and verify.lower() not in {"true", "false"}:
        yield "ca_file", verify
    elif str(verify).lower() == "false":
        params.warn("ssl_verify", "certificates are always checked: give the file of their authority")


def _headers(params: Section) -> tuple[dict[str, str], dict[str, Place]]:
    """The headers, and the place of each."""
    headers: dict[str, str] = {}
    places: dict[str, Place] = {}
    for key in ("headers", "extra_headers"):
        for name, value in params.table(key).items():
            headers[str(name)], places[str(name)] = str(value), (*params.place(key), name)
    for key, name, before in (
        ("organization", "OpenAI-Organization", ""),
        ("azure_ad_token", "Authorization", "Bearer "),
    ):
        if value := params.text(key):
            headers[name], places[name] = before + value, params.place(key)
    return headers, places


def _usual_key(
    name: str, provider: Provider, url: str, environment: Environment
) -> tuple[str | None, str | None]:
    """The variable with the key, at the provider's official address only; and a warning."""
    official = url == provider.url or (provider.kind == "azure" and preset_of_host(host_of(url)) == "azure")
    found = next((variable for variable in provider.keys if environment.get(variable)), None)
    if official and found:
        return found, None
    if found:
        return None, f"{found} is not sent to this address; write api_key: os.environ/{found} if it is for it"
    if official and provider.keys and name not in _KEYLESS and recognise(url).name not in registered():
        return None, f"{provider.keys[0]} is not set, so there is no key for {url}"
    return None, None


def _name(name: str, provider: Provider, kind: str, url: str) -> str:
    """`groq` at its own address, `azure`, `ollama` on this machine; else from the host."""
    name = name.removesuffix("_chat").removeprefix("hosted_")
    if url == provider.url or kind == "azure":
        return name
    return recognise(url).name
