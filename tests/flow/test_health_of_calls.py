"""What one call learns of its backends, the next ones know: which get no calls, for how long, and why."""

from __future__ import annotations

import gc
import itertools
from dataclasses import replace
from typing import Any

import pytest
from tests.flow.support import (
    BROKEN,
    ONCE,
    REFUSED,
    HandDriver,
    Queue,
    ScriptedReply,
    Shared,
    answers,
    fails,
    local,
    paid,
    streams,
)
from tests.support.openai_like import chat_sse, error, sse

from ccroute import Agent, Fallback, RetryPolicy, Timeout
from ccroute.errors import (
    BackendTimeoutError,
    DeadlineExceededError,
    OverloadedError,
    RateLimitError,
    StreamInterruptedError,
)
from ccroute.flow.effects import Effect, Emit, Send, Wait
from ccroute.http.message import Failure
from ccroute.observe import (
    BreakerClosed,
    BreakerOpened,
    CooledDown,
)

BUSY = fails(503)
BROKE = fails(502)
ANSWER = answers("well")


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
    "garbage": ScriptedReply(pieces=[b"<html>log in</html>"]),
    "empty": ScriptedReply(pieces=[]),
    "cut": ScriptedReply(pieces=[b'{"choices"', BROKEN]),
    "truncated gzip": ScriptedReply(pieces=[b"\x1f\x8b\x08"], headers={"content-encoding": "gzip"}),
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
def test_a_failure_of_the_server_counts_for_its_breaker(fault: str) -> None:
    shared = Shared()
    for _ in range(4):
        shared.misses(COUNTED[fault])
    assert shared.events == []
    shared.misses(COUNTED[fault])
    assert [type(event) for event in shared.events] == [BreakerOpened]


@pytest.mark.parametrize("fault", NOT_COUNTED)
def test_a_callers_mistake_or_a_rate_limit_does_not_count(fault: str) -> None:
    shared = Shared()
    for _ in range(9):
        shared.misses(NOT_COUNTED[fault])
    assert shared.events == []
    assert shared.gets(ANSWER).asked == ["paid"]


def test_no_kind_of_failure_leaves_a_probe_unsettled() -> None:
    faults = [*COUNTED.values(), *NOT_COUNTED.values(), fails(401), fails(403), fails(404), fails(402)]
    for reply, retry_after in itertools.product(faults, [None, "5"]):
        if retry_after is not None:
            if not isinstance(reply, ScriptedReply) or reply.status == 200:
                continue
            reply = replace(reply, headers={"retry-after": retry_after})
        shared = Shared()
        for _ in range(5):
            shared.misses(BUSY)
        shared.after(1000)
        shared.misses(reply)
        assert shared.after(100_000).gets(ANSWER).asked == ["paid"]
        assert not shared.is_off()


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
    shared = Shared(stream=True)
    for _ in range(5):
        shared.misses(ScriptedReply(pieces=pieces, ends=ends))
    assert bool(shared.emitted(BreakerOpened)) is counts


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("total", "counts"), [(119.0, False), (120.0, True), (300.0, True)])
def test_a_deadline_counts_only_after_a_silence_longer_than_idle(
    stream: bool, total: float, counts: bool
) -> None:
    shared = Shared(stream=stream, limits=Timeout(total=total, first=10_000))
    for _ in range(5):
        assert isinstance(shared.misses(ScriptedReply(after=99_999)), DeadlineExceededError)
    assert bool(shared.emitted(BreakerOpened)) is counts


def test_a_deadline_amid_a_lively_stream_does_not_count() -> None:
    pieces = [part for text in chat_sse(["so"] * 20) for part in (10.0, text)]
    shared = Shared(stream=True, timeout=150.0)
    for _ in range(5):
        raised = shared.misses(ScriptedReply(pieces=pieces))
        assert isinstance(raised, StreamInterruptedError)
        assert isinstance(raised.__cause__, DeadlineExceededError)
    assert shared.events == []


def test_a_silent_server_turns_calls_away_by_a_backend_timeout() -> None:
    shared = Shared(limits=Timeout(total=130))
    for _ in range(5):
        shared.misses(ScriptedReply(after=99_999))
    probe = shared.health.admit(shared.deployment(), early=True)
    raised = shared.turned_away()
    assert isinstance(raised, BackendTimeoutError)
    assert raised.retry_after == pytest.approx(30)
    del probe


@pytest.mark.parametrize("at", ["Enter", "Wait", "Send", "Read", "Emit"])
@pytest.mark.parametrize("stop", [KeyboardInterrupt, GeneratorExit])
def test_a_cancelled_call_does_not_count_and_its_probe_is_free(at: str, stop: type[BaseException]) -> None:
    def cancel(k: int, effect: Effect) -> None:
        if type(effect).__name__ == at:
            raise stop

    shared = Shared(stream=True)
    for _ in range(9):
        with pytest.raises(stop):
            HandDriver([streams()], before=cancel, hosts=[Queue()]).run(shared.call(limited=True))
    assert shared.events == []
    for _ in range(5):
        shared.misses(BUSY)
    shared.after(40)
    for _ in range(3):
        with pytest.raises(stop):
            HandDriver([streams()], before=cancel, hosts=[Queue()]).run(shared.call(limited=True))
    assert len(shared.events) == (2 if at == "Emit" else 1), "nothing doubled; content proves it well"
    assert shared.gets(streams()).text == "Hello there."
    assert [type(event) for event in shared.events] == [BreakerOpened, BreakerClosed]


def test_an_abandoned_stream_with_content_closes_the_breaker() -> None:
    shared = Shared(stream=True)
    for _ in range(5):
        shared.misses(BUSY)
    shared.after(40)
    call = shared.call()
    driver = HandDriver([streams()])
    while not isinstance(driver.step(call), Emit):
        pass
    assert not shared.is_off(), "its first content proves the server well, however slowly the rest is read"
    call.flow.close()
    del call, driver
    gc.collect()
    assert shared.gets(streams()).text == "Hello there."
    assert [type(event) for event in shared.events] == [BreakerOpened, BreakerClosed]


# -- A breaker across calls


def test_an_open_deployment_is_passed_over_until_its_time_is_over() -> None:
    shared = Shared(paid(), local())
    for _ in range(5):
        assert shared.gets(BUSY, ANSWER, retry=RetryPolicy(attempts=2)).asked == ["paid", "home"]
    driver = shared.gets(ANSWER)
    assert (driver.asked, driver.slept) == (["home"], [])
    assert "paid/m passed over: 5 failures in a row" in driver.completion.route.reasons
    assert len(driver.completion.route.attempts) == 1
    assert shared.after(29).gets(ANSWER).asked == ["home"]
    assert shared.after(1).gets(ANSWER).asked == ["paid"]
    assert [type(event) for event in shared.events] == [BreakerOpened, BreakerClosed]
    assert shared.gets(ANSWER).asked == ["paid"]


def test_a_probe_that_fails_goes_on_elsewhere_within_the_same_call() -> None:
    shared = Shared(paid(), local())
    for _ in range(5):
        shared.gets(BUSY, ANSWER, retry=RetryPolicy(attempts=2))
    driver = shared.after(30).gets(BUSY, ANSWER, retry=RetryPolicy(attempts=2))
    assert driver.asked == ["paid", "home"]
    assert [event.seconds for event in shared.emitted(BreakerOpened)] == [30, 60]


def test_while_one_call_probes_the_others_go_elsewhere() -> None:
    shared = Shared(paid(), local())
    for _ in range(5):
        shared.gets(BUSY, ANSWER, retry=RetryPolicy(attempts=2))
    shared.after(30)
    others: list[str] = []

    def meanwhile(k: int, effect: Effect) -> None:
        if isinstance(effect, Send):
            others.extend(shared.gets(ANSWER).asked)

    assert HandDriver([ANSWER], before=meanwhile).run(shared.call()).asked == ["paid"]
    assert others == ["home"]


def test_a_breaker_that_opened_during_the_queue_moves_the_call_on() -> None:
    shared = Shared(paid(), local())

    def meanwhile(k: int, effect: Effect) -> None:
        if isinstance(effect, Wait):
            for _ in range(5):
                shared.misses(BUSY)

    driver = HandDriver([ANSWER], before=meanwhile, hosts=[Queue()])
    assert driver.run(shared.call(limited=True)).asked == ["home"]
    assert driver.kinds == ["Enter", "Wait", "Leave", "Enter", "Send", "Read"]
    assert any("paid/m passed over" in reason for reason in driver.completion.route.reasons)


@pytest.mark.parametrize("reply", [BUSY, BROKE, fails(401), fails(404), fails(429, retry_after="60")])
def test_switched_off_health_asks_every_time(reply: ScriptedReply) -> None:
    shared = Shared(on=False)
    for _ in range(9):
        assert shared.misses(reply).attempts
    assert shared.events == []


# -- Retry-After


def test_a_retry_after_holds_for_later_calls_too() -> None:
    shared = Shared(paid(), local())
    driver = shared.gets(fails(429, retry_after="60"), ANSWER, retry=RetryPolicy(attempts=2))
    assert driver.asked == ["paid", "home"]
    driver = shared.after(59).gets(ANSWER)
    assert (driver.asked, driver.slept) == (["home"], [])
    assert "paid/m passed over: asked for a pause" in driver.completion.route.reasons
    assert shared.after(1).gets(ANSWER).asked == ["paid"]
    assert [type(event) for event in shared.events] == [CooledDown]


def test_the_last_candidates_retry_after_is_slept_through() -> None:
    shared = Shared()
    shared.misses(fails(429, retry_after="60"))
    driver = shared.after(20).gets(ANSWER)
    assert (driver.asked, driver.slept) == (["paid"], [pytest.approx(40)])


def test_of_several_cooling_deployments_the_first_ready_is_awaited() -> None:
    shared = Shared(paid("a"), paid("b"))
    shared.misses(fails(429, retry_after="60"), fails(429, retry_after="20"), retry=RetryPolicy(attempts=2))
    driver = shared.gets(ANSWER)
    assert (driver.asked, driver.slept) == (["b"], [20])


def test_a_wait_that_does_not_fit_raises_the_servers_kind_of_error() -> None:
    shared = Shared()
    first = shared.misses(fails(429, "too many tokens", retry_after="60"))
    raised = shared.after(20).turned_away(timeout=30.0)
    assert isinstance(raised, RateLimitError)
    assert raised is not first
    assert (raised.status, raised.retry_after, raised.deployment) == (429, pytest.approx(40), "paid/m")
    assert "too many tokens" not in str(raised), "that was said to another call"
    assert str(raised).startswith("paid/m: not asked: it failed in other calls and gets none for 40 s more")
    assert (first.retry_after, len(first.attempts)) == (60, 1), "the first call's error is its own"
    assert shared.clock.elapsed == 20, "and nobody slept"


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("value", ["-1", "nan", "inf", "1e35", "soon", "0"])
def test_a_nonsensical_retry_after_cools_nothing(status: int, value: str) -> None:
    shared = Shared()
    shared.misses(fails(status, retry_after=value))
    assert shared.events == []
    assert shared.gets(ANSWER).slept == []


def test_the_error_of_a_call_turned_away_says_that_nothing_was_sent() -> None:
    shared = Shared()
    assert shared.misses(fails(429, retry_after="60", x_request_id="theirs")).request_id == "theirs"
    raised = shared.turned_away(timeout=5.0)
    assert (raised.sent, raised.request_id) == (False, None)


def test_a_longer_wait_of_a_call_that_was_on_its_way_wins() -> None:
    shared = Shared()

    def meanwhile(k: int, effect: Effect) -> None:
        if isinstance(effect, Send):
            shared.misses(fails(429, retry_after="90"))

    HandDriver([fails(429, retry_after="10")], before=meanwhile).fail(shared.call())
    assert shared.turned_away(timeout=60.0).retry_after == pytest.approx(90)


# -- Everybody is off


def all_off(shared: Shared) -> Shared:
    """`a` open since now, `b` since 10 s later."""
    only = [{"aliases": {"any": [f"{name}/m"]}, "model": "any"} for name in "ab"]
    for planning in only:
        for _ in range(5):
            shared.misses(BUSY, **planning)
        shared.after(10)
    assert (shared.is_off("a"), shared.is_off("b")) == (True, True)
    return shared


def test_where_all_are_off_the_one_ready_first_is_tried_early() -> None:
    for order in (("a", "b"), ("b", "a")):
        shared = all_off(Shared(*map(paid, order)))
        driver = shared.gets(ANSWER)
        assert (driver.asked, driver.slept) == (["a"], [])
        reasons = driver.completion.route.reasons
        assert "a/m tried early: nobody else is left" in reasons
        assert {"a/m passed over: 5 failures in a row", "b/m passed over: 5 failures in a row"} <= {*reasons}
        assert not shared.is_off("a")


def test_a_call_beside_an_early_probe_raises_the_last_kind_of_error() -> None:
    shared = Shared()
    for _ in range(5):
        shared.misses(fails(503, "overloaded just now"))
    turned: list[Any] = []

    def meanwhile(k: int, effect: Effect) -> None:
        if isinstance(effect, Send):
            turned.extend(shared.turned_away() for _ in range(3))

    assert HandDriver([ANSWER], before=meanwhile).run(shared.call()).asked == ["paid"]
    assert [type(error) for error in turned] == [OverloadedError] * 3
    assert [error.retry_after for error in turned] == [pytest.approx(30)] * 3
    assert "overloaded just now" not in str(turned[0])
    assert "5 failures in a row; last: OverloadedError, HTTP 503" in str(turned[0])
    assert turned[0] is not turned[1]


def test_a_long_probe_still_gives_others_a_delay_above_zero() -> None:
    shared = Shared()
    for _ in range(5):
        shared.misses(BUSY)
    turned: list[Any] = []

    def meanwhile(k: int, effect: Effect) -> None:
        if isinstance(effect, Send):
            turned.append(shared.after(20).turned_away())

    HandDriver([ANSWER], before=meanwhile).run(shared.call())
    assert turned[0].retry_after >= 1


@pytest.mark.parametrize("reply", [fails(401), fails(402), fails(403), fails(404)])
def test_a_refused_key_or_model_is_tried_early_where_all_are_off(reply: ScriptedReply) -> None:
    shared = Shared()
    shared.misses(reply)
    driver = shared.after(1).gets(ANSWER)
    assert (driver.asked, driver.slept) == (["paid"], [])
    assert not shared.is_off()


def test_a_cooling_deployment_comes_before_an_early_probe() -> None:
    shared = Shared(paid("a"), paid("b"))
    for _ in range(5):
        shared.misses(BUSY, aliases={"any": ["a/m"]}, model="any")
    shared.misses(fails(429, retry_after="5"), aliases={"any": ["b/m"]}, model="any")
    driver = shared.gets(ANSWER)
    assert (driver.asked, driver.slept) == (["b"], [5])


def test_a_long_retry_after_prevents_no_early_probe_elsewhere() -> None:
    shared = Shared(paid("a"), paid("b"))
    on_the_way = [fails(503, retry_after="200")] * 5

    def meanwhile(k: int, effect: Effect) -> None:
        if isinstance(effect, Send) and on_the_way:
            HandDriver([on_the_way.pop()], before=meanwhile).fail(shared.call(**only))

    only: Any = {"aliases": {"any": ["a/m"]}, "model": "any"}
    HandDriver([fails(503, retry_after="200")], before=meanwhile).fail(shared.call(**only))
    shared.after(5)
    for _ in range(5):
        shared.misses(BUSY, aliases={"any": ["b/m"]}, model="any")
    assert (shared.is_off("a"), shared.is_off("b")) == (True, True)
    assert shared.gets(ANSWER).asked == ["b"], "its time ends first"


# -- Fallback models of an open first choice


@pytest.mark.parametrize(
    ("reply", "times", "trigger"),
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
def test_a_fallback_serves_for_one_that_is_off_only_by_its_triggers(
    reply: ScriptedReply, times: int, trigger: str, allowed: str
) -> None:
    agents = {"py": Agent("paid/m", fallback=["home/m"], triggers=[allowed])}  # type: ignore[list-item]
    shared = Shared(paid(), local(), aliases={})
    for _ in range(times):
        shared.misses(reply, model="paid/m")
    driver = shared.gets(ANSWER, agents=agents, agent="py")
    if allowed == trigger:
        assert (driver.asked, driver.completion.route.fallback) == (["home"], True)
    else:
        assert (driver.asked, driver.completion.route.fallback) == (["paid"], False)
        assert driver.slept == ([60] if trigger == "rate_limit" else [])


def test_a_fallback_serves_for_one_that_is_off_only_by_its_own_triggers() -> None:
    for own, asked in ((["token_limit"], "paid"), (["availability"], "home")):
        shared = Shared(paid(), local(), aliases={})
        shared.misses(fails(401), model="paid/m")
        agents = {"py": Agent("paid/m", fallback=[Fallback("home/m", own)])}  # type: ignore[arg-type]
        assert shared.gets(ANSWER, agents=agents, agent="py").asked == [asked]


def test_no_fallback_means_none_also_where_the_first_choice_is_off() -> None:
    agents = {"py": Agent("paid/m", fallback=["home/m"])}
    shared = Shared(paid(), local(), aliases={})
    shared.misses(fails(401), model="paid/m")
    assert shared.gets(ANSWER, agents=agents, agent="py", fallback=False).asked == ["paid"]
    assert shared.events[-1] != BreakerClosed("paid/m")


def test_a_well_fallback_comes_before_an_early_probe() -> None:
    agents = {"py": Agent("paid/m", fallback=["home/m"])}
    shared = Shared(paid(), local(), aliases={})
    shared.misses(fails(401), model="paid/m")
    assert shared.gets(ANSWER, agents=agents, agent="py").asked == ["home"]


# -- A server that is loading

LOADING = fails(503, "Loading model")


def test_a_server_that_loads_uses_up_no_attempt_and_does_not_count() -> None:
    shared = Shared()
    driver = shared.gets(*[LOADING] * 9, ANSWER, retry=ONCE)
    assert len(driver.sends) == 10
    assert shared.events == []
    assert driver.slept[:4] == [pytest.approx(0.75 * wait) for wait in (0.25, 0.5, 1.0, 2.0)]
    assert max(driver.slept) <= 2.0
    assert {row.failure for row in driver.rows[:-1]} == {"rejected"}


def test_a_server_that_says_how_long_it_loads_is_awaited() -> None:
    driver = Shared().gets(fails(503, "Loading model", retry_after="7"), ANSWER)
    assert driver.slept == [7]


def test_others_are_asked_before_a_server_that_loads_is_polled() -> None:
    shared = Shared(paid("a"), paid("b"), paid("c"))
    driver = shared.gets(
        LOADING, LOADING, BROKE, LOADING, ANSWER, retry=RetryPolicy(attempts=3, per_deployment=1)
    )
    assert driver.asked == ["a", "b", "c", "a", "b"]


def test_a_server_that_loads_and_forbids_a_retry_is_not_polled() -> None:
    raised = Shared().misses(fails(503, "Loading model", x_should_retry="false"))
    assert isinstance(raised, OverloadedError)
    assert len(raised.attempts) == 1


def test_a_server_that_loads_is_there_so_its_breaker_closes() -> None:
    shared = Shared()
    for _ in range(5):
        shared.misses(REFUSED, retry=RetryPolicy(per_deployment=1))
    assert shared.gets(LOADING, ANSWER).text == ""
    assert [type(event) for event in shared.events] == [BreakerOpened, BreakerClosed]


def test_a_refused_connection_that_took_long_is_not_tried_again_soon() -> None:
    shared = Shared()

    def slowly(k: int, effect: Effect) -> None:
        if isinstance(effect, Send):
            shared.clock.elapsed += 5

    for _ in range(5):
        HandDriver([REFUSED], before=slowly).fail(shared.call(retry=RetryPolicy(per_deployment=1)))
    assert [event.seconds for event in shared.emitted(BreakerOpened)] == [30.0]


def test_a_refused_connection_is_tried_again_soon() -> None:
    shared = Shared()
    for _ in range(5):
        shared.misses(REFUSED, retry=RetryPolicy(per_deployment=1))
    assert [event.seconds for event in shared.emitted(BreakerOpened)] == [1.0]


def test_the_retry_after_of_a_500_holds_for_this_call_alone() -> None:
    shared = Shared()
    shared.misses(fails(500, retry_after="60"), retry=ONCE)
    assert shared.gets(ANSWER).asked == ["paid"]


def test_a_server_that_loads_is_polled_a_few_times_a_second_at_most() -> None:
    loading = fails(503, "Loading model", retry_after="0")
    driver = Shared().gets(*[loading] * 4, ANSWER)
    assert len(driver.slept) == 4
    assert min(driver.slept) >= 0.125
