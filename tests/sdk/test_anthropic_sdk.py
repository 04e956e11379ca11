"""The official `anthropic` package against the wrapper, with each kind of backend behind it."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest
from tests.sdk.conftest import KEY, AnthropicClient, Serve, compatible, ollama, weather_tools
from tests.support import anthropic_like, openai_like
from tests.support.ollama import FakeOllama, ScriptedReply
from tests.support.scripted import Close, Hang, ScriptedServer, answer, refused_port, stream

from ccroute import Agent, AnthropicBackend, OpenAIBackend
from tiny_llama import TinyLlama

ASK: dict[str, Any] = {"model": "m", "max_tokens": 4096, "messages": [{"role": "user", "content": "hi"}]}
TOOLS = [
    {"name": tool["name"], "input_schema": tool["schema"]} for tool in weather_tools(("weather", "time"))
]
THINK = {"type": "enabled", "budget_tokens": 2048}
NOBODY = {
    "authorization": anthropic.Omit(),
    "x-api-key": anthropic.Omit(),
}  # the SDK has sent its key as either


def paid(server: ScriptedServer) -> AnthropicBackend:
    return AnthropicBackend("paid", base_url=server.url, api_key="example-key")


def test_a_plain_answer_keeps_its_usage_and_the_request_its_form(
    serve: Serve, anthropic_client: AnthropicClient
) -> None:
    usage = anthropic_like.usage(3, 7, read=4, write_5m=2, write_1h=1)
    system = [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}]
    with ScriptedServer([answer(json=anthropic_like.message("Hello.", usage=usage))]) as server:
        client = anthropic_client(serve(paid(server)))
        reply = client.messages.create(
            **ASK, system=system, metadata={"user_id": "u"}, extra_body={"top_k": 5}
        )
    assert (reply.id, reply.model, reply.stop_reason) == ("msg_1", anthropic_like.MODEL, "end_turn")
    assert [block.text for block in reply.content if block.type == "text"] == ["Hello."]
    counted = reply.usage
    assert (counted.input_tokens, counted.cache_read_input_tokens, counted.cache_creation_input_tokens) == (
        3,
        4,
        3,
    )
    assert counted.cache_creation is not None
    assert (counted.cache_creation.ephemeral_1h_input_tokens, counted.output_tokens) == (1, 7)
    assert server.requests[0].json == {
        **ASK,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "system": system,
        "metadata": {"user_id": "u"},
        "top_k": 5,
    }


def test_a_stream_of_thinking_text_and_calls_is_rebuilt_as_it_was(
    serve: Serve, anthropic_client: AnthropicClient
) -> None:
    blocks = [
        anthropic_like.thinking_block(["Which", " city?"], "c2ln"),
        anthropic_like.text_block(["Let me", " see."], index=1),
        anthropic_like.tool_block("weather", ['{"city": "K', 'öln"}'], id="toolu_1", index=2),
        anthropic_like.tool_block("time", [], id="toolu_2", index=3),
    ]
    with ScriptedServer([stream(anthropic_like.message_sse(blocks=blocks, stop="tool_use"))]) as server:
        client = anthropic_client(serve(paid(server)))
        with client.messages.stream(**ASK, tools=TOOLS, thinking=THINK) as streamed:
            said = list(streamed.text_stream)
            reply = streamed.get_final_message()
    assert said == ["Let me", " see."]
    assert reply.stop_reason == "tool_use"
    assert [block.to_dict() for block in reply.content] == [
        {"type": "thinking", "thinking": "Which city?", "signature": "c2ln"},
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Köln"}},
        {"type": "tool_use", "id": "toolu_2", "name": "time", "input": {}},
    ]
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (11, 7)


def test_a_conversation_keeps_thinking_and_signatures_verbatim(
    serve: Serve, anthropic_client: AnthropicClient
) -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "eA=="},
        anthropic_like.tool_use("weather", {"city": "Köln"}),
    ]
    first = anthropic_like.message(blocks, stop="tool_use")
    with ScriptedServer([answer(json=first), answer(json=anthropic_like.message("Rain."))]) as server:
        client = anthropic_client(serve(paid(server)))
        reply = client.messages.create(**ASK, tools=TOOLS, thinking=THINK)
        result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain", "is_error": True}
        messages: list[Any] = [
            *ASK["messages"],
            {"role": "assistant", "content": reply.content},
            {"role": "user", "content": [result]},
        ]
        client.messages.create(**{**ASK, "messages": messages}, tools=TOOLS, thinking=THINK)
    sent = server.requests[1].json
    assert sent["messages"][1:] == [
        {"role": "assistant", "content": blocks},
        {"role": "user", "content": [result]},
    ]
    assert (sent["thinking"], sent["tools"]) == (THINK, TOOLS)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_ollama_gives_calls_thinking_and_usage_in_anthropics_form(
    serve: Serve, anthropic_client: AnthropicClient, streamed: bool
) -> None:
    calls = [{"function": {"name": name, "arguments": {"city": "Köln"}}} for name in ("weather", "time")]
    said = ScriptedReply(pieces=["Let", " me."], thinking=["hm", "?"], tool_calls=calls)
    with FakeOllama(["qwen"], says=said) as server:
        client = anthropic_client(serve(ollama(server.url), model="qwen"))
        options = {**ASK, "tools": TOOLS, "thinking": THINK, "metadata": {"user_id": "u"}}
        if streamed:
            with client.messages.stream(**options) as started:
                reply = started.get_final_message()
        else:
            reply = client.messages.create(**options)
        thinking, text, *uses = reply.content
        results = [{"type": "tool_result", "tool_use_id": use.id, "content": "rain"} for use in uses]
        messages: list[Any] = [
            *ASK["messages"],
            {"role": "assistant", "content": reply.content},
            {"role": "user", "content": results},
        ]
        again = client.messages.create(**{**ASK, "messages": messages}, tools=TOOLS)
    assert (thinking.thinking, thinking.signature) == ("hm?", "")
    assert text.text == "Let me."
    assert [(use.type, use.name, use.input) for use in uses] == [
        ("tool_use", name, {"city": "Köln"}) for name in ("weather", "time")
    ]
    ids = [use.id for use in [*uses, *again.content[2:]]]
    assert all(id.startswith("toolu_") for id in ids)
    assert len(set(ids)) == 4  # none comes twice in the conversation
    assert reply.stop_reason == "tool_use"
    assert reply.id.startswith("msg_")
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (26, 6)
    first, second = server.chats
    assert first["think"] is True
    assert [tool["function"]["name"] for tool in first["tools"]] == ["weather", "time"]
    assistant, *tools = second["messages"][1:]
    assert (assistant["thinking"], len(assistant["tool_calls"])) == ("hm?", 2)
    assert [(tool["role"], tool["tool_name"]) for tool in tools] == [("tool", "weather"), ("tool", "time")]


def test_an_openai_backend_gives_streamed_calls_and_thinking(
    serve: Serve, anthropic_client: AnthropicClient
) -> None:
    def delta(index: int, arguments: str, **begun: Any) -> dict[str, Any]:
        name = {"name": begun.pop("name")} if "name" in begun else {}
        return {"tool_calls": [{"index": index, **begun, "function": {**name, "arguments": arguments}}]}

    deltas = [
        {"reasoning_content": "hm"},
        delta(0, "", id="call_a", name="weather"),
        delta(0, '{"city":'),
        delta(0, '"Köln"}'),
        delta(1, "{}", id="call_b", name="time"),
    ]
    sent = openai_like.chat_sse(deltas, finish="tool_calls", usage=openai_like.usage(10, 5, cached=4))
    with ScriptedServer([stream(sent)]) as server:
        client = anthropic_client(serve(compatible(server.url)))
        with client.messages.stream(**ASK, tools=TOOLS, tool_choice={"type": "any"}) as streamed:
            reply = streamed.get_final_message()
    assert [block.to_dict() for block in reply.content] == [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "tool_use", "id": "toolu_a", "name": "weather", "input": {"city": "Köln"}},
        {"type": "tool_use", "id": "toolu_b", "name": "time", "input": {}},
    ]
    counted = reply.usage
    assert (counted.input_tokens, counted.cache_read_input_tokens, counted.output_tokens) == (6, 4, 5)
    assert server.requests[0].json["tool_choice"] == "required"


def test_images_reach_the_backend(serve: Serve, anthropic_client: AnthropicClient) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0="}
    parts = [{"type": "text", "text": "what is it?"}, {"type": "image", "source": source}]
    with ScriptedServer([answer(json=openai_like.chat())]) as server:
        client = anthropic_client(serve(compatible(server.url)))
        client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": parts}])
    assert server.requests[0].json["messages"][0]["content"] == [
        {"type": "text", "text": "what is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0="}},
    ]


@pytest.mark.llama
def test_a_real_server_answers_whole_and_streamed(
    serve: Serve, anthropic_client: AnthropicClient, llama_server: TinyLlama
) -> None:
    backend = AnthropicBackend("llama", base_url=llama_server.url, api_key=llama_server.api_key)
    client = anthropic_client(serve(backend))
    options: dict[str, Any] = {**ASK, "max_tokens": 12, "extra_body": {"temperature": 0}}
    whole = client.messages.create(**options)
    with client.messages.stream(**options) as streamed:
        built = streamed.get_final_message()
    assert [block.to_dict() for block in built.content] == [block.to_dict() for block in whole.content]
    assert (built.stop_reason, built.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)
    assert 0 < whole.usage.output_tokens <= 12


@pytest.mark.llama
def test_a_real_server_calls_a_tool(
    serve: Serve, anthropic_client: AnthropicClient, llama_tools_server: TinyLlama
) -> None:
    backend = compatible(llama_tools_server.url, api_key=llama_tools_server.api_key)
    client = anthropic_client(serve(backend))
    with client.messages.stream(**ASK, tools=TOOLS[:1], tool_choice={"type": "any"}) as streamed:
        reply = streamed.get_final_message()
    assert reply.stop_reason == "tool_use"
    assert [(block.name, list(block.input)) for block in reply.content if block.type == "tool_use"] == [
        ("weather", ["city"])
    ]


async def test_the_async_client_reads_a_stream_too(serve: Serve) -> None:
    with ScriptedServer([stream(anthropic_like.message_sse(["a", "b"]))]) as server:
        url = serve(paid(server)).url
        async with (
            anthropic.AsyncAnthropic(base_url=url, api_key=KEY, max_retries=0) as client,
            client.messages.stream(**ASK) as streamed,
        ):
            assert [piece async for piece in streamed.text_stream] == ["a", "b"]


def test_models_are_listed_and_tokens_counted(serve: Serve, anthropic_client: AnthropicClient) -> None:
    client = anthropic_client(serve(compatible("http://127.0.0.1:9")))
    models = list(client.models.list())
    assert [(model.id, model.max_input_tokens) for model in models] == [("m", None), ("main/m", None)]
    assert client.messages.count_tokens(model="m", messages=ASK["messages"]).input_tokens > 0
    with pytest.raises(anthropic.BadRequestError):
        client.messages.count_tokens(model="m", messages=[])


# -- errors --------------------------------------------------------------------------------------------------

REFUSALS = [
    (answer(400, json=openai_like.error("bad")), "BadRequestError", 400),
    (answer(401, json=openai_like.error("key")), "InternalServerError", 502),
    (answer(404, json=openai_like.error("model")), "NotFoundError", 404),
    (answer(429, json=openai_like.error("slow")), "RateLimitError", 429),
    (answer(500), "InternalServerError", 502),
    (answer(503), "OverloadedError", 529),
    (answer(body="<html>"), "InternalServerError", 502),
]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("reply", "kind", "status"), REFUSALS, ids=[str(i) for i in range(len(REFUSALS))])
def test_a_backends_refusal_raises_the_right_class(
    serve: Serve, anthropic_client: AnthropicClient, reply: Any, kind: str, status: int, streamed: bool
) -> None:
    with ScriptedServer([reply]) as server:
        client = anthropic_client(serve(compatible(server.url)))
        with pytest.raises(anthropic.APIStatusError) as caught:
            client.messages.create(**ASK, stream=streamed)
    assert (type(caught.value).__name__, caught.value.status_code) == (kind, status)


def test_a_rate_limit_says_when_to_come_back(serve: Serve, anthropic_client: AnthropicClient) -> None:
    with ScriptedServer([answer(429, headers={"retry-after": "7"})]) as server:
        client = anthropic_client(serve(compatible(server.url)))
        with pytest.raises(anthropic.RateLimitError) as caught:
            client.messages.create(**ASK)
    assert caught.value.response.headers["retry-after"] == "7"
    assert caught.value.type == "rate_limit_error"


def test_a_prompt_that_does_not_fit_says_so_in_anthropics_words(
    serve: Serve, anthropic_client: AnthropicClient
) -> None:
    counted = openai_like.error("too long", code="context_length_exceeded")
    with ScriptedServer([answer(400, json=counted)]) as server:
        client = anthropic_client(serve(compatible(server.url)))
        with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
            client.messages.create(**ASK)


def test_a_missing_and_a_wrong_key_are_different_errors(
    serve: Serve, anthropic_client: AnthropicClient
) -> None:
    server = serve(compatible("http://127.0.0.1:9"))
    with pytest.raises(anthropic.PermissionDeniedError):
        anthropic_client(server, api_key="sk-wrong").messages.create(**ASK)
    with pytest.raises(anthropic.AuthenticationError):
        anthropic_client(server).messages.create(**ASK, extra_headers=NOBODY)
    only = {**NOBODY, "x-api-key": KEY}
    assert anthropic_client(server).models.list(extra_headers=only).data


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({"model": "gpt-unknown"}, anthropic.NotFoundError, "unknown model"),
        ({"extra_headers": {"x-agent": "nobody"}}, anthropic.NotFoundError, "unknown agent"),
        ({"extra_headers": {"x-agent": "private"}}, anthropic.PermissionDeniedError, "local_only"),
        ({"messages": []}, anthropic.BadRequestError, "messages is empty"),
        ({"messages": [{"role": "user", "content": 5}]}, anthropic.BadRequestError, r"messages\[0\].content"),
    ],
)
def test_what_never_leaves_the_router_raises_the_right_class(
    serve: Serve, anthropic_client: AnthropicClient, fields: dict[str, Any], kind: type[Exception], words: str
) -> None:
    backend = OpenAIBackend("far", base_url="https://api.example.com/v1")
    client = anthropic_client(serve(backend, agents={"private": Agent("m", local_only=True)}))
    with pytest.raises(kind, match=words):
        client.messages.create(**{**ASK, **fields})


def test_an_unreachable_backend_is_a_bad_gateway(serve: Serve, anthropic_client: AnthropicClient) -> None:
    client = anthropic_client(serve(compatible(f"http://127.0.0.1:{refused_port()}")))
    with pytest.raises(anthropic.InternalServerError, match="cannot connect") as caught:
        client.messages.create(**ASK)
    assert caught.value.status_code == 502


def test_a_silent_backend_is_a_gateway_timeout(serve: Serve, anthropic_client: AnthropicClient) -> None:
    with ScriptedServer([[Hang()]]) as server:
        client = anthropic_client(serve(compatible(server.url), timeout=0.2))
        with pytest.raises(anthropic.APIStatusError) as caught:
            client.messages.create(**ASK)
    assert caught.value.status_code == 504


def test_a_stream_that_breaks_raises_after_what_was_said(
    serve: Serve, anthropic_client: AnthropicClient
) -> None:
    with ScriptedServer([stream([openai_like.chunk({"content": "so far"}), Close()])]) as server:
        client = anthropic_client(serve(compatible(server.url)))
        said: list[str] = []
        with client.messages.stream(**ASK) as streamed, pytest.raises(anthropic.APIStatusError, match="cut"):
            said += streamed.text_stream
    assert said == ["so far"]
