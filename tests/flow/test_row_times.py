"""What the times of a ledger row count: the queue, the attempt, its first content, the whole call, a load."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from tests.flow.support import (
    NOON,
    FakeClock,
    HandDriver,
    Queue,
    ScriptedReply,
    Shared,
    answers,
    calling,
    fails,
    paid,
    streams,
)
from tests.support import openai_like

from ccroute import Agent, Model, OllamaBackend, OpenAIBackend, RetryPolicy, Timeout
from ccroute.accounting import LedgerRow
from ccroute.errors import CcrouteError, QueueTimeoutError
from ccroute.flow.effects import Effect, Emit, Sleep, Wait


def times(row: LedgerRow) -> tuple[float, float | None, float, float | None]:
    """Queue, first content, duration, latency; to the millisecond."""
    return (
        round(row.queue, 3),
        None if row.first_content is None else round(row.first_content, 3),
        round(row.duration, 3),
        None if row.latency is None else round(row.latency, 3),
    )


def slowly(reply: ScriptedReply, after: float) -> ScriptedReply:
    """The same reply, whose head comes so many seconds later."""
    return ScriptedReply(reply.status, reply.pieces, reply.headers, after=after)


def test_the_wait_for_a_slot_is_the_queue_and_no_part_of_the_attempt() -> None:
    call = calling(paid(), limited=True)
    driver = HandDriver([slowly(answers(), 2)], hosts=[Queue(1, 3.0)]).run(call)
    (row,) = driver.rows
    assert times(row) == (3, None, 2, 5)
    assert row.started == NOON + timedelta(seconds=3)
    assert driver.completion.latency == row.latency
    (attempt,) = driver.completion.route.attempts
    assert (attempt.duration, attempt.queued, attempt.load) == (row.duration, row.queue, row.load)


def test_a_backoff_belongs_to_the_call_alone() -> None:
    retry = RetryPolicy(base=4, max=4)
    call = calling(paid(), retry=retry, limited=True)
    hosts = [Queue(1, 1.0), Queue(1, 2.0)]
    driver = HandDriver([slowly(fails(503), 1), slowly(answers(), 5)], hosts=hosts).run(call)
    first, second = driver.rows
    assert driver.slept == [2.0]
    assert times(first) == (1, None, 1, None)
    assert times(second) == (2, None, 5, 1 + 1 + 2 + 2 + 5)
    assert second.started == NOON + timedelta(seconds=6)


def test_first_content_counts_from_the_fallbacks_own_start() -> None:
    call = calling(paid("one"), paid("two"), stream=True, limited=True)
    begun = ScriptedReply(pieces=[1.0, *openai_like.chat_sse()[:1]])
    pieces = openai_like.chat_sse()
    answer = ScriptedReply(pieces=[pieces[0], 2.0, *pieces[1:3], 3.0, *pieces[3:]], after=1)
    driver = HandDriver([begun, answer], hosts=[Queue(1, 4.0), Queue(1, 5.0)]).run(call)
    first, second = driver.rows
    assert times(first) == (4, None, 1, None), "the first had no content"
    assert times(second) == (5, 3, 6, 4 + 1 + 5 + 6)


def test_a_slow_readers_pauses_are_in_duration_and_not_in_first_content() -> None:
    clock = FakeClock()

    def pause(_: int, effect: Effect) -> None:
        if isinstance(effect, Emit):
            clock.elapsed += 10  # until the caller asks for the next chunk

    call = calling(paid(), stream=True, clock=clock)
    driver = HandDriver([slowly(streams("a", "b"), 1)], before=pause).run(call)
    (row,) = driver.rows
    assert times(row) == (0, 1, 21, 21)


@pytest.mark.parametrize("stream", [False, True])
def test_a_wait_for_the_rate_limit_is_queue_too(stream: bool) -> None:
    backend = OpenAIBackend("main", base_url="https://main.test", models={"m": Model(rpm=1)})
    calls = Shared(backend)
    calls.gets(answers())
    calls.after(20)
    call = calls.call(stream=stream, limited=True)
    reply = streams() if stream else answers()
    driver = HandDriver([slowly(reply, 2)], hosts=[Queue(1, 7.0)]).run(call)
    (row,) = driver.rows
    assert driver.slept[0] == 40
    assert times(row) == (47, 2 if stream else None, 2, 49)
    assert "main/m waited 40.0 s: its limit rpm=1 is reached" in driver.completion.route.reasons


def test_the_agents_own_limit_is_the_queue_of_its_first_attempt() -> None:
    agents = {"coder": Agent("main/m", rpm=1)}
    calls = Shared(paid("main"), agents=agents, agent="coder", retry=RetryPolicy(base=0, max=0))
    calls.gets(answers())
    call = calls.after(15).call()
    driver = HandDriver([fails(503), slowly(answers(), 1)]).run(call)
    first, second = driver.rows
    assert times(first) == (45, None, 0, None)
    assert times(second) == (0, None, 1, 46)


class Left(BaseException):
    """The caller's cancellation."""


@pytest.mark.parametrize(
    ("kind", "queue"), [("slot", 3), ("rate limit", 3), ("pause", 0)], ids=["slot", "limit", "pause"]
)
def test_a_call_cancelled_before_its_attempt_has_only_waited(kind: str, queue: float) -> None:
    models = {"m": Model(rpm=1)} if kind == "rate limit" else {}
    calls = Shared(OpenAIBackend("main", base_url="https://main.test", models=models))
    if kind == "rate limit":
        calls.gets(answers())
    elif kind == "pause":
        calls.misses(fails(503, retry_after="20"), retry=RetryPolicy(attempts=1), limits=Timeout(1))

    def leave(_: int, effect: Effect) -> None:
        if isinstance(effect, Wait | Sleep):
            calls.clock.elapsed += 3
            raise Left

    call = calls.call(limited=True)
    with pytest.raises(Left):
        HandDriver([answers()], before=leave, hosts=[Queue(1, 60.0)]).run(call)
    (row,) = call.rows
    assert (row.outcome, row.usage.total_tokens, row.cost) == ("cancelled", 0, 0)
    assert times(row) == (queue, None, 0, 3)


def test_a_call_that_gets_no_slot_in_time_has_queued() -> None:
    call = calling(paid(), limited=True, limits=Timeout(total=8))
    error = HandDriver([answers()], hosts=[Queue(1, 60.0)]).fail(call)
    assert isinstance(error, QueueTimeoutError)
    (row,) = call.rows
    assert (row.failure, times(row)) == ("not_sent", (7.95, None, 0, 7.95))


def test_a_timeout_takes_as_long_as_its_limit() -> None:
    call = calling(paid(), limits=Timeout(total=8))
    error = HandDriver([slowly(answers(), 60)]).fail(call)
    assert isinstance(error, CcrouteError)
    (row,) = call.rows
    assert times(row) == (0, None, 8, 8)


OLLAMA = {"model": "m", "message": {"role": "assistant", "content": "hi"}, "done": True}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("said", "load"),
    [
        (2_400_000_000, 2.4),
        (0, 0.0),
        (None, None),
        ("2", None),
        (-5, None),
        (True, None),
        (1.5, None),
        pytest.param(10**400, None, id="huge"),
    ],
)
def test_a_load_is_what_the_server_says_of_it(stream: bool, said: Any, load: float | None) -> None:
    line = OLLAMA | ({} if said is None else {"load_duration": said})
    reply = ScriptedReply(pieces=[json.dumps(line).encode() + b"\n"], after=3)
    driver = HandDriver([reply]).run(calling(OllamaBackend("mini"), stream=stream))
    (row,) = driver.rows
    assert row.load == driver.completion.route.load == load
    assert row.duration == 3, "it includes the load"


def test_a_server_that_loads_nothing_says_no_load() -> None:
    (row,) = HandDriver([answers()]).run(calling(paid())).rows
    assert row.load is None
