"""One streamed call, driven by hand: what its reader gets, when, and what is left where it breaks."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from typing import Any

import pytest
from tests.flow.support import (
    BROKEN,
    Call,
    HandDriver,
    ScriptedReply,
    calling,
    local,
    paid,
    streams,
)
from tests.support.openai_like import chat_sse, chunk, error, sse, usage

from ccroute import Price, RetryPolicy, Timeout, Usage
from ccroute.errors import (
    BackendTimeoutError,
    ConnectionFailedError,
    DeadlineExceededError,
    OverloadedError,
    ProtocolError,
    StreamInterruptedError,
)
from ccroute.flow.effects import Emit

PRICE = Price(3, 15)
BUSY = ScriptedReply(503, [json.dumps(error("busy")).encode()])
BROKE = ScriptedReply(502, [b"<html>bad gateway</html>"])
ONCE = RetryPolicy(attempts=1)
FOREVER = Timeout(None, None, None, None)


def outcomes(call: Call) -> list[tuple[str, str | None]]:
    return [(attempt.outcome, attempt.failure) for attempt in call.context.record.attempts]


def test_a_stream_is_recorded_before_its_last_chunk() -> None:
    call = calling(paid(price=PRICE), stream=True)
    recorded: list[int] = []

    def look(k: int, effect: Any) -> None:
        if isinstance(effect, Emit):
            recorded.append(len(call.rows))

    driver = HandDriver([streams("Hel", "lo", id="c7", model="served", usage=usage(1000, 100))], look).run(
        call
    )
    assert driver.kinds == ["Send", "Read", "Emit", "Read", "Emit", "Read", "Leave", "Emit"]
    assert recorded == [0, 0, 1], "before the client can know the end"
    assert json.loads(driver.sends[0].request.body)["stream"] is True
    assert [chunk.text for chunk in driver.chunks] == ["Hel", "lo", ""]
    last = driver.chunks[-1]
    assert (last.finish_reason, last.usage) == ("stop", Usage(input=1000, output=100))
    assert all(chunk.finish_reason is chunk.usage is None for chunk in driver.chunks[:-1])
    answer = driver.completion
    assert (answer.text, answer.cost, answer.id) == ("Hello", Decimal("0.0045"), "c7")
    assert (call.context.answer_id, call.context.model, call.context.route) == ("c7", "served", answer.route)


def test_the_first_chunk_already_knows_its_model_and_backend() -> None:
    call = calling(paid(), local(), stream=True)
    seen: list[tuple[str, str, str]] = []

    def look(k: int, effect: Any) -> None:
        if isinstance(effect, Emit):
            seen.append((call.context.answer_id, call.context.model, call.context.route.backend))

    HandDriver([BUSY, streams(id="c7", model="served")], look).run(call)
    assert set(seen) == {("c7", "served", "home")}


def test_a_stream_without_content_has_its_finish_and_model() -> None:
    call = calling(paid(), stream=True)
    models: list[str] = []

    def look(k: int, effect: Any) -> None:
        if isinstance(effect, Emit):
            models.append(call.context.model)

    driver = HandDriver([ScriptedReply(pieces=chat_sse([], finish="length"))], look).run(call)
    assert [chunk.finish_reason for chunk in driver.chunks] == ["length"]
    assert (models, driver.rows[0].first_content) == (["gpt-4o-mini"], None)


def test_the_first_content_is_timed() -> None:
    call = calling(paid(), stream=True)
    role, *rest = chat_sse(["yes"])
    (row,) = HandDriver([ScriptedReply(after=1.0, pieces=[role, 0.5, *rest])]).run(call).rows
    assert row.first_content == 1.5


@pytest.mark.parametrize(
    "broken",
    [
        ScriptedReply(pieces=[chunk({"role": "assistant"}), BROKEN]),
        ScriptedReply(pieces=[chunk({"role": "assistant"})]),
        ScriptedReply(pieces=[b": ping\n\n", 200.0]),
        ScriptedReply(pieces=[sse({"error": {"type": "overloaded_error", "message": "busy"}})]),
        ScriptedReply(pieces=[b"data: {not json}\n\n"]),
        ScriptedReply(pieces=[b"<html>log in</html>"], headers={"content-type": "text/html"}),
        ScriptedReply(pieces=[b"x"], headers={"content-encoding": "br"}),
        BUSY,
    ],
    ids=["reset", "eof", "silence", "error frame", "garbage", "page", "encoding", "503"],
)
def test_before_the_first_content_a_stream_falls_back_unseen(broken: ScriptedReply) -> None:
    call = calling(paid(), local(), stream=True)
    driver = HandDriver([broken, streams("yes")])
    assert driver.run(call).text == "yes"
    assert driver.asked == ["paid", "home"]
    assert [type(effect).__name__ for effect in driver.effects].index("Emit") > driver.effects.index(
        driver.sends[1]
    )


@pytest.mark.parametrize(
    ("end", "says", "cause"),
    [
        ([BROKEN], "the connection broke", ConnectionFailedError),
        ([], "the stream ended without", ProtocolError),
        ([b"data: {not json}\n\n"], "not valid JSON", ProtocolError),
        ([sse({"error": {"message": "busy", "type": "overloaded_error"}})], "no room now", OverloadedError),
        ([200.0], "no answer in time", BackendTimeoutError),
        ([*[119.0, b": ping\n\n"] * 6], "the call's total timeout passed", DeadlineExceededError),
    ],
    ids=["reset", "eof", "garbage", "error frame", "silence", "deadline"],
)
def test_a_stream_that_breaks_after_content_gives_the_partial_answer(
    end: list[Any], says: str, cause: type[Exception]
) -> None:
    limits = Timeout(total=300, idle=None) if cause is DeadlineExceededError else None
    call = calling(paid(price=PRICE), local(), stream=True, prompt="x" * 384, limits=limits)
    forty = [chunk({"content": "word"}, id="c7") for _ in range(40)]
    driver = HandDriver([ScriptedReply(pieces=[*forty, *end])])
    raised = driver.fail(call)
    assert isinstance(raised, StreamInterruptedError)
    assert says in str(raised)
    assert isinstance(raised.__cause__, cause)
    assert (driver.asked, driver.text) == (["paid"], "word" * 40)
    partial = raised.partial
    assert (partial.text, partial.id, partial.finish_reason) == ("word" * 40, "c7", None)
    assert partial.usage == Usage(input=100, output=40, estimated=True)
    assert partial.cost == Decimal("0.0009") == driver.rows[0].cost, "100 in and 40 out"
    (row,) = driver.rows
    assert (row.outcome, row.failure, row.final) == ("interrupted", "delivered", True)
    assert partial.route.attempts == raised.attempts


def test_an_interrupted_stream_of_40_tokens_is_priced_as_40() -> None:
    call = calling(paid(price=Price(0, 75)), stream=True)
    raised = HandDriver([ScriptedReply(pieces=[chunk({"content": "word"})] * 40)]).fail(call)
    assert (raised.partial.usage.output, raised.partial.usage.estimated) == (40, True)
    assert raised.partial.cost == Decimal("0.003")


def test_pings_are_no_content() -> None:
    call = calling(paid(), local(), stream=True, limits=Timeout(idle=10))
    pings = [piece for _ in range(9) for piece in (4.0, b": ping\n\n")]
    driver = HandDriver([ScriptedReply(pieces=pings), streams("yes")]).run(call)
    assert (driver.text, call.clock.elapsed) == ("yes", 10)


def test_only_time_spent_on_the_server_is_idle() -> None:
    call = calling(paid(), stream=True, limits=Timeout(idle=10))

    def dawdle(k: int, effect: Any) -> None:
        if isinstance(effect, Emit):
            call.clock.elapsed += 60

    assert HandDriver([streams("a", "b", "c")], dawdle).run(call).text == "abc"


@pytest.mark.parametrize("reads", [1, 8])
def test_a_callers_pauses_are_no_part_of_the_servers_latency(reads: int) -> None:
    call = calling(paid(), stream=True)

    def dawdle(k: int, effect: Any) -> None:
        if isinstance(effect, Emit):
            call.clock.elapsed += 60

    events = chat_sse(["a", "b", "c"])
    each = -(-len(events) // reads)
    pieces = [b"".join(events[i : i + each]) for i in range(0, len(events), each)]
    HandDriver([ScriptedReply(after=2.0, pieces=pieces)], dawdle).run(call)
    (deployment,) = (candidate.deployment for candidate in call.context.plan.candidates)
    latency = call.state.load.snapshot(deployment).latency
    assert latency is not None
    assert latency.seconds == 2.0


def test_a_stream_that_said_its_end_is_whole_after_a_break() -> None:
    call = calling(paid(), stream=True)
    pieces = chat_sse(["yes"], usage=None, done=False)
    driver = HandDriver([ScriptedReply(pieces=[*pieces, BROKEN])]).run(call)
    assert (driver.completion.text, outcomes(call)) == ("yes", [("ok", None)])


@pytest.mark.parametrize("rest", [[], [BROKEN], [b"\r\n", b": more"], [1.0]])
def test_after_its_end_a_stream_is_drained_for_a_moment_only(rest: list[Any]) -> None:
    call = calling(paid(), stream=True)
    driver = HandDriver([ScriptedReply(pieces=[*chat_sse(["yes"]), *rest])]).run(call)
    assert driver.completion.text == "yes"
    assert call.clock.elapsed <= 0.05


def test_a_gzip_stream_must_have_its_end() -> None:
    packed = gzip.compress(b"".join(chat_sse(["yes"], done=False)))
    whole, cut = (
        ScriptedReply(pieces=[data], headers={"content-encoding": "gzip"}) for data in (packed, packed[:-4])
    )
    assert HandDriver([whole]).run(calling(paid(), stream=True)).text == "yes"
    raised = HandDriver([cut]).fail(calling(paid(), stream=True))
    assert isinstance(raised, StreamInterruptedError)
    assert "the gzip answer was cut off" in str(raised)


def test_a_stream_that_is_read_past_its_deadline_is_interrupted() -> None:
    call = calling(paid(), stream=True, timeout=10.0)

    def dawdle(k: int, effect: Any) -> None:
        if isinstance(effect, Emit):
            call.clock.elapsed += 6

    driver = HandDriver([streams("a", "b", "c")], dawdle)
    raised = driver.fail(call)
    assert isinstance(raised, StreamInterruptedError)
    assert isinstance(raised.__cause__, DeadlineExceededError)
    assert (driver.text, raised.partial.text) == ("ab", "ab")
