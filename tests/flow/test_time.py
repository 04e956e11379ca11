"""The time of a call begins with its first step, and an attempt has limits of its own."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.flow.support import ONCE, HandDriver, ScriptedReply, Shared, answers, local, paid, streams
from tests.support.openai_like import chat_sse
from tests.support.scripted import ScriptedServer, stream

from ccroute import OpenAIBackend, RetryPolicy, Router, Timeout
from ccroute.accounting import MemoryLedger
from ccroute.observe import BreakerOpened

ANSWER = answers("well")


@pytest.mark.parametrize("stream", [False, True])
def test_the_time_of_a_call_begins_with_its_first_step(stream: bool) -> None:
    shared = Shared(paid("a"), stream=stream)
    call = shared.call(timeout=0.2, stream=stream)
    shared.after(0.3)  # a stream that is not read yet waits for its reader
    driver = HandDriver([streams("well") if stream else answers("well")]).run(call)
    assert driver.completion.text == "well"
    assert (driver.completion.latency, driver.sends[0].until) == (0, 1000.5)


@pytest.mark.parametrize("stream", [False, True])
def test_an_attempt_ends_at_its_limit_and_the_next_has_the_rest(stream: bool) -> None:
    shared = Shared(paid(), local(), stream=stream, limits=Timeout(total=60, attempt=10))
    answer = streams("well") if stream else ANSWER
    driver = shared.gets(ScriptedReply(after=99.0), answer, retry=RetryPolicy())
    assert driver.asked == ["paid", "home"]
    (first, _) = driver.completion.route.attempts
    assert (first.error, first.duration) == ("BackendTimeoutError", 10)


def test_the_shorter_of_the_calls_and_the_backends_own_attempt_holds() -> None:
    shared = Shared(paid(timeout=Timeout(attempt=3)), limits=Timeout(total=60, attempt=10))
    assert shared.misses(ScriptedReply(after=99.0), retry=ONCE).attempts[0].duration == 3


def test_a_calls_own_shorter_limit_is_no_sign_of_bad_health() -> None:
    shared = Shared(limits=Timeout(attempt=10))
    for _ in range(9):
        shared.misses(ScriptedReply(after=99.0), retry=ONCE, timeout=Timeout(attempt=0.5))
    assert shared.events == []
    for _ in range(5):
        shared.misses(ScriptedReply(after=99.0), retry=ONCE)
    assert [type(event) for event in shared.events] == [BreakerOpened]


def test_a_streams_time_begins_with_its_first_read() -> None:
    with ScriptedServer([stream(chat_sse(["so", " it is"]))] * 2) as server:
        backend = OpenAIBackend("main", base_url=server.url)
        with Router([backend], default_model="main/m", retry=ONCE) as router:
            waiting = router.stream("hi", timeout=0.2)
            time.sleep(0.3)
            assert "".join(chunk.text for chunk in waiting) == "so it is"
            assert 0 <= waiting.completion.latency < 0.2

            async def read() -> str:
                waiting = router.astream("hi", timeout=0.2)
                await asyncio.sleep(0.3)
                return "".join([chunk.text async for chunk in waiting])

            assert asyncio.run(read()) == "so it is"


def test_a_stream_that_is_never_read_leaves_no_row_and_sends_nothing() -> None:
    ledger = MemoryLedger()
    with ScriptedServer([stream(chat_sse(["so"]))]) as server:
        backend = OpenAIBackend("main", base_url=server.url)
        with Router([backend], default_model="main/m", retry=ONCE, ledger=ledger) as router:
            router.stream("hi", timeout=0.2).close()
    assert (ledger.rows(), server.requests) == ([], [])
