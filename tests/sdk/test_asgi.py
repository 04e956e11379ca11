"""The recipe for ASGI servers in docs/wires.md: a client that leaves ends its call."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.sdk.conftest import compatible
from tests.support.openai_like import chunk
from tests.support.scripted import Hang, ScriptedServer, Send, head

from ccroute import RetryPolicy, Router
from ccroute.serve import openai

PAGE = Path(__file__).parents[2] / "docs" / "wires.md"
BEGUN = head(200, {"content-type": "text/event-stream"}) + chunk({"content": "a"})


def recipe(router: Router) -> Callable[..., Awaitable[None]]:
    """The page's `app` over this router."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    [block] = [block for block in blocks if "async def app(" in block]
    names: dict[str, Any] = {"router": router, "openai": openai, "json": json}
    exec(compile(block.partition("async def ask_app(")[0], str(PAGE), "exec"), names)
    app: Callable[..., Awaitable[None]] = names["app"]
    return app


@pytest.mark.parametrize(
    ("does", "streamed"),
    [([Hang()], False), ([Hang()], True), ([Send(BEGUN), Hang()], True)],
    ids=["whole", "before the first content", "within a stream"],
)
async def test_a_client_that_leaves_ends_its_call(does: list[Any], streamed: bool) -> None:
    asked = {"model": "main/m", "stream": streamed, "messages": [{"role": "user", "content": "hi"}]}
    sent: list[dict[str, Any]] = []
    left, begun = asyncio.Event(), asyncio.Event()
    events = iter([{"type": "http.request", "body": json.dumps(asked).encode(), "more_body": False}])

    async def receive() -> dict[str, Any]:
        for event in events:
            return event
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)
        begun.set()

    with ScriptedServer([does]) as backend:
        async with Router([compatible(backend.url)], timeout=60, retry=RetryPolicy(attempts=1)) as router:
            serving = asyncio.ensure_future(recipe(router)({"type": "http"}, receive, send))
            assert await asyncio.to_thread(backend.wait_requests, 1)
            if len(does) > 1:
                await asyncio.wait_for(begun.wait(), 5)
            left.set()
            await asyncio.wait_for(serving, 5)
            assert await asyncio.to_thread(backend.wait_closed, 1.0), "the backend still works for nobody"
    bodies = b"".join(event.get("body", b"") for event in sent)
    assert (b'"content":"a"' in bodies) == (len(does) > 1)
    assert b"[DONE]" not in bodies
