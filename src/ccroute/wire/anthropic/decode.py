"""Reads a whole answer of the Messages API. `stream.py` uses the readers of blocks and usage.

Knows content blocks; must not know the request: it recognises the forced tool of a schema by its name.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pydantic_core import from_json

from ccroute.errors import InvalidRequestError
from ccroute.types import JSON, Completion, FinishReason, Function, Message, Request, ToolCall, Usage
from ccroute.types.results import new_choice, new_completion, new_message
from ccroute.types.route import with_billing
from ccroute.wire.anthropic.encode import SCHEMA_TOOL
from ccroute.wire.anthropic.turns import THINKING
from ccroute.wire.decoding import check_error
from ccroute.wire.fields import wants_schema
from ccroute.wire.reading import answer_text, finish_reason, listed, load_object, mapping, text, wrong
from ccroute.wire.tools import as_text
from ccroute.wire.usage import STANDARD_TERMS, check_used, counts, estimate_choices, read_billing, usage

STOP: Final[Mapping[str, FinishReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""Anthropic's stop reasons in canonical form. Others (`pause_turn`) become `other`."""
_BILLING: Final = {
    **{name: (None, *usual) for name, usual in STANDARD_TERMS.items()},
    "server_tool_use": (
        None,
        {"web_search_requests": 0},
        {"web_search_requests": 0, "web_fetch_requests": 0},
    ),
}
"""The billing fields of a usage, with the values that mean that only tokens are billed."""


def decode(body: bytes) -> Completion:
    """Return the answer in a body with status 200. Raises the error that it reports, or `ProtocolError`."""
    frame = load_object(body)
    blocks, reason = frame.get("content", "missing"), text(frame.get("stop_reason"))
    if "error" in frame or not isinstance(blocks, list):
        check_error(frame, body)
    if not reason:
        check_used(frame.get("usage"), body)
    if blocks is None and reason:  # Ollama sends null for no content
        blocks = []
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        wrong("the answer holds no list of content blocks", body)
    message = read_message(blocks)
    choice = new_choice(message=message, finish_reason=finish_reason(reason, STOP, message.tool_calls or ()))
    return new_completion(
        id=text(frame.get("id")),
        model=text(frame.get("model")),
        choices=(choice,),
        usage=read_usage(frame.get("usage"), lambda: estimate_choices([choice])),
        raw_finish_reason=reason or None,
        raw=frame,
    )


def read_message(blocks: Sequence[Mapping[str, JSON]]) -> Message:
    """Return the message of content blocks. Thinking is also kept unchanged, to be sent back."""
    answer: list[str] = []
    formed: str | None = None  # the arguments of the schema's tool: they are the whole answer
    thought: list[str] = []
    calls: list[ToolCall] = []
    for block in blocks:
        kind = block.get("type")
        if kind == "text":
            answer.append(answer_text(block.get("text")))
        elif kind in THINKING:
            thought.append(text(block.get("thinking")))
        elif kind == "tool_use":
            arguments = as_text(block.get("input")) or "{}"
            if block.get("name") == SCHEMA_TOOL:
                formed = arguments if formed is None else formed
            else:
                function = Function(name=text(block.get("name")), arguments=arguments)
                id, index = text(block.get("id")), len(calls)
                calls.append(ToolCall(id=id or f"call_{index}", function=function, index=index))
    return new_message(
        content=formed or ("".join(answer) if answer or not calls else None),
        tool_calls=tuple(calls) or None,
        thinking="".join(thought) or None,
        **kept_blocks(blocks),
    )


def kept_blocks(blocks: Sequence[Mapping[str, JSON]]) -> dict[str, JSON]:
    """Return the fields of a message that keep blocks unchanged."""
    thoughts = tuple(block for block in blocks if block.get("type") in THINKING)
    return {"thinking_blocks": thoughts, "blocks": () if is_plain(blocks) else tuple(blocks)}


_PLACES: Final = {"thinking": 0, "redacted_thinking": 0, "text": 1, "tool_use": 2}


def is_plain(blocks: Sequence[Mapping[str, JSON]]) -> bool:
    """Whether a message's thinking, text and calls hold everything in `blocks`, also their order. Blocks with
    the tool of a schema need not be kept, because its call becomes the text."""
    if any(block.get("name") == SCHEMA_TOOL for block in blocks):
        return True
    last = 0
    for block in blocks:
        place = _PLACES.get(text(block.get("type")), -1)
        if place < last or block.get("citations") or block.get("caller"):
            return False
        last = place
    return True


def check_form(request: Request, answer: Completion) -> None:
    """Raise `InvalidRequestError` if the answer is not JSON although the request has a schema."""
    choice = answer.choices[0]
    if not wants_schema(request) or choice.finish_reason != "stop" or choice.message.tool_calls:
        return
    try:
        from_json(answer.text)
    except ValueError:
        error = InvalidRequestError(
            "the server answered without regard to response_format: it does not hold this model to a schema. "
            'Use another backend, or say how it does: models={…: Model(schema="format" or "tool")}'
        )
        error.elsewhere = error.disregarded = True
        raise error from None


def read_usage(raw: JSON, output_estimate: Callable[[], int]) -> Usage:
    """Return usage in disjoint buckets. Anthropic's `input_tokens` already excludes cached tokens.

    Only `iterations` lists what a request charged besides its answer, such as a summary of the conversation.
    If another model did that work, with another price, the usage counts as estimated.
    """
    raw = mapping(raw)
    known, lifetimes = counts(raw), counts(raw.get("cache_creation"))
    hour = lifetimes.get("ephemeral_1h_input_tokens", 0)
    written = known.get("cache_creation_input_tokens")
    if written is None:
        written = hour + lifetimes.get("ephemeral_5m_input_tokens", 0)
    hour = min(hour, written)
    total = usage(
        input=known.get("input_tokens"),
        cache_read=known.get("cache_read_input_tokens", 0),
        cache_write_5m=written - hour,
        cache_write_1h=hour,
        output=known.get("output_tokens"),
        reasoning=counts(raw.get("output_tokens_details")).get("thinking_tokens", 0),
        output_estimate=output_estimate,
    )
    for further in _further_charges(raw.get("iterations")) if "iterations" in raw else ():
        used = read_usage(further, lambda: 0)
        is_own = further.get("type") == "compaction"
        total += used if is_own else used.model_copy(update={"estimated": True})
    for name, usual in _BILLING.items():
        if raw.get(name) not in usual:
            return with_billing(total, read_billing(raw))
    return total


def _further_charges(iterations: JSON) -> list[Mapping[str, JSON]]:
    """Return the iterations that are charged in addition to the usage of the answer:
    https://platform.claude.com/docs/en/build-with-claude/compaction#understanding-usage,
    https://platform.claude.com/docs/en/build-with-claude/refusals-and-fallback"""
    found = [mapping(each) for each in listed(iterations)]
    kinds = {"compaction", "advisor_message"}
    if any(each.get("type") == "fallback_message" for each in found):
        kinds.add("message")  # of the model that refused, charged if it had begun to answer
    return [each for each in found if each.get("type") in kinds and counts(each).get("output_tokens")]


_PROMPT: Final = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


def merged_usage(before: Mapping[str, JSON], later: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return the usage after a further frame, whose counts replace the earlier ones. Some servers end with
    zeros, so a smaller prompt is ignored."""
    merged = {**before, **{name: value for name, value in later.items() if value is not None}}
    if _prompt(merged) < _prompt(before):
        merged |= {name: before.get(name) for name in (*_PROMPT, "cache_creation")}
    if not counts(merged).get("output_tokens") and counts(before).get("output_tokens"):
        merged["output_tokens"] = before["output_tokens"]
    return merged


def _prompt(raw: Mapping[str, JSON]) -> int:
    known = counts(raw)
    return sum(known.get(name, 0) for name in _PROMPT)
