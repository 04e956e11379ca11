"""What one call learns of its backends, the next ones know: whom to leave alone, for how long, and why."""

from __future__ import annotations

import gc
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from ccroute.routing.notes import Note
from tests.flow.support import (
    BROKEN,
    REFUSED,
    Call,
    FakeClock,
    Hand,
    PlainBackend,
    Said,
    answers,
    calling,
    local,
    paid,
    streams,
)
from tests.support.openai_like import chat_sse, error, sse

from ccroute import Agent, RetryPolicy, Timeout
from ccroute.backends import Backend
from ccroute.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    CcrouteError,
    DeadlineExceededError,
    ModelNotFoundError,
    OverloadedError,
    PermissionDeniedError,
    QueueTimeoutError,
    QuotaExhaustedError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
)
from ccroute.flow import Effect, Emit, Enter, Failure, Send
from ccroute.observe import (
    AttemptFailed,
    BreakerClosed,
    BreakerOpened,
    CooledDown,
    Event,
    FellBack,
    Interrupted,
    Overridden,
    Queued,
    Retried,
    TurnedAway,
)
from ccroute.routing import Deployment, Health, RetryBudget
from ccroute.types import Model

ONCE = RetryPolicy(attempts=1)
FULL = Failure("queue", "its queue is full", sent=False)


def fails(status: int, message: str = "no", *, code: str | None = None, **headers: str) -> Said:
    """An error of OpenAI's; `retry_after="7"` is a header."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Said(status, [json.dumps(error(message, code=code)).encode()], headers=named)


BUSY = fails(503)
BROKE = fails(502)
WELL = answers("well")


class Shop:
    """Backends that several calls share, with all that the calls learn of them."""

    def __init__(self, *backends: Backend, on: bool = True, **planning: Any) -> None:
        self.backends = backends or (paid(),)
        self.planning = planning
        self.clock = FakeClock()
        self.events: list[Event] = []
        self.health = Health(self.clock, self.events.append, on=on)
        self.retries = RetryBudget(self.clock.monotonic)

    def call(self, **options: Any) -> Call:
        shared = {"clock": self.clock, "health": self.health, "retries": self.retries}
        return calling(*self.backends, **({"retry": ONCE} | shared | self.planning | options))

    def gets(self, *world: Any, refuses: Sequence[Failure] = (), **options: Any) -> Hand:
        """A call that is answered."""
        return Hand(world, refuses=refuses).run(self.call(**options))

    def misses(self, *world: Any, refuses: Sequence[Failure] = (), **options: Any) -> Any:
        """A call that is not; its error."""
        return Hand(world, refuses=refuses).fail(self.call(**options))

    def turned_away(self, **options: Any) -> Any:
        """A call that nobody is asked for; its error."""
        hand = Hand([WELL])
        raised = hand.fail(self.call(**options))
        assert hand.sends == []
        assert raised.attempts == ()
        return raised

    def after(self, seconds: float) -> Shop:
        self.clock.elapsed += seconds
        return self

    def refused(self, name: str = "paid") -> bool:
        backend = next(backend for backend in self.backends if backend.name == name)
        return self.health.refusal(Deployment(f"{name}/m", backend, "m", Model())) is not None

    def told(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


# -- Which failures count


COUNTED = {
    "refused": REFUSED,
    "tls": Failure("tls", "expired", sent=False),
    "never connected": Failure("timeout", "no connection", sent=False),
    "reset": BROKEN,
    "silent": Failure("timeout", "no answer", sent=True),
    "no http": Failure("protocol", "101", sent=True),
    "424": fails(424),
    "500": fails(500),
    "502": BROKE,
    "503": BUSY,
    "504": fails(504),
    "529": fails(529),
    "garbage": Said(pieces=[b"<html>log in</html>"]),
    "empty": Said(pieces=[]),
    "cut": Said(pieces=[b'{"choices"', BROKEN]),
    "truncated gzip": Said(pieces=[b"\x1f\x8b\x08"], headers={"content-encoding": "gzip"}),
}
NOT_COUNTED = {
    "400": fails(400),
    "413": fails(413),
    "422": fails(422),
    "policy": fails(400, code="content_filter"),
    "overflow": fails(400, "too long", code="context_length_exceeded"),
    "408": fails(408),
    "409": fails(409),
    "425": fails(425),
    "429": fails(429),
}


@pytest.mark.parametrize("fault", COUNTED)
def test_what_speaks_against_a_deployment_counts(fault: str) -> None:
    shop = Shop()
    for _ in range(4):
        shop.misses(COUNTED[fault])
    assert shop.events == []
    shop.misses(COUNTED[fault])
    assert [type(event) for event in shop.events] == [BreakerOpened]


@pytest.mark.parametrize("fault", NOT_COUNTED)
def test_what_is_the_callers_fault_or_only_strict_does_not_count(fault: str) -> None:
    shop = Shop()
    for _ in range(9):
        shop.misses(NOT_COUNTED[fault])
    assert shop.events == []
    assert shop.gets(WELL).asked == ["paid"]


BEGUN = chat_sse(["so"], finish=None, done=False)


@pytest.mark.parametrize(
    ("pieces", "ends", "counts"),
    [
        (BEGUN, True, True),
        ([*BEGUN, BROKEN], True, True),
        (BEGUN, False, True),
        (BEGUN[:1], False, True),
        ([*BEGUN, sse(error("x", type="server_error"))], True, True),
        ([*BEGUN, sse(error("x", code=429))], True, False),
    ],
    ids=["no end", "reset", "silence", "silence before content", "server error", "rate limit"],
)
def test_a_stream_that_breaks_counts_by_what_broke_it(pieces: Any, ends: bool, counts: bool) -> None:
    shop = Shop(stream=True)
    for _ in range(5):
        shop.misses(Said(pieces=pieces, ends=ends))
    assert bool(shop.told(BreakerOpened)) is counts


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("total", "counts"), [(119.0, False), (120.0, True), (300.0, True)])
def test_the_callers_own_deadline_counts_only_if_the_server_was_silent_for_longer_than_idle(
    stream: bool, total: float, counts: bool
) -> None:
    shop = Shop(stream=stream, limits=Timeout(total=total, first=10_000))
    for _ in range(5):
        assert isinstance(shop.misses(Said(after=99_999)), DeadlineExceededError)
    assert bool(shop.told(BreakerOpened)) is counts


def test_a_deadline_amid_a_lively_stream_does_not_count() -> None:
    pieces = [part for text in chat_sse(["so"] * 20) for part in (10.0, text)]
    shop = Shop(stream=True, timeout=150.0)
    for _ in range(5):
        raised = shop.misses(Said(pieces=pieces))
        assert isinstance(raised, StreamInterruptedError)
        assert isinstance(raised.__cause__, DeadlineExceededError)
    assert shop.events == []


def test_who_is_turned_away_after_silent_deadlines_is_not_told_that_its_own_time_is_up() -> None:
    shop = Shop(limits=Timeout(total=130))
    for _ in range(5):
        shop.misses(Said(after=99_999))
    probe = shop.health.admit(Deployment("paid/m", shop.backends[0], "m", Model()), early=True)
    raised = shop.turned_away()
    assert isinstance(raised, BackendTimeoutError)
    assert raised.retry_after == pytest.approx(30)
    del probe


@pytest.mark.parametrize("at", ["Enter", "Send", "Read", "Emit"])
@pytest.mark.parametrize("stop", [KeyboardInterrupt, GeneratorExit])
def test_a_cancelled_call_counts_for_nothing_and_a_cancelled_probe_gives_its_lease_back(
    at: str, stop: type[BaseException]
) -> None:
    def cancel(k: int, effect: Effect) -> None:
        if type(effect).__name__ == at:
            raise stop

    shop = Shop(stream=True)
    for _ in range(9):
        with pytest.raises(stop):
            Hand([streams()], before=cancel).run(shop.call())
    assert shop.events == []
    for _ in range(5):
        shop.misses(BUSY)
    shop.after(40)
    for _ in range(3):
        with pytest.raises(stop):
            Hand([streams()], before=cancel).run(shop.call())
    assert len(shop.events) == (2 if at == "Emit" else 1), "nothing doubled; content proves it well"
    assert shop.gets(streams()).text == "Hello there."
    assert [type(event) for event in shop.events] == [BreakerOpened, BreakerClosed]


def test_a_stream_that_has_begun_and_is_abandoned_has_proved_the_server_well() -> None:
    shop = Shop(stream=True)
    for _ in range(5):
        shop.misses(BUSY)
    shop.after(40)
    call = shop.call()
    effect, result = call.flow.send(None), None
    hand = Hand([streams()])
    while type(effect).__name__ != "Emit":
        result = hand._perform(effect, call)
        effect = call.flow.send(result)
    assert not shop.refused(), "its first content proves the server well, however slowly the rest is read"
    call.flow.close()
    del call, effect
    gc.collect()
    assert shop.gets(streams()).text == "Hello there."
    assert [type(event) for event in shop.events] == [BreakerOpened, BreakerClosed]


# -- A breaker across calls


def test_an_open_deployment_is_passed_over_until_its_time_and_then_asked_again() -> None:
    shop = Shop(paid(), local())
    for _ in range(5):
        assert shop.gets(BUSY, WELL, retry=RetryPolicy(attempts=2)).asked == ["paid", "home"]
    hand = shop.gets(WELL)
    assert (hand.asked, hand.slept) == (["home"], [])
    assert "paid/m passed over: 5 failures in a row" in hand.completion.route.reasons
    assert len(hand.completion.route.attempts) == 1
    assert shop.after(29).gets(WELL).asked == ["home"]
    assert shop.after(1).gets(WELL).asked == ["paid"]
    assert [type(event) for event in shop.events] == [BreakerOpened, BreakerClosed]
    assert shop.gets(WELL).asked == ["paid"]


def test_a_probe_that_fails_goes_on_elsewhere_within_the_same_call() -> None:
    shop = Shop(paid(), local())
    for _ in range(5):
        shop.gets(BUSY, WELL, retry=RetryPolicy(attempts=2))
    hand = shop.after(30).gets(BUSY, WELL, retry=RetryPolicy(attempts=2))
    assert hand.asked == ["paid", "home"]
    assert [event.seconds for event in shop.told(BreakerOpened)] == [30, 60]


def test_while_one_call_probes_the_others_go_elsewhere() -> None:
    shop = Shop(paid(), local())
    for _ in range(5):
        shop.gets(BUSY, WELL, retry=RetryPolicy(attempts=2))
    shop.after(30)
    others: list[str] = []

    def meanwhile(k: int, effect: Effect) -> None:
        if isinstance(effect, Send):
            others.extend(shop.gets(WELL).asked)

    assert Hand([WELL], before=meanwhile).run(shop.call()).asked == ["paid"]
    assert others == ["home"]


def test_a_call_that_waited_for_its_host_until_the_breaker_opened_goes_elsewhere() -> None:
    shop = Shop(paid(), local())

    def meanwhile(k: int, effect: Effect) -> None:
        if k == 0:
            for _ in range(5):
                shop.misses(BUSY)

    hand = Hand([WELL], before=meanwhile)
    assert hand.run(shop.call()).asked == ["home"]
    assert hand.kinds == ["Enter", "Leave", "Enter", "Send", "Read", "Leave", "Record"]
    assert any("paid/m passed over" in reason for reason in hand.completion.route.reasons)


@pytest.mark.parametrize("said", [BUSY, BROKE, fails(401), fails(404), fails(429, retry_after="60")])
def test_switched_off_health_asks_every_time(said: Said) -> None:
    shop = Shop(on=False)
    for _ in range(9):
        assert shop.misses(said).attempts
    assert shop.events == []


# -- Retry-After


def test_a_deployment_that_asked_to_be_left_alone_is_so_in_later_calls_too() -> None:
    shop = Shop(paid(), local())
    hand = shop.gets(fails(429, retry_after="60"), WELL, retry=RetryPolicy(attempts=2))
    assert hand.asked == ["paid", "home"]
    hand = shop.after(59).gets(WELL)
    assert (hand.asked, hand.slept) == (["home"], [])
    assert "paid/m passed over: asked to be left alone" in hand.completion.route.reasons
    assert shop.after(1).gets(WELL).asked == ["paid"]
    assert [type(event) for event in shop.events] == [CooledDown]


def test_a_call_sleeps_through_it_where_nobody_else_is_left_and_it_fits() -> None:
    shop = Shop()
    shop.misses(fails(429, retry_after="60"))
    hand = shop.after(20).gets(WELL)
    assert (hand.asked, hand.slept) == (["paid"], [pytest.approx(40)])


def test_of_several_that_cool_the_one_that_is_ready_first_is_slept_for() -> None:
    shop = Shop(paid("a"), paid("b"))
    shop.misses(fails(429, retry_after="60"), fails(429, retry_after="20"), retry=RetryPolicy(attempts=2))
    hand = shop.gets(WELL)
    assert (hand.asked, hand.slept) == (["b"], [20])


def test_a_wait_that_does_not_fit_raises_the_servers_kind_of_error() -> None:
    shop = Shop()
    first = shop.misses(fails(429, "too many tokens", retry_after="60"))
    raised = shop.after(20).turned_away(timeout=30.0)
    assert isinstance(raised, RateLimitError)
    assert raised is not first
    assert (raised.status, raised.retry_after, raised.deployment) == (429, pytest.approx(40), "paid/m")
    assert "too many tokens" not in str(raised), "that was said to another call"
    assert str(raised).startswith(
        "paid/m: not asked: it failed in other calls and is left alone for 40 s more"
    )
    assert (first.retry_after, len(first.attempts)) == (60, 1), "the first call's error is its own"
    assert shop.clock.elapsed == 20, "and nobody slept"


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("value", ["-1", "nan", "inf", "1e35", "soon", "0"])
def test_a_nonsensical_retry_after_cools_nobody(status: int, value: str) -> None:
    shop = Shop()
    shop.misses(fails(status, retry_after=value))
    assert shop.events == []
    assert shop.gets(WELL).slept == []


def test_an_error_that_is_raised_anew_is_of_this_call_which_sent_nothing() -> None:
    shop = Shop()
    assert shop.misses(fails(429, retry_after="60", x_request_id="theirs")).request_id == "theirs"
    raised = shop.turned_away(timeout=5.0)
    assert (raised.sent, raised.request_id) == (False, None)


def test_a_longer_wait_of_a_call_that_was_on_its_way_wins() -> None:
    shop = Shop()

    def meanwhile(k: int, effect: Effect) -> None:
        if isinstance(effect, Send):
            shop.misses(fails(429, retry_after="90"))

    Hand([fails(429, retry_after="10")], before=meanwhile).fail(shop.call())
    assert shop.turned_away(timeout=60.0).retry_after == pytest.approx(90)


# -- Keys, permissions, money, models


@pytest.mark.parametrize(
    ("said", "kind", "seconds"),
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
def test_what_is_refused_as_a_whole_is_off_for_later_calls_and_none_of_them_sleeps(
    said: Said, kind: type[CcrouteError], seconds: float
) -> None:
    shop = Shop(paid(), local())
    hand = shop.gets(said, WELL, retry=RetryPolicy(attempts=2))
    assert (hand.asked, hand.slept) == (["paid", "home"], [])
    (event,) = shop.events
    assert isinstance(event, CooledDown)
    assert event.seconds == seconds
    hand = shop.after(seconds - 1).gets(WELL)
    assert (hand.asked, hand.slept) == (["home"], [])
    assert any(reason.startswith("paid/m passed over: ") for reason in hand.completion.route.reasons)
    assert shop.after(1).gets(WELL).asked == ["paid"]
    alone = Shop()
    assert isinstance(alone.misses(said), kind)


@pytest.mark.parametrize(
    ("said", "whole"), [(fails(401), True), (fails(402), True), (fails(403), False), (fails(404), False)]
)
def test_a_key_is_off_for_its_whole_backend_a_model_only_for_its_deployment(said: Said, whole: bool) -> None:
    shop = Shop(paid(), aliases={"any": ["paid/1"], "other": ["paid/2"]})
    shop.misses(said, model="any")
    assert bool(shop.health.refusal(Deployment("paid/2", shop.backends[0], "2", Model()))) is whole


def test_a_refused_key_is_off_twice_as_long_each_time() -> None:
    shop = Shop()
    for _ in range(6):
        shop.misses(fails(401))
        shop.after(3600)
    assert [event.seconds for event in shop.events] == [300, 600, 1200, 2400, 3600, 3600]
    assert {event.who for event in shop.told(CooledDown)} == {"paid"}


def test_a_key_that_was_never_there_to_send_is_asked_for_each_time() -> None:
    official = paid()
    official.missing_key = lambda: "no API key: set IT"  # type: ignore[method-assign]
    shop = Shop(official)
    for _ in range(9):
        assert isinstance(shop.misses(WELL), AuthenticationError)
    assert shop.events == []


def test_a_rotated_key_is_asked_again_at_once() -> None:
    keys = ["sk-the-first-of-them", "sk-the-second-one"]
    shop = Shop(paid(api_key=lambda: keys[0]), local())
    shop.misses(fails(401))
    assert shop.refused()
    keys.pop(0)
    hand = shop.gets(WELL)
    assert (hand.asked, hand.slept) == (["paid"], [])
    assert (b"authorization", b"Bearer sk-the-second-one") in hand.sends[0].headers
    assert not shop.refused()


def test_a_key_that_stays_the_same_is_left_off() -> None:
    shop = Shop(paid(api_key=lambda: "sk-the-only-one"), local())
    shop.gets(fails(401), WELL, retry=RetryPolicy(attempts=2))
    assert [shop.gets(WELL).asked for _ in range(3)] == [["home"]] * 3


def test_calls_that_were_on_the_way_with_the_old_key_do_not_turn_the_new_one_off() -> None:
    keys = ["sk-the-first-of-them", "sk-the-second-one"]
    shop = Shop(paid(api_key=lambda: keys[0]))

    def rotate(k: int, effect: Effect) -> None:
        if isinstance(effect, Send) and len(keys) == 2:
            shop.misses(fails(401))  # another call, with the same old key
            keys.pop(0)
            assert shop.gets(WELL).asked == ["paid"]  # a third one, with the new key

    Hand([fails(401)], before=rotate).fail(shop.call())
    assert not shop.refused(), "the new key has just been answered"
    assert shop.gets(WELL).asked == ["paid"]


def test_a_call_refused_with_an_old_key_says_nothing_of_the_one_in_use_since() -> None:
    keys = ["sk-the-first-of-them", "sk-the-second-one"]
    shop = Shop(paid(api_key=lambda: keys[0]), local())

    def rotate(k: int, effect: Effect) -> None:
        if isinstance(effect, Send) and len(keys) == 2:
            keys.pop(0)
            assert shop.gets(WELL).asked == ["paid"]

    Hand([fails(401)], before=rotate).fail(shop.call())
    assert shop.events == []
    assert shop.gets(WELL).asked == ["paid"]


def test_the_error_that_turns_others_away_keeps_no_ones_attempts_or_frames() -> None:
    shop = Shop()
    first = shop.misses(fails(401, "who are you"))
    probe = shop.health.admit(Deployment("paid/m", shop.backends[0], "m", Model()), early=True)
    raised = shop.turned_away()
    assert isinstance(raised, AuthenticationError)
    assert raised is not first
    assert raised.retry_after == pytest.approx(300)
    assert raised.__cause__ is None
    assert first.retry_after is None
    assert "who are you" not in str(raised)
    assert "(refused: AuthenticationError, HTTP 401" in str(raised)
    again = shop.turned_away()
    assert again is not raised
    assert again.__traceback__ is not raised.__traceback__
    del probe


# -- Everybody is off


def all_off(shop: Shop) -> Shop:
    """`a` open since now, `b` since 10 s later."""
    only = [{"aliases": {"any": [f"{name}/m"]}, "model": "any"} for name in "ab"]
    for planning in only:
        for _ in range(5):
            shop.misses(BUSY, **planning)
        shop.after(10)
    assert (shop.refused("a"), shop.refused("b")) == (True, True)
    return shop


def test_where_everybody_is_off_the_one_whose_time_ends_first_is_tried_early() -> None:
    for order in (("a", "b"), ("b", "a")):
        shop = all_off(Shop(*map(paid, order)))
        hand = shop.gets(WELL)
        assert (hand.asked, hand.slept) == (["a"], [])
        reasons = hand.completion.route.reasons
        assert "a/m tried early: nobody else is left" in reasons
        assert {"a/m passed over: 5 failures in a row", "b/m passed over: 5 failures in a row"} <= {*reasons}
        assert not shop.refused("a")


def test_without_the_lease_to_try_early_an_error_of_the_last_kind_says_so() -> None:
    shop = Shop()
    for _ in range(5):
        shop.misses(fails(503, "overloaded just now"))
    turned: list[Any] = []

    def meanwhile(k: int, effect: Effect) -> None:
        if isinstance(effect, Send):
            turned.extend(shop.turned_away() for _ in range(3))

    assert Hand([WELL], before=meanwhile).run(shop.call()).asked == ["paid"]
    assert [type(error) for error in turned] == [OverloadedError] * 3
    assert [error.retry_after for error in turned] == [pytest.approx(30)] * 3
    assert "overloaded just now" not in str(turned[0])
    assert "5 failures in a row; last: OverloadedError, HTTP 503" in str(turned[0])
    assert turned[0] is not turned[1]


def test_a_probe_that_takes_longer_than_the_open_time_still_gives_a_delay_above_zero() -> None:
    shop = Shop()
    for _ in range(5):
        shop.misses(BUSY)
    turned: list[Any] = []

    def meanwhile(k: int, effect: Effect) -> None:
        if isinstance(effect, Send):
            turned.append(shop.after(20).turned_away())

    Hand([WELL], before=meanwhile).run(shop.call())
    assert turned[0].retry_after >= 1


@pytest.mark.parametrize("said", [fails(401), fails(402), fails(403), fails(404)])
def test_a_switched_off_key_or_model_is_tried_early_too_where_nobody_else_is_left(said: Said) -> None:
    shop = Shop()
    shop.misses(said)
    hand = shop.after(1).gets(WELL)
    assert (hand.asked, hand.slept) == (["paid"], [])
    assert not shop.refused()


def test_a_cooling_deployment_is_waited_for_rather_than_an_open_one_tried_early() -> None:
    shop = Shop(paid("a"), paid("b"))
    for _ in range(5):
        shop.misses(BUSY, aliases={"any": ["a/m"]}, model="any")
    shop.misses(fails(429, retry_after="5"), aliases={"any": ["b/m"]}, model="any")
    hand = shop.gets(WELL)
    assert (hand.asked, hand.slept) == (["b"], [5])


def test_one_that_asked_to_be_left_alone_for_long_keeps_nobody_from_trying_another_early() -> None:
    shop = Shop(paid("a"), paid("b"))
    on_the_way = [fails(503, retry_after="200")] * 5

    def meanwhile(k: int, effect: Effect) -> None:
        if isinstance(effect, Send) and on_the_way:
            Hand([on_the_way.pop()], before=meanwhile).fail(shop.call(**only))

    only: Any = {"aliases": {"any": ["a/m"]}, "model": "any"}
    Hand([fails(503, retry_after="200")], before=meanwhile).fail(shop.call(**only))
    shop.after(5)
    for _ in range(5):
        shop.misses(BUSY, aliases={"any": ["b/m"]}, model="any")
    assert (shop.refused("a"), shop.refused("b")) == (True, True)
    assert shop.gets(WELL).asked == ["b"], "its time ends first"


# -- Fallback models of an open first choice


@pytest.mark.parametrize(
    ("said", "times", "trigger"),
    [
        (BUSY, 5, "availability"),
        (fails(401), 1, "availability"),
        (fails(402), 1, "availability"),
        (fails(404), 1, "availability"),
        (fails(429, retry_after="60"), 1, "rate_limit"),
    ],
    ids=["breaker", "key", "quota", "model", "cooling"],
)
@pytest.mark.parametrize("allowed", ["availability", "rate_limit", "token_limit", "budget"])
def test_a_fallback_model_serves_for_a_first_choice_that_is_off_only_if_the_triggers_allow(
    said: Said, times: int, trigger: str, allowed: str
) -> None:
    agents = {"py": Agent("paid/m", fallback=["home/m"], triggers=[allowed])}  # type: ignore[list-item]
    shop = Shop(paid(), local(), aliases={})
    for _ in range(times):
        shop.misses(said, model="paid/m")
    hand = shop.gets(WELL, agents=agents, agent="py")
    if allowed == trigger:
        assert (hand.asked, hand.completion.route.fallback) == (["home"], True)
    else:
        assert (hand.asked, hand.completion.route.fallback) == (["paid"], False)
        assert hand.slept == ([60] if trigger == "rate_limit" else [])


def test_no_fallback_means_none_also_where_the_first_choice_is_off() -> None:
    agents = {"py": Agent("paid/m", fallback=["home/m"])}
    shop = Shop(paid(), local(), aliases={})
    shop.misses(fails(401), model="paid/m")
    assert shop.gets(WELL, agents=agents, agent="py", fallback=False).asked == ["paid"]
    assert shop.events[-1] != BreakerClosed("paid/m")


def test_a_well_fallback_comes_before_an_early_probe() -> None:
    agents = {"py": Agent("paid/m", fallback=["home/m"])}
    shop = Shop(paid(), local(), aliases={})
    shop.misses(fails(401), model="paid/m")
    assert shop.gets(WELL, agents=agents, agent="py").asked == ["home"]


# -- The retry budget across calls


def test_a_storm_of_a_hundred_callers_makes_at_most_ten_extra_attempts_at_a_sick_backend() -> None:
    shop = Shop(on=False)
    hands = []
    for _ in range(100):
        hand = Hand([BUSY])
        hand.fail(shop.call(retry=RetryPolicy(attempts=3, per_deployment=3, base=0, max=0)))
        hands.append(hand)
    extra = sum(len(hand.sends) - 1 for hand in hands)
    assert 10 <= extra <= 10 + 0.1 * 100
    assert [len(hand.sends) for hand in hands[:5]] == [3, 3, 3, 3, 3]
    assert all(len(hand.sends) <= 2 for hand in hands[6:])


def test_an_ambiguous_failure_costs_two_tokens() -> None:
    shop = Shop(on=False)
    hands = []
    for _ in range(8):
        hand = Hand([BROKE])
        hand.fail(shop.call(retry=RetryPolicy(base=0, max=0)))
        hands.append(len(hand.sends))
    assert hands == [2, 2, 2, 2, 2, 1, 1, 1]


def test_time_fills_the_budget_again() -> None:
    shop = Shop(on=False)
    for _ in range(9):
        shop.misses(BUSY, retry=RetryPolicy(attempts=3, per_deployment=3, base=0, max=0))
    shop.after(65)
    hand = Hand([BUSY])
    hand.fail(shop.call(retry=RetryPolicy(attempts=3, per_deployment=3, base=0, max=0)))
    assert len(hand.sends) == 3


def test_an_empty_budget_does_not_keep_anybody_from_falling_back() -> None:
    shop = Shop(paid(), local(), on=False)
    for _ in range(30):
        shop.misses(BUSY, aliases={"any": ["paid/m"]}, model="any", retry=RetryPolicy(base=0, max=0))
    for _ in range(30):
        assert shop.gets(BUSY, WELL, retry=RetryPolicy(base=0, max=0)).asked == ["paid", "home"]


def test_another_deployment_of_the_same_backend_is_paid_for_too() -> None:
    shop = Shop(on=False, aliases={"any": ["paid/1", "paid/2"]}, model="any")
    sent = []
    for _ in range(14):
        hand = Hand([BUSY])
        hand.fail(shop.call(retry=RetryPolicy(attempts=2, per_deployment=1)))
        sent.append(len(hand.sends))
    assert sent[:10] == [2] * 10
    assert 1 in sent[10:]


# -- A busy host


def test_a_full_queue_is_a_failure_that_cost_nothing_and_says_nothing_of_the_deployment() -> None:
    shop = Shop(paid(), local())
    for _ in range(9):
        hand = shop.gets(WELL, refuses=[FULL])
        assert hand.asked == ["home"]
        missed, _ = hand.completion.route.attempts
        assert (missed.deployment, missed.failure, missed.error) == (
            "paid/m",
            "not_sent",
            "QueueTimeoutError",
        )
        assert (missed.cost, missed.status) == (0, None)
    assert shop.events == []
    assert not shop.refused()


@pytest.mark.parametrize("allowed", ["availability", "rate_limit"])
def test_a_full_queue_is_a_matter_of_availability(allowed: str) -> None:
    agents = {"py": Agent("paid/m", fallback=["home/m"], triggers=[allowed])}  # type: ignore[list-item]
    shop = Shop(paid(), local(), aliases={}, agents=agents, agent="py")
    if allowed == "availability":
        assert shop.gets(WELL, refuses=[FULL]).asked == ["home"]
    else:
        raised = shop.misses(WELL, refuses=[FULL])
        assert isinstance(raised, QueueTimeoutError)
        assert str(raised) == "paid/m: its queue is full"


def test_a_probe_is_leased_only_once_its_place_is_there() -> None:
    shop = Shop()
    for _ in range(5):
        shop.misses(BUSY)
    shop.after(30)
    others: list[str] = []

    def meanwhile(k: int, effect: Effect) -> None:
        if isinstance(effect, Enter):
            others.extend(shop.gets(WELL).asked)

    assert Hand([WELL], before=meanwhile).run(shop.call()).asked == ["paid"]
    assert others == ["paid"], "who waits in a queue keeps nobody from probing"


def test_a_wait_in_the_queue_until_the_deadline_is_a_queue_timeout() -> None:
    def late(k: int, effect: Effect) -> None:
        if isinstance(effect, Enter):
            shop.clock.elapsed = effect.until - 1000.0

    for others in ((), (local(),)):
        shop = Shop(paid(), *others)
        hand = Hand([WELL], before=late, refuses=[Failure("queue", "busy until the deadline", sent=False)])
        raised = hand.fail(shop.call(timeout=10.0, retry=RetryPolicy()))
        assert isinstance(raised, QueueTimeoutError)
        assert (hand.sends, hand.slept, len(raised.attempts)) == ([], [], 1)


# -- What a call tells, in order


def test_a_call_that_goes_straight_tells_nothing() -> None:
    call = calling(paid())
    Hand([WELL]).run(call)
    assert call.events == []


def test_a_call_tells_of_its_override_its_failures_its_retry_and_its_fallback_in_order() -> None:
    agents = {"py": Agent("paid/m", fallback=["home/m"])}
    call = calling(
        paid(), local(), aliases={}, agents=agents, agent="py", model="wanted",
        retry=RetryPolicy(attempts=3, per_deployment=2),
    )  # fmt: skip
    Hand([BUSY, WELL]).run(call)
    who = (call.log.id, "py")
    reason = call.log.attempts[0].reason
    assert call.events == [
        Overridden(*who, "wanted", "paid/m"),
        AttemptFailed(*who, "paid/m", "rejected", "OverloadedError", 503, reason),
        FellBack(*who, "paid/m", "home/m", fallback=True),
    ]
    assert "no" in reason


def test_a_retry_is_told_with_its_wait_and_another_deployment_as_no_fallback_model() -> None:
    call = calling(paid(), retry=RetryPolicy(attempts=2, base=1.0))
    Hand([BUSY, WELL]).run(call)
    assert [type(event) for event in call.events] == [AttemptFailed, Retried]
    assert call.events[1] == Retried(call.log.id, None, "paid/m", 0.5)
    call = calling(paid(), local())
    Hand([REFUSED, WELL]).run(call)
    assert call.events[1] == FellBack(call.log.id, None, "paid/m", "home/m", fallback=False)
    failed = call.events[0]
    assert isinstance(failed, AttemptFailed)
    assert (failed.failure, failed.error, failed.status) == ("not_sent", "ConnectionFailedError", None)


def test_a_stream_that_breaks_is_told_once_and_as_such() -> None:
    call = calling(paid(), local(), stream=True)
    Hand([Said(pieces=[*chat_sse(["so"], finish=None, done=False), BROKEN])]).fail(call)
    (event,) = call.events
    assert isinstance(event, Interrupted)
    assert (event.call, event.deployment) == (call.log.id, "paid/m")
    assert "connection broke" in event.reason


def test_a_wait_in_the_queue_is_told_where_it_happens() -> None:
    def wait(k: int, effect: Effect) -> None:
        if isinstance(effect, Enter):
            effect.queued(k + 2)

    call = calling(paid(), local())
    Hand([BUSY, WELL], before=wait).run(call)
    assert [type(event) for event in call.events] == [Queued, AttemptFailed, FellBack, Queued]
    first, last = call.events[0], call.events[3]
    assert isinstance(first, Queued)
    assert isinstance(last, Queued)
    assert (first.deployment, first.ahead, last.deployment) == ("paid/m", 2, "home/m")


def test_a_first_choice_that_is_off_is_told_as_a_fallback_to_another() -> None:
    shop = Shop(paid(), local())
    shop.gets(fails(401), WELL, retry=RetryPolicy(attempts=2))
    call = shop.call()
    Hand([WELL]).run(call)
    assert call.events == [FellBack(call.log.id, None, "paid/m", "home/m", fallback=False)]


def test_no_event_shows_the_prompt_or_the_key() -> None:
    prompt, key = "the plan that nobody may ever see", "sk-canary-0123456789"
    heard: list[Event] = []
    for said in (BUSY, fails(401, f"{key} may not ask {prompt}"), fails(429, prompt, retry_after="9"), BROKE):
        shop = Shop(paid(api_key=key), local())
        call = shop.call(prompt=prompt, retry=RetryPolicy(attempts=2))
        Hand([said, WELL]).run(call)
        heard += [*call.events, *shop.events]
    shown = "".join(f"{event} {event!r}" for event in heard)
    assert len(heard) >= 8
    assert prompt not in shown
    assert "canary" not in shown


# -- A user's own classes


def test_an_error_of_a_users_own_making_is_remembered_too() -> None:
    class Strange(ServerError):
        def __init__(self, code: int, where: str) -> None:
            super().__init__(f"strange {code} at {where}", status=code)

    class Own(PlainBackend):
        def classify(self, status: int, headers: Any, body: bytes) -> Any:
            return Strange(status, "home")

    shop = Shop(Own("paid"))
    for _ in range(5):
        assert isinstance(shop.misses(Said(500, [b"x"])), Strange)
    probe = shop.health.admit(Deployment("paid/m", shop.backends[0], "m", Model()), early=True)
    turned = shop.turned_away()
    assert isinstance(turned, Strange)
    assert "last: Strange, HTTP 500" in str(turned)
    del probe


def test_no_failure_of_whatever_kind_leaves_a_lease_behind() -> None:
    faults = [*COUNTED.values(), *NOT_COUNTED.values(), fails(401), fails(403), fails(404), fails(402)]
    for said, retry_after in itertools.product(faults, [None, "5"]):
        if retry_after is not None:
            if not isinstance(said, Said) or said.status == 200:
                continue
            said = replace(said, headers={"retry-after": retry_after})
        shop = Shop()
        for _ in range(5):
            shop.misses(BUSY)
        shop.after(1000)
        shop.misses(said)
        assert shop.after(100_000).gets(WELL).asked == ["paid"]
        assert not shop.refused()


# -- A user's own errors


class Odd(RateLimitError):
    """A class with a constructor of its own."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text, retry_after=8)
        self.code = code


class Bare(ServerError):
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


def test_an_error_with_a_constructor_of_its_own_keeps_its_kind_and_its_wait() -> None:
    shop = Shop(Own(lambda: Odd(7, "slow down")))
    shop.misses(Said(429), timeout=5.0)
    again = shop.turned_away(timeout=5.0)
    assert isinstance(again, Odd)
    assert (again.code, again.retry_after) == (7, 8.0)


def test_an_error_that_was_never_constructed_moves_the_call_on() -> None:
    shop = Shop(Own(Bare), local())
    hand = Hand([Said(500), WELL]).run(shop.call(retry=RetryPolicy()))
    assert hand.asked == ["own", "home"]


def test_a_wait_in_words_is_none() -> None:
    shop = Shop(Own(lambda: RateLimitError("slow down", retry_after="20")))  # type: ignore[arg-type]
    assert shop.misses(Said(429)).retry_after is None
    assert not shop.refused("own")


def test_a_key_that_is_rolled_back_is_asked_again_and_a_round_of_dead_ones_is_not() -> None:
    keys = ["sk-the-good-one-of-them"]
    shop = Shop(paid(api_key=lambda: keys[0]), local())
    keys[0] = "sk-a-dead-one-number-0"
    assert Hand([fails(401), WELL]).run(shop.call(retry=RetryPolicy())).asked == ["paid", "home"]
    keys[0] = "sk-the-good-one-of-them"
    assert shop.gets(WELL).asked == ["paid"]
    for i in range(12):
        keys[0] = f"sk-a-dead-one-number-{i}"
        Hand([fails(401), WELL]).run(shop.call(retry=RetryPolicy()))
    for i in range(12):
        keys[0] = f"sk-a-dead-one-number-{i}"
        assert shop.gets(WELL).asked == ["home"], "it was refused before"


def test_a_call_that_is_turned_away_is_told_of() -> None:
    shop = Shop()
    shop.misses(fails(429, retry_after="30"), timeout=5.0)
    call = shop.call(timeout=5.0)
    Hand([WELL]).fail(call)
    assert call.events == [TurnedAway(call.log.id, None, "paid/m", 30.0)]


def test_an_answer_that_came_whole_is_one_however_slowly_it_is_read() -> None:
    shop = Shop()
    call = shop.call(stream=True, timeout=1.0)
    whole = b"".join(chat_sse(["a", "b"]))

    def slowly(k: int, effect: Effect) -> None:
        if isinstance(effect, Emit) and not effect.chunks[-1].finish_reason:
            shop.clock.elapsed += 5  # the caller works on what it has

    hand = Hand([Said(pieces=[whole])], before=slowly).run(call)
    assert hand.text == "ab"
    assert not hand.completion.usage.estimated


# -- A server that is loading

LOADING = fails(503, "Loading model")


def test_a_server_that_is_loading_uses_up_no_attempt_and_does_not_count() -> None:
    shop = Shop()
    hand = shop.gets(*[LOADING] * 9, WELL, retry=ONCE)
    assert len(hand.sends) == 10
    assert shop.events == []
    assert hand.slept[:4] == [pytest.approx(0.75 * wait) for wait in (0.25, 0.5, 1.0, 2.0)]
    assert max(hand.slept) <= 2.0
    assert {row.failure for row in hand.rows[:-1]} == {"rejected"}


def test_a_server_that_says_how_long_it_loads_is_waited_for_so_long() -> None:
    hand = Shop().gets(fails(503, "Loading model", retry_after="7"), WELL)
    assert hand.slept == [7]


def test_others_are_asked_before_a_server_that_is_loading_is_waited_for() -> None:
    shop = Shop(paid("a"), paid("b"), paid("c"))
    hand = shop.gets(LOADING, LOADING, BROKE, LOADING, WELL, retry=RetryPolicy(attempts=3, per_deployment=1))
    assert hand.asked == ["a", "b", "c", "a", "b"]


def test_a_server_that_asks_not_to_be_tried_again_is_not_waited_for_though_it_loads() -> None:
    raised = Shop().misses(fails(503, "Loading model", x_should_retry="false"))
    assert isinstance(raised, OverloadedError)
    assert len(raised.attempts) == 1


def test_a_server_that_loads_is_there_so_its_breaker_closes() -> None:
    shop = Shop()
    for _ in range(5):
        shop.misses(REFUSED, retry=RetryPolicy(per_deployment=1))
    assert shop.gets(LOADING, WELL).text == ""
    assert [type(event) for event in shop.events] == [BreakerOpened, BreakerClosed]


def test_a_refused_connection_that_took_long_is_not_tried_again_soon() -> None:
    shop = Shop()

    def slowly(k: int, effect: Effect) -> None:
        if isinstance(effect, Send):
            shop.clock.elapsed += 5

    for _ in range(5):
        Hand([REFUSED], before=slowly).fail(shop.call(retry=RetryPolicy(per_deployment=1)))
    assert [event.seconds for event in shop.told(BreakerOpened)] == [30.0]


def test_a_refused_connection_is_tried_again_soon() -> None:
    shop = Shop()
    for _ in range(5):
        shop.misses(REFUSED, retry=RetryPolicy(per_deployment=1))
    assert [event.seconds for event in shop.told(BreakerOpened)] == [1.0]


# -- A try of its own length


@pytest.mark.parametrize("stream", [False, True])
def test_a_try_ends_after_attempt_and_the_next_candidate_has_the_rest(stream: bool) -> None:
    shop = Shop(paid(), local(), stream=stream, limits=Timeout(total=60, attempt=10))
    answer = streams("well") if stream else WELL
    hand = shop.gets(Said(after=99.0), answer, retry=RetryPolicy())
    assert hand.asked == ["paid", "home"]
    (first, _) = hand.completion.route.attempts
    assert (first.error, first.duration) == ("BackendTimeoutError", 10)


def test_the_shorter_of_the_calls_and_the_backends_own_attempt_holds() -> None:
    shop = Shop(paid(timeout=Timeout(attempt=3)), limits=Timeout(total=60, attempt=10))
    assert shop.misses(Said(after=99.0), retry=ONCE).attempts[0].duration == 3


def test_a_limit_of_the_calls_own_that_is_shorter_than_usual_says_nothing_about_the_server() -> None:
    shop = Shop(limits=Timeout(attempt=10))
    for _ in range(9):
        shop.misses(Said(after=99.0), retry=ONCE, timeout=Timeout(attempt=0.5))
    assert shop.events == []
    for _ in range(5):
        shop.misses(Said(after=99.0), retry=ONCE)
    assert [type(event) for event in shop.events] == [BreakerOpened]


def test_a_wait_that_is_told_with_a_servers_failure_is_this_calls_alone() -> None:
    shop = Shop()
    shop.misses(fails(500, retry_after="60"), retry=ONCE)
    assert shop.gets(WELL).asked == ["paid"]


def test_a_server_that_loads_is_not_asked_faster_than_a_few_times_a_second() -> None:
    loading = fails(503, "Loading model", retry_after="0")
    hand = Shop().gets(*[loading] * 4, WELL)
    assert len(hand.slept) == 4
    assert min(hand.slept) >= 0.125


# -- In a log


def test_each_event_names_its_backend_and_what_happened_in_plain_words() -> None:
    call = calling(paid(), local(), retry=RetryPolicy(attempts=2))
    Hand([BUSY, WELL]).run(call)
    failed, instead = map(str, call.events)
    assert failed.startswith("paid/m: turned the call away (OverloadedError, HTTP 503): ")
    assert instead == "home/m: tried instead of paid/m, as the next deployment"


def test_a_failure_without_a_backends_error_turns_away_in_the_same_words() -> None:
    shop = Shop()
    deployment = Deployment("paid/m", shop.backends[0], "m", Model())
    for _ in range(5):
        shop.health.settle(shop.health.admit(deployment), Note(counts=True))  # type: ignore[arg-type]
    probe = shop.health.admit(deployment, early=True)
    raised = shop.turned_away()
    assert type(raised) is CcrouteError
    assert str(raised).startswith("not asked: it failed in other calls")
    del probe
