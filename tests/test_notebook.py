"""In a notebook: tab completion, what a cell shows, `await` in a cell, and an error's display.

One real kernel for all of it; it talks to a scripted server in this process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import jedi
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager
from pydantic import BaseModel
from tests.support.openai_like import chat, chat_sse
from tests.support.scripted import ScriptedServer, answer, stream

import ccroute
from ccroute import (
    Attempt,
    Chunk,
    Completion,
    Message,
    OllamaBackend,
    OpenAIBackend,
    Route,
    Router,
    Usage,
    errors,
)
from ccroute.types import Choice, Function, ToolCall
from ccroute.types.arguments.structured import answer_format

KEY = "sk-canary-0123456789abcdef"
EVIL = '<script>alert("x")</script>'
ATTEMPT = Attempt(
    deployment="main/m",
    outcome="failed",
    reason=EVIL,
    started=datetime(2026, 1, 1, tzinfo=UTC),
    duration=1.5,
    cost=Decimal("5.25E-7"),
)


# -- tab completion ------------------------------------------------------------------------------------------

PRELUDE = """
from ccroute import Completion, OllamaBackend, OpenAIBackend, Router
router = Router([OllamaBackend("mini")])
reply = router.complete("x", model="mini/m")
"""


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("reply.", {"text", "cost", "route", "tool_calls", "parsed", "finish_reason"}),
        ('router.complete("x").', {"text", "cost", "route", "usage"}),
        ('router.complete("x").route.', {"deployment", "attempts", "reasons"}),
        ("reply.route.", {"deployment", "attempts", "reasons"}),
        ("reply.usage.", {"input", "output", "total_tokens"}),
        ("reply.tool_calls[0].", {"arguments", "validated", "function"}),
        ("reply.message.", {"content", "to_dict", "thinking"}),
        ('router.stream("x").', {"completion", "route", "close"}),
        ('router.stream("x").completion.', {"text", "cost"}),
        ('for chunk in router.stream("x"):\n    chunk.', {"text", "thinking", "usage"}),
        ('async def f():\n    (await router.acomplete("x")).', {"text", "cost"}),
        ('router.explain("x").', {"candidates", "reasons", "to_dict"}),
        ('router.health()["x"].', {"ok", "missing", "loaded"}),
        ("router.", {"complete", "acomplete", "stream", "report", "models"}),
        ("OllamaBackend(", {"models=", "api_key=", "local=", "timeout=", "keep_alive="}),
        ("OpenAIBackend(", {"models=", "api_key=", "local=", "timeout=", "preset="}),
        ("Router(agent", {"agents=", "agent_override="}),
        ('router.complete("x", respo', {"response_format="}),
    ],
)
def test_an_editor_completes_what_a_call_gives_back(typed: str, offered: set[str]) -> None:
    assert offered <= {each.name for each in jedi.Script(PRELUDE + typed).complete()}


@pytest.mark.parametrize(
    "thing",
    [
        Completion(),
        Route(),
        Usage(),
        Message(),
        Choice(),
        Chunk(),
        ToolCall(),
        ATTEMPT,
        Router([OllamaBackend()]),
        OllamaBackend(),
        errors.RateLimitError("x"),
        *(getattr(ccroute, name) for name in ccroute.__all__ if name[0].isupper()),
    ],
    ids=lambda thing: getattr(thing, "__name__", type(thing).__name__.lower()),
)
def test_a_live_object_completes_to_its_public_names(thing: Any) -> None:
    offered = {each.name for each in jedi.Interpreter("thing.", [{"thing": thing}]).complete()}
    assert {name for name in dir(thing) if not name.startswith("_")} - {"mro"} <= offered


def test_tab_completes_an_answer_and_an_ended_stream_at_any_depth() -> None:
    call = ToolCall(id="1", function=Function(name="search", arguments="{}"))
    with (
        ScriptedServer([answer(json=chat(None, tool_calls=[call.to_dict()])), stream(chat_sse())]) as server,
        Router([OpenAIBackend("main", base_url=server.url)], default_model="main/m") as router,
    ):
        reply, streamed = router.complete("hi"), router.stream("hi")
        assert [chunk.text for chunk in streamed if chunk.text]
    scope: dict[str, Any] = {"reply": reply, "st": streamed, "errors": errors}
    wanted = {
        "reply.message.": {"content", "role", "tool_calls", "to_dict"},
        "reply.message.tool_calls[0].": {"id", "function", "arguments", "validated"},
        "reply.tool_calls[0].": {"id", "function", "arguments", "validated"},
        "reply.finish_reason.": {"upper"},
        "st.completion.": {"usage", "cost", "route", "text"},
        "st.completion.route.": {"deployment", "attempts"},
        "st.usage.": {"input", "output"},
        "st.route.": {"deployment", "attempts"},
    }
    for typed, offered in wanted.items():
        found = {each.name for each in jedi.Interpreter(typed, [scope]).complete()}
        assert offered <= found, typed


def test_tab_after_errors_offers_errors_only() -> None:
    public = {name for name in dir(errors) if not name.startswith("_")}
    assert all(issubclass(getattr(errors, name), errors.CcrouteError) for name in public)
    for found in (
        jedi.Interpreter("errors.", [{"errors": errors}]).complete(),
        jedi.Script("from ccroute import errors\nerrors.").complete(),
    ):
        assert {each.name for each in found if not each.name.startswith("_")} == public


# -- what is shown -------------------------------------------------------------------------------------------


def shown(thing: Any) -> tuple[str, str]:
    """Its HTML, and what rich would print."""
    printed = [part[1] if isinstance(part, tuple) else part for part in thing.__rich_repr__()]
    return thing._repr_html_(), " ".join(str(part) for part in printed)


def test_an_answer_shows_its_text_route_tokens_and_cost() -> None:
    call = ToolCall(id="1", function=Function(name="search", arguments='{"q": "<b>"}'))
    reply = Completion(
        choices=(Choice(message=Message(content=EVIL, tool_calls=(call,)), finish_reason="length"),),
        usage=Usage(input=12, output=34),
        cost=Decimal("5.25E-7"),
        route=Route(agent="py", model="fast", deployment="main/m"),
        latency=1.234,
    )
    html, printed = shown(reply)
    assert EVIL not in html
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;" in html
    for part in ("py → fast → main/m", "12 in, 34 out", "$0.000000525", "1.23", "length", "search"):
        assert part in html
        assert part in printed
    assert "<b>" not in html
    assert len(html) < 1000


def test_an_answer_is_printed_in_one_short_line() -> None:
    call = ToolCall(id="1", function=Function(name="search", arguments='{"q": "x"}'))
    reply = Completion[Any](
        choices=(Choice(message=Message(content="é" * 5000, tool_calls=(call,)), finish_reason="stop"),),
        model="m",
        cost=Decimal("5.25E-7"),
        route=Route(model="fast", deployment="main/m", attempts=(ATTEMPT,)),
        raw={"private": "x" * 5000},
    )
    assert repr(reply) == str(reply)
    assert repr(reply) == (
        f"Completion('{'é' * 200}…', model='m', tool_calls=['search({{\"q\": \"x\"}})'], "
        "finish_reason='stop', cost='$0.000000525', route='- → fast → main/m')"
    )
    assert len(reply.model_dump_json()) > 10_000, "a dump has everything"


def test_an_answer_shows_its_thoughts_and_why_it_does_not_parse() -> None:
    class Found(BaseModel):
        line: int

    thought = Message(content="none", thinking="<i>" + "hm " * 500)
    reply = Completion[Any](choices=(Choice(message=thought, finish_reason="stop"),))
    reply._asked_with(answer_format(Found), None)
    html, printed = shown(reply)
    for text in (html, printed):
        assert "the answer is no valid Found: " in text
        assert text.count("hm ") < 70
    assert "&lt;i&gt;hm hm" in html
    good = Completion[Any](choices=(Choice(message=Message(content='{"line": 1}'), finish_reason="stop"),))
    good._asked_with(answer_format(Found), None)
    assert "parsed" not in shown(good)[0]


def test_an_unknown_cost_is_shown_and_a_normal_end_is_not() -> None:
    html, printed = shown(Completion(choices=(Choice(finish_reason="stop"),)))
    for text in (html, printed):
        assert "unknown" in text
        assert "stop" not in text


def test_a_route_shows_the_way_and_each_attempt() -> None:
    html, printed = shown(Route(model="fast", deployment="main/m", attempts=(ATTEMPT,)))
    assert "- → fast → main/m" in html
    assert "main/m: failed" in printed
    assert "1.50 s" in html
    assert "$0.000000525" in html
    assert EVIL not in html


def test_a_router_shows_its_backends_and_never_a_key() -> None:
    with Router(
        [OpenAIBackend("main", base_url="http://localhost:1/v1", api_key=KEY), OllamaBackend("mini")],
        {"a": "mini/m"},
        {"x": "a", "y": "a"},
    ) as router:
        html, printed = shown(router)
    assert "<td>main</td><td>OpenAIBackend</td><td>http://localhost:1</td>" in html
    assert "aliases: 1 · agents: 2" in html
    assert "['main', 'mini'] 1 2" in printed
    assert KEY not in html + printed


def test_an_error_shows_what_happened_and_what_was_tried() -> None:
    error = errors.RateLimitError(f"slow down {EVIL}", deployment="main/m", status=429, retry_after=12.0)
    error.attempts = (ATTEMPT,)
    html, printed = shown(error)
    for part in ("RateLimitError", "main/m: slow down", "(HTTP 429)", "try again in: 12 s", "failed"):
        assert part in html
    assert "main/m: slow down" in printed
    assert EVIL not in html
    assert shown(errors.ConfigError("one", "two"))[0].count("<div") == 2


# -- a real kernel -------------------------------------------------------------------------------------------


class Kernel:
    """A notebook's kernel, asked as a notebook asks it."""

    def __init__(self, client: BlockingKernelClient) -> None:
        self.client = client

    def run(self, cell: str) -> dict[str, Any]:
        """What a cell shows: the data of its result, `stdout`, and of an error its `traceback`."""
        seen: dict[str, Any] = {"stdout": ""}

        def take(message: dict[str, Any]) -> None:
            content = message["content"]
            if message["msg_type"] == "execute_result":
                seen.update(content["data"])
            elif message["msg_type"] == "stream":
                seen["stdout"] += content["text"]
            elif message["msg_type"] == "error":
                seen.update(error=content["ename"], traceback="\n".join(content["traceback"]))

        self.client.execute_interactive(cell, output_hook=take, timeout=20)
        return seen

    def complete(self, typed: str) -> set[str]:
        """What Tab offers."""
        reply = self.client.complete(typed, len(typed), reply=True, timeout=20)
        return set(reply["content"]["matches"])


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    source = str(Path(ccroute.__file__).parent.parent)
    manager = KernelManager(kernel_name="python3", transport="tcp")
    manager.start_kernel(env={**os.environ, "PYTHONPATH": source, "PYTHONWARNINGS": "default"})
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=30)
        yield Kernel(client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


def test_a_notebook_from_the_import_to_the_last_error(kernel: Kernel) -> None:
    with ScriptedServer([answer(json=chat("<b>hello</b>"))], repeat=True) as server:
        built = kernel.run(
            "from ccroute import OpenAIBackend, Router, errors\n"
            f"router = Router([OpenAIBackend('main', base_url={server.url!r}, api_key={KEY!r})], "
            "{'x': 'main/m'})\nrouter"
        )
        assert "<td>main</td>" in built["text/html"]

        answered = kernel.run("reply = router.complete('hi', model='x')\nreply")
        assert "&lt;b&gt;hello&lt;/b&gt;" in answered["text/html"]
        assert "x → main/m" in answered["text/html"]
        assert "main/m" in kernel.run("reply.route")["text/html"]

        assert kernel.run("(await router.acomplete('hi', model='x')).text")["text/plain"] == "'<b>hello</b>'"
        streamed = "async with router.astream('hi', model='x') as stream:\n    print(type(stream).__name__)"
        assert kernel.run(streamed)["stdout"] == "AsyncStream\n"

        assert {"text", "cost", "route", "parsed"} <= kernel.complete("reply.")
        assert {"deployment", "attempts"} <= kernel.complete("reply.route.")
        assert {"outcome", "reason"} <= kernel.complete("reply.route.attempts[0].")
        assert {"text", "cost", "route"} <= kernel.complete("router.complete('x').")
        assert "response_format=" in kernel.complete("router.complete('x', respo")
        assert {"aliases="} <= kernel.complete("Router(ali")

        failed = kernel.run("router.complete('hi', model='y')")
        assert failed["error"] == "UnknownModelError"
        assert 'unknown model "y"' in failed["traceback"]
        kept = kernel.run(
            "try:\n    router.complete('hi', model='y')\nexcept errors.CcrouteError as error:\n"
            "    found = error\nfound"
        )
        assert "<b>UnknownModelError</b>" in kept["text/html"]
        everything = f"{built}{answered}{failed}{kept}"
        assert KEY not in everything
