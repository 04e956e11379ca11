"""The clients that are measured: the same request through bare HTTP clients and ccroute.

`peers.py` has ccroute's peers. A contender is made once and serves all requests of a case, as in real use.
Each method decodes the whole answer or, streamed, every chunk, and returns the length of the text, so that no
contender can skip the work. A library is imported only when its contender is made.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

MODEL = "bench-model"
KEY = "sk-bench"
MESSAGES: list[Any] = [
    {"role": "system", "content": "You are a careful engineer."},
    {"role": "user", "content": "Say sixty-three words."},
]
MAX_TOKENS = 100
SECONDS = 60
"""Every client's timeout."""


# -- the wires, for clients that know none -------------------------------------------------------------------


class Wire(NamedTuple):
    """How a bare HTTP client asks. `whole` is the text of an answer, `piece` that of one line of a stream."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    whole: Callable[[Any], str]
    piece: Callable[[str], str]

    def asks(self, *, stream: bool) -> dict[str, Any]:
        return {**self.body, "stream": stream}


def openai_piece(line: str) -> str:
    if not line.startswith("data: ") or line == "data: [DONE]":
        return ""
    return "".join(choice["delta"].get("content", "") for choice in json.loads(line[6:])["choices"])


def anthropic_piece(line: str) -> str:
    if not line.startswith("data: "):
        return ""
    event = json.loads(line[6:])
    return event["delta"]["text"] if event["type"] == "content_block_delta" else ""


def ollama_piece(line: str) -> str:
    return json.loads(line)["message"]["content"] if line else ""


WIRES = {
    "openai": Wire(
        "/v1/chat/completions",
        {"authorization": f"Bearer {KEY}"},
        {"model": MODEL, "messages": MESSAGES, "max_tokens": MAX_TOKENS},
        lambda answer: answer["choices"][0]["message"]["content"],
        openai_piece,
    ),
    "anthropic": Wire(
        "/v1/messages",
        {"x-api-key": KEY, "anthropic-version": "2023-06-01"},
        {
            "model": MODEL,
            "system": MESSAGES[0]["content"],
            "messages": MESSAGES[1:],
            "max_tokens": MAX_TOKENS,
        },
        lambda answer: answer["content"][0]["text"],
        anthropic_piece,
    ),
    "ollama": Wire(
        "/api/chat",
        {},
        {"model": MODEL, "messages": MESSAGES, "options": {"num_predict": MAX_TOKENS}},
        lambda answer: answer["message"]["content"],
        ollama_piece,
    ),
}


# -- the clients ---------------------------------------------------------------------------------------------


class Contender(ABC):
    """A client of one server that speaks one wire."""

    package: ClassVar[str]
    """What has to be installed."""
    wires: ClassVar[tuple[str, ...]] = tuple(WIRES)
    threads: ClassVar[int] = 1000
    """How many threads may make blocking calls at once; 0, if it has none."""

    settles: ClassVar[int] = 2
    """Requests per caller until its connections, and so its cost, stay as they are."""

    @abstractmethod
    def __init__(self, wire: str, url: str) -> None: ...

    @abstractmethod
    async def acomplete(self) -> int: ...

    @abstractmethod
    async def astream(self) -> int: ...

    def complete(self) -> int:
        raise NotImplementedError

    def stream(self) -> int:
        raise NotImplementedError

    @abstractmethod
    async def aclose(self) -> None: ...


class Httpx(Contender):
    """Bare httpx as it comes: 100 connections, 20 of them kept."""

    package = "httpx"
    settles = 6  # a new pool costs up to 10 × as much: httpx looks at all idle connections for each request
    options: ClassVar[dict[str, Any]] = {}

    def __init__(self, wire: str, url: str) -> None:
        import httpx

        self.wire = WIRES[wire]
        options = self.options | {
            "base_url": url,
            "headers": self.wire.headers,
            "timeout": SECONDS,
            "trust_env": False,
        }
        self.client = httpx.AsyncClient(**options)
        self.blocking = httpx.Client(**options)
        self.body, self.stream_body = self.wire.asks(stream=False), self.wire.asks(stream=True)

    async def acomplete(self) -> int:
        reply = await self.client.post(self.wire.path, json=self.body)
        return len(self.wire.whole(reply.json()))

    async def astream(self) -> int:
        async with self.client.stream("POST", self.wire.path, json=self.stream_body) as reply:
            return sum([len(self.wire.piece(line)) async for line in reply.aiter_lines()])

    def complete(self) -> int:
        return len(self.wire.whole(self.blocking.post(self.wire.path, json=self.body).json()))

    def stream(self) -> int:
        with self.blocking.stream("POST", self.wire.path, json=self.stream_body) as reply:
            return sum(len(self.wire.piece(line)) for line in reply.iter_lines())

    async def aclose(self) -> None:
        await self.client.aclose()
        self.blocking.close()


class TunedHttpx(Httpx):
    """httpx with a pool that fits the load: https://www.python-httpx.org/advanced/resource-limits/"""

    def __init__(self, wire: str, url: str) -> None:
        import httpx

        self.options = {"limits": httpx.Limits(max_connections=1000, max_keepalive_connections=1000)}
        super().__init__(wire, url)


class Aiohttp(Contender):
    """One session for all: https://docs.aiohttp.org/en/stable/http_request_lifecycle.html"""

    package = "aiohttp"
    threads = 0

    def __init__(self, wire: str, url: str) -> None:
        import aiohttp

        self.wire = WIRES[wire]
        self.client = aiohttp.ClientSession(
            url,
            headers=self.wire.headers,
            connector=aiohttp.TCPConnector(limit=1000),  # as many as tuned httpx
            timeout=aiohttp.ClientTimeout(SECONDS),
        )
        self.body, self.stream_body = self.wire.asks(stream=False), self.wire.asks(stream=True)

    async def acomplete(self) -> int:
        async with self.client.post(self.wire.path, json=self.body) as reply:
            return len(self.wire.whole(await reply.json()))

    async def astream(self) -> int:
        async with self.client.post(self.wire.path, json=self.stream_body) as reply:
            return sum([len(self.wire.piece(line.decode().rstrip())) async for line in reply.content])

    async def aclose(self) -> None:
        await self.client.close()


class Ccroute(Contender):
    """The whole router: agent, alias, breaker, concurrency limit, price, and the ledger in memory."""

    package = "ccroute"

    def __init__(self, wire: str, url: str) -> None:
        from ccroute import AnthropicBackend, OllamaBackend, OpenAIBackend, Price, Router

        backend = {
            "openai": lambda: OpenAIBackend("bench", base_url=f"{url}/v1", api_key=KEY, max_concurrency=1000),
            "anthropic": lambda: AnthropicBackend("bench", base_url=url, api_key=KEY, max_concurrency=1000),
            "ollama": lambda: OllamaBackend("bench", url, max_concurrency=1000),
        }[wire]()
        self.router = Router(
            [backend],
            aliases={MODEL: f"bench/{MODEL}"},
            agents={"bench-agent": MODEL},
            prices={f"bench/{MODEL}": Price(3, 15)},
            timeout=SECONDS,
        )
        self.asked: Any = {"messages": MESSAGES, "agent": "bench-agent", "max_tokens": MAX_TOKENS}

    async def acomplete(self) -> int:
        return len((await self.router.acomplete(**self.asked)).text)

    async def astream(self) -> int:
        return sum([len(chunk.text) async for chunk in self.router.astream(**self.asked)])

    def complete(self) -> int:
        return len(self.router.complete(**self.asked).text)

    def stream(self) -> int:
        return sum(len(chunk.text) for chunk in self.router.stream(**self.asked))

    async def aclose(self) -> None:
        await self.router.aclose()
