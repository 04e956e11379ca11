"""A call that is stopped at any of its effects ends there, and each of its attempts is settled once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.flow.support import BROKEN, REFUSED, Call, Hand, Said, answers, calling, local, paid, streams
from tests.support.openai_like import chunk

from ccroute import Price, Usage
from ccroute.accounting import LedgerRow
from ccroute.flow import Effect, Emit, Enter, Leave, Record, Sleep

BUSY = Said(503, [b"busy"])
CUT = Said(pieces=[chunk({"content": "so far"}), BROKEN])

# How a call may go: whether it is a stream, and what the world does.
WAYS: dict[str, tuple[bool, list[Any]]] = {
    "answer": (False, [answers()]),
    "fallback": (False, [BUSY, REFUSED, answers()]),
    "retry": (False, [BUSY, BUSY, answers()]),
    "failure": (False, [BUSY]),
    "refusal": (False, [Said(400)]),
    "stream": (True, [streams()]),
    "stream falls back": (True, [Said(pieces=[BROKEN]), streams()]),
    "stream is cut": (True, [CUT]),
}


def begun(way: str) -> Call:
    return calling(paid(price=Price(3, 15)), local(), stream=WAYS[way][0])


def effects(way: str) -> list[Effect]:
    """Every effect of a way that nobody stops."""
    hand = Hand(WAYS[way][1])
    try:
        hand.run(begun(way))
    except Exception:  # some ways end in an error of their own
        assert hand.rows
    return hand.effects


def stopped(way: str, at: int, stop: Callable[[Call], None]) -> tuple[Call, list[LedgerRow]]:
    """The call after `stop` at one of its effects, and all rows that it leaves, recorded or not yet."""
    call = begun(way)

    def before(k: int, effect: Effect) -> None:
        if k == at:
            stop(call)

    hand = Hand(WAYS[way][1], before)
    with pytest.raises(Stop):
        hand.run(call)
    left = call.log.unsettled
    return call, hand.rows + ([] if left is None else [left])


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
    call, rows = stopped(way, at, stop)
    assert [row.outcome for row in rows] == [attempt.outcome for attempt in call.log.attempts]
    assert len({row.id for row in rows}) == len(rows) > 0
    earlier, last = rows[:-1], rows[-1]
    assert not [row for row in earlier if row.final]
    left = call.log.unsettled
    if isinstance(effect, Emit) and effect.chunks[-1].finish_reason:
        assert left is None, "what is recorded is not recorded again"
    elif isinstance(effect, Record):
        assert left is last
        assert left.final, "what was not recorded yet decided the call"
    elif isinstance(effect, Sleep) or (
        isinstance(effect, Enter) and call.log.attempts[-1].outcome == "failed"
    ):
        assert left is last
        assert (left.outcome, left.final) == ("failed", True), "its last attempt decided the call"
    elif isinstance(effect, Leave):
        assert left is last
        assert left.outcome != "cancelled", "what had come to its end is told as it ended"
        assert left.final
    elif isinstance(effect, Enter):
        assert left is last
        assert (left.outcome, left.usage, left.cost) == ("cancelled", Usage(), 0), "nothing was sent"
    else:
        assert left is last
        assert (left.outcome, left.failure, left.final) == ("cancelled", None, True)
        rejected = left.status is not None and 400 <= left.status < 500
        assert bool(left.usage.input) is not rejected, "the prompt was sent, as far as anybody knows"
        assert left.usage.estimated is not rejected


def test_a_cancelled_stream_is_charged_for_what_had_come() -> None:
    third = [k for k, effect in enumerate(effects("stream")) if isinstance(effect, Emit)][2]
    call, _ = stopped("stream", third, closed)
    left = call.log.unsettled
    assert left is not None
    assert left.usage == Usage(input=7, output=3, estimated=True)
    assert left.first_content == 0
    assert left.cost is not None
    assert left.cost > 0


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
        Hand([answers()], before).run(call)
    assert caught.value is thrown_in
    (attempt,) = call.log.attempts
    assert (attempt.outcome, attempt.reason, attempt.failure) == (outcome, error.__name__, None)


def test_a_call_that_was_never_begun_leaves_nothing() -> None:
    call = begun("answer")
    call.flow.close()
    assert (call.log.unsettled, call.log.attempts) == (None, [])


def test_a_bug_in_a_codec_is_recorded_and_passes_through() -> None:
    backend = paid()
    backend.decode = lambda *_: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    call = calling(backend)
    with pytest.raises(ZeroDivisionError):
        Hand([answers()]).run(call)
    assert call.log.unsettled is not None
    assert (call.log.unsettled.outcome, call.log.unsettled.status) == ("failed", 200)
