"""A deployment or an agent that is at its limit: where its calls go, how long they wait, what comes back."""

from __future__ import annotations

from typing import Any

import pytest
from tests.flow.support import (
    REFUSED,
    Call,
    HandDriver,
    Queue,
    ScriptedReply,
    Shared,
    answers,
    fails,
    streams,
)

from ccroute import Agent, Model, OpenAIBackend, RetryPolicy, Timeout
from ccroute.errors import RateLimitError
from ccroute.flow.effects import Effect, Sleep
from ccroute.observe import RateLimited, TurnedAway
from ccroute.routing.rate_limits import Limit, RateLimits, Turn
from ccroute.types import Request
from ccroute.types.inspection.stats import LimitStats

ANSWER = answers("well")
TEN = 10
"""Tokens of each prompt here."""


def ten(request: Request) -> int:
    return TEN


def limited(name: str = "main", rpm: int | None = None, tpm: int | None = None) -> OpenAIBackend:
    return OpenAIBackend(name, base_url=f"https://{name}.test", models={"m": Model(rpm=rpm, tpm=tpm)})


def shared(*backends: OpenAIBackend, **planning: Any) -> Shared:
    return Shared(*backends, count_tokens=ten, **planning)


def stats(shared: Shared, name: str = "main") -> LimitStats:
    return shared.rate_limits.stats()["deployment", shared.deployment(name).identity]


def usage(prompt: int, completion: int) -> Any:
    return answers("well", usage={"prompt_tokens": prompt, "completion_tokens": completion})


# -- Where a call goes


def test_a_call_goes_to_another_deployment_that_has_room() -> None:
    both = shared(limited(rpm=1), limited("other", rpm=1))
    assert both.gets(ANSWER).asked == ["main"]
    driver = both.gets(ANSWER)
    assert (driver.asked, driver.slept) == (["other"], [])
    assert "main/m passed over: its limit rpm=1 is reached" in driver.completion.route.reasons


def test_a_fallback_serves_only_if_rate_limit_is_a_trigger() -> None:
    backends = limited(rpm=1), limited("spare")
    for triggers, asked, slept in (
        (["rate_limit"], ["spare"], []),
        (["availability", "budget"], ["main"], [60.0]),
    ):
        agent = Agent("main/m", fallback=["spare/m"], triggers=triggers)  # type: ignore[arg-type]
        calls = shared(*backends, agents={"a": agent}, agent="a")
        calls.gets(ANSWER)
        driver = calls.gets(ANSWER)
        assert (driver.asked, driver.slept) == (asked, slept)


def test_the_last_candidate_is_waited_for() -> None:
    calls = shared(limited(rpm=1))
    calls.gets(ANSWER)
    calls.after(20)
    call = calls.call()
    driver = HandDriver([ANSWER]).run(call)
    assert driver.slept == [40]
    assert "main/m waited 40.0 s: its limit rpm=1 is reached" in (reasons := driver.completion.route.reasons)
    assert not any("passed over" in reason for reason in reasons)
    [event] = call.events
    assert event == RateLimited(call.context.id, None, "main/m", "rpm=1", 40.0)
    assert str(event) == "main/m: waits 40.0 s, its limit rpm=1 is reached"
    [attempt] = driver.completion.route.attempts
    assert attempt.duration == 0, "the wait is no part of the attempt"


def test_the_one_with_room_first_is_waited_for() -> None:
    both = shared(limited(rpm=1), limited("other", rpm=1))
    both.gets(ANSWER)
    both.after(20).gets(ANSWER)
    driver = both.after(20).gets(ANSWER)
    assert (driver.asked, driver.slept) == (["main"], [20])


def test_a_wait_beyond_the_deadline_is_an_error_at_once() -> None:
    calls = shared(limited(rpm=1, tpm=1000))
    calls.gets(ANSWER)
    call = calls.after(20).call(limits=Timeout(30))
    driver = HandDriver([ANSWER])
    error = driver.fail(call)
    assert driver.effects == []
    assert type(error) is RateLimitError
    assert (error.backend, error.deployment, error.status, error.sent) == ("main", "main/m", None, False)
    assert (error.retry_after, error.attempts) == (40, ())
    assert str(error) == (
        "main/m: not sent: its limit rpm=1 is reached, and the call's turn comes in 40 s, "
        "after its timeout: raise timeout= or the limit, or give the model another deployment or a fallback"
    )
    [event] = call.events
    assert isinstance(event, TurnedAway)
    assert str(event) == ("main/m: not asked, gets no calls for 40 s more: its limit rpm=1 is reached")
    assert stats(calls).waiting == 0
    assert calls.gets(ANSWER).slept == [40]


def test_the_error_of_the_last_attempt_wins_over_a_limit() -> None:
    calls = shared(limited(rpm=1), retry=RetryPolicy(base=0, max=0))
    error = calls.misses(fails(503), limits=Timeout(30))
    assert error.status == 503
    assert len(error.attempts) == 1


def test_limits_hold_with_health_off_too() -> None:
    calls = Shared(limited(rpm=1), on=False)
    calls.gets(ANSWER)
    assert calls.gets(ANSWER).slept == [60]


def test_a_probe_that_is_early_waits_for_room() -> None:
    calls = shared(limited(rpm=5))
    for _ in range(5):
        calls.misses(ScriptedReply(502))
    assert calls.is_off("main")
    assert calls.gets(ANSWER).slept == [60]


def test_another_call_may_take_the_last_place_meanwhile() -> None:
    class Racing(RateLimits):
        def take(self, limit: Limit, tokens: int = 0) -> Turn | None:
            super().take(limit, tokens)  # another thread is quicker
            return super().take(limit, tokens)

    calls = shared(limited(rpm=1), limited("other"))
    calls.rate_limits = Racing(calls.clock.monotonic)
    assert calls.gets(ANSWER).asked == ["other"]


def test_a_step_whose_place_was_taken_gives_its_retry_tokens_back() -> None:
    class Racing(RateLimits):
        takes = 0

        def take(self, limit: Limit, tokens: int = 0) -> Turn | None:
            self.takes += 1
            if self.takes == 2:
                super().take(limit, tokens)  # another thread is quicker
            return super().take(limit, tokens)

    models = {name: Model(rpm=1) for name in "mn"}
    calls = shared(
        OpenAIBackend("main", base_url="https://main.test", models=models),
        aliases={"any": ["main/m", "main/n"]},
        model="any",
        retry=RetryPolicy(base=0, max=0, per_deployment=1),
    )
    calls.rate_limits = Racing(calls.clock.monotonic)
    assert calls.gets(fails(502), ANSWER).slept == [60]
    [(left, _)] = calls.retry_budget.left.values()
    assert left == 8, "only one attempt was paid for"


# -- What counts


def test_each_attempt_is_a_request() -> None:
    calls = shared(limited(rpm=3), retry=RetryPolicy(base=0, max=0))
    assert calls.gets(fails(503), ANSWER).asked == ["main", "main"]
    assert stats(calls).requests == 2


def test_a_retry_waits_for_room_after_its_backoff() -> None:
    calls = shared(limited(rpm=1), retry=RetryPolicy(base=4, max=4))
    driver = calls.gets(fails(503), ANSWER)
    assert driver.slept == [2, 58]


def test_a_prompt_and_its_max_tokens_are_reserved_and_settled() -> None:
    calls = shared(limited(tpm=100))
    reserved: list[LimitStats] = []

    def before(k: int, effect: Effect) -> None:
        reserved.append(stats(calls))

    HandDriver([usage(12, 5)], before).run(calls.call(max_tokens=50))
    assert reserved[0] == LimitStats(tpm=100, requests=1, tokens=60)
    assert stats(calls) == LimitStats(tpm=100, requests=1, tokens=17)
    calls.gets(usage(60, 63))
    assert stats(calls).tokens == 140
    assert calls.gets(ANSWER).slept == [60]


def test_a_stream_is_settled_with_its_usage() -> None:
    calls = shared(limited(tpm=1000))
    calls.gets(streams("one", "two", usage={"prompt_tokens": 20, "completion_tokens": 2}), stream=True)
    assert stats(calls).tokens == 22


def test_a_retry_counts_from_when_it_is_sent() -> None:
    calls = shared(limited(rpm=2), retry=RetryPolicy(base=4, max=4))
    assert calls.gets(fails(503), ANSWER).slept == [2]
    assert calls.gets(ANSWER).slept == [58]
    assert calls.gets(ANSWER).slept == [2]


def test_a_cooldown_and_a_limit_are_waited_for_together() -> None:
    calls = shared(limited(rpm=1))
    calls.misses(fails(429, retry_after="10"))
    driver = HandDriver([ANSWER])
    assert driver.fail(calls.call(limits=Timeout(30))).retry_after == 60
    assert driver.slept == []
    assert calls.gets(ANSWER).slept == [10, 50]


@pytest.mark.parametrize("window", [None, 8192])
def test_the_prompt_is_counted_once(window: int | None) -> None:
    counted: list[Request] = []

    def count(request: Request) -> int:
        counted.append(request)
        return TEN

    model = Model(tpm=15, context_window=window)
    backends = [
        OpenAIBackend(name, base_url=f"https://{name}.test", models={"m": model})
        for name in ("main", "other")
    ]
    calls = shared(*backends, retry=RetryPolicy(base=0, max=0))
    calls.gets(fails(503), fails(503), usage(1, 1), count_tokens=count)
    assert len(counted) == 1


@pytest.mark.parametrize(
    ("world", "requests", "tokens"),
    [
        (fails(429), 1, 0),
        (fails(400), 1, 0),
        (fails(502), 1, TEN),  # it may have worked on the prompt
        (REFUSED, 0, 0),
    ],
)
def test_what_was_rejected_or_not_sent_gives_back_its_tokens(world: Any, requests: int, tokens: int) -> None:
    calls = shared(limited(rpm=9, tpm=1000))
    calls.misses(world, max_tokens=50)
    assert stats(calls) == LimitStats(rpm=9, requests=requests, tpm=1000, tokens=tokens)


def test_a_request_that_cannot_be_carried_gives_back_everything() -> None:
    calls = shared(limited(rpm=1))
    calls.misses(ANSWER, top_k=1, drop_params=False)
    assert stats(calls).requests == 0


def test_the_time_in_the_hosts_queue_does_not_count() -> None:
    calls = shared(limited(rpm=1))
    driver = calls.gets(ANSWER, hosts=[Queue(seconds=50.0)])
    assert driver.slept == []
    assert calls.gets(ANSWER).slept == [60], "it was sent when it had its slot"


def test_a_turn_that_a_slot_came_too_late_for_comes_again() -> None:
    calls = shared(limited(rpm=1))
    late = calls.call(limited=True)
    driver = HandDriver([ANSWER], hosts=[Queue(seconds=70.0)])
    assert driver.step(late) is not None  # it asks for a slot
    calls.after(65).gets(ANSWER)
    calls.after(-65)
    assert driver.run(late).slept == [55]


def test_a_turn_that_a_slot_came_too_late_for_may_be_beyond_the_deadline() -> None:
    calls = shared(limited(rpm=1))
    late = calls.call(limited=True, limits=Timeout(100))
    driver = HandDriver([ANSWER], hosts=[Queue(seconds=70.0)])
    assert driver.step(late) is not None  # it asks for a slot
    calls.after(65).gets(ANSWER)
    calls.after(-65)
    error = driver.fail(late)
    assert (type(error), error.retry_after, driver.slept) == (RateLimitError, 55, [])
    assert stats(calls).waiting == 0


def test_a_turn_that_is_put_off_beyond_the_deadline_ends_the_wait() -> None:
    calls = shared(limited(tpm=100))
    other = calls.call()
    busy = HandDriver([ScriptedReply(200, [30.0, *usage(10, 90).pieces])])
    assert busy.step(other) is not None
    waits = calls.call(max_tokens=85, limits=Timeout(70))
    driver = HandDriver([ANSWER])
    assert isinstance(driver.step(waits), Sleep)
    calls.clock.elapsed = 0
    busy.run(other)
    calls.clock.elapsed = 60
    error = driver.fail(waits)
    assert (type(error), error.retry_after) == (RateLimitError, 30)
    assert stats(calls).waiting == 0


# -- An agent's limit


def agents(rpm: int = 1, **planning: Any) -> Shared:
    """Calls of an agent that is a member of a group."""
    backends = limited("main"), limited("other")
    return shared(
        *backends,
        agents={"coder": Agent("any", group="all"), "tester": Agent("any", group="all")},
        groups={"all": Agent(rpm=rpm)},
        aliases={"any": ["main/m", "other/m"]},
        agent="coder",
        **planning,
    )


def used(calls: Shared, agent: str = "coder") -> LimitStats:
    return calls.rate_limits.stats()["agent", agent]


def test_an_agent_at_its_limit_waits_before_its_first_attempt() -> None:
    calls = agents()
    calls.gets(ANSWER)
    call = calls.after(15).call()
    driver = HandDriver([ANSWER]).run(call)
    assert driver.slept == [45]
    assert driver.completion.latency == 45
    assert call.events == [RateLimited(call.context.id, "coder", None, "rpm=1", 45.0)]
    assert str(call.events[0]) == "agent coder: waits 45.0 s, its limit rpm=1 is reached"
    assert "agent coder waited 45.0 s: its limit rpm=1 is reached" in (driver.completion.route.reasons)


def test_each_agent_of_a_group_has_its_own_limit() -> None:
    calls = agents()
    calls.gets(ANSWER)
    assert calls.gets(ANSWER, agent="tester").slept == []
    assert (used(calls).requests, used(calls, "tester").requests) == (1, 1)


def test_an_agents_retries_are_one_request() -> None:
    calls = agents(rpm=2, retry=RetryPolicy(base=0, max=0))
    calls.gets(fails(503), ANSWER)
    assert used(calls).requests == 1


def test_an_agent_whose_turn_comes_too_late_fails_at_once() -> None:
    calls = agents()
    calls.gets(ANSWER)
    driver = HandDriver([ANSWER])
    error = driver.fail(calls.call(limits=Timeout(30)))
    assert driver.effects == []
    assert (type(error), error.retry_after, error.sent) == (RateLimitError, 60, False)
    assert str(error) == (
        "not sent: agent coder is at its limit rpm=1, and the call's turn comes in 60 s, after its timeout: "
        "raise timeout= or the limit"
    )
    assert used(calls) == LimitStats(rpm=1, requests=1)


def test_an_agents_call_that_sent_nothing_is_no_request() -> None:
    calls = agents()
    calls.misses(REFUSED)
    assert used(calls).requests == 0
    calls.misses(fails(400))
    assert used(calls).requests == 1


@pytest.mark.parametrize("waits", ["agent", "deployment"])
def test_a_call_that_is_stopped_while_it_waits_gives_up_its_place(waits: str) -> None:
    agent = Agent("main/m", rpm=1 if waits == "agent" else None)
    backend = limited(rpm=1 if waits == "deployment" else None)
    calls = shared(backend, agents={"coder": agent}, agent="coder")
    calls.gets(ANSWER)
    stopped: Call = calls.call()
    assert isinstance(stopped.flow.send(None), Sleep)
    assert [each.waiting for each in calls.rate_limits.stats().values()] == [1]
    stopped.flow.close()
    assert [each.waiting for each in calls.rate_limits.stats().values()] == [0]
    assert calls.gets(ANSWER).slept == [60]
