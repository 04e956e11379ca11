"""The golden cases of what calls cost, through the public API: each wire's own usage in, `reply.cost` out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Literal, NamedTuple, get_args

import pytest
from tests.conftest import Caller
from tests.support import anthropic_like, openai_like
from tests.support.scripted import Close, ScriptedServer, Step, answer, stream

from ccroute import AnthropicBackend, Model, OllamaBackend, OpenAIBackend, Price, Router, errors
from ccroute.backends import Backend

Wire = Literal["openai", "anthropic", "ollama"]
WIRES: tuple[Wire, ...] = get_args(Wire)
OPUS_4 = Price(15, 75, cache_read="1.5", cache_write="18.75")
OPUS_4_5 = Price(5, 25, cache_read="0.5", cache_write="6.25")
WORDS = [" word"] * 40


class Golden(NamedTuple):
    """Tokens by bucket, and what they cost at this price. `written` are for five minutes."""

    input: int
    read: int
    written: int
    output: int
    price: Price
    cost: str


GOLDEN = {
    "plain": Golden(1000, 0, 0, 100, OPUS_4, "0.0225"),
    "cached": Golden(800, 200, 0, 100, OPUS_4, "0.0198"),
    "long": Golden(14_000, 155_000, 3_000, 0, OPUS_4_5, "0.166250"),
}


def usage_of(wire: Wire, case: Golden) -> dict[str, Any]:
    """The usage as a server of this wire says it."""
    if wire == "anthropic":
        return anthropic_like.usage(case.input, case.output, read=case.read, write_5m=case.written)
    prompt = case.input + case.read + case.written
    if wire == "ollama":
        cached = {"prompt_eval_cached_count": case.read} if case.read else {}
        return {"prompt_eval_count": prompt, "eval_count": case.output, **cached}
    usage = openai_like.usage(prompt, case.output, cached=case.read)
    usage["prompt_tokens_details"]["cache_write_tokens"] = case.written
    return usage


def said(wire: Wire, usage: dict[str, Any], text: str, *, streamed: bool) -> Sequence[Step]:
    """An answer of this wire with this usage."""
    if wire == "openai":
        if streamed:
            return [*stream(openai_like.chat_sse([text] if text else [], usage=usage))]
        return answer(json=openai_like.chat(text, usage=usage))
    if wire == "anthropic":
        if streamed:
            blocks = None if text else []
            return [*stream(anthropic_like.message_sse([text], usage=usage, blocks=blocks))]
        return answer(json=anthropic_like.message(text or [], usage=usage))
    line = {"model": "m", "message": {"role": "assistant", "content": text}, "done": True, **usage}
    if streamed:
        return [*stream([json.dumps(line).encode() + b"\n"], content_type="application/x-ndjson")]
    return answer(json=line)


def backend(wire: Wire, url: str, price: Price | None = None) -> Backend:
    options: dict[str, Any] = {"models": {"m": Model(price=price)}} if price is not None else {}
    if wire == "anthropic":
        return AnthropicBackend("main", base_url=url, api_key="key", **options)
    if wire == "ollama":
        return OllamaBackend("main", url, **options)
    return OpenAIBackend("main", base_url=url, **options)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("wire", "name"),
    # Ollama has no cache whose writes cost.
    [(wire, name) for wire in WIRES for name in GOLDEN if (wire, name) != ("ollama", "long")],
)
def test_a_golden_answer_costs_what_it_must(caller: Caller, wire: Wire, name: str, streamed: bool) -> None:
    case = GOLDEN[name]
    reply = said(wire, usage_of(wire, case), "hi" if case.output else "", streamed=streamed)
    with ScriptedServer([reply]) as server:
        with Router([backend(wire, server.url, case.price)], {"opus": "main/m"}) as router:
            if streamed:
                answered = caller.stream(router, "hi", model="opus").completion
            else:
                answered = caller.complete(router, "hi", model="opus")
            (row,) = router.rows()
            total = router.report(by=()).total
    used = answered.usage
    assert (used.input, used.cache_read, used.cache_write_5m, used.cache_write_1h, used.output) == (
        case.input,
        case.read,
        case.written,
        0,
        case.output,
    )
    assert not used.estimated
    assert answered.cost == row.cost == total["cost"] == Decimal(case.cost)
    assert answered.route.attempts[0].cost == Decimal(case.cost)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_local_model_under_a_paid_name_saves_the_whole_price(caller: Caller, streamed: bool) -> None:
    case = GOLDEN["plain"]
    local, paid = "qwen2.5-coder:32b", "claude-3-5-sonnet-20241022"
    with ScriptedServer([said("ollama", usage_of("ollama", case), "hi", streamed=streamed)]) as server:
        with Router(
            [OllamaBackend("mini", server.url), AnthropicBackend(api_key="key")],
            {"claude-3-5-sonnet": f"mini/{local}", "sonnet": f"anthropic/{paid}"},
            prices={paid: Price(3, 15)},
            baseline="sonnet",
        ) as router:
            if streamed:
                reply = caller.stream(router, "hi", model="claude-3-5-sonnet").completion
            else:
                reply = caller.complete(router, "hi", model="claude-3-5-sonnet")
            (line,) = router.report(by="model")
    assert reply.cost == 0
    assert (line["model"], line["cost"]) == (local, 0)
    assert line["baseline_cost"] == line["saved"] == Decimal("0.0045")
    assert line["saved_percent"] == 100


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
def test_a_model_that_nobody_prices_has_no_cost(caller: Caller, wire: Wire) -> None:
    reply = said(wire, usage_of(wire, GOLDEN["plain"]), "hi", streamed=False)
    with ScriptedServer([reply]) as server, Router([backend(wire, server.url)]) as router:
        answered = caller.complete(router, "hi", model="main/made-by-nobody")
        (row,) = router.rows()
        total = router.report(by=()).total
    assert answered.cost is row.cost is total["cost"] is row.price_source is None
    assert total["unknown_cost_requests"] == 1


@pytest.mark.parametrize("wire", WIRES)
def test_an_interrupted_stream_costs_its_40_tokens(caller: Caller, wire: Wire) -> None:
    case = GOLDEN["plain"]
    usage = usage_of(wire, case)
    if wire == "openai":
        pieces = openai_like.chat_sse(WORDS, usage=usage)[:41]
    elif wire == "anthropic":
        pieces = anthropic_like.message_sse(WORDS, usage=usage)[:43]
    else:
        line = {"model": "m", "message": {"role": "assistant", "content": " word"}, "done": False}
        pieces = [json.dumps(line).encode() + b"\n"] * 40
    content_type = "application/x-ndjson" if wire == "ollama" else "text/event-stream"
    prompt = "x" * 4 * 996  # and 4 tokens for the message: 1,000
    with ScriptedServer([[*stream([*pieces, Close()], content_type=content_type)]]) as server:
        with Router([backend(wire, server.url, OPUS_4)]) as router:
            heard = caller.stream(router, prompt, model="main/m")
            (row,) = router.rows()
    assert heard.text == "".join(WORDS)
    assert isinstance(heard.error, errors.StreamInterruptedError)
    assert heard.error.partial is not None
    assert heard.error.partial.usage == row.usage
    assert (row.usage.input, row.usage.output, row.usage.estimated) == (1000, 40, True)
    assert heard.error.partial.cost == row.cost == Decimal("0.015") + 40 * Decimal("0.000075")
