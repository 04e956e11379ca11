"""What a call tells its listeners, in which order, and in which words."""

from __future__ import annotations

from tests.flow.support import (
    BROKEN,
    REFUSED,
    HandDriver,
    Queue,
    ScriptedReply,
    Shared,
    answers,
    calling,
    fails,
    local,
    paid,
)
from tests.support.openai_like import chat_sse

from ccroute import Agent, RetryPolicy
from ccroute.errors import CcrouteError
from ccroute.observe import (
    AttemptFailed,
    Event,
    FellBack,
    Interrupted,
    Loading,
    Overridden,
    Queued,
    Retried,
    Switched,
)
from ccroute.routing.acquired import HealthReport

BUSY = fails(503)
BROKE = fails(502)
ANSWER = answers("well")


# -- What a call tells, in order


def test_a_call_that_succeeds_at_once_emits_nothing() -> None:
    call = calling(paid())
    HandDriver([ANSWER]).run(call)
    assert call.events == []


def test_override_failure_and_fallback_are_emitted_in_order() -> None:
    agents = {"py": Agent("paid/m", fallback=["home/m"])}
    call = calling(
        paid(), local(), aliases={}, agents=agents, agent="py", model="wanted",
        retry=RetryPolicy(attempts=3, per_deployment=2),
    )  # fmt: skip
    HandDriver([BUSY, ANSWER]).run(call)
    who = (call.context.id, "py")
    reason = call.context.record.attempts[0].reason
    assert call.events == [
        Overridden(*who, "wanted", "paid/m"),
        AttemptFailed(*who, "paid/m", "rejected", "OverloadedError", 503, reason),
        FellBack(*who, "paid/m", "home/m", fallback=True),
    ]
    assert "no" in reason


def test_a_retry_is_emitted_with_its_wait() -> None:
    call = calling(paid(), retry=RetryPolicy(attempts=2, base=1.0))
    HandDriver([BUSY, ANSWER]).run(call)
    assert [type(event) for event in call.events] == [AttemptFailed, Retried]
    assert call.events[1] == Retried(call.context.id, None, "paid/m", 0.5)
    call = calling(paid(), local())
    HandDriver([REFUSED, ANSWER]).run(call)
    assert call.events[1] == FellBack(call.context.id, None, "paid/m", "home/m", fallback=False)
    failed = call.events[0]
    assert isinstance(failed, AttemptFailed)
    assert (failed.failure, failed.error, failed.status) == ("not_sent", "ConnectionFailedError", None)


def test_a_stream_that_breaks_emits_one_event() -> None:
    call = calling(paid(), local(), stream=True)
    HandDriver([ScriptedReply(pieces=[*chat_sse(["so"], finish=None, done=False), BROKEN])]).fail(call)
    (event,) = call.events
    assert isinstance(event, Interrupted)
    assert (event.call, event.deployment) == (call.context.id, "paid/m")
    assert "connection broke" in event.reason


def test_a_wait_in_a_queue_is_emitted_with_its_deployment() -> None:
    call = calling(paid(), local(), limited=True)
    HandDriver([BUSY, ANSWER], hosts=[Queue(ahead=2), Queue()]).run(call)
    assert [type(event) for event in call.events] == [Queued, AttemptFailed, FellBack, Queued]
    first, last = call.events[0], call.events[3]
    assert isinstance(first, Queued)
    assert isinstance(last, Queued)
    assert (first.deployment, first.ahead, last.deployment) == ("paid/m", 2, "home/m")


def test_a_first_choice_that_is_off_is_emitted_as_a_fallback() -> None:
    shared = Shared(paid(), local())
    shared.gets(fails(401), ANSWER, retry=RetryPolicy(attempts=2))
    call = shared.call()
    HandDriver([ANSWER]).run(call)
    assert call.events == [FellBack(call.context.id, None, "paid/m", "home/m", fallback=False)]


def test_no_event_shows_the_prompt_or_the_key() -> None:
    prompt, key = "the plan that nobody may ever see", "sk-canary-0123456789"
    heard: list[Event] = []
    for reply in (
        BUSY,
        fails(401, f"{key} may not ask {prompt}"),
        fails(429, prompt, retry_after="9"),
        BROKE,
    ):
        shared = Shared(paid(api_key=key), local())
        call = shared.call(prompt=prompt, retry=RetryPolicy(attempts=2))
        HandDriver([reply, ANSWER]).run(call)
        heard += [*call.events, *shared.events]
    shown = "".join(f"{event} {event!r}" for event in heard)
    assert len(heard) >= 8
    assert prompt not in shown
    assert "canary" not in shown


# -- In a log


def test_each_event_reads_as_a_sentence_with_its_deployment() -> None:
    call = calling(paid(), local(), retry=RetryPolicy(attempts=2))
    HandDriver([BUSY, ANSWER]).run(call)
    failed, instead = map(str, call.events)
    assert failed.startswith("paid/m: turned the call away (OverloadedError, HTTP 503): ")
    assert instead == "home/m: tried instead of paid/m, as the next deployment"


def test_waits_and_loads_read_as_sentences_with_their_seconds() -> None:
    who = ("call", None)
    assert str(Queued(*who, "mini/m", 2)) == "mini/m: waits for its host, 2 ahead"
    assert str(Queued(*who, "mini/m", 2, 7.25)) == "mini/m: waits for its host, 2 ahead, about 7.2 s"
    assert str(Loading(*who, "mini/m", 45)) == "mini/m: its host loads the model first, about 45.0 s"
    assert str(Switched("mini/m", "qwen:32b", ())) == "mini/m: its host loads qwen:32b"
    assert str(Switched("mini/m", "new", ("a", "b\n"))) == "mini/m: its host loads new instead of a, b\\n"
    assert [each.level for each in (Queued, Loading, Switched)] == [10, 10, 20]


def test_a_failure_without_an_error_still_turns_calls_away() -> None:
    shared = Shared()
    deployment = shared.deployment()
    for _ in range(5):
        shared.health.settle(shared.health.admit(deployment), HealthReport(counts=True))  # type: ignore[arg-type]
    probe = shared.health.admit(deployment, early=True)
    raised = shared.turned_away()
    assert type(raised) is CcrouteError
    assert str(raised).startswith("not asked: it failed in other calls")
    del probe
