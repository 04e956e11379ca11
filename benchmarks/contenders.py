"""The clients that are measured: the same request through bare httpx, ccroute, and the installed peers.

A contender is made once and serves all requests of a case, as in real use. Each decodes the whole answer and,
streamed, every chunk. A library is imported only when its contender is used.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from typing import Any, Protocol

MODEL = "bench-model"
KEY = "sk-bench"
MESSAGES: list[Any] = [
    {"role": "system", "content": "You are a careful engineer."},
    {"role": "user", "content": "Say sixty-three words."},
]
BODY = {"model": MODEL, "messages": MESSAGES, "max_tokens": 100}


class Contender(Protocol):
    """Each method returns the length of the answer's text, so that no contender can skip the work."""

    async def chat(self) -> int: ...
    async def stream(self) -> int: ...
    def complete(self) -> int: ...
    async def aclose(self) -> None: ...


class Httpx:
    """Bare httpx with its defaults: an `AsyncClient`, and a `Client` for the sync cases."""

    def __init__(self, url: str) -> None:
        import httpx

        options: dict[str, Any] = {
            "base_url": url,
            "headers": {"authorization": f"Bearer {KEY}"},
            "timeout": 60,
            "trust_env": False,
        }
        self.client = httpx.AsyncClient(**options)
        self.sync = httpx.Client(**options)

    async def chat(self) -> int:
        reply = await self.client.post("/v1/chat/completions", json=BODY)
        return len(reply.json()["choices"][0]["message"]["content"])

    async def stream(self) -> int:
        total = 0
        async with self.client.stream("POST", "/v1/chat/completions", json=BODY | {"stream": True}) as reply:
            async for line in reply.aiter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    for choice in json.loads(line[6:])["choices"]:
                        total += len(choice["delta"].get("content", ""))
        return total

    def complete(self) -> int:
        reply = self.sync.post("/v1/chat/completions", json=BODY)
        return len(reply.json()["choices"][0]["message"]["content"])

    async def aclose(self) -> None:
        await self.client.aclose()
        self.sync.close()


class Ccroute:
    """The whole router: agent, alias, price and the ledger in memory."""

    def __init__(self, url: str) -> None:
        from ccroute import OpenAIBackend, Price, Router

        self.router = Router(
            [OpenAIBackend("bench", base_url=f"{url}/v1", api_key=KEY, local=True)],
            aliases={MODEL: f"bench/{MODEL}"},
            agents={"bench-agent": MODEL},
            prices={f"bench/{MODEL}": Price(3, 15)},
        )

    async def chat(self) -> int:
        answer = await self.router.acomplete(messages=MESSAGES, agent="bench-agent", max_tokens=100)
        return len(answer.text)

    async def stream(self) -> int:
        total = 0
        async for chunk in self.router.astream(messages=MESSAGES, agent="bench-agent", max_tokens=100):
            total += len(chunk.text)
        return total

    def complete(self) -> int:
        return len(self.router.complete(messages=MESSAGES, agent="bench-agent", max_tokens=100).text)

    async def aclose(self) -> None:
        await self.router.aclose()


class OpenAI:
    """The official SDK."""

    def __init__(self, url: str) -> None:
        import openai

        self.client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY)
        self.sync = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY)

    async def chat(self) -> int:
        answer = await self.client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=100)
        return len(answer.choices[0].message.content or "")

    async def stream(self) -> int:
        total = 0
        create = self.client.chat.completions.create
        async for chunk in await create(model=MODEL, messages=MESSAGES, max_tokens=100, stream=True):
            total += sum(len(choice.delta.content or "") for choice in chunk.choices)
        return total

    def complete(self) -> int:
        answer = self.sync.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=100)
        return len(answer.choices[0].message.content or "")

    async def aclose(self) -> None:
        await self.client.close()
        self.sync.close()


class LiteLLM:
    """LiteLLM's Router, with one deployment."""

    def __init__(self, url: str) -> None:
        import litellm

        litellm.suppress_debug_info = True
        params = {"model": f"openai/{MODEL}", "api_base": f"{url}/v1", "api_key": KEY}
        self.router = litellm.Router(model_list=[{"model_name": MODEL, "litellm_params": params}])

    async def chat(self) -> int:
        answer: Any = await self.router.acompletion(MODEL, MESSAGES, max_tokens=100)
        return len(answer.choices[0].message.content)

    async def stream(self) -> int:
        total = 0
        chunks: Any = await self.router.acompletion(MODEL, MESSAGES, max_tokens=100, stream=True)
        async for chunk in chunks:
            total += sum(len(choice.delta.content or "") for choice in chunk.choices)
        return total

    def complete(self) -> int:
        answer: Any = self.router.completion(MODEL, MESSAGES, max_tokens=100)
        return len(answer.choices[0].message.content)

    async def aclose(self) -> None:
        return None


CONTENDERS: dict[str, Callable[[str], Contender]] = {
    "httpx": Httpx,
    "ccroute": Ccroute,
    "openai": OpenAI,
    "litellm": LiteLLM,
}


def installed() -> list[str]:
    """The contenders that can take part here."""
    return [name for name in CONTENDERS if importlib.util.find_spec(name.partition("-")[0])]
