"""One call, driven by hand: which effects it asks for, in which order, and what it makes of their results."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.flow.support import (
    BROKEN,
    NOON,
    REFUSED,
    Call,
    FakeClock,
    HandDriver,
    PlainBackend,
    ScriptedReply,
    answers,
    calling,
    local,
    paid,
    streams,
)
from tests.support.openai_like import chat, chunk, error, usage

from ccroute import Agent, OllamaBackend, Price, RetryPolicy, Timeout, Usage
from ccroute.accounting import LedgerRow, MemoryLedger
from ccroute.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    ConnectionFailedError,
    ContextWindowExceededError,
    DeadlineExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    ProtocolError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
)
from ccroute.flow.call import MIN_ATTEMPT
from ccroute.flow.effects import Emit, Read, Send
from ccroute.http.message import Failure, Reply
from ccroute.observe import LedgerFailed
from ccroute.types import Completion, Model, Request
from ccroute.wire.fields import LeftOut

PRICE = Price(3, 15)
BUSY = ScriptedReply(503, [json.dumps(error("busy")).encode()])
BROKE = ScriptedReply(502, [b"<html>bad gateway</html>"])
ONCE = RetryPolicy(attempts=1)
FOREVER = Timeout(None, None, None, None)


def outcomes(call: Call) -> list[tuple[str, str | None]]:
    return [(attempt.outcome, attempt.failure) for attempt in call.context.record.attempts]


# -- A call that succeeds


def test_a_call_sends_reads_to_the_end_and_is_recorded() -> None:
    call = calling(paid(price=PRICE, api_key="sk-0123456789"), max_tokens=7)
    driver = HandDriver([answers("yes", model="served", usage=usage(1000, 100))]).run(call)
    assert [type(effect).__name__ for effect in driver.effects] == ["Send", "Read", "Read"]
    assert len(driver.rows) == 1
    (sent,) = driver.sends
    assert driver.asked == ["paid"]
    assert sent.request.target == "/v1/chat/completions"
    body = json.loads(sent.request.body)
    assert (body["model"], body["max_tokens"]) == ("m", 7)
    assert (b"authorization", b"Bearer sk-0123456789") in sent.request.headers
    answer = driver.completion
    assert (answer.text, answer.model, answer.finish_reason) == ("yes", "served", "stop")
    assert (answer.usage, answer.cost) == (Usage(input=1000, output=100), Decimal("0.0045"))


def test_an_answer_knows_its_route() -> None:
    agents = {"Py": Agent("any", group="devs")}
    call = calling(paid(), agents=agents, groups={"devs": Agent()}, agent="py", model="wanted")
    driver = HandDriver([ScriptedReply(after=2.0, pieces=[0.5, json.dumps(chat()).encode()])]).run(call)
    route, answer = driver.completion.route, driver.completion
    assert (route.agent, route.requested_model, route.model) == ("Py", "wanted", "any")
    assert (route.deployment, route.backend, route.overridden, route.fallback) == (
        "paid/m",
        "paid",
        True,
        False,
    )
    assert route.reasons == ('agent Py uses "any", not the requested "wanted"', 'model "any"')
    (attempt,) = route.attempts
    assert (attempt.deployment, attempt.outcome, attempt.failure) == ("paid/m", "ok", None)
    assert (attempt.status, attempt.error, attempt.started) == (200, None, NOON)
    assert attempt.duration == answer.latency == 2.5
    assert call.context.route == route


def test_the_row_has_the_agent_the_deployment_and_the_cost() -> None:
    agents = {"py": Agent("any", group="devs")}
    call = calling(
        paid(price=PRICE), agents=agents, groups={"devs": Agent()}, agent="py", model="x", session="s",
        metadata={"job": 1}, prices={"x": Price(15, 75)},
    )  # fmt: skip
    (row,) = HandDriver([answers(usage=usage(1000, 100))]).run(call).rows
    assert (row.agent, row.group, row.session, row.requested_model) == ("py", "devs", "s", "x")
    assert (row.alias, row.backend, row.deployment, row.model) == ("any", "paid", "paid/m", "m")
    assert (row.outcome, row.failure, row.status, row.final) == ("ok", None, 200, True)
    assert (row.usage.input, row.cost, row.override_saved) == (1000, Decimal("0.0045"), Decimal("0.018"))
    assert (row.overridden, row.fallback, row.cached, row.metadata) == (True, False, False, {"job": 1})
    assert (row.call, row.started, row.latency) == (call.context.id, NOON, 0.0)
    assert row.id != row.call


def test_what_an_answer_leaves_out_is_filled_in() -> None:
    call = calling(PlainBackend(models={}))
    answer = HandDriver([ScriptedReply(pieces=[b"hello"])]).run(call).completion
    assert (answer.id, answer.model, answer.created) == (call.context.id, "m", int(NOON.timestamp()))
    assert answer.usage == Usage(input=7, output=2, estimated=True), "3 + 4 tokens asked, 5 characters said"
    assert answer.cost is None


@pytest.mark.parametrize("name", ["x-request-id", "request-id"])
def test_the_providers_request_id_is_kept(name: str) -> None:
    reply = ScriptedReply(pieces=[json.dumps(chat()).encode()], headers={name: "r1"})
    assert HandDriver([reply]).run(calling(paid())).completion.request_id == "r1"


def test_a_request_sent_twice_on_a_stale_connection_is_one_attempt() -> None:
    reply = ScriptedReply(pieces=[json.dumps(chat()).encode()], reconnected=True)
    (attempt,) = HandDriver([reply]).run(calling(paid())).completion.route.attempts
    assert "sent once more on a new one" in attempt.reason


def test_a_users_own_backend_needs_its_four_methods_and_nothing_else() -> None:
    backend = PlainBackend(local=True)
    assert (
        HandDriver([ScriptedReply(pieces=[b"he", b"llo"])]).run(calling(backend)).completion.text == "hello"
    )
    call = calling(backend, stream=True)
    driver = HandDriver([ScriptedReply(pieces=[b"he", b"llo", b"!"])]).run(call)
    assert (driver.text, driver.completion.text, driver.completion.cost) == ("hello", "hello", 0)
    assert (call.context.answer_id, call.context.model) == (call.context.id, "m")
    broken = HandDriver([ScriptedReply(503, [b"busy"])]).fail(calling(backend, retry=ONCE))
    assert isinstance(broken, OverloadedError)
    cut = HandDriver([ScriptedReply(pieces=[b"he"])]).fail(calling(backend, stream=True))
    assert isinstance(cut, StreamInterruptedError)
    assert (cut.partial.text, cut.partial.usage.output) == ("", 0), "its decoder cannot tell"


# -- Moving on


def test_a_503_moves_on_to_the_fallback_at_once_and_costs_nothing() -> None:
    call = calling(paid(), local(), aliases={"a": "paid/m"}, model="a", fallback=["home/m"])
    driver = HandDriver([BUSY, answers(usage=usage(10, 10))]).run(call)
    assert (driver.asked, driver.slept) == (["paid", "home"], [])
    answer = driver.completion
    assert (answer.route.fallback, answer.route.model, answer.route.deployment) == (True, "home/m", "home/m")
    assert outcomes(call) == [("failed", "rejected"), ("ok", None)]
    assert (answer.cost, [attempt.cost for attempt in call.context.record.attempts]) == (0, [0, 0])
    failed = answer.route.attempts[0]
    assert (failed.status, failed.error) == (503, "OverloadedError")
    assert "no room now" in failed.reason
    assert any(reason.startswith("paid/m failed (rejected): ") for reason in answer.route.reasons)


def test_every_call_has_exactly_one_final_row() -> None:
    call = calling(paid(), local())
    first, second = HandDriver([BUSY, answers()]).run(call).rows
    assert (first.final, first.outcome, first.latency, first.override_saved) == (False, "failed", None, None)
    assert (second.final, second.outcome) == (True, "ok")
    assert first.call == second.call


def test_a_failed_call_has_one_final_row_too() -> None:
    call = calling(paid(), local(), retry=RetryPolicy(attempts=2))
    driver = HandDriver([BUSY])
    raised = driver.fail(call)
    assert isinstance(raised, OverloadedError)
    assert [row.final for row in driver.rows] == [False, True]
    assert raised.attempts == tuple(call.context.record.attempts)
    assert str(raised).startswith("home/m: ")


def test_a_retry_at_the_same_place_waits_with_jitter() -> None:
    call = calling(paid(), clock=FakeClock(draws=[0.5]), retry=RetryPolicy(attempts=3, per_deployment=3))
    driver = HandDriver([BUSY, BUSY, answers()]).run(call)
    assert driver.slept == [0.25, 0.5]
    tried = ["Send", "Read", "Leave"]
    assert driver.kinds == [*tried, "Sleep", *tried, "Sleep", "Send", "Read"]
    assert driver.completion.latency == 0.75


def test_the_cost_covers_all_attempts_and_ambiguous_prompts() -> None:
    call = calling(paid(price=PRICE), prompt="x" * 384)
    driver = HandDriver([BROKE, answers(usage=usage(100, 10))]).run(call)
    assert [row.usage for row in driver.rows] == [
        Usage(input=100, estimated=True),
        Usage(input=100, output=10),
    ]
    assert [row.cost for row in driver.rows] == [Decimal("0.0003"), Decimal("0.00045")]
    assert driver.completion.cost == Decimal("0.00075")


@pytest.mark.parametrize(
    "rejected", [BUSY, REFUSED, ScriptedReply(429), ScriptedReply(404), ScriptedReply(401)]
)
def test_a_rejected_call_costs_nothing_even_at_an_unknown_price(
    rejected: Any,
) -> None:
    call = calling(paid(), local())
    driver = HandDriver([rejected, answers()]).run(call)
    assert [row.cost for row in driver.rows] == [0, 0]
    assert driver.completion.cost == 0


def test_one_unknown_price_makes_the_cost_unknown() -> None:
    driver = HandDriver([BROKE, answers()]).run(calling(paid(), local()))
    assert [row.cost for row in driver.rows] == [None, 0]
    assert driver.completion.cost is None


@pytest.mark.parametrize(
    ("failure", "letter", "kind", "says"),
    [
        (REFUSED, "not_sent", ConnectionFailedError, r"cannot connect to https://paid.test \(connection ref"),
        (Failure("tls", "expired", sent=False), "not_sent", ConnectionFailedError, "no trusted connection"),
        (BROKEN, "ambiguous", ConnectionFailedError, r"the connection broke \(connection reset\)"),
        (
            Failure("timeout", "no answer", sent=True),
            "ambiguous",
            BackendTimeoutError,
            "no answer: if it needs",
        ),
        (Failure("timeout", "no connection", sent=False), "not_sent", BackendTimeoutError, "no connection"),
        (Failure("protocol", "101", sent=True), "ambiguous", ProtocolError, "does not answer in HTTP"),
    ],
)
def test_a_transports_failure_is_a_typed_error(
    failure: Failure, letter: str, kind: type[BackendError], says: str
) -> None:
    call = calling(paid(price=PRICE), retry=ONCE)
    with pytest.raises(kind, match=says) as caught:
        HandDriver([failure]).run(call)
    assert (caught.value.backend, caught.value.deployment) == ("paid", "paid/m")
    assert caught.value.sent is failure.sent
    assert outcomes(call) == [("failed", letter)]
    assert (call.context.record.attempts[0].cost == 0) is not failure.sent


def test_a_bad_certificate_is_never_tried_again_at_the_same_place() -> None:
    driver = HandDriver([Failure("tls", "expired", sent=False)])
    driver.fail(calling(paid(), local()))
    assert driver.asked == ["paid", "home"]


def test_a_connection_that_breaks_inside_an_answer_is_ambiguous() -> None:
    call = calling(paid(), local())
    driver = HandDriver([ScriptedReply(pieces=[b'{"choices"', BROKEN]), answers("yes")]).run(call)
    assert driver.completion.text == "yes"
    assert outcomes(call)[0] == ("failed", "ambiguous")


def test_a_refused_connection_does_not_use_up_an_attempt() -> None:
    call = calling(paid(), local(), retry=RetryPolicy(attempts=2, base=0, max=0))
    driver = HandDriver([REFUSED, REFUSED, REFUSED, answers()])
    assert driver.run(call).asked == ["paid", "home", "paid", "home"]


def test_the_callers_fault_is_raised_at_once() -> None:
    driver = HandDriver([ScriptedReply(400, [json.dumps(error("bad temperature")).encode()])])
    raised = driver.fail(calling(paid(), local()))
    assert isinstance(raised, InvalidRequestError)
    assert (str(raised), driver.asked) == (
        "paid/m: the server refused the request as invalid: bad temperature (HTTP 400)",
        ["paid"],
    )


def test_an_overflow_goes_to_a_larger_window_or_is_raised() -> None:
    overflow = ScriptedReply(400, [json.dumps(error("too long", code="context_length_exceeded")).encode()])
    small, large = paid("small", window=8_000), paid("large", window=32_000)
    driver = HandDriver([overflow, answers()])
    assert driver.run(calling(small, large)).completion.route.backend == "large"
    assert isinstance(HandDriver([overflow]).fail(calling(large, small)), ContextWindowExceededError)


def test_a_key_that_is_missing_falls_back_without_sending() -> None:
    official = paid()
    official.missing_key = lambda: "no API key: set IT"  # type: ignore[method-assign]
    driver = HandDriver([answers()])
    call = calling(official, local())
    assert driver.run(call).asked == ["home"]
    assert outcomes(call)[0] == ("failed", "credential")
    raised = HandDriver([answers()]).fail(calling(official))
    assert isinstance(raised, AuthenticationError)
    assert str(raised) == "paid/m: no API key: set IT"


def test_a_key_that_no_header_can_carry_fails_and_costs_nothing() -> None:
    call = calling(paid(api_key=lambda: "ключ"))
    raised = HandDriver([answers()]).fail(call)
    assert isinstance(raised, AuthenticationError)
    assert "printable ASCII" in str(raised)
    [attempt] = call.context.record.attempts
    assert (attempt.outcome, attempt.failure, attempt.cost) == ("failed", "credential", 0)


@pytest.mark.parametrize("prompt", ["hello", "What is my very secret plan for it?"])
def test_an_error_shows_neither_key_nor_prompt(prompt: str) -> None:
    keys = iter(["first-canary-key", "second-canary-key"])
    payload = error(f"first-canary-key may not ask: {prompt}")
    call = calling(paid(api_key=lambda: next(keys)), prompt=prompt, retry=ONCE, stream=True)
    raised = HandDriver([ScriptedReply(401, [json.dumps(payload).encode()])]).fail(call)
    assert f"[key] may not ask: {prompt}" in raised.body
    for shown in (str(raised), call.context.record.attempts[0].reason):
        assert "canary" not in shown
        assert "secret plan" not in shown
        assert ("[key] may not ask: hello" in shown) is (prompt == "hello")


@pytest.mark.parametrize("encoding", ["br", "gzip"])
def test_an_error_whose_body_cannot_be_read_is_known_by_its_status(encoding: str) -> None:
    busy = ScriptedReply(429, [b"\x00\x01"], headers={"content-encoding": encoding, "retry-after": "900"})
    raised = HandDriver([busy]).fail(calling(paid()))
    assert isinstance(raised, RateLimitError)
    assert (raised.status, raised.retry_after) == (429, 900)


@pytest.mark.parametrize("broken", [BROKEN, b""])
def test_an_error_body_that_breaks_off_is_read_as_far_as_it_came(broken: Any) -> None:
    raised = HandDriver([ScriptedReply(404, [b"no such mo", b"del", broken])]).fail(
        calling(paid(), retry=ONCE)
    )
    assert isinstance(raised, ModelNotFoundError)
    assert "no such model" in str(raised)


def test_an_endless_error_body_is_read_only_in_part() -> None:
    driver = HandDriver([ScriptedReply(500, [b"x" * 2**18] * 100)])
    assert isinstance(driver.fail(calling(paid(), retry=ONCE)), ServerError)
    assert sum(isinstance(effect, Read) for effect in driver.effects) == 4


def test_an_error_body_that_unpacks_without_end_is_read_in_part() -> None:
    bomb = gzip.compress(bytes(2**25))
    driver = HandDriver([ScriptedReply(500, [bomb, b"never read"], headers={"content-encoding": "gzip"})])
    assert isinstance(driver.fail(calling(paid(), retry=ONCE)), ServerError)
    assert len([effect for effect in driver.effects if isinstance(effect, Read)]) == 1


def test_effects_show_neither_headers_nor_bodies() -> None:
    driver = HandDriver([answers()]).run(
        calling(paid(api_key="sk-canary-0123456789"), prompt="the secret plan")
    )
    shown = repr(driver.effects) + repr(Reply(200, {"x-echo": "canary"}))
    assert "canary" not in shown
    assert "secret" not in shown


def test_a_cut_or_wrongly_packed_answer_is_a_protocol_error() -> None:
    for reply in (
        ScriptedReply(pieces=[b"\x1f\x8b\x08"], headers={"content-encoding": "gzip"}),
        ScriptedReply(pieces=[b"x"], headers={"content-encoding": "br"}),
    ):
        assert isinstance(HandDriver([reply]).fail(calling(paid(), retry=ONCE)), ProtocolError)


def test_a_server_that_forbids_a_retry_gets_none() -> None:
    scripted = ScriptedReply(503, headers={"x-should-retry": "false"})
    driver = HandDriver([scripted])
    driver.fail(calling(paid()))
    assert driver.asked == ["paid"]


def test_a_server_that_asks_for_a_retry_gets_one() -> None:
    driver = HandDriver([ScriptedReply(405, headers={"x-should-retry": "true"}), answers()])
    assert driver.run(calling(paid())).asked == ["paid", "paid"]


# -- Time


def test_retry_after_is_awaited_if_no_other_candidate_is_left() -> None:
    call = calling(paid())
    driver = HandDriver([ScriptedReply(429, headers={"retry-after": "7"}), answers()]).run(call)
    assert driver.slept == [7]


def test_a_wait_that_does_not_fit_raises_the_rate_limit_at_once() -> None:
    call = calling(paid(), timeout=5.0)
    raised = HandDriver([ScriptedReply(429, headers={"retry-after": "7"})]).fail(call)
    assert isinstance(raised, RateLimitError)
    assert raised.retry_after == 7
    assert call.clock.elapsed == 0


@pytest.mark.parametrize(("total", "fits"), [(7.001 + MIN_ATTEMPT, True), (6.999 + MIN_ATTEMPT, False)])
def test_a_wait_must_leave_time_for_an_attempt(total: float, fits: bool) -> None:
    driver = HandDriver([ScriptedReply(429, headers={"retry-after": "7"}), answers()])
    call = calling(paid(), timeout=total)
    if fits:
        assert driver.run(call).slept == [7]
    else:
        assert isinstance(driver.fail(call), RateLimitError)


def test_no_attempt_starts_with_less_than_50_ms_left() -> None:
    call = calling(paid(), local(), timeout=10.0)
    raised = HandDriver([ScriptedReply(503, after=9.96)]).fail(call)
    assert isinstance(raised, DeadlineExceededError)
    assert isinstance(raised.__cause__, OverloadedError)
    assert outcomes(call) == [("failed", "rejected")]
    assert raised.attempts == tuple(call.context.record.attempts)


def test_with_no_candidate_left_the_last_error_is_raised() -> None:
    raised = HandDriver([ScriptedReply(401, after=9.99)]).fail(calling(paid(), timeout=10.0))
    assert isinstance(raised, AuthenticationError)


def test_a_call_without_time_sends_nothing() -> None:
    driver = HandDriver([answers()])
    raised = driver.fail(calling(paid(), timeout=0.04))
    assert isinstance(raised, DeadlineExceededError)
    assert (driver.effects, raised.attempts, raised.__cause__) == ([], (), None)


def test_nothing_is_tried_after_a_deadline_ended_a_silent_call() -> None:
    call = calling(paid(), local(), timeout=10.0)
    driver = HandDriver([ScriptedReply(after=99)])
    raised = driver.fail(call)
    assert isinstance(raised, DeadlineExceededError)
    assert "paid/m: the call's total timeout passed" in str(raised)
    assert (driver.asked, call.clock.elapsed, outcomes(call)) == (["paid"], 10, [("failed", "ambiguous")])


def test_a_deadline_while_connecting_costs_nothing() -> None:
    call = calling(paid(price=PRICE), timeout=10.0, clock=FakeClock())

    def late(k: int, effect: Any) -> None:
        call.clock.elapsed = 10.0

    driver = HandDriver([Failure("timeout", "no connection", sent=False)], late)
    assert isinstance(driver.fail(call), DeadlineExceededError)
    assert (outcomes(call), call.context.record.attempts[0].cost) == ([("failed", "not_sent")], 0)


def test_a_backends_own_timeout_moves_the_call_on() -> None:
    call = calling(paid(timeout=3), local())
    driver = HandDriver([ScriptedReply(after=99), answers()])
    assert driver.run(call).asked == ["paid", "home"]
    assert call.context.record.attempts[0].error == "BackendTimeoutError"
    assert call.clock.elapsed == 3


def test_a_timeout_given_with_the_call_replaces_a_backends_own() -> None:
    call = calling(paid(timeout=3), timeout=Timeout(total=9))
    HandDriver([ScriptedReply(after=99)]).fail(call)
    assert call.clock.elapsed == 9


@pytest.mark.parametrize(
    ("stream", "limits", "connect", "first"),
    [
        (False, Timeout(), 5.0, 600),
        (False, Timeout(first=20), 5.0, 20),
        (True, Timeout(), 5.0, 120),
        (True, Timeout(first=20, connect=1), 1, 20),
        (True, Timeout(idle=None), 5.0, 600),
        (True, FOREVER, None, float("inf")),
    ],
)
def test_a_request_is_sent_with_the_limits_of_its_first_content(
    stream: bool, limits: Timeout, connect: float | None, first: float
) -> None:
    reply = streams() if stream else answers()
    (sent,) = HandDriver([reply]).run(calling(paid(), stream=stream, limits=limits)).sends
    assert (sent.connect, sent.until) == (connect, 1000 + first)


def test_a_slow_answer_has_only_the_total_limit_once_it_began() -> None:
    call = calling(paid(), limits=Timeout(total=100, first=5))
    body = json.dumps(chat("slow")).encode()
    driver = HandDriver([ScriptedReply(after=4.0, pieces=[body[:9], 50.0, body[9:]])]).run(call)
    assert driver.completion.text == "slow"


# -- What a wire cannot carry


def test_a_parameter_the_wire_cannot_carry_is_refused() -> None:
    driver = HandDriver([answers()])
    raised = driver.fail(calling(OllamaBackend("home"), user="me"))
    assert isinstance(raised, InvalidRequestError)
    assert str(raised).startswith("home/m: cannot carry user (")
    assert "set drop_params=True" in str(raised)
    assert (driver.kinds, raised.attempts) == ([], ()), "nobody was asked, so there is no attempt to record"


def test_what_one_deployment_cannot_carry_goes_to_another_that_can() -> None:
    for names in (("home", "paid"), ("paid", "home")):
        made = {"home": OllamaBackend("home"), "paid": paid()}
        driver = HandDriver([answers()]).run(calling(*(made[name] for name in names), user="me"))
        assert driver.asked == ["paid"]
        route = driver.completion.route
        assert len(route.attempts) == 1
        left_out = [reason for reason in route.reasons if reason.startswith("home/m left out: cannot carry")]
        assert len(left_out) == (names[0] == "home")


def test_where_no_backend_can_carry_it_the_first_one_says_why() -> None:
    raised = HandDriver([answers()]).fail(calling(OllamaBackend("a"), OllamaBackend("b"), user="me"))
    assert str(raised).startswith("a/m: cannot carry user (")


def test_what_cannot_be_carried_is_no_attempt_of_the_few_there_are() -> None:
    call = calling(OllamaBackend("home"), paid(), user="me", retry=RetryPolicy(attempts=1))
    assert HandDriver([answers()]).run(call).asked == ["paid"]


@pytest.mark.parametrize("trigger", ["availability", "rate_limit"])
def test_an_unsupported_request_uses_a_fallback_only_by_its_triggers(
    trigger: Any,
) -> None:
    agents = {"py": Agent("home/m", fallback=["paid/m"], triggers=[trigger])}
    call = calling(OllamaBackend("home"), paid(), aliases={}, agents=agents, agent="py", user="me")
    if trigger == "availability":
        assert HandDriver([answers()]).run(call).asked == ["paid"]
    else:
        assert "cannot carry user" in str(HandDriver([answers()]).fail(call))


@pytest.mark.parametrize("where", ["router", "backend"])
def test_with_drop_params_it_is_dropped_and_listed(where: str) -> None:
    backend = OllamaBackend("home", drop_params=where == "backend")
    call = calling(backend, user="me", temperature=0.5, drop_params=where == "router")
    driver = HandDriver([ScriptedReply(pieces=[b'{"message": {"content": "yes"}, "done": true}'])]).run(call)
    body = json.loads(driver.sends[0].request.body)
    assert ("user" in body, body["options"]) == (False, {"temperature": 0.5})
    assert any("home/m: user dropped, " in reason for reason in driver.completion.route.reasons)


class WrongFormatBackend(PlainBackend):
    """A backend whose answers to a `response_format` are never what was asked for."""

    def refusals(self, request: Request, model: str) -> dict[str, str]:
        return {"top_k": LeftOut("it would be wrong")} if request.top_k is not None else {}

    def check(self, request: Request, answer: Completion) -> None:
        raise BackendError("that is no JSON")


def test_a_wrong_format_is_charged_and_the_next_candidate_asked() -> None:
    call = calling(
        WrongFormatBackend("judge", models={"m": Model(price=PRICE)}),
        paid(),
        response_format={"type": "json_object"},
    )
    driver = HandDriver([ScriptedReply(pieces=[b"plain words"]), answers("{}")]).run(call)
    assert driver.asked == ["judge", "paid"]
    failed = driver.completion.route.attempts[0]
    assert (failed.failure, failed.usage.output) == ("unavailable", 3)
    assert failed.cost is not None
    assert failed.cost > 0


def test_a_parameter_not_worth_the_call_is_left_out_unasked() -> None:
    driver = HandDriver([ScriptedReply(pieces=[b"yes"])]).run(calling(WrongFormatBackend("judge"), top_k=4))
    assert driver.completion.text == "yes"
    assert "judge/m: top_k dropped, it would be wrong" in driver.completion.route.reasons


def test_a_body_without_end_is_a_protocol_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccroute.flow.attempt.exchange.MAX_BODY", 1000)
    driver = HandDriver([ScriptedReply(pieces=[b"x" * 300] * 99)])
    raised = driver.fail(calling(paid(), retry=ONCE))
    assert isinstance(raised, ProtocolError)
    assert "longer than ccroute reads" in str(raised)
    assert len([effect for effect in driver.effects if isinstance(effect, Read)]) == 4


class FailingLedger(MemoryLedger):
    def record(self, row: LedgerRow) -> None:
        raise OSError("the disk is full")


@pytest.mark.parametrize("status", [200, 400])
def test_a_ledger_that_fails_is_an_event_and_no_failure(status: int) -> None:
    call = calling(paid(), ledger=FailingLedger())
    driver = HandDriver([answers("yes") if status == 200 else ScriptedReply(400)])
    if status == 200:
        assert driver.run(call).completion.text == "yes"
    else:
        assert isinstance(driver.fail(call), InvalidRequestError)
    assert call.events[-1] == LedgerFailed(call.context.id, None, "OSError")


def test_the_answer_so_far_has_the_cost_of_all_attempts() -> None:
    call = calling(
        paid(price=PRICE), local(), stream=True, prompt="x" * 384, retry=RetryPolicy(base=0, max=0)
    )
    context = call.context
    assert (context.so_far(), context.model, context.route.deployment) == (None, "", "")
    driver = HandDriver(
        [BROKE, ScriptedReply(pieces=[chunk({"content": "word"}, id="c7", model="served")] * 3)]
    )
    while not driver.chunks:
        assert (context.model, context.answer_id) == ("", context.id)
        driver.step(call)
    so_far = context.so_far()
    assert so_far is not None
    assert (so_far.text, so_far.usage.input, so_far.cost) == ("word", 100, Decimal("0.0003"))
    assert (context.model, context.answer_id, context.route.deployment) == ("served", "c7", "home/m")
    call.flow.close()
    ended = context.so_far()
    assert ended is not None
    assert (ended.text, ended.cost) == ("word", Decimal("0.0003"))


# -- Whatever happens

WORLD: list[Any] = [
    BUSY,
    BROKE,
    REFUSED,
    BROKEN,
    ScriptedReply(429, headers={"retry-after": "3"}),
    ScriptedReply(401),
    ScriptedReply(404),
    ScriptedReply(400),
    ScriptedReply(after=50.0),
    ScriptedReply(pieces=[b"{"]),
    ScriptedReply(pieces=[chunk({"content": "so far"}), BROKEN]),
    answers(),
    streams(),
]


@settings(max_examples=150)
@given(
    world=st.lists(st.sampled_from(WORLD), min_size=1, max_size=8),
    stream=st.booleans(),
    total=st.sampled_from([None, 1.0, 60.0]),
    attempts=st.integers(1, 4),
)
def test_any_call_ends_within_its_bounds_and_settles_every_attempt(
    world: list[Any], stream: bool, total: float | None, attempts: int
) -> None:
    retry = RetryPolicy(attempts=attempts)
    call = calling(
        paid("a"), paid("b"), local(), stream=stream, retry=retry, limits=Timeout(total=total), model="any"
    )
    driver = HandDriver(world)
    try:
        driver.run(call)
        noted = driver.completion.route.attempts
        assert outcomes(call)[-1] == ("ok", None)
    except (BackendError, InvalidRequestError, DeadlineExceededError) as raised:
        noted = raised.attempts
    assert [row.outcome for row in driver.rows] == [attempt.outcome for attempt in noted]
    assert [row.final for row in driver.rows] == [False] * (len(driver.rows) - 1) + [True] * bool(driver.rows)
    assert sum(attempt.failure != "not_sent" for attempt in noted) <= attempts
    assert len(noted) == len(driver.sends) <= attempts + 6
    assert total is None or call.clock.elapsed <= total
    emitted = [i for i, effect in enumerate(driver.effects) if isinstance(effect, Emit)]
    assert not emitted or not [e for e in driver.effects[emitted[0] :] if isinstance(e, Send)], (
        "never spliced"
    )
