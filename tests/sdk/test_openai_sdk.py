"""The official `openai` package against the wrapper, with each kind of backend behind it."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from tests.sdk.conftest import KEY, OpenAIClient, Serve, compatible, ollama, weather_tools
from tests.support import anthropic_like, openai_like
from tests.support.ollama import FakeOllama, ScriptedReply
from tests.support.scripted import Close, Hang, ScriptedServer, Wait, answer, refused_port, stream

from ccroute import Agent, AnthropicBackend, OpenAIBackend, RetryPolicy
from tiny_llama import TinyLlama

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
TOOLS = [
    {"type": "function", "function": {"name": tool["name"], "parameters": tool["schema"]}}
    for tool in weather_tools(("weather", "time"))
]


def paid(server: ScriptedServer) -> AnthropicBackend:
    return AnthropicBackend("paid", base_url=server.url, api_key="example-key")


def test_a_plain_answer_is_the_backends_own(serve: Serve, openai_client: OpenAIClient) -> None:
    with ScriptedServer([answer(json=openai_like.chat(usage=openai_like.usage(10, 5, cached=4)))]) as server:
        reply = openai_client(serve(compatible(server.url))).chat.completions.create(**ASK, temperature=0)
    assert reply.choices[0].message.content == "Hello there."
    assert (reply.choices[0].finish_reason, reply.model, reply.id) == ("stop", "gpt-4o-mini", "chatcmpl-1")
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.total_tokens) == (10, 15)
    assert reply.usage.prompt_tokens_details is not None
    assert reply.usage.prompt_tokens_details.cached_tokens == 4
    assert server.requests[0].json == {**ASK, "temperature": 0}


def test_a_stream_is_read_piece_by_piece_with_usage_at_its_end(
    serve: Serve, openai_client: OpenAIClient
) -> None:
    with ScriptedServer([stream(openai_like.chat_sse(["Hel", "lo"]))]) as server:
        client = openai_client(serve(compatible(server.url)))
        chunks = list(
            client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True})
        )
    said = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert said == ["", "Hel", "lo", None]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 18
    assert chunks[0].created > 1_700_000_000


@pytest.mark.parametrize("streamed", [False, True])
def test_a_provider_gets_its_fields_back_with_the_message(
    serve: Serve, openai_client: OpenAIClient, streamed: bool
) -> None:
    details = [{"type": "reasoning.encrypted", "data": "eHh4", "index": 0}]
    signed = {"extra_content": {"google": {"thought_signature": "EjQKMg"}}}
    called = {**openai_like.tool_call("weather", '{"city": "Porto"}'), **signed}
    if streamed:
        deltas = [{"reasoning_details": details}, {"tool_calls": [{"index": 0, **called}]}]
        first = stream(openai_like.chat_sse(deltas, finish="tool_calls"))
    else:
        body = openai_like.chat(None, finish="tool_calls", tool_calls=[called], reasoning_details=details)
        first = answer(json=body)
    with ScriptedServer([first, answer(json=openai_like.chat("Sunny."))]) as server:
        client = openai_client(serve(compatible(server.url)))
        if streamed:
            with client.chat.completions.stream(**ASK, tools=TOOLS) as events:
                message = events.get_final_completion().choices[0].message
        else:
            message = client.chat.completions.create(**ASK, tools=TOOLS).choices[0].message
        assert message.tool_calls is not None
        result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "18 degrees"}
        again: Any = [*ASK["messages"], message.to_dict(), result]
        reply = client.chat.completions.create(model="m", messages=again, tools=TOOLS)
    assert reply.choices[0].message.content == "Sunny."
    back = server.requests[1].json["messages"][1]
    assert back["reasoning_details"] == details
    assert back["tool_calls"][0]["extra_content"] == signed["extra_content"]
    assert "provider_fields" not in str(back)


def test_streamed_calls_of_an_anthropic_backend_arrive_whole(
    serve: Serve, openai_client: OpenAIClient
) -> None:
    blocks = [
        anthropic_like.thinking_block(["Which", " city?"]),
        anthropic_like.text_block(["Let me see."], index=1),
        anthropic_like.tool_block("weather", ['{"city": "K', 'öln"}'], id="toolu_1", index=2),
        anthropic_like.tool_block("time", [], id="toolu_2", index=3),
    ]
    with ScriptedServer([stream(anthropic_like.message_sse(blocks=blocks, stop="tool_use"))]) as server:
        client = openai_client(serve(paid(server)))
        with client.chat.completions.stream(**ASK, tools=TOOLS) as streamed:
            thoughts = [
                getattr(event.chunk.choices[0].delta, "reasoning_content", None) or ""
                for event in streamed
                if event.type == "chunk" and event.chunk.choices
            ]
            choice = streamed.get_final_completion().choices[0]
    assert "".join(thoughts) == "Which city?"
    assert choice.message.to_dict()["thinking_blocks"] == [
        {"type": "thinking", "thinking": "Which city?", "signature": "c2ln"}
    ]
    assert (choice.message.content, choice.finish_reason) == ("Let me see.", "tool_calls")
    calls = choice.message.tool_calls or []
    assert [(call.id, call.function.name, call.function.arguments) for call in calls] == [
        ("toolu_1", "weather", '{"city": "Köln"}'),
        ("toolu_2", "time", ""),
    ]


def test_a_conversation_continues_with_the_message_itself(serve: Serve, openai_client: OpenAIClient) -> None:
    thinking = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    blocks = [thinking, anthropic_like.tool_use("weather", {"city": "Köln"})]
    first = anthropic_like.message(blocks, stop="tool_use")
    with ScriptedServer([answer(json=first), answer(json=anthropic_like.message("Rain."))]) as server:
        client = openai_client(serve(paid(server)))
        messages: list[Any] = [*ASK["messages"]]
        reply = client.chat.completions.create(model="m", messages=messages, tools=TOOLS).choices[0].message
        assert reply.tool_calls
        result = {"role": "tool", "tool_call_id": reply.tool_calls[0].id, "content": "rain"}
        again = client.chat.completions.create(model="m", messages=[*messages, reply, result], tools=TOOLS)
    assert again.choices[0].message.content == "Rain."
    assert server.requests[1].json["messages"][1:] == [
        {"role": "assistant", "content": blocks},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain"}],
        },
    ]


def test_an_ollama_backend_gives_calls_thinking_and_usage(serve: Serve, openai_client: OpenAIClient) -> None:
    calls = [{"function": {"name": name, "arguments": {"city": "Köln"}}} for name in ("weather", "time")]
    said = ScriptedReply(pieces=[], thinking=["hm", "?"], tool_calls=calls)
    with FakeOllama(["qwen"], says=said) as server:
        client = openai_client(serve(ollama(server.url), model="qwen"))
        whole = client.chat.completions.create(**ASK, tools=TOOLS, user="me")
        with client.chat.completions.stream(
            **ASK, tools=TOOLS, stream_options={"include_usage": True}
        ) as streamed:
            built = streamed.until_done().get_final_completion()
    for reply in (whole, built):
        message = reply.choices[0].message
        assert reply.choices[0].finish_reason == "tool_calls"
        assert [call.function.name for call in message.tool_calls or ()] == ["weather", "time"]
        assert [call.function.arguments for call in message.tool_calls or ()] == ['{"city":"Köln"}'] * 2
        assert message.reasoning_content == "hm?"  # type: ignore[union-attr]
        assert reply.usage is not None
        assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (26, 4)
    ids = {call.id for reply in (whole, built) for call in reply.choices[0].message.tool_calls or ()}
    assert len(ids) == 4  # a conversation may hold both answers


def test_images_reach_the_backend(serve: Serve, openai_client: OpenAIClient) -> None:
    parts = [
        {"type": "text", "text": "what is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0="}},
    ]
    with FakeOllama(["qwen"]) as server:
        client = openai_client(serve(ollama(server.url), model="qwen"))
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": parts}])
    assert server.chats[0]["messages"] == [{"role": "user", "content": "what is it?", "images": ["iVBORw0="]}]


def test_extra_fields_reach_the_backend(serve: Serve, openai_client: OpenAIClient) -> None:
    with ScriptedServer([answer(json=openai_like.chat())]) as server:
        wrapper = serve(compatible(server.url), agents={"python-expert": "main/small"})
        client = openai_client(wrapper, default_headers={"x-agent": "Python Expert"})
        client.chat.completions.create(**ASK, extra_body={"min_p": 0.1})
    assert server.requests[0].json == {**ASK, "model": "small", "min_p": 0.1}


@pytest.mark.llama
def test_a_real_server_answers_whole_and_streamed(
    serve: Serve, openai_client: OpenAIClient, llama_server: TinyLlama
) -> None:
    client = openai_client(serve(compatible(llama_server.url, api_key=llama_server.api_key)))
    options = {"max_completion_tokens": 12, "temperature": 0, "seed": 7}
    whole = client.chat.completions.create(**ASK, **options)
    with client.chat.completions.stream(**ASK, **options) as streamed:
        built = streamed.get_final_completion()
    assert whole.choices[0].message.content
    assert built.choices[0].message.content == whole.choices[0].message.content
    assert built.choices[0].finish_reason == whole.choices[0].finish_reason
    assert whole.usage is not None
    assert 0 < whole.usage.completion_tokens <= 12


@pytest.mark.llama
def test_a_real_server_streams_a_call_of_a_tool(
    serve: Serve, openai_client: OpenAIClient, llama_tools_server: TinyLlama
) -> None:
    backend = compatible(llama_tools_server.url, api_key=llama_tools_server.api_key)
    client = openai_client(serve(backend))
    with client.chat.completions.stream(
        **ASK, tools=TOOLS[:1], tool_choice="required", max_tokens=200
    ) as streamed:
        choice = streamed.get_final_completion().choices[0]
    assert choice.finish_reason == "tool_calls"
    assert [call.function.name for call in choice.message.tool_calls or ()] == ["weather"]


async def test_the_async_client_reads_a_stream_too(serve: Serve) -> None:
    with ScriptedServer([stream(openai_like.chat_sse(["a", "b"]))]) as server:
        url = f"{serve(compatible(server.url)).url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
            streamed = await client.chat.completions.create(**ASK, stream=True)
            said = [chunk.choices[0].delta.content or "" async for chunk in streamed]
    assert "".join(said) == "ab"


def test_models_are_listed(serve: Serve, openai_client: OpenAIClient) -> None:
    models = openai_client(serve(compatible("http://127.0.0.1:9"))).models.list().data
    assert [(model.id, model.owned_by) for model in models] == [("m", "main"), ("main/m", "main")]


# -- errors --------------------------------------------------------------------------------------------------

REFUSALS = [
    (answer(400, json=openai_like.error("bad")), openai.BadRequestError, 400),
    (answer(401, json=openai_like.error("key")), openai.InternalServerError, 502),
    (answer(404, json=openai_like.error("model")), openai.NotFoundError, 404),
    (answer(429, json=openai_like.error("slow")), openai.RateLimitError, 429),
    (answer(500), openai.InternalServerError, 502),
    (answer(503), openai.InternalServerError, 503),
    (answer(body="<html>"), openai.InternalServerError, 502),
]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("reply", "kind", "status"), REFUSALS, ids=[str(i) for i in range(len(REFUSALS))])
def test_a_backends_refusal_raises_the_right_class(
    serve: Serve, openai_client: OpenAIClient, reply: Any, kind: type[Exception], status: int, streamed: bool
) -> None:
    with ScriptedServer([reply]) as server:
        client = openai_client(serve(compatible(server.url)))
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(**ASK, stream=streamed)
    assert (type(caught.value), caught.value.status_code) == (kind, status)


def test_a_rate_limit_says_when_to_come_back(serve: Serve, openai_client: OpenAIClient) -> None:
    with ScriptedServer([answer(429, headers={"retry-after": "7"})]) as server:
        client = openai_client(serve(compatible(server.url)))
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(**ASK)
    assert caught.value.response.headers["retry-after"] == "7"
    assert caught.value.code == "rate_limit_exceeded"


def test_a_prompt_that_does_not_fit_has_openais_code(serve: Serve, openai_client: OpenAIClient) -> None:
    refusal = openai_like.error("too long", code="context_length_exceeded")
    with ScriptedServer([answer(400, json=refusal)]) as server:
        client = openai_client(serve(compatible(server.url)))
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(**ASK)
    assert caught.value.code == "context_length_exceeded"


def test_a_missing_and_a_wrong_key_are_different_errors(serve: Serve, openai_client: OpenAIClient) -> None:
    server = serve(compatible("http://127.0.0.1:9"))
    with pytest.raises(openai.PermissionDeniedError):
        openai_client(server, api_key="sk-wrong").chat.completions.create(**ASK)
    with pytest.raises(openai.AuthenticationError):
        openai_client(server, default_headers={"authorization": ""}).chat.completions.create(**ASK)


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({"model": "gpt-unknown"}, openai.NotFoundError, "unknown model"),
        ({"extra_headers": {"x-agent": "nobody"}}, openai.NotFoundError, "unknown agent"),
        ({"extra_headers": {"x-agent": "private"}}, openai.PermissionDeniedError, "local_only"),
        ({"n": 2}, openai.BadRequestError, "n must be 1"),
        ({"messages": [{"role": "user", "content": 5}]}, openai.BadRequestError, r"messages\[0\].content"),
    ],
)
def test_what_never_leaves_the_router_raises_the_right_class(
    serve: Serve, openai_client: OpenAIClient, fields: dict[str, Any], kind: type[Exception], words: str
) -> None:
    backend = OpenAIBackend("far", base_url="https://api.example.com/v1")
    client = openai_client(serve(backend, agents={"private": Agent("m", local_only=True)}))
    with pytest.raises(kind, match=words):
        client.chat.completions.create(**{**ASK, **fields})


def test_an_unreachable_backend_is_a_bad_gateway(serve: Serve, openai_client: OpenAIClient) -> None:
    client = openai_client(serve(compatible(f"http://127.0.0.1:{refused_port()}")))
    with pytest.raises(openai.InternalServerError, match="cannot connect") as caught:
        client.chat.completions.create(**ASK)
    assert caught.value.status_code == 502


def test_a_silent_backend_is_a_gateway_timeout(serve: Serve, openai_client: OpenAIClient) -> None:
    with ScriptedServer([[Hang()]]) as server:
        client = openai_client(serve(compatible(server.url), timeout=0.2))
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(**ASK)
    assert caught.value.status_code == 504


def test_a_stream_that_breaks_raises_after_what_was_said(serve: Serve, openai_client: OpenAIClient) -> None:
    with ScriptedServer([stream([openai_like.chunk({"content": "so far"}), Close()])]) as server:
        client = openai_client(serve(compatible(server.url)))
        said: list[str | None] = []
        with pytest.raises(openai.APIError, match="cut after content"):
            said += (
                chunk.choices[0].delta.content for chunk in client.chat.completions.create(**ASK, stream=True)
            )
    assert said == ["", "so far"]


def test_the_sdk_retries_if_configured_to(serve: Serve, openai_client: OpenAIClient) -> None:
    limited = answer(429, headers={"retry-after-ms": "5"})
    with ScriptedServer([limited, answer(json=openai_like.chat("second"))]) as server:
        client = openai_client(serve(compatible(server.url), retry=RetryPolicy(attempts=1)))
        reply = client.with_options(max_retries=1).chat.completions.create(**ASK)
    assert reply.choices[0].message.content == "second"


def test_a_client_that_hangs_up_ends_the_backends_work(serve: Serve, openai_client: OpenAIClient) -> None:
    endless = [openai_like.chunk({"content": "x"}), Wait(0.01)] * 1000
    with ScriptedServer([stream(endless)]) as server:
        client = openai_client(serve(compatible(server.url)))
        with client.chat.completions.create(**ASK, stream=True) as streamed:
            next(iter(streamed))
        assert server.wait_closed(2.0)


async def test_many_clients_are_served_at_once(serve: Serve) -> None:
    def reply(request: Any) -> Any:
        return answer(json=openai_like.chat(request.json["messages"][0]["content"]))

    with ScriptedServer(reply) as server:
        url = f"{serve(compatible(server.url)).url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
            replies = await asyncio.gather(
                *(
                    client.chat.completions.create(model="m", messages=[{"role": "user", "content": f"{i}"}])
                    for i in range(20)
                )
            )
    assert [reply.choices[0].message.content for reply in replies] == [f"{i}" for i in range(20)]
