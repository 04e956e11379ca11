"""A key, a model or a payment that was refused is off for later calls, whatever class its error has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from tests.flow.support import (
    HandDriver,
    PlainBackend,
    ScriptedReply,
    Shared,
    answers,
    fails,
    local,
    paid,
)
from tests.support.openai_like import chat_sse

from ccroute import RetryPolicy
from ccroute.errors import (
    AuthenticationError,
    BackendError,
    CcrouteError,
    ModelNotFoundError,
    PermissionDeniedError,
    QuotaExhaustedError,
    RateLimitError,
    ServerError,
)
from ccroute.flow.effects import Effect, Emit, Send
from ccroute.observe import (
    CooledDown,
    TurnedAway,
)

BUSY = fails(503)
BROKE = fails(502)
ANSWER = answers("well")


# -- Keys, permissions, money, models


@pytest.mark.parametrize(
    ("reply", "kind", "seconds"),
    [
        (fails(401), AuthenticationError, 300),
        (fails(403), PermissionDeniedError, 300),
        (fails(404, code="model_not_found"), ModelNotFoundError, 300),
        (fails(402), QuotaExhaustedError, 900),
        (fails(429, code="insufficient_quota"), QuotaExhaustedError, 900),
        (fails(429, code="insufficient_quota", retry_after="7200"), QuotaExhaustedError, 7200),
        (fails(405), BackendError, 300),
    ],
    ids=["401", "403", "404", "402", "quota", "quota with its reset", "405"],
)
def test_a_refused_key_or_model_gets_no_later_calls(
    reply: ScriptedReply, kind: type[CcrouteError], seconds: float
) -> None:
    shared = Shared(paid(), local())
    driver = shared.gets(reply, ANSWER, retry=RetryPolicy(attempts=2))
    assert (driver.asked, driver.slept) == (["paid", "home"], [])
    (event,) = shared.events
    assert isinstance(event, CooledDown)
    assert event.seconds == seconds
    driver = shared.after(seconds - 1).gets(ANSWER)
    assert (driver.asked, driver.slept) == (["home"], [])
    assert any(reason.startswith("paid/m passed over: ") for reason in driver.completion.route.reasons)
    assert shared.after(1).gets(ANSWER).asked == ["paid"]
    alone = Shared()
    assert isinstance(alone.misses(reply), kind)


@pytest.mark.parametrize(
    ("reply", "whole"), [(fails(401), True), (fails(402), True), (fails(403), False), (fails(404), False)]
)
def test_a_key_is_off_for_its_backend_a_model_for_its_deployment(reply: ScriptedReply, whole: bool) -> None:
    shared = Shared(paid(), aliases={"any": ["paid/1"], "other": ["paid/2"]})
    shared.misses(reply, model="any")
    assert shared.is_off(model="2") is whole


def test_a_refused_key_is_off_twice_as_long_each_time() -> None:
    shared = Shared()
    for _ in range(6):
        shared.misses(fails(401))
        shared.after(3600)
    assert [event.seconds for event in shared.events] == [300, 600, 1200, 2400, 3600, 3600]
    assert {event.who for event in shared.emitted(CooledDown)} == {"paid"}


def test_a_key_that_was_never_there_to_send_is_asked_for_each_time() -> None:
    official = paid()
    official.missing_key = lambda: "no API key: set IT"  # type: ignore[method-assign]
    shared = Shared(official)
    for _ in range(9):
        assert isinstance(shared.misses(ANSWER), AuthenticationError)
    assert shared.events == []


def test_a_rotated_key_is_asked_again_at_once() -> None:
    keys = ["sk-the-first-of-them", "sk-the-second-one"]
    shared = Shared(paid(api_key=lambda: keys[0]), local())
    shared.misses(fails(401))
    assert shared.is_off()
    keys.pop(0)
    driver = shared.gets(ANSWER)
    assert (driver.asked, driver.slept) == (["paid"], [])
    assert (b"authorization", b"Bearer sk-the-second-one") in driver.sends[0].request.headers
    assert not shared.is_off()


def test_a_key_that_stays_the_same_is_left_off() -> None:
    shared = Shared(paid(api_key=lambda: "sk-the-only-one"), local())
    shared.gets(fails(401), ANSWER, retry=RetryPolicy(attempts=2))
    assert [shared.gets(ANSWER).asked for _ in range(3)] == [["home"]] * 3


def test_late_refusals_of_an_old_key_do_not_turn_the_new_one_off() -> None:
    keys = ["sk-the-first-of-them", "sk-the-second-one"]
    shared = Shared(paid(api_key=lambda: keys[0]))

    def rotate(k: int, effect: Effect) -> None:
        if isinstance(effect, Send) and len(keys) == 2:
            shared.misses(fails(401))  # another call, with the same old key
            keys.pop(0)
            assert shared.gets(ANSWER).asked == ["paid"]  # a third one, with the new key

    HandDriver([fails(401)], before=rotate).fail(shared.call())
    assert not shared.is_off(), "the new key has just been answered"
    assert shared.gets(ANSWER).asked == ["paid"]


def test_a_late_refusal_of_a_rotated_key_is_ignored() -> None:
    keys = ["sk-the-first-of-them", "sk-the-second-one"]
    shared = Shared(paid(api_key=lambda: keys[0]), local())

    def rotate(k: int, effect: Effect) -> None:
        if isinstance(effect, Send) and len(keys) == 2:
            keys.pop(0)
            assert shared.gets(ANSWER).asked == ["paid"]

    HandDriver([fails(401)], before=rotate).fail(shared.call())
    assert shared.events == []
    assert shared.gets(ANSWER).asked == ["paid"]


def test_the_error_of_other_calls_keeps_no_attempts_and_no_frames() -> None:
    shared = Shared()
    first = shared.misses(fails(401, "who are you"))
    probe = shared.health.admit(shared.deployment(), early=True)
    raised = shared.turned_away()
    assert isinstance(raised, AuthenticationError)
    assert raised is not first
    assert raised.retry_after == pytest.approx(300)
    assert raised.__cause__ is None
    assert first.retry_after is None
    assert "who are you" not in str(raised)
    assert "(refused: AuthenticationError, HTTP 401" in str(raised)
    again = shared.turned_away()
    assert again is not raised
    assert again.__traceback__ is not raised.__traceback__
    del probe


# -- A user's own classes


def test_a_users_own_error_type_is_remembered_too() -> None:
    class Strange(ServerError):
        def __init__(self, code: int, where: str) -> None:
            super().__init__(f"strange {code} at {where}", status=code)

    class Own(PlainBackend):
        def classify(self, status: int, headers: Any, body: bytes) -> Any:
            return Strange(status, "home")

    shared = Shared(Own("paid"))
    for _ in range(5):
        assert isinstance(shared.misses(ScriptedReply(500, [b"x"])), Strange)
    probe = shared.health.admit(shared.deployment(), early=True)
    turned = shared.turned_away()
    assert isinstance(turned, Strange)
    assert "last: Strange, HTTP 500" in str(turned)
    del probe


# -- A user's own errors


class OwnConstructorError(RateLimitError):
    """A class with a constructor of its own."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text, retry_after=8)
        self.code = code


class NoSuperError(ServerError):
    """One that calls nobody's constructor."""

    def __init__(self) -> None:
        self.code = 7


class Own(PlainBackend):
    """A user's backend whose `classify` gives `error`."""

    def __init__(self, error: Any) -> None:
        super().__init__("own")
        self.error = error

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> Any:
        return self.error()


def test_a_users_error_with_a_constructor_keeps_its_type_and_wait() -> None:
    shared = Shared(Own(lambda: OwnConstructorError(7, "slow down")))
    shared.misses(ScriptedReply(429), timeout=5.0)
    again = shared.turned_away(timeout=5.0)
    assert isinstance(again, OwnConstructorError)
    assert (again.code, again.retry_after) == (7, 8.0)


def test_an_error_that_was_never_constructed_moves_the_call_on() -> None:
    shared = Shared(Own(NoSuperError), local())
    driver = HandDriver([ScriptedReply(500), ANSWER]).run(shared.call(retry=RetryPolicy()))
    assert driver.asked == ["own", "home"]


def test_a_wait_in_words_is_none() -> None:
    shared = Shared(Own(lambda: RateLimitError("slow down", retry_after="20")))  # type: ignore[arg-type]
    assert shared.misses(ScriptedReply(429)).retry_after is None
    assert not shared.is_off("own")


def test_a_key_rolled_back_is_used_again_and_refused_ones_are_not() -> None:
    keys = ["sk-the-good-one-of-them"]
    shared = Shared(paid(api_key=lambda: keys[0]), local())
    keys[0] = "sk-a-dead-one-number-0"
    assert HandDriver([fails(401), ANSWER]).run(shared.call(retry=RetryPolicy())).asked == ["paid", "home"]
    keys[0] = "sk-the-good-one-of-them"
    assert shared.gets(ANSWER).asked == ["paid"]
    for i in range(12):
        keys[0] = f"sk-a-dead-one-number-{i}"
        HandDriver([fails(401), ANSWER]).run(shared.call(retry=RetryPolicy()))
    for i in range(12):
        keys[0] = f"sk-a-dead-one-number-{i}"
        assert shared.gets(ANSWER).asked == ["home"], "it was refused before"


def test_a_call_that_is_turned_away_emits_an_event() -> None:
    shared = Shared()
    shared.misses(fails(429, retry_after="30"), timeout=5.0)
    call = shared.call(timeout=5.0)
    HandDriver([ANSWER]).fail(call)
    assert call.events == [TurnedAway(call.context.id, None, "paid/m", 30.0)]


def test_a_whole_answer_counts_however_slowly_it_is_read() -> None:
    shared = Shared()
    call = shared.call(stream=True, timeout=1.0)
    whole = b"".join(chat_sse(["a", "b"]))

    def slowly(k: int, effect: Effect) -> None:
        if isinstance(effect, Emit) and not effect.chunks[-1].finish_reason:
            shared.clock.elapsed += 5  # the caller works on what it has

    driver = HandDriver([ScriptedReply(pieces=[whole])], before=slowly).run(call)
    assert driver.text == "ab"
    assert not driver.completion.usage.estimated
