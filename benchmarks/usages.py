"""Answers with their usage in every shape that real servers send, for `provider.py`.

Each function draws one: the answer whole and streamed, what it used, and whether it says so.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any, NamedTuple

import server
from server import compact

LONG = 200_000
"""Tokens of a prompt above which Claude costs more."""


class Tokens(NamedTuple):
    """What a request used, in disjoint buckets; `reasoning` is a part of `output`."""

    input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0

    @property
    def prompt(self) -> int:
        return sum(self[:4])


class Streamed(NamedTuple):
    """The events of a streamed answer. `final` has the usage, and `end` follows it. `early`: `opening` says
    what the prompt used."""

    opening: list[bytes]
    pieces: list[bytes]
    final: list[bytes]
    end: list[bytes]
    early: bool = False


class Answer(NamedTuple):
    """An answer in both forms, what it used, and whether its usage says that. `free`: nothing is charged."""

    shape: str
    whole: Any
    streamed: Streamed
    used: Tokens
    told: bool = True
    free: bool = False


def split(chance: Random, total: int, *names: str) -> dict[str, int]:
    """The prompt's tokens, parts of which are in these buckets too."""
    left, parts = total, {}
    for name in names:
        parts[name] = chance.randrange(left + 1)
        left -= parts[name]
    return {"input": left, **parts}


def words(chance: Random) -> list[str]:
    return [chance.choice((" a", " word", " of", " two")) for _ in range(chance.randrange(1, 14))]


def openai_answer(chance: Random, prompt: int, host: str) -> Answer:
    shapes = ["plain", "cached", "written", "deepseek", "moonshot", "beside", "nulls", "none"]
    shape = chance.choice(shapes if host != "vllm" else ["plain", "each", "preview", "in choice", "none"])
    buckets = {"cached": ("cache_read",), "deepseek": ("cache_read",), "moonshot": ("cache_read",)}
    buckets["written"] = ("cache_read", "cache_write_5m")
    said = words(chance)
    used = Tokens(**split(chance, prompt, *buckets.get(shape, ())), output=len(said))
    if shape in {"cached", "beside"}:
        thought = chance.randrange(1, 200)
        used = used._replace(output=used.output + thought, reasoning=thought)
    usage = openai_usage(used, shape)
    body = server.openai_chat("".join(said)) | {"usage": usage}
    role, *pieces, finish, _, done = server.openai_events(said)
    final = [b"data: " + compact({"choices": [], "usage": usage}) + b"\n\n"]
    opening, ends = [role], [finish]
    if shape == "none":
        del body["usage"]
        final = []
    elif shape == "each":
        pieces = [with_usage(piece, used, done) for done, piece in enumerate(pieces, 1)]
    elif shape == "preview":
        opening = [*final, role]
        first = openai_usage(used._replace(output=1), shape)
        opening[0] = b"data: " + compact({"choices": [], "usage": first}) + b"\n\n"
    elif shape == "in choice":
        choice = {"index": 0, "delta": {}, "finish_reason": "stop", "usage": usage}
        final, ends = [b"data: " + compact({"choices": [choice]}) + b"\n\n"], []
    early = shape == "preview"
    return Answer(
        shape, body, Streamed(opening, pieces, [*ends, *final], [done], early), used, shape != "none"
    )


def with_usage(piece: bytes, used: Tokens, done: int) -> bytes:
    """A chunk that also says what was used so far, as vLLM's `continuous_usage_stats` do."""
    frame = json.loads(piece.removeprefix(b"data: "))
    usage = openai_usage(used._replace(output=done), "plain")
    return b"data: " + compact(frame | {"usage": usage}) + b"\n\n"


def openai_usage(used: Tokens, shape: str) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "prompt_tokens": used.prompt,
        "completion_tokens": used.output,
        "total_tokens": used.prompt + used.output,
    }
    if shape in {"cached", "written"}:
        usage["prompt_tokens_details"] = {"cached_tokens": used.cache_read, "audio_tokens": 0}
        usage["completion_tokens_details"] = {"reasoning_tokens": used.reasoning}
    if shape == "written":
        usage["prompt_tokens_details"]["cache_write_tokens"] = used.cache_write_5m
    elif shape == "deepseek":
        usage |= {"prompt_cache_hit_tokens": used.cache_read, "prompt_cache_miss_tokens": used.input}
    elif shape == "moonshot":
        usage["cached_tokens"] = used.cache_read
    elif shape == "beside":  # xAI counts thinking beside the completion
        usage["completion_tokens"] -= used.reasoning
        usage["completion_tokens_details"] = {"reasoning_tokens": used.reasoning}
    elif shape == "nulls":
        usage |= {"prompt_tokens_details": None, "completion_tokens_details": None}
    return usage


def anthropic_answer(chance: Random, prompt: int, host: str) -> Answer:
    shape = chance.choice(("plain", "cached", "lifetimes", "no total", "nulls", "long", "summary", "grown"))
    shape = chance.choice((shape, shape, "refused", "refused late", "none"))
    said = [] if shape == "refused" else words(chance)
    names = {
        "cached": ("cache_read", "cache_write_5m"),
        "lifetimes": ("cache_read", "cache_write_5m", "cache_write_1h"),
        "no total": ("cache_write_5m", "cache_write_1h"),
    }
    used = Tokens(**split(chance, prompt, *names.get(shape, ())), output=len(said))
    if shape == "long":
        used = used._replace(cache_read=chance.randrange(LONG - used.input, 3 * LONG))
    usage = anthropic_usage(used, shape)
    if shape == "summary":
        extra = Tokens(input=chance.randrange(1, 9000), cache_read=chance.randrange(9000), output=350)
        usage["iterations"] = [
            {"type": "compaction", **anthropic_usage(extra, "cached")},
            {"type": "message", **anthropic_usage(used, "plain")},
        ]
        used = Tokens(*map(sum, zip(used, extra, strict=True)))
    stop = "refusal" if shape.startswith("refused") else "end_turn"
    text = "".join(said)
    body = server.anthropic_message(text) | {"stop_reason": stop, "usage": usage}
    start, begin, *pieces, end, _, over = server.anthropic_events(said)
    start = event(
        "message_start", message=server.anthropic_message("") | {"usage": first_usage(usage, shape)}
    )
    deltas = [{"output_tokens": usage["output_tokens"]}, usage, usage | {"input_tokens": 0}]
    last = usage if shape in {"summary", "grown"} else chance.choice(deltas)
    final = [event("message_delta", delta={"stop_reason": stop}, usage=last)]
    if chance.random() < 0.3:  # cumulative: a count so far comes before
        final.insert(0, event("message_delta", delta={}, usage={"output_tokens": len(said) // 2}))
    if shape == "none":
        body["usage"] = {}
        start = event("message_start", message=server.anthropic_message("") | {"usage": None})
        final = [event("message_delta", delta={"stop_reason": stop})]
    early = shape not in {"none", "summary", "grown"}
    streamed = Streamed([start, begin, event("ping")], pieces, [end, *final], [over], early)
    return Answer(shape, body, streamed, used, shape != "none", free=shape == "refused")


def event(kind: str, **data: Any) -> bytes:
    return f"event: {kind}\ndata: ".encode() + compact({"type": kind, **data}) + b"\n\n"


def first_usage(usage: dict[str, Any], shape: str) -> dict[str, Any]:
    """What `message_start` says: the prompt, and a placeholder for the output."""
    first = {name: value for name, value in usage.items() if name != "iterations"} | {"output_tokens": 1}
    return first | {"input_tokens": usage["input_tokens"] // 2} if shape == "grown" else first


def anthropic_usage(used: Tokens, shape: str) -> dict[str, Any]:
    written = used.cache_write_5m + used.cache_write_1h
    usage: dict[str, Any] = {"input_tokens": used.input, "output_tokens": used.output}
    if shape == "nulls":
        return usage | {"cache_creation_input_tokens": None, "cache_read_input_tokens": None}
    if shape != "plain":
        usage |= {"cache_creation_input_tokens": written, "cache_read_input_tokens": used.cache_read}
    if shape in {"lifetimes", "no total"}:
        usage["cache_creation"] = {
            "ephemeral_5m_input_tokens": used.cache_write_5m,
            "ephemeral_1h_input_tokens": used.cache_write_1h,
        }
    if shape == "no total":
        del usage["cache_creation_input_tokens"]
    return usage


def ollama_answer(chance: Random, prompt: int, host: str) -> Answer:
    shape = chance.choice(("plain", "plain", "cached", "silent"))
    said = words(chance)
    parts = split(chance, prompt, *(("cache_read",) if shape == "cached" else ()))
    used = Tokens(**parts, output=len(said))
    last = server.ollama_line("", done=True)
    last |= {"prompt_eval_count": prompt, "eval_count": used.output}
    if shape == "cached":
        last["prompt_eval_cached_count"] = used.cache_read
    elif shape == "silent":
        del last["prompt_eval_count"]
    message = {"role": "assistant", "content": "".join(said)}
    lines = [compact(server.ollama_line(piece, done=False)) + b"\n" for piece in said]
    streamed = Streamed([], lines, [compact(last) + b"\n"], [])
    return Answer(shape, last | {"message": message}, streamed, used, shape != "silent")
