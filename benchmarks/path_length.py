"""How many Python functions a call runs through. A count is exact where a clock is not: the same code gives
the same number on every machine. `make check` fails where one grows beyond its limit.

A function counts if it is ccroute's own or is called by ccroute; a generator that goes on counts again. What
is written in C does not count. The connections answer from memory, so HTTP does not count either.

    python benchmarks/path_length.py [--where]     --where lists the functions of each path
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import ccroute
import server
from canned import Answer, answered_from_memory
from ccroute import Agent, Model, OpenAIBackend, Price, Router
from contenders import MESSAGES, MODEL

SOURCE = str(Path(ccroute.__file__).parent)
ANSWER: Answer = (200, (server.compact(server.openai_chat()),))
STREAM: Answer = (200, tuple(server.openai_events()))
ERROR: Answer = (502, (server.compact({"error": {"message": "restarting", "type": "server_error"}}),))
ASKED = {"messages": MESSAGES, "agent": "bench", "max_tokens": 100}
Calls = Counter[tuple[str, str]]
"""How often each function ran, by its file and its name."""


def complete(router: Router) -> str:
    return router.complete(**ASKED).text


def stream(router: Router) -> str:
    return "".join([chunk.text for chunk in router.stream(**ASKED)])


def acomplete(router: Router) -> str:
    async def call() -> str:
        return (await router.acomplete(**ASKED)).text

    return asyncio.run(call())


def astream(router: Router) -> str:
    async def call() -> str:
        return "".join([chunk.text async for chunk in router.astream(**ASKED)])

    return asyncio.run(call())


LIMITS: tuple[tuple[str, int, Callable[[Router], str], tuple[Answer, ...]], ...] = (
    # Its name, the most calls that it may make, and how it is done. Lower a limit when its path gets shorter.
    ("a chat", 118, complete, (ANSWER,)),
    ("a chat, awaited", 116, acomplete, (ANSWER,)),
    ("a stream of 66 chunks", 1598, stream, (STREAM,)),
    ("a stream of 66 chunks, awaited", 1468, astream, (STREAM,)),
    ("a failed attempt and its fallback", 305, complete, (ERROR, ANSWER)),
    ("a failed attempt and its fallback, awaited", 303, acomplete, (ERROR, ANSWER)),
)


def router(*answers: Answer) -> Router:
    """An agent whose model is an alias, with a fallback; a price, and the ledger in memory."""
    models = {MODEL: Model(price=Price(3, 15))}
    first = OpenAIBackend("first", base_url="http://127.0.0.1", models=models)
    second = OpenAIBackend("second", base_url="http://127.0.0.2", models=models)
    agent = Agent("fast", fallback=[f"second/{MODEL}"])
    made = Router([first, second], aliases={"fast": f"first/{MODEL}"}, agents={"bench": agent})
    return answered_from_memory(made, *answers)


def counted(call: Callable[[Router], str], router: Router) -> Calls:
    """The functions of one call, after two others, which make what is made at the first use."""
    calls: Calls = Counter()

    def note(frame: FrameType, event: str, _: object) -> None:
        file, caller = frame.f_code.co_filename, frame.f_back
        is_called = caller is not None and caller.f_code.co_filename.startswith(SOURCE)
        if event == "call" and (file.startswith(SOURCE) or (is_called and not file.endswith("canned.py"))):
            calls[file.removeprefix(SOURCE), frame.f_code.co_qualname] += 1

    for _ in range(2):
        assert call(router) == server.TEXT
    gc.collect()
    gc.disable()  # a finaliser would count
    sys.setprofile(note)
    try:
        call(router)
    finally:
        sys.setprofile(None)
        gc.enable()
    return calls


def main() -> int:
    logging.getLogger("ccroute").setLevel(logging.CRITICAL)  # a failed attempt is logged
    too_long = 0
    for name, most, call, answers in LIMITS:
        calls = counted(call, router(*answers))
        print(f"{name:45}{calls.total():6} calls, at most {most}")
        if "--where" in sys.argv:
            for (file, function), times in sorted(calls.items()):
                print(f"{times:10}  {file}  {function}")
        if calls.total() > most:
            too_long += 1
            print(
                f"calls of {name}: {calls.total()}, at most {most}: shorten it (--where lists them), or raise"
            )
            print(f"the limit in benchmarks/{Path(__file__).name} and say why in the commit")
    return too_long


if __name__ == "__main__":
    sys.exit(main())
