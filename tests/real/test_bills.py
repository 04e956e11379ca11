"""Reports of bills that nobody had counted: of answers that broke, were refused, or had several parts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from tests.conftest import Caller, StreamResult
from tests.support import anthropic_like, openai_like
from tests.support.anthropic_like import event, message, message_sse
from tests.support.scripted import Close, Hang, ScriptedServer, answer, stream

from ccroute import AnthropicBackend, OpenAIBackend, Price, RetryPolicy, Router, Usage, errors
from ccroute.accounting import LedgerRow
from ccroute.backends import Backend

complaint = pytest.mark.complaint

SONNET = Price(3, 15, cache_read=0.3, cache_write=3.75, cache_write_1h=6)
PROMPT = anthropic_like.usage(27, 40, read=1000, write_5m=200, write_1h=300)
TOLD = Usage(input=27, cache_read=1000, cache_write_5m=200, cache_write_1h=300, output=40)


def claude(server: ScriptedServer, name: str = "claude") -> AnthropicBackend:
    return AnthropicBackend(name, base_url=server.url, api_key="key")


def router(*backends: Backend, **options: Any) -> Router:
    given: dict[str, Any] = {"prices": {"m": SONNET}, "default_model": f"{backends[0].name}/m"}
    return Router(backends, **given | options)


def streamed(
    caller: Caller, steps: Sequence[Any], make: Any = claude, **options: Any
) -> tuple[StreamResult, list[LedgerRow]]:
    """What a caller heard of this stream, and the ledger's rows."""
    with ScriptedServer([stream(steps)]) as server:
        made = router(make(server), retry=RetryPolicy(attempts=1), **options)
        heard = caller.stream(made, "Tell me a story")
        rows = made.rows()
        made.close()
    return heard, rows


def told(usage: Usage) -> dict[str, int]:
    """What the prompt used, by bucket."""
    return usage.model_dump(include={"input", "cache_read", "cache_write_5m", "cache_write_1h"})


# -- Streams that broke, or were left


@complaint(
    "https://github.com/BerriAI/litellm/pull/30787",
    "an interrupted stream costs the placeholder that message_start has for the output",
)
@complaint(
    "https://github.com/BerriAI/litellm/pull/39893",
    "the tokens of an interrupted answer are recovered, and its price is not",
)
def test_a_broken_claude_stream_knows_its_prompt_exactly(caller: Caller) -> None:
    pieces = message_sse(["Once upon a time", " there was"], usage=PROMPT)[:5]
    heard, (row,) = streamed(caller, [*pieces, Close()])
    assert isinstance(heard.error, errors.StreamInterruptedError)
    assert heard.error.partial is not None
    assert told(row.usage) == told(TOLD)
    assert (row.usage.output, row.usage.estimated) == (4 + 3, True)
    assert row.cost == Decimal("0.002931") + 7 * Decimal("0.000015") == heard.error.partial.cost


@complaint(
    "https://github.com/Osmantic/ODS/pull/5175",
    "a cut stream whose prompt was all in the cache is not counted",
)
def test_a_stream_that_broke_before_content_used_its_prompt(caller: Caller) -> None:
    cached = anthropic_like.usage(0, 9, read=1000)
    broken = [*message_sse(usage=cached)[:2], Close()]
    with ScriptedServer([stream(broken)]) as first, ScriptedServer([stream(message_sse())]) as second:
        made = router(claude(first), claude(second, "spare"), fallbacks={"*": ["spare/m"]})
        heard = caller.stream(made, "hi")
        failed, served = made.rows()
        made.close()
    assert heard.text == "Hello there."
    assert failed.usage == Usage(cache_read=1000, estimated=True)
    assert (failed.failure, failed.cost) == ("ambiguous", Decimal("0.0003"))
    assert heard.completion.cost == Decimal("0.0003") + (served.cost or 0)


@complaint(
    "https://github.com/vm0-ai/vm0/issues/25133",
    "a stream that broke after its final usage is not charged by it",
)
def test_a_stream_that_broke_after_its_final_usage_has_it(caller: Caller) -> None:
    *pieces, _ = message_sse(usage=PROMPT)
    heard, (row,) = streamed(caller, [*pieces, Close()])
    assert isinstance(heard.error, errors.StreamInterruptedError), "without message_stop nothing is complete"
    assert (row.outcome, row.usage) == ("interrupted", TOLD)
    assert row.cost == Decimal("0.002931") + Decimal("0.0006")


@complaint(
    "https://github.com/openai/openai-node/issues/1505",
    "who leaves a stream does not hear what it used until then",
)
@pytest.mark.parametrize("wire", ["anthropic", "openai"])
def test_a_stream_left_after_its_usage_came_has_it(caller: Caller, wire: str) -> None:
    sent, make = message_sse(usage=PROMPT), claude
    usage = TOLD
    if wire == "openai":
        sent = openai_like.chat_sse(usage=openai_like.usage(1500, 40, cached=1000, reasoning=30))
        usage = Usage(input=500, cache_read=1000, output=40, reasoning=30)

        def make(server: ScriptedServer) -> Any:
            return OpenAIBackend(base_url=server.url)

    async def leave(made: Router) -> None:
        async with made.astream("hi") as left:
            assert (await anext(left)).text == "Hello"

    with ScriptedServer([stream([b"".join(sent), Hang()])]) as server:
        made = router(make(server))
        if caller.mode == "sync":
            with made.stream("hi") as left:
                assert next(left).text == "Hello"
        else:
            caller.run(leave, made)
        (row,) = made.rows()
        made.close()
    assert (row.outcome, row.usage) == ("cancelled", usage)


@complaint(
    "https://github.com/openai/openai-openapi/issues/539",
    "a stream that is cut has no usage, though the server may count as it goes",
)
def test_a_count_that_came_before_the_cut_is_the_least(caller: Caller) -> None:
    def chunk(text: str, tokens: int) -> bytes:
        return openai_like.chunk({"content": text}, usage=openai_like.usage(100, tokens))

    heard, (row,) = streamed(
        caller,
        [chunk("四十七", 9), openai_like.chunk({"content": " more"}), Close()],
        lambda server: OpenAIBackend("vllm", base_url=server.url, preset="vllm"),
    )
    assert isinstance(heard.error, errors.StreamInterruptedError)
    assert row.usage == Usage(input=100, output=9, estimated=True)


@complaint(
    "https://github.com/vllm-project/semantic-router/issues/2215",
    "a first frame with usage and no choices is taken for the end",
)
def test_a_preview_of_the_usage_is_not_the_end(caller: Caller) -> None:
    preview = openai_like.chunk(None, usage=openai_like.usage(100, 4))
    pieces = [preview, *openai_like.chat_sse(["a word"] * 9, usage=openai_like.usage(100, 18))]

    def make(server: ScriptedServer) -> Backend:
        return OpenAIBackend(base_url=server.url)

    heard, (row,) = streamed(caller, pieces, make)
    assert heard.completion.usage == row.usage == Usage(input=100, output=18)
    _, (cut,) = streamed(caller, [*pieces[:8], Close()], make)
    assert cut.usage == Usage(input=100, output=6, estimated=True)


@complaint(
    "https://github.com/NotASithLord/peerd/pull/23",
    "a server that is overloaded after it began says so under HTTP 200",
)
@pytest.mark.parametrize("begun", [0, 2])
def test_a_request_that_is_rejected_under_200_costs_nothing(caller: Caller, begun: int) -> None:
    heard, (row,) = streamed(caller, [*message_sse(usage=PROMPT)[:begun], anthropic_like.error_event()])
    assert isinstance(heard.error, errors.OverloadedError)
    assert (row.failure, row.usage, row.cost) == ("rejected", Usage(), 0)


# -- Refusals


@complaint(
    "https://github.com/theopenco/llmgateway/pull/2642",
    "a refusal before any output is charged, though Anthropic does not",
)
@pytest.mark.parametrize("mode", ["whole", "streamed"])
def test_a_refusal_before_any_output_is_free(caller: Caller, mode: str) -> None:
    usage = PROMPT | {"output_tokens": 0}
    if mode == "whole":
        reply = answer(json=message([], usage=usage, stop="refusal"))
    else:
        reply = stream(message_sse(blocks=[], usage=usage, stop="refusal"))
    with ScriptedServer([reply]) as server:
        made = router(claude(server), prices={})
        completion = caller.complete(made, "hi") if mode == "whole" else caller.stream(made, "hi").completion
        (row,) = made.rows()
        made.close()
    assert completion.finish_reason == "content_filter"
    assert completion.usage == row.usage == TOLD.model_copy(update={"output": 0})
    assert completion.cost == row.cost == completion.route.attempts[0].cost == 0, "whatever its price"


def test_a_refusal_after_output_is_charged(caller: Caller) -> None:
    heard, (row,) = streamed(caller, message_sse(usage=PROMPT, stop="refusal"))
    assert heard.completion.finish_reason == "content_filter"
    assert (row.usage, row.cost) == (TOLD, Decimal("0.003531"))


@complaint(
    "https://github.com/MicrosoftDocs/azure-docs/issues/117271",
    "Azure charges for prompts that its content filter or a limit refused, and for a 408",
)
@pytest.mark.parametrize(
    ("status", "code", "charged"),
    [
        (400, "content_filter", True),
        (400, "context_length_exceeded", True),
        (408, "timeout", True),
        (400, "invalid_value", False),
        (429, "rate_limit_exceeded", False),
    ],
)
@pytest.mark.parametrize("preset", ["azure", "openai"])
def test_azure_charges_for_what_it_refused(
    caller: Caller, preset: Any, status: int, code: str, charged: bool
) -> None:
    refusal = answer(status, json=openai_like.error("The request was refused", code=code))
    with ScriptedServer([refusal]) as server:
        backend = OpenAIBackend("far", base_url=server.url, preset=preset, api_key="key")
        made = router(backend, retry=RetryPolicy(attempts=1))
        with pytest.raises(errors.CcrouteError):
            caller.complete(made, "x" * 4000)
        (row,) = made.rows()
        made.close()
    expected = Usage(input=1004, estimated=True) if charged and preset == "azure" else Usage()
    assert (row.usage, row.cost) == (expected, 3 * expected.input * Decimal("0.000001"))


# -- Usage in several parts

COMPACTED: dict[str, Any] = {
    "input_tokens": 23_000,
    "output_tokens": 1000,
    "iterations": [
        {
            "type": "compaction",
            "input_tokens": 100_000,
            "cache_read_input_tokens": 80_000,
            "output_tokens": 3500,
        },
        {"type": "message", "input_tokens": 23_000, "output_tokens": 1000},
    ],
}


@complaint(
    "https://github.com/pydantic/pydantic-ai/issues/5065",
    "the summary that Anthropic makes of a long conversation is charged, and not in the usage",
)
@complaint(
    "https://github.com/BerriAI/litellm/pull/27065",
    "a summary's cached tokens are not counted",
)
@pytest.mark.parametrize("mode", ["whole", "streamed"])
def test_a_summary_of_the_conversation_is_charged(caller: Caller, mode: str) -> None:
    if mode == "whole":
        reply = answer(json=message(usage=COMPACTED))
    else:
        *pieces, _, end = message_sse(usage={"input_tokens": 23_000, "output_tokens": 1})
        last = event("message_delta", delta={"stop_reason": "end_turn"}, usage=COMPACTED)
        reply = stream([*pieces, last, end])
    with ScriptedServer([reply]) as server:
        made = router(claude(server))
        completion = caller.complete(made, "hi") if mode == "whole" else caller.stream(made, "hi").completion
        made.close()
    assert completion.usage == Usage(input=123_000, cache_read=80_000, output=4500)
    assert completion.cost == Decimal("0.369") + Decimal("0.024") + Decimal("0.0675")


@complaint(
    "https://github.com/ccusage/ccusage/issues/1552",
    "what other models did within a request is not counted",
)
@pytest.mark.parametrize(
    ("kinds", "found"),
    [
        (("message", "fallback_message"), Usage(input=4, cache_read=151_983, output=14_236, estimated=True)),
        (("message", "message"), Usage(input=2, cache_read=79_214, output=13_658)),
        (("advisor_message", "message"), Usage(input=4, cache_read=151_983, output=14_236, estimated=True)),
    ],
)
def test_what_other_models_did_is_counted(kinds: tuple[str, str], found: Usage) -> None:
    first = {"input_tokens": 2, "output_tokens": 578, "cache_read_input_tokens": 72_769}
    second = {"input_tokens": 2, "output_tokens": 13_658, "cache_read_input_tokens": 79_214}
    iterations = [{"type": kind, **used} for kind, used in zip(kinds, (first, second), strict=True)]
    body = message(usage={**second, "iterations": iterations})
    reply = AnthropicBackend(api_key="key").decode(200, {}, json.dumps(body).encode())
    assert reply.usage == found


def test_a_model_that_refused_unheard_is_not_counted() -> None:
    refused = {"type": "message", "input_tokens": 900, "output_tokens": 0}
    served = {"input_tokens": 900, "output_tokens": 50}
    usage = {**served, "iterations": [refused, {"type": "fallback_message", **served}]}
    body = json.dumps(message(usage=usage)).encode()
    assert AnthropicBackend(api_key="key").decode(200, {}, body).usage == Usage(input=900, output=50)


@complaint(
    "https://github.com/stripe/ai/pull/519",
    "what a provider's own tools add to the prompt comes only with the end of a stream",
)
def test_a_prompt_that_grew_in_the_stream_is_counted_whole(caller: Caller) -> None:
    *pieces, _, end = message_sse(usage={"input_tokens": 25, "output_tokens": 1})
    grown = event(
        "message_delta",
        delta={"stop_reason": "end_turn"},
        usage={"input_tokens": 10_682, "cache_read_input_tokens": 5, "output_tokens": 510},
    )
    heard, (row,) = streamed(caller, [*pieces, grown, end])
    assert heard.completion.usage == row.usage == Usage(input=10_682, cache_read=5, output=510)
