"""The peers of ccroute, each set up as its own documentation advises, and the names of all contenders.

They come with the extra `bench-peers`. One that is not installed takes no part.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

from contenders import (
    KEY,
    MAX_TOKENS,
    MESSAGES,
    MODEL,
    SECONDS,
    Aiohttp,
    Ccroute,
    Contender,
    Httpx,
    TunedHttpx,
)

SYSTEM, USER = (message["content"] for message in MESSAGES)


class OpenAI(Contender):
    """The official SDK, over aiohttp where it can: https://github.com/openai/openai-python#with-aiohttp"""

    package = "openai"
    wires = ("openai",)

    def __init__(self, wire: str, url: str) -> None:
        import openai

        at: dict[str, Any] = {"base_url": f"{url}/v1", "api_key": KEY, "timeout": SECONDS}
        self.client = openai.AsyncOpenAI(**at, http_client=openai.DefaultAioHttpClient())
        self.blocking = openai.OpenAI(**at)
        self.asked: Any = {"model": MODEL, "messages": MESSAGES, "max_tokens": MAX_TOKENS}

    async def acomplete(self) -> int:
        answer = await self.client.chat.completions.create(**self.asked)
        return len(answer.choices[0].message.content or "")

    async def astream(self) -> int:
        chunks = await self.client.chat.completions.create(**self.asked, stream=True)
        return sum([len(choice.delta.content or "") async for chunk in chunks for choice in chunk.choices])

    def complete(self) -> int:
        answer = self.blocking.chat.completions.create(**self.asked)
        return len(answer.choices[0].message.content or "")

    def stream(self) -> int:
        chunks = self.blocking.chat.completions.create(**self.asked, stream=True)
        return sum(len(choice.delta.content or "") for chunk in chunks for choice in chunk.choices)

    async def aclose(self) -> None:
        await self.client.close()
        self.blocking.close()


class Anthropic(Contender):
    """The official SDK, over aiohttp where it can: https://platform.claude.com/docs/en/api/sdks/python"""

    package = "anthropic"
    wires = ("anthropic",)

    def __init__(self, wire: str, url: str) -> None:
        import anthropic

        at: dict[str, Any] = {"base_url": url, "api_key": KEY, "timeout": SECONDS}
        self.client = anthropic.AsyncAnthropic(**at, http_client=anthropic.DefaultAioHttpClient())
        self.blocking = anthropic.Anthropic(**at)
        self.asked: Any = {
            "model": MODEL,
            "system": SYSTEM,
            "messages": MESSAGES[1:],
            "max_tokens": MAX_TOKENS,
        }

    async def acomplete(self) -> int:
        return len((await self.client.messages.create(**self.asked)).content[0].text)

    async def astream(self) -> int:
        events = await self.client.messages.create(**self.asked, stream=True)
        return sum([self.piece(event) async for event in events])

    def complete(self) -> int:
        return len(self.blocking.messages.create(**self.asked).content[0].text)

    def stream(self) -> int:
        return sum(self.piece(event) for event in self.blocking.messages.create(**self.asked, stream=True))

    def piece(self, event: Any) -> int:
        return len(event.delta.text) if event.type == "content_block_delta" else 0

    async def aclose(self) -> None:
        await self.client.close()
        self.blocking.close()


class PydanticAI(Contender):
    """Its thinnest way to a model, without an agent: https://ai.pydantic.dev/direct/"""

    package = "pydantic-ai-slim"
    wires = ("openai", "anthropic")
    threads = 1  # each thread would have an event loop of its own, and the client belongs to one

    def __init__(self, wire: str, url: str) -> None:
        from pydantic_ai import direct
        from pydantic_ai.messages import ModelRequest, SystemPromptPart, UserPromptPart

        self.direct = direct
        self.model = self.openai_model(url) if wire == "openai" else self.anthropic_model(url)
        prompt = [ModelRequest(parts=[SystemPromptPart(SYSTEM), UserPromptPart(USER)])]
        self.asked: Any = {
            "messages": prompt,
            "model_settings": {"max_tokens": MAX_TOKENS, "timeout": SECONDS},
        }

    def openai_model(self, url: str) -> Any:
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.openai import OpenAIProvider

        return OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=f"{url}/v1", api_key=KEY))

    def anthropic_model(self, url: str) -> Any:
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.providers.anthropic import AnthropicProvider

        return AnthropicModel(MODEL, provider=AnthropicProvider(base_url=url, api_key=KEY))

    async def acomplete(self) -> int:
        return len((await self.direct.model_request(self.model, **self.asked)).text)

    async def astream(self) -> int:
        async with self.direct.model_request_stream(self.model, **self.asked) as events:
            return sum([self.piece(event) async for event in events])

    def complete(self) -> int:
        return len(self.direct.model_request_sync(self.model, **self.asked).text)

    def stream(self) -> int:
        with self.direct.model_request_stream_sync(self.model, **self.asked) as events:
            return sum(self.piece(event) for event in events)

    def piece(self, event: Any) -> int:
        """The first piece comes with the start of its part."""
        if event.event_kind == "part_start":
            return len(event.part.content)
        return len(event.delta.content_delta) if event.event_kind == "part_delta" else 0

    async def aclose(self) -> None:
        """Its models share one client, which it keeps."""


class LiteLLM(Contender):
    """LiteLLM's Router, with one deployment.

    The routing strategy that it recommends, which is the default: https://docs.litellm.ai/docs/routing
    The mode and the log level for production: https://docs.litellm.ai/docs/proxy/prod
    It knows no price of the model, which makes it about 1 ms a call faster.
    """

    package = "litellm"

    def __init__(self, wire: str, url: str) -> None:
        os.environ["LITELLM_MODE"], os.environ["LITELLM_LOG"] = "PRODUCTION", "ERROR"
        os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # the prices from its package, not from the net
        import litellm

        litellm.suppress_debug_info = True
        model, base = {
            "openai": (f"openai/{MODEL}", f"{url}/v1"),
            "anthropic": (f"anthropic/{MODEL}", url),
            "ollama": (f"ollama_chat/{MODEL}", url),
        }[wire]
        params = {"model": model, "api_base": base, "api_key": KEY, "timeout": SECONDS}
        self.router = litellm.Router(
            model_list=[{"model_name": MODEL, "litellm_params": params}], routing_strategy="simple-shuffle"
        )
        self.asked: Any = {"model": MODEL, "messages": MESSAGES, "max_tokens": MAX_TOKENS}

    async def acomplete(self) -> int:
        answer: Any = await self.router.acompletion(**self.asked)
        return len(answer.choices[0].message.content)

    async def astream(self) -> int:
        chunks: Any = await self.router.acompletion(**self.asked, stream=True)
        return sum([len(choice.delta.content or "") async for chunk in chunks for choice in chunk.choices])

    def complete(self) -> int:
        answer: Any = self.router.completion(**self.asked)
        return len(answer.choices[0].message.content)

    def stream(self) -> int:
        chunks: Any = self.router.completion(**self.asked, stream=True)
        return sum(len(choice.delta.content or "") for chunk in chunks for choice in chunk.choices)

    async def aclose(self) -> None:
        """It keeps its clients."""


CONTENDERS: dict[str, type[Contender]] = {
    "httpx": Httpx,
    "httpx-tuned": TunedHttpx,
    "ccroute": Ccroute,
    "aiohttp": Aiohttp,
    "openai": OpenAI,
    "anthropic": Anthropic,
    "pydantic-ai": PydanticAI,
    "litellm": LiteLLM,
}
OWN = ("httpx", "httpx-tuned", "ccroute")
"""Those that are always installed, because ccroute needs them."""


def versions(*others: str) -> dict[str, str]:
    """The version of each package that a contender needs, and of `others`, if it is installed."""
    import importlib.metadata  # here, because its memory would count as that of the contenders

    found = {}
    for package in sorted({*others, *(made.package for made in CONTENDERS.values())}):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def installed() -> list[str]:
    """The contenders that can take part here."""
    here = versions()
    return [name for name, made in CONTENDERS.items() if made.package in here]
