"""The official SDKs as clients of `examples/wrapper.py`, each test with servers of its own behind it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import anthropic
import openai
import pytest

from ccroute import Backend, OllamaBackend, OpenAIBackend, RetryPolicy, Router
from wrapper import Wrapper

KEY = "sk-team"
Serve: TypeAlias = Callable[..., Wrapper]
OpenAIClient: TypeAlias = Callable[..., openai.OpenAI]
AnthropicClient: TypeAlias = Callable[..., anthropic.Anthropic]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a wrapper over some backends; the alias `m` leads to the first one's model `m`."""
    with contextlib.ExitStack() as stack:

        def start(*backends: Backend, model: str = "m", **options: Any) -> Wrapper:
            options = {"retry": RetryPolicy(attempts=1), "drop_params": True} | options
            aliases = {"m": f"{backends[0].name}/{model}"} | options.pop("aliases", {})
            router = stack.enter_context(Router(backends, aliases, **options))
            server = stack.enter_context(Wrapper(router, KEY))
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return server

        yield start


@pytest.fixture
def openai_client() -> Iterator[OpenAIClient]:
    with contextlib.ExitStack() as stack:

        def connect(server: Wrapper, api_key: str = KEY, **options: Any) -> openai.OpenAI:
            url = f"{server.url}/v1"
            client = openai.OpenAI(base_url=url, api_key=api_key, max_retries=0, timeout=10, **options)
            return stack.enter_context(client)

        yield connect


@pytest.fixture
def anthropic_client() -> Iterator[AnthropicClient]:
    with contextlib.ExitStack() as stack:

        def connect(server: Wrapper, api_key: str = KEY, **options: Any) -> anthropic.Anthropic:
            client = anthropic.Anthropic(
                base_url=server.url, api_key=api_key, max_retries=0, timeout=10, **options
            )
            return stack.enter_context(client)

        yield connect


def compatible(url: str, **options: Any) -> OpenAIBackend:
    return OpenAIBackend("main", base_url=url, **options)


def ollama(url: str) -> OllamaBackend:
    return OllamaBackend("local", url)


def weather_tools(names: Sequence[str] = ("weather",)) -> list[dict[str, Any]]:
    """Tools in neither protocol's form: name and schema."""
    city = {"type": "string", "enum": ["Köln", "Porto"]}  # else a random model writes on for ever
    schema = {"type": "object", "properties": {"city": city}, "required": ["city"]}
    return [{"name": name, "schema": schema} for name in names]
