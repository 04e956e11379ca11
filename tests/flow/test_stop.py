"""A call that is stopped at any of its effects ends there, and each of its attempts is settled once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.flow.support import (
    BROKEN,
    REFUSED,
    Call,
    HandDriver,
    PlainBackend,
    PlainDecoder,
    Queue,
    ScriptedReply,
    answers,
    calling,
    local,
    paid,
    streams,
)
from tests.support.openai_like import chunk

from ccroute import Price, Usage
from ccroute.flow.effects import Effect, Emit, Enter, Leave, Read, Send, Sleep, Stopped, Wait
from ccroute.http.message import Reply

BUSY = ScriptedReply(503, [b"busy"])
CUT = ScriptedReply(pieces=[chunk({"content": "so far"}), BROKEN])

# How a call may go: whether it is a stream, what the world does, and how busy a host is that has a limit.
WAYS: dict[str, tuple[bool, list[Any], list[Queue]]] = {
    "answer": (False, [answers()], []),
    "fallback": (False, [BUSY, REFUSED, answers()], []),
    "retry": (False, [BUSY, BUSY, answers()], []),
    "failure": (False, [BUSY], []),
    "refusal": (False, [ScriptedReply(400)], []),
    "queue": (False, [BUSY, answers()], [Queue(ahead=1), Queue(seconds=2.0)]),
    "stream": (True, [streams()], []),
    "stream falls back": (True, [ScriptedReply(pieces=[BROKEN]), streams()], []),
    "stream is cut": (True, [CUT], []),
}


def begun(way: str) -> Call:
    stream, _, hosts = WAYS[way]
    return calling(paid(price=Price(3, 15)), local(), stream=stream, limited=bool(hosts))


def driver_of(way: str, before: Callable[[int, Effect], None] | None = None) -> HandDriver:
    _, world, hosts = WAYS[way]
    return HandDriver(world, before, hosts)


def effects(way: str) -> list[Effect]:
    """Every effect of a call that nothing stops."""
    driver = driver_of(way)
    try:
        driver.run(begun(way))
    except Exception:  # some ways end in an error of their own
        assert driver.rows
    return driver.effects


def stopped(way: str, at: int, stop: Callable[[Call], None]) -> Call:
    """The call after `stop` at one of its effects."""
    call = begun(way)

    def before(k: int, effect: Effect) -> None:
        if k == at:
            stop(call)

    with pytest.raises(Stop):
        driver_of(way, before).run(call)
    return call


class Stop(BaseException):
    """Whatever ends a call from outside."""


def closed(call: Call) -> None:
    call.flow.close()
    raise Stop


def thrown(call: Call) -> None:
    raise Stop


POINTS = [(way, k, effect) for way in WAYS for k, effect in enumerate(effects(way))]


@pytest.mark.parametrize("stop", [closed, thrown])
@pytest.mark.parametrize(
    ("way", "at", "effect"), POINTS, ids=[f"{way}-{k}-{type(effect).__name__}" for way, k, effect in POINTS]
)
def test_a_call_stopped_anywhere_settles_each_attempt_once(
    way: str, at: int, effect: Effect, stop: Callable[[Call], None]
) -> None:
    call = stopped(way, at, stop)
    rows, context = call.rows, call.context
    assert [row.outcome for row in rows] == [attempt.outcome for attempt in context.record.attempts]
    assert len({row.id for row in rows}) == len(rows) > 0
    assert [row.final for row in rows] == [False] * (len(rows) - 1) + [True]
    assert context.latest is not None
    assert context.latest.held == [], "everything that was acquired is given back"
    for name in ("paid", "home"):
        deployment = context.plan.candidates[name == "home"].deployment
        assert call.state.load.in_flight(deployment.backend.origin) == 0
    last = rows[-1]
    if isinstance(effect, Emit) and effect.chunks[-1].finish_reason:
        assert last.outcome == "ok"
    elif isinstance(effect, Leave):
        assert last.outcome != "cancelled", "an attempt that had ended keeps its outcome"
    elif isinstance(effect, Sleep):
        assert last.outcome == "failed", "its last attempt decided the call"
    elif isinstance(effect, Enter | Wait):
        if last.outcome == "cancelled":
            assert (last.usage, last.cost, len(rows)) == (Usage(), 0, 1), "nothing was sent"
        else:
            assert last.outcome == "failed", "its last attempt decided the call"
    else:
        assert (last.outcome, last.failure) == ("cancelled", None)
        rejected = last.status in (400, 401, 404, 429, 503)
        assert bool(last.usage.input) is not rejected, "a prompt counts unless its status is free of charge"
        is_told = last.usage == Usage(input=11, output=7)  # the stream's last frame but one
        assert last.usage.estimated is not (rejected or is_told)


def test_a_cancelled_stream_is_charged_for_what_had_come() -> None:
    third = [k for k, effect in enumerate(effects("stream")) if isinstance(effect, Emit)][2]
    (row,) = stopped("stream", third, closed).rows
    assert row.usage == Usage(input=7, output=3, estimated=True)
    assert row.first_content == 0
    assert row.cost is not None
    assert row.cost > 0


@pytest.mark.parametrize("sent", [False, True])
def test_a_cancelled_send_is_charged_only_if_a_byte_went_out(sent: bool) -> None:
    call = begun("answer")
    assert isinstance(call.flow.send(None), Send)
    with pytest.raises(Stopped):
        call.flow.throw(Stopped(KeyboardInterrupt(), sent=sent))
    (row,) = call.rows
    assert (row.outcome, bool(row.usage.input), bool(row.cost)) == ("cancelled", sent, sent)
    assert call.context.record.attempts[0].reason == "KeyboardInterrupt"


def test_a_call_stopped_before_its_first_attempt_leaves_one_row() -> None:
    call = calling(paid(price=Price(3, 15)), limited=True)
    assert isinstance(call.flow.send(None), Enter)
    call.flow.close()
    (row,) = call.rows
    assert (row.outcome, row.usage, row.cost, row.final) == ("cancelled", Usage(), 0, True)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(asyncio.CancelledError, "cancelled"), (KeyboardInterrupt, "cancelled"), (RuntimeError, "failed")],
)
def test_what_is_thrown_in_passes_through_and_is_named(error: type[BaseException], outcome: str) -> None:
    call = begun("answer")
    thrown_in = error()

    def before(k: int, effect: Effect) -> None:
        if k == 1:
            raise thrown_in

    with pytest.raises(error) as caught:
        HandDriver([answers()], before).run(call)
    assert caught.value is thrown_in
    (attempt,) = call.context.record.attempts
    assert (attempt.outcome, attempt.reason, attempt.failure) == (outcome, error.__name__, None)


def test_a_call_that_was_never_begun_leaves_nothing() -> None:
    call = begun("answer")
    call.flow.close()
    assert (call.rows, call.context.record.attempts) == ([], ())


def test_a_bug_in_a_codec_is_recorded_and_passes_through() -> None:
    backend = paid()
    backend.decode = lambda *_: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    call = calling(backend)
    with pytest.raises(ZeroDivisionError):
        HandDriver([answers()]).run(call)
    (row,) = call.rows
    assert (row.outcome, row.status) == ("failed", 200)


@pytest.mark.parametrize(
    ("status", "charged"), [(302, False), (400, False), (424, True), (429, False), (500, True), (529, False)]
)
def test_a_call_stopped_while_an_errors_words_come_costs_what_its_status_says(
    status: int, charged: bool
) -> None:
    call = begun("answer")
    assert isinstance(call.flow.send(None), Send)
    assert isinstance(call.flow.send(Reply(status, {})), Read)
    call.flow.close()
    (row,) = call.rows
    assert (row.outcome, bool(row.usage.input), bool(row.cost)) == ("cancelled", charged, charged)


def test_a_decoder_that_cannot_say_what_came_loses_no_row() -> None:
    class Mute(PlainDecoder):
        def partial(self) -> None:
            raise ZeroDivisionError

    backend = PlainBackend()
    backend.decoder = lambda *_: Mute()  # type: ignore[method-assign]
    call = calling(backend, stream=True)
    effect = call.flow.send(None)
    while not isinstance(effect, Emit):
        effect = call.flow.send(Reply(200, {}) if isinstance(effect, Send) else b"so far")
    call.flow.close()
    (row,) = call.rows
    assert (row.outcome, row.usage.estimated) == ("cancelled", True)
