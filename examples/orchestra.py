"""An orchestra of agents on one router: what runs where, what it costs, and what happens when a server dies.

Three real llama.cpp servers play the parts. One is the free machine under the desk; one is a smaller machine
that calls tools. Both are used as OpenAI-compatible servers. The third is the paid API, through its
Anthropic endpoint. Their model is tiny and random, so the answers are noise. Everything else is real. It
needs no key, and no network beyond loopback.

For your own orchestra keep `orchestra-config.json` and change only BACKENDS and ALIASES below, e.g.

    OllamaBackend("local", "http://localhost:11434")       and  "sonnet": "local/qwen2.5-coder:32b"
    AnthropicBackend(api_key=os.environ["ANTHROPIC_API_KEY"])  and  "opus": "anthropic/claude-opus-4-20250514"
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import tiny_llama
from ccroute import AnthropicBackend, Completion, Model, OpenAIBackend, Price, Router
from ccroute.types import MessageLike
from tiny_llama import TinyLlama

CONFIG = Path(__file__).with_name("orchestra-config.json")
OPUS = "claude-opus-4-20250514"
PRICES = {OPUS: Model(price=Price(15, 75, cache_read="1.5", cache_write="18.75"))}  # USD per million tokens
ALIASES = {
    "opus": f"anthropic/{OPUS}",
    "sonnet": "local/qwen2.5-coder:32b",
    "haiku": "small/qwen2.5-coder:7b",
}
TASKS = {
    "chief-architect": "Decide how the payment service talks to the ledger.",
    "python-expert": "Fix the failing test in auth.py.",
    "go-expert": "Make the upload handler stream instead of buffer.",
    "rust-expert": "Parse the log format without copying.",
    "swift-expert": "Add pull to refresh to the order list.",
    "tdd-coding-agent": "Write failing tests for password reset.",
    "security-auditor": "Look for ways around the rate limit.",
    "qa-engineer": "Which edge cases does the checkout test miss?",
    "documentation-lead": "Explain the retry rules to a newcomer.",
    "credential-manager": "List the secrets that expire this month.",
}
DOCS = {"retries": "Three attempts, two of them at one server.", "timeouts": "Ten minutes for a call."}
READ_DOCS = {
    "type": "function",
    "function": {
        "name": "read_docs",
        "description": "What the handbook says about a topic.",
        "parameters": {
            "type": "object",
            "properties": {"topic": {"type": "string", "enum": list(DOCS)}},
            "required": ["topic"],
        },
    },
}


def build(free: TinyLlama, small: TinyLlama, paid: TinyLlama) -> Router:
    """The router: agents from the orchestra's own file, backends and aliases from here."""
    backends = [
        OpenAIBackend("local", base_url=free.url, api_key=free.api_key, preset="llamacpp"),
        OpenAIBackend("small", base_url=small.url, api_key=small.api_key, preset="llamacpp"),
        AnthropicBackend("anthropic", base_url=paid.url, api_key=paid.api_key, local=False, models=PRICES),
    ]
    return Router.from_config(CONFIG, backends=backends, aliases=ALIASES, baseline="opus", timeout=30)


async def ask_everybody(router: Router) -> list[Completion]:
    """Ask all agents at once. The orchestrator always requests the best model; the agent's own wins."""

    async def ask(agent: str, task: str) -> Completion:
        reply = await router.acomplete(task, agent=agent, model="opus", max_tokens=48)
        why = f"  fell back: {reply.route.attempts[0].error}" if reply.route.fallback else ""
        say(f"  {agent:<19} {reply.route.deployment:<34} {reply.latency * 1000:5.0f} ms{why}")
        return reply

    return await asyncio.gather(*(ask(agent, task) for agent, task in TASKS.items()))


async def stream_one(router: Router) -> Completion:
    """Print one answer while it is written."""
    say("  python-expert: ", end="")
    async with router.astream(
        "Tell me a story about routing.", agent="python-expert", max_tokens=60
    ) as stream:
        async for chunk in stream:
            say(chunk.text, end="")
            await asyncio.sleep(0.02)  # so that a person can watch
    say("")
    return stream.completion


async def use_a_tool(router: Router) -> list[Completion]:
    """One agent calls a tool on the small machine; another continues over Anthropic's wire."""
    messages: list[MessageLike] = [{"role": "user", "content": TASKS["documentation-lead"]}]
    asked = await router.acomplete(
        messages=messages,
        agent="documentation-lead",
        tools=[READ_DOCS],
        tool_choice="required",
        max_tokens=200,
    )
    messages.append(asked.message)
    for call in asked.tool_calls:
        topic = json.loads(call.function.arguments)["topic"]
        say(f"  documentation-lead calls {call.function.name}(topic={topic!r}) → {DOCS[topic]!r}")
        messages.append({"role": "tool", "tool_call_id": call.id, "content": DOCS[topic]})
    goes_on = await router.acomplete(
        messages=messages, agent="chief-architect", tools=[READ_DOCS], max_tokens=12
    )
    say(f"  chief-architect, at {goes_on.route.deployment}, goes on: {goes_on.text.strip()}")
    return [asked, goes_on]


async def play(free: TinyLlama, small: TinyLlama, paid: TinyLlama) -> None:
    async with build(free, small, paid) as router:
        say("\n1. Ten agents at once; every one of them asked for opus:")
        replies = await ask_everybody(router)
        say("\n2. One answer, streamed:")
        replies.append(await stream_one(router))
        say("\n3. One agent calls a tool, another reads the result:")
        replies += await use_a_tool(router)
        say("\n4. The paid API dies; the same ten agents again:")
        paid.kill()
        replies += await ask_everybody(router)
        say("\n5. What came of it:\n")
        show(router, replies)


def show(router: Router, replies: Sequence[Completion]) -> None:
    """agent → requested → served by → tokens → cost → saved, and the sum of it."""
    report = {row["agent"]: row for row in router.report(by="agent").to_dicts()}
    lines = [("agent", "requested", "served by", "tokens", "cost", "saved")]
    for agent in TASKS:
        served = dict.fromkeys(reply.route.deployment for reply in replies if reply.route.agent == agent)
        row = report[agent]
        tokens = sum(row[bucket] for bucket in ("input", "cache_read", "cache_write", "output"))
        lines.append(
            (
                agent,
                "opus",
                ", then ".join(served),
                f"{tokens}",
                f"${row['cost']:.6f}",
                f"${row['saved']:.6f}",
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        text, numbers = line[:3], line[3:]
        cells = [c.ljust(w) for c, w in zip(text, widths, strict=False)]
        cells += [c.rjust(w) for c, w in zip(numbers, widths[3:], strict=True)]
        say("  " + "  ".join(cells))
    spent, saved = (sum(row[column] for row in report.values()) for column in ("cost", "saved"))
    fell_back = sum(reply.route.fallback for reply in replies)
    say(f"\n  {len(replies)} calls cost ${spent:.6f}; all on opus they would have cost ${spent + saved:.6f}.")
    say(f"  {fell_back} calls fell back to the local model when the paid API died; none failed.")


def say(text: str, end: str = "\n") -> None:
    print(text, end=end, flush=True)


def main() -> int:
    if reason := tiny_llama.available():
        say(f"The demo needs a local llama.cpp server: {reason}")
        return 1
    began = time.monotonic()
    say("Starting three llama.cpp servers with a tiny random model …")
    with (
        tiny_llama.serve(seed=1) as free,
        tiny_llama.serve(seed=1, speech="tools") as small,
        tiny_llama.serve(seed=2) as paid,
    ):
        say(f"  free local boxes at {free.url} and {small.url}, paid API at {paid.url}")
        asyncio.run(play(free, small, paid))
    say(
        f"\nDone in {time.monotonic() - began:.1f} s. The model is random, so the words mean nothing; routes,"
    )
    say("tokens and prices are real. examples/orchestra.py says what to change for Ollama and Anthropic.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
