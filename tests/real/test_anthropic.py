"""Reports about Claude, and about servers that speak its wire."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.conftest import Caller
from tests.support import anthropic_like as like
from tests.support.openai_like import chat
from tests.support.scripted import ScriptedServer, answer, stream

from ccroute import AnthropicBackend, Completion, OpenAIBackend, Router, Usage
from ccroute.errors import InvalidRequestError, ProtocolError
from ccroute.types import Request
from ccroute.wire.anthropic import Decoder, decode

complaint = pytest.mark.complaint

CLAUDE = AnthropicBackend(api_key="a-test-key")
USER = {"role": "user", "content": "hi"}
SCHEMA = {
    "type": "object",
    "properties": {"severity": {"type": "string"}, "score": {"type": "integer", "minimum": 1}},
    "required": ["severity"],
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "finding", "schema": SCHEMA}}
LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
SIGNED = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
FOUND = {
    "type": "web_search_tool_result",
    "tool_use_id": "srvtoolu_1",
    "content": [{"type": "web_search_result", "url": "https://x.test", "encrypted_content": "ZW5j"}],
}
CITED = {"type": "char_location", "cited_text": "so", "document_index": 0}


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": text, **more}


def body(model: str, *messages: Any, backend: AnthropicBackend = CLAUDE, **options: Any) -> Any:
    """The body that goes to a model."""
    asked = Request(messages=messages or (USER,), **options)
    return json.loads(backend.encode(asked, model, False).body)


def refused(model: str, *messages: Any, backend: AnthropicBackend = CLAUDE, **options: Any) -> dict[str, str]:
    return dict(backend.refusals(Request(messages=messages or (USER,), **options), model))


def called(id: str = "toolu_1", name: str = "look", **more: Any) -> dict[str, Any]:
    call = {"id": id, "type": "function", "function": {"name": name, "arguments": "{}"}}
    return {"role": "assistant", "content": None, "tool_calls": [call], **more}


def result(id: str = "toolu_1", content: Any = "42", **more: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content, **more}


def read(*blocks: dict[str, Any], stop: str = "end_turn") -> Completion:
    return decode(json.dumps(like.message(blocks, stop=stop)).encode())


def streamed(*events: bytes) -> Completion:
    decoder = Decoder()
    for event in events:
        decoder.feed(event)
    return decoder.finish()


def sent_back(answer: Completion, *after: Any, model: str = "claude-sonnet-4-5") -> Any:
    """An answer's blocks as they go out with the next request."""
    return body(model, USER, answer.message.to_dict(), *after)["messages"][1]["content"]


# -- blocks of tools that Anthropic runs ---------------------------------------------------------------------


@complaint(
    "https://github.com/vellum-ai/vellum-assistant/issues/40145",
    "blocks of web search were dropped: an answer that ends with pause_turn could not be continued",
)
def test_a_paused_turn_goes_on_with_the_blocks_it_had() -> None:
    blocks = [said("I look."), SEARCH, FOUND, said("So it is.", citations=[CITED])]
    paused = read(*blocks, stop="pause_turn")
    assert (paused.text, paused.raw_finish_reason) == ("I look.So it is.", "pause_turn")
    assert sent_back(paused) == blocks
    assert sent_back(paused, model="claude-opus-4-7") == blocks, "it is no prefill, which that model refuses"


@complaint(
    "https://github.com/vellum-ai/vellum-assistant/issues/40145",
    "blocks of web search were dropped: an answer that ends with pause_turn could not be continued",
)
def test_a_paused_stream_goes_on_with_the_blocks_it_had() -> None:
    query = [{"type": "input_json_delta", "partial_json": piece} for piece in ('{"query"', ': "x"}')]
    text = [{"type": "text_delta", "text": "So it "}, {"type": "citations_delta", "citation": CITED}]
    blocks = [
        like.text_block(["I ", "look."]),
        like.block_sse(1, {**SEARCH, "input": {}}, query),
        like.block_sse(2, FOUND, ()),
        like.block_sse(3, said("", citations=None), [*text, {"type": "text_delta", "text": "is."}]),
    ]
    paused = streamed(*like.message_sse(blocks=blocks, stop="pause_turn"))
    assert paused.text == "I look.So it is."
    assert sent_back(paused) == [said("I look."), SEARCH, FOUND, said("So it is.", citations=[CITED])]


@complaint(
    "https://github.com/anthropics/claude-code/issues/63412",
    "thoughts between calls were put together at the front: a 400 for ever",
)
def test_thoughts_between_calls_keep_their_places() -> None:
    second = {**SIGNED, "signature": "dHdv"}
    blocks = [SIGNED, like.tool_use("a", {}), second, like.tool_use("b", {}, id="toolu_2")]
    whole = read(*blocks, stop="tool_use")
    pieces = [
        like.thinking_block(["hm"]),
        like.tool_block("a", [], index=1),
        like.thinking_block(["hm"], "dHdv", index=2),
        like.tool_block("b", ["{}"], id="toolu_2", index=3),
    ]
    results = (result("toolu_1"), result("toolu_2"))
    for reply in (whole, streamed(*like.message_sse(blocks=pieces, stop="tool_use"))):
        assert [call.function.name for call in reply.tool_calls] == ["a", "b"]
        assert sent_back(reply, *results, model="claude-opus-4-8") == blocks


def test_blocks_that_a_caller_changed_are_not_replayed() -> None:
    message = read(said("a"), SEARCH, FOUND, said("b")).message.to_dict()
    assert body("claude-sonnet-4-5", USER, {**message, "content": "ab, edited"}, USER)["messages"][1] == {
        "role": "assistant",
        "content": [said("ab, edited")],
    }


# -- thinking ------------------------------------------------------------------------------------------------


@complaint(
    "https://github.com/theopenco/llmgateway/issues/2593",
    "Claude Opus 4.7 and later: thoughts came back empty unless thinking.display was asked for",
)
@pytest.mark.parametrize("model", ["claude-opus-4-7", "claude-opus-5", "claude-sonnet-5-5", "claude-opus-6"])
def test_newer_claudes_are_asked_for_a_summary_of_their_thoughts(model: str) -> None:
    asked = body(model, reasoning_effort="high")
    assert asked["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert asked["output_config"] == {"effort": "high"}


@complaint(
    "https://github.com/ex-machina-co/opencode-anthropic-auth/issues/159",
    "reasoning_effort none sent thinking: disabled to models that refuse the field",
)
def test_thinking_is_not_switched_off_where_that_is_an_error() -> None:
    for model in ("claude-3-5-sonnet-20241022", "claude-sonnet-4-5", "claude-opus-4-6", "claude-opus-4-7"):
        assert "thinking" not in body(model, reasoning_effort="none"), "off until asked for"
    for model in ("claude-opus-5", "claude-haiku-5-5"):
        assert body(model, reasoning_effort="none")["thinking"] == {"type": "disabled"}, "on by default"
    for model in ("claude-opus-5-5", "claude-fable-5", "claude-mythos-5-1"):
        assert refused(model, reasoning_effort="none") == {"reasoning_effort": "this model always thinks"}


@complaint(
    "https://github.com/code-yeongyu/oh-my-openagent/issues/5098",
    "names without a version were taken for old models although they mean the newest",
)
@pytest.mark.parametrize("model", ["claude-opus-latest", "claude-sonnet", "us.anthropic.claude-opus-v1:0"])
def test_a_name_without_a_version_is_the_newest(model: str) -> None:
    assert body(model, reasoning_effort="low")["thinking"]["type"] == "adaptive"
    assert "temperature" in refused(model, temperature=0.5)
    assert body(model, response_format=FORMAT)["output_config"]["format"]["type"] == "json_schema"


@complaint(
    "https://github.com/elizaOS/eliza/pull/16175",
    "Haiku 4.5 refuses adaptive thinking and the effort parameter",
)
@pytest.mark.parametrize("model", ["claude-haiku-4-5", "claude-sonnet-4.5", "anthropic.claude-opus-4-1-v1:0"])
def test_models_before_adaptive_thinking_get_a_budget(model: str) -> None:
    asked = body(model, reasoning_effort="medium", max_tokens=20_000)
    assert asked["thinking"] == {"type": "enabled", "budget_tokens": 8192}
    assert "output_config" not in asked


@complaint(
    "https://github.com/BerriAI/litellm/pull/27223",
    "Claude 4.6 refuses the effort xhigh",
)
def test_only_efforts_that_the_model_knows_are_sent() -> None:
    words = {body("claude-opus-4-6", reasoning_effort=effort)["output_config"]["effort"] for effort in
             ("minimal", "low", "medium", "high", "max")}  # fmt: skip
    assert words == {"low", "medium", "high", "max"}


@complaint(
    "https://github.com/liuw1535/antigravity2api-nodejs/issues/150",
    "max_tokens must be greater than thinking.budget_tokens, and that at least 1024",
)
@pytest.mark.parametrize("limit", [1025, 2048, 5000, 64_000])
def test_a_budget_is_always_below_max_tokens(limit: int) -> None:
    for effort in ("minimal", "low", "medium", "high", "max"):
        asked = body("claude-sonnet-4-5", reasoning_effort=effort, max_tokens=limit)
        assert 1024 <= asked["thinking"]["budget_tokens"] < asked["max_tokens"] == limit
    assert "reasoning_effort" in refused("claude-sonnet-4-5", reasoning_effort="low", max_tokens=1024)


@complaint(
    "https://github.com/anomalyco/opencode/issues/3077",
    "a tool loop begun by another model and continued at a thinking Claude: 400 Expected thinking",
)
def test_a_tool_loop_of_another_model_goes_on_without_thinking(caller: Caller) -> None:
    loop = [USER, called(), result()]
    with ScriptedServer([answer(json=like.message())]) as server:
        backend = AnthropicBackend("claude", api_key="a-test-key", base_url=server.url)
        with Router([backend]) as router:
            reply = caller.complete(
                router,
                messages=loop,
                model="claude/claude-sonnet-4-5",
                reasoning_effort="high",
                temperature=0.5,
            )
        sent = server.requests[0].json
    assert "thinking" not in sent
    assert sent["temperature"] == 0.5, "thinking is off, so it may be any"
    assert any("reasoning_effort dropped" in reason for reason in reply.route.reasons)


@complaint(
    "https://github.com/anomalyco/opencode/issues/3077",
    "a tool loop begun by another model and continued at a thinking Claude: 400 Expected thinking",
)
def test_its_own_tool_loops_and_new_turns_go_on_thinking() -> None:
    own = called(thinking_blocks=[SIGNED])
    for messages in (
        [USER, own, result()],
        [USER, own, result(), called("toolu_2"), result("toolu_2")],  # it need not think twice
        [USER, called(), result(), {"role": "assistant", "content": "done"}, USER],
    ):
        assert refused("claude-sonnet-4-5", *messages, reasoning_effort="high") == {}
        assert "thinking" in body("claude-sonnet-4-5", *messages, reasoning_effort="high")
    # Adaptive thinking does not ask for thoughts at the front.
    assert refused("claude-opus-4-6", USER, called(), result(), reasoning_effort="high") == {}


@complaint(
    "https://github.com/code-yeongyu/oh-my-openagent/issues/2775",
    "a thinking block without a signature is refused on every retry",
)
def test_unsigned_thoughts_do_not_go_to_claude() -> None:
    made_up = {"type": "thinking", "thinking": "hm", "signature": ""}
    message = {"role": "assistant", "content": "a", "thinking_blocks": [made_up, SIGNED]}
    assert body("claude-sonnet-4-5", USER, message, USER)["messages"][1]["content"] == [SIGNED, said("a")]


@complaint(
    "https://github.com/NousResearch/hermes-agent/issues/75725",
    "MiniMax's own thinking blocks were stripped at its Anthropic address: it stops thinking",
)
def test_another_servers_thoughts_go_back_to_it() -> None:
    minimax = AnthropicBackend("minimax", api_key="a-test-key", base_url="https://minimax.test/anthropic")
    theirs = {"type": "thinking", "thinking": "hm", "signature": ""}
    message = called(thinking_blocks=[theirs])
    sent = body("MiniMax-M2", USER, message, result(), backend=minimax, reasoning_effort="high")
    assert sent["messages"][1]["content"][0] == theirs
    assert sent["thinking"]["type"] == "enabled"


@complaint(
    "https://github.com/mozilla-ai/any-llm/pull/1312",
    "several thinking blocks were merged into one, and the signature broke",
)
def test_several_thinking_blocks_stay_several() -> None:
    second = {"type": "thinking", "thinking": "hm, hm", "signature": "dHdv"}
    assert sent_back(read(SIGNED, second, said("a")), USER) == [SIGNED, second, said("a")]


@complaint(
    "https://github.com/anthropics/anthropic-sdk-python/issues/1598",
    "a thinking block that differs in any way from what was returned is refused",
)
def test_thinking_blocks_go_back_byte_for_byte() -> None:
    odd = {"type": "thinking", "thinking": "  spaced \n", "signature": "c2ln", "extra": None}
    empty = {"type": "thinking", "thinking": "", "signature": "ZW1w"}
    hidden = {"type": "redacted_thinking", "data": "Emw="}
    assert sent_back(read(odd, empty, hidden, said("a")), USER) == [odd, empty, hidden, said("a")]


# -- parameters ----------------------------------------------------------------------------------------------


@complaint(
    "https://github.com/anomalyco/models.dev/issues/1468",
    "temperature at Claude Opus 4.7 and later is a 400 every time, and drop_params did not help",
)
def test_sampling_is_dropped_and_listed_where_a_model_takes_none(caller: Caller) -> None:
    with ScriptedServer([answer(json=like.message())]) as server:
        backend = AnthropicBackend("claude", api_key="a-test-key", base_url=server.url)
        with Router([backend], drop_params=True) as router:
            reply = caller.complete(router, "hi", model="claude/claude-opus-4-7", temperature=0.2, top_k=5)
        sent = server.requests[0].json
    assert not sent.keys() & {"temperature", "top_p", "top_k"}
    dropped = [reason for reason in reply.route.reasons if "dropped" in reason]
    assert len(dropped) == 2
    assert "temperature dropped, this model takes no sampling parameters" in dropped[0]


@complaint(
    "https://github.com/BerriAI/litellm/issues/15097",
    "temperature with top_p is a 400 at Claude since 4.1",
)
def test_one_of_temperature_and_top_p_is_refused_by_name() -> None:
    for model in ("claude-opus-4-1-20250805", "claude-sonnet-4-5", "claude-opus-4-6"):
        assert list(refused(model, temperature=0.2, top_p=0.9)) == ["top_p"]
        assert refused(model, temperature=0.2) == refused(model, top_p=0.9) == {}
    assert refused("claude-3-7-sonnet-20250219", temperature=0.2, top_p=0.9) == {}


@complaint(
    "https://github.com/musistudio/claude-code-router/issues/849",
    "clients that always send top_p 1 beside a temperature",
)
def test_what_is_anthropics_default_anyway_is_no_reason_to_refuse() -> None:
    assert refused("claude-sonnet-4-5", temperature=0.2, top_p=1) == {}
    assert "top_p" not in body("claude-sonnet-4-5", temperature=0.2, top_p=1)
    assert refused("claude-opus-4-8", temperature=1, top_p=1.0) == {}
    assert not body("claude-opus-4-8", temperature=1, top_p=1.0).keys() & {"temperature", "top_p"}


@complaint(
    "https://github.com/szczyglis-dev/py-gpt/pull/184",
    "`temperature` is deprecated for this model",
)
@pytest.mark.parametrize("model", ["claude-opus-4.7", "claude-fable-5", "eu.anthropic.claude-sonnet-5-v1:0"])
def test_a_model_without_temperature_is_known_by_all_its_names(model: str) -> None:
    assert list(refused(model, temperature=0.2)) == ["temperature"]


@complaint(
    "https://github.com/OpenHands/software-agent-sdk/issues/596",
    "max_tokens above what the model can answer with is a 400",
)
def test_more_tokens_than_a_model_answers_with_are_refused_by_name() -> None:
    why = refused("claude-sonnet-4-5-20250929", max_tokens=204_096)
    assert why == {"max_tokens": "this model answers with at most 64000 tokens"}
    assert body("claude-sonnet-4-5-20250929")["max_tokens"] == 64_000, "what is sent where nobody says"


@complaint(
    "https://github.com/can1357/oh-my-pi/issues/12939",
    "a forced tool_choice is a 400 at Opus 5.5, Sonnet 5.5 and Fable 5.1",
)
def test_a_forced_tool_is_refused_by_name_where_a_model_takes_none() -> None:
    named = {"type": "function", "function": {"name": "look"}}
    for model in ("claude-opus-5-5", "claude-sonnet-5-5", "claude-fable-5-1"):
        for choice in ("required", named):
            assert list(refused(model, tools=[LOOK], tool_choice=choice)) == ["tool_choice"]
        assert refused(model, tools=[LOOK], tool_choice="auto") == {}
    assert refused("claude-fable-5", tools=[LOOK], tool_choice="required") == {}


@complaint(
    "https://github.com/software-mansion/argent/issues/773",
    "anyOf at the top of a tool's schema refuses the whole request, and the error names only an index",
)
def test_a_tool_that_anthropic_refuses_is_named() -> None:
    schema = {"type": "object", "anyOf": [{"required": ["a"]}]}
    tools = [LOOK, {"type": "function", "function": {"name": "either", "parameters": schema}}]
    why = refused("claude-sonnet-4-5", tools=tools)
    assert list(why) == ["tools[1]"]
    assert why["tools[1]"].startswith("either: ")


# -- schemas -------------------------------------------------------------------------------------------------


@complaint(
    "https://github.com/veryfront/veryfront-code/issues/3918",
    "a plain JSON schema is a 400 at Claude since 4.5, which wants additionalProperties: false",
)
@pytest.mark.parametrize("model", ["claude-sonnet-4-5", "claude-opus-4-7", "claude-opus-5-5"])
def test_a_plain_schema_is_closed_for_claude(model: str) -> None:
    before = json.dumps(FORMAT)
    assert body(model, response_format=FORMAT)["output_config"]["format"]["schema"] == {
        "type": "object",
        "properties": {
            "severity": {"type": "string"},
            "score": {"type": "integer", "description": "(minimum: 1)"},
        },
        "required": ["severity"],
        "additionalProperties": False,
    }
    assert json.dumps(FORMAT) == before, "the caller's schema is his own"


@complaint(
    "https://github.com/veryfront/veryfront-code/issues/3918",
    "a plain JSON schema is a 400 at Claude since 4.5, which wants additionalProperties: false",
)
def test_an_object_with_free_keys_is_sent_as_a_forced_tool() -> None:
    free = {"type": "object", "properties": {"counts": {"type": "object"}}}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": free}}
    asked = body("claude-sonnet-4-5", response_format=form)
    assert asked["tools"][0]["input_schema"] == free
    assert asked["tool_choice"]["type"] == "tool"
    assert list(refused("claude-opus-5-5", response_format=form)) == ["response_format"]


# -- messages ------------------------------------------------------------------------------------------------


@complaint(
    "https://github.com/ericc-ch/copilot-api/pull/261",
    "from Claude 4.6 on a conversation that ends with an assistant message is a 400",
)
def test_a_prefill_is_refused_before_sending_if_unsupported() -> None:
    begun = {"role": "assistant", "content": "The answer is"}
    for model in ("claude-opus-4-6", "claude-sonnet-5", "claude-fable-5-1"):
        with pytest.raises(InvalidRequestError, match=rf"{model} does not continue .*prefill"):
            body(model, USER, begun)
    assert body("claude-haiku-4-5", USER, begun)["messages"][-1]["role"] == "assistant"


@complaint(
    "https://github.com/vybestack/llxprt-code/pull/3695",
    "after a fallback the conversation ended on an assistant turn, which Fable 5 never takes",
)
def test_a_prefill_goes_to_the_deployment_that_takes_it(caller: Caller) -> None:
    with ScriptedServer([answer(json=like.message("ok"))]) as server:
        backend = AnthropicBackend("claude", api_key="a-test-key", base_url=server.url)
        with Router([backend]) as router:
            messages = [USER, {"role": "assistant", "content": "The answer is"}]
            with pytest.raises(InvalidRequestError, match="prefill"):
                caller.complete(router, messages=messages, model="claude/claude-fable-5", fallback=False)
            assert server.requests == [], "nothing was sent"
            reply = caller.complete(router, messages=messages, model="claude/claude-haiku-4-5")
    assert reply.text == "ok"


@complaint(
    "https://github.com/tailcallhq/forgecode/issues/1872",
    "final assistant content cannot end with trailing whitespace",
)
def test_only_a_final_assistant_text_loses_its_trailing_white_space() -> None:
    begun = {"role": "assistant", "content": "title: \n"}
    sent = body("claude-sonnet-4-5", USER, begun, USER, begun)["messages"]
    assert [turn["content"][0]["text"] for turn in sent if turn["role"] == "assistant"] == [
        "title: \n",
        "title:",
    ]


@complaint(
    "https://github.com/experientiallabs/experiential/pull/799",
    "empty text blocks beside others are a 400: text content blocks must be non-empty",
)
def test_blank_texts_are_left_out_wherever_they_stand() -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://x.test/y.png"}}
    mixed = {"role": "user", "content": [said(""), picture, said(" \n")]}
    kinds = [block["type"] for block in body("claude-opus-5", mixed)["messages"][0]["content"]]
    assert kinds == ["image"]
    sent = body("claude-opus-5", USER, called(), result(content=[said(""), picture]))["messages"][-1][
        "content"
    ]
    assert [part["type"] for part in sent[0]["content"]] == ["image"]
    assert (
        "content"
        not in body("claude-opus-5", USER, called(), result(content=""))["messages"][-1]["content"][0]
    )
    failed = body("claude-opus-5", USER, called(), result(content="", is_error=True))["messages"][-1][
        "content"
    ]
    assert failed[0]["content"] == "error", "an error without a word is refused"


@complaint(
    "https://github.com/askalf/dario/issues/1066",
    "cache_control on an empty text block fails every later request of the session",
)
def test_a_cache_mark_on_a_blank_text_moves_to_the_text_before() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    sent = body("claude-opus-5", {"role": "user", "content": [said("a"), said("", **mark)]})
    assert sent["messages"][0]["content"] == [said("a", **mark)]


@complaint(
    "https://github.com/router-for-me/CLIProxyAPI/issues/4656",
    "parallel tool results in messages of their own are refused",
)
def test_parallel_results_are_one_turn() -> None:
    both = called()
    both["tool_calls"] = [*both["tool_calls"], *called("toolu_2", "b")["tool_calls"]]
    sent = body("claude-opus-4-8", USER, both, result("toolu_1"), result("toolu_2"), USER)["messages"]
    assert [block["type"] for block in sent[-1]["content"]] == ["tool_result", "tool_result", "text"]


@complaint(
    "https://github.com/Zoo-Code-Org/Zoo-Code/pull/1705",
    "an image between tool results is refused: results come first",
)
def test_results_come_first_and_may_hold_images() -> None:
    shot = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]
    both = called()
    both["tool_calls"] = [*both["tool_calls"], *called("toolu_2", "b")["tool_calls"]]
    between = {"role": "user", "content": shot}
    sent = body("claude-opus-4-8", USER, both, result("toolu_1", shot), between, result("toolu_2"))[
        "messages"
    ]
    assert [block["type"] for block in sent[-1]["content"]] == ["tool_result", "tool_result", "image"]
    assert sent[-1]["content"][0]["content"][0]["type"] == "image"


@complaint(
    "https://github.com/1jehuang/jcode/issues/465",
    "the image was specified using image/jpeg, but appears to be image/png",
)
def test_an_image_is_named_by_its_bytes() -> None:
    png = "data:image/jpeg;base64,iVBORw0KGgoAAAANSUhEUg=="
    shot = [{"type": "image_url", "image_url": {"url": png}}]
    sent = body("claude-opus-4-8", USER, called(), result(content=shot))["messages"][-1]["content"][0]
    assert sent["content"][0]["source"]["media_type"] == "image/png"


@complaint(
    "https://github.com/mealie-recipes/mealie/pull/5897",
    "data:image/jpg works at OpenAI and is a 400 at Anthropic",
)
def test_image_jpg_is_image_jpeg() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,/9j/4AAQSkZJRgABAQ=="}}
    sent = body("claude-opus-4-8", {"role": "user", "content": [picture]})
    assert sent["messages"][0]["content"][0]["source"]["media_type"] == "image/jpeg"


@complaint(
    "https://github.com/Helicone/helicone/pull/5257",
    "a conversation of a system message only: messages must have at least one element",
)
def test_a_system_message_alone_is_refused_with_the_reason() -> None:
    with pytest.raises(InvalidRequestError, match="at least one user message"):
        body("claude-opus-4-8", {"role": "system", "content": "Be brief."})


# -- answers -------------------------------------------------------------------------------------------------


@complaint(
    "https://github.com/envoyproxy/ai-gateway/issues/1631",
    "zeros in message_delta overwrote what message_start said: 15 + 20,000 became an estimated 5",
)
def test_zero_usage_at_the_end_does_not_undo_the_first() -> None:
    opening = like.message([], usage=like.usage(15, 1, read=20_000), stop=None)
    zeros = like.usage(0, 7)
    reply = streamed(
        like.event("message_start", message=opening),
        *like.text_block(["a"]),
        like.event("message_delta", delta={"stop_reason": "end_turn"}, usage=zeros),
        like.event("message_stop"),
    )
    assert reply.usage == Usage(input=15, cache_read=20_000, output=7)


@complaint(
    "https://github.com/envoyproxy/ai-gateway/issues/1631",
    "zeros in message_delta overwrote what message_start said: 15 + 20,000 became an estimated 5",
)
def test_numbers_that_come_only_at_the_end_are_taken() -> None:
    opening = like.message([], usage={"input_tokens": 0, "output_tokens": 0}, stop=None)
    reply = streamed(
        like.event("message_start", message=opening),
        *like.text_block(["a"]),
        like.event("message_delta", delta={"stop_reason": "end_turn"}, usage=like.usage(15, 7, read=900)),
        like.event("message_stop"),
    )
    assert reply.usage == Usage(input=15, cache_read=900, output=7)


@complaint(
    "https://github.com/anthropics/claude-code/issues/4788",
    "an answer without content under 200 is no empty success",
)
def test_a_200_without_content_is_an_error() -> None:
    for why in ({}, {"type": "message", "content": None}, {"id": "m", "stop_reason": "end_turn"}):
        with pytest.raises(ProtocolError, match="no list of content blocks"):
            decode(json.dumps(why).encode())


@complaint(
    "https://github.com/ollama/ollama/issues/17101",
    "Ollama's Anthropic address begins a thinking block with the index of an open text block",
)
def test_a_second_block_with_the_same_index_is_another_block() -> None:
    think = {"type": "thinking_delta", "thinking": "hm"}
    reply = streamed(
        like.event("message_start", message=like.message([], stop=None)),
        like.event("content_block_start", index=0, content_block=said("")),
        like.event("content_block_delta", index=0, delta={"type": "text_delta", "text": "---"}),
        *like.block_sse(0, {"type": "thinking", "thinking": ""}, [think]),
        *like.text_block(["done"], index=1),
        like.event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 3}),
        like.event("message_stop"),
    )
    assert (reply.text, reply.thinking) == ("---done", "hm")


@complaint(
    "https://github.com/Lexus2016/hermes-agent-evolution/pull/1170",
    "arguments of a call without parameters come as an empty text",
)
def test_no_arguments_are_an_empty_object() -> None:
    reply = streamed(*like.message_sse(blocks=[like.tool_block("now", [""])], stop="tool_use"))
    assert reply.tool_calls[0].function.arguments == "{}"
    assert sent_back(reply, result()) == [like.tool_use("now", {})]


@complaint(
    "https://github.com/anomalyco/opencode/issues/3077",
    "a tool loop begun by another model and continued at a thinking Claude: 400 Expected thinking",
)
def test_a_fallback_within_a_tool_loop_reaches_claude(caller: Caller) -> None:
    call = {"id": "call_0", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    begun = chat(None, tool_calls=[call], finish="tool_calls")
    with (
        ScriptedServer([answer(json=begun), answer(503)]) as first,
        ScriptedServer([stream(like.message_sse())]) as second,
        Router(
            [
                OpenAIBackend("vllm", base_url=first.url),
                AnthropicBackend("claude", api_key="a-test-key", base_url=second.url),
            ]
        ) as router,
    ):
        options: dict[str, Any] = {
            "model": "vllm/m",
            "tools": [LOOK],
            "fallback": ["claude/claude-sonnet-4-5"],
            "reasoning_effort": "high",
        }
        reply = caller.complete(router, messages=[USER], **options)
        messages = [USER, reply.message, result(reply.tool_calls[0].id)]
        heard = caller.stream(router, messages=messages, **options)
    assert heard.text == "Hello there."
    assert "thinking" not in second.requests[0].json
