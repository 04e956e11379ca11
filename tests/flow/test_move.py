"""A call that asks for a slot at several hosts: who is asked with equal right, and what it is to move."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from tests.flow.support import (
    BROKEN,
    FREE,
    Call,
    HandDriver,
    Queue,
    Shared,
    answers,
    calling,
    fails,
    paid,
    streams,
)
from tests.flow.test_budgets import Scene, backend

from ccroute import Agent, AnthropicBackend, Budget, Fallback, Model, OpenAIBackend, Price
from ccroute.errors import QueueTimeoutError
from ccroute.flow.effects import Effect, Emit, Enter, Granted, Send, Wait
from ccroute.flow.retry import RetryState
from ccroute.http.message import Failure
from ccroute.observe import FellBack, Queued
from ccroute.routing.acquired import ANSWERED, AttemptOutcome, HealthReport
from ccroute.types import RetryPolicy

ANSWER = answers("well")
MOVED = Queue(seconds=12.0, granted=Granted(1))
"""A wait after which the second option's host has a slot."""


def two(**options: Any) -> Shared:
    return Shared(paid("one"), paid("two"), limited=True, **options)


def options(driver: HandDriver) -> list[list[str]]:
    """The deployments of each question for a slot."""
    found = [effect.options for effect in driver.effects if isinstance(effect, Enter)]
    return [[each.name for each in asked] for asked in found]


def asked_at(*backends: Any, **about: Any) -> list[str]:
    """The options of the first question for a slot."""
    return options(HandDriver([ANSWER]).run(calling(*backends, **{"limited": True, **about})))[0]


# -- Candidates of equal right


@pytest.mark.parametrize("strategy", ["weighted", "least-busy", "latency", "cost"])
def test_a_call_asks_for_a_slot_at_every_deployment_of_its_alias(strategy: str) -> None:
    assert asked_at(paid("one"), paid("two"), strategy=strategy) == ["one/m", "two/m"]


def test_the_preferred_deployment_is_the_first_option() -> None:
    draws = iter([0.1, 0.9])
    found = asked_at(paid("one"), paid("two"), strategy="weighted", random=lambda: next(draws))
    assert found == ["two/m", "one/m"]


def test_ordered_deployments_have_no_equal_right() -> None:
    assert asked_at(paid("one"), paid("two"), strategy="ordered") == ["one/m"]


def test_a_free_slot_is_no_reason_to_pay_another_price() -> None:
    backends = paid("one", Price(1, 1)), paid("two", Price(2, 2)), paid("three", Price(1, 1))
    assert asked_at(*backends, strategy="cost") == ["one/m", "three/m"]
    assert asked_at(*backends, strategy="weighted") == ["one/m", "three/m"]


def test_a_fallback_model_has_no_equal_right_with_the_model() -> None:
    backends = paid("one"), paid("two"), paid("three")
    aliases = {"model": ["one/m"], "other": ["two/m", "three/m"]}
    agents = {"a": Agent("model", fallback=[Fallback("other", triggers=["availability"])])}
    about: dict[str, Any] = {"aliases": aliases, "agents": agents, "agent": "a", "strategy": "weighted"}
    driver = HandDriver([BROKEN, ANSWER]).run(calling(*backends, limited=True, **about))
    assert options(driver) == [["one/m"], ["two/m", "three/m"]], "those of the fallback model have it"


def test_a_host_without_a_limit_is_no_option() -> None:
    assert asked_at(paid("one"), paid("two"), limited=["one"], strategy="weighted") == ["one/m"]
    call = calling(paid("one"), paid("two"), limited=["two"], strategy="weighted")
    assert HandDriver([ANSWER]).run(call).kinds == ["Send", "Read"], "the first choice needs no slot"


def test_a_deployment_whose_window_may_be_too_small_is_no_option() -> None:
    backends = paid("one", window=10_000), paid("two", window=40), paid("three")
    for most, found in ((30, ["one/m", "three/m"]), (1, ["one/m", "two/m", "three/m"])):
        asked = asked_at(*backends, strategy="weighted", prompt="word " * 20, max_tokens=most)
        assert asked == found


def test_a_deployment_that_cannot_carry_the_request_is_no_option() -> None:
    backends = paid("one"), AnthropicBackend("two", api_key="k"), paid("three")
    assert asked_at(*backends, strategy="weighted", seed=1, max_tokens=9) == ["one/m", "three/m"]
    assert "two/m" in asked_at(*backends, strategy="weighted", max_tokens=9)


def test_a_deployment_that_gets_no_calls_is_no_option() -> None:
    both = two(strategy="weighted")
    for _ in range(5):
        admission = both.health.admit(both.deployment("two"), calling(paid()).context.plan.request)
        admission.settle(AttemptOutcome(HealthReport(counts=True)))  # type: ignore[union-attr]
    assert both.is_off("two")
    assert options(both.gets(ANSWER, hosts=[FREE]))[0] == ["one/m"]


def test_a_deployment_that_fails_often_is_no_option_beside_one_that_does_not() -> None:
    both = two(strategy="weighted")
    for name, found in (("two", ["one/m"]), ("one", ["one/m", "two/m"])):
        for _ in range(3):
            both.load.begin(both.deployment(name)).settle(AttemptOutcome(ANSWERED, ok=False))
        assert options(both.gets(ANSWER, hosts=[FREE]))[0] == found


def test_a_deployment_at_its_rate_limit_is_no_option() -> None:
    second = OpenAIBackend("two", base_url="https://two.test", models={"m": Model(rpm=1, tpm=1000)})
    both = Shared(paid("one"), second, limited=True, strategy="weighted")
    assert options(both.gets(ANSWER, hosts=[Granted(1)])) == [["one/m", "two/m"]]
    assert options(both.gets(ANSWER, hosts=[FREE]))[0] == ["one/m"]
    assert options(both.after(60).gets(ANSWER, hosts=[FREE]))[0] == ["one/m", "two/m"]


def test_a_deployment_that_was_tried_is_no_option() -> None:
    three = calling(paid("one"), paid("two"), paid("three"), limited=True, strategy="weighted")
    driver = HandDriver([BROKEN, BROKEN, ANSWER]).run(three)
    assert options(driver) == [["one/m", "two/m", "three/m"], ["two/m", "three/m"], ["three/m"]]


def test_a_backend_that_was_not_tried_is_asked_before_one_that_failed() -> None:
    names = {"any": ["one/a", "one/b", "two/m"]}
    about: dict[str, Any] = {"aliases": names, "model": "any", "strategy": "weighted"}
    draws = iter([0.9, 0.1, 0.5])
    call = calling(paid("one"), paid("two"), limited=True, random=lambda: next(draws), **about)
    driver = HandDriver([BROKEN, ANSWER]).run(call)
    assert options(driver) == [["one/a", "two/m", "one/b"], ["two/m"]]


def test_a_retry_waits_for_its_own_host_alone() -> None:
    one = calling(paid("one"), limited=True, strategy="weighted", retry=RetryPolicy(attempts=2))
    assert options(HandDriver([fails(503), ANSWER]).run(one)) == [["one/m"], ["one/m"]]


# -- A move


def test_a_call_goes_on_where_a_slot_is_free_first() -> None:
    both = two(strategy="weighted")
    driver = both.gets(ANSWER, hosts=[MOVED])
    route = driver.completion.route
    assert (driver.asked, driver.kinds) == (["two"], ["Enter", "Wait", "Send", "Read"])
    assert (route.deployment, route.backend, route.queued) == ("two/m", "two", 12.0)
    assert route.reasons[-3:] == (
        "two/m had a free slot first",
        "two/m: waited 12.0 s for a slot",
        'model "any"',
    )
    (row,) = driver.rows
    assert (row.deployment, row.queue, row.duration, row.final) == ("two/m", 12.0, 0, True)
    assert driver.completion.latency == 12.0


def test_a_move_is_no_fallback() -> None:
    call = calling(paid("one"), paid("two"), limited=True, strategy="weighted")
    HandDriver([ANSWER], hosts=[MOVED]).run(call)
    (event,) = call.events
    assert event == Queued(call.context.id, None, "one/m", 0, 12.0)


def test_a_slot_that_is_free_at_once_moves_a_call_too() -> None:
    driver = two(strategy="weighted").gets(ANSWER, hosts=[Granted(1)])
    assert (driver.asked, driver.rows[0].queue) == (["two"], 0)
    assert "two/m had a free slot first" in driver.completion.route.reasons


def test_a_moved_call_that_fails_falls_back_to_the_first_choice() -> None:
    call = calling(paid("one"), paid("two"), limited=True, strategy="weighted")
    driver = HandDriver([BROKEN, ANSWER], hosts=[MOVED]).run(call)
    assert (driver.asked, options(driver)) == (["two", "one"], [["one/m", "two/m"], ["one/m"]])
    assert driver.kinds == ["Enter", "Wait", "Send", "Leave", "Enter", "Send", "Read"]
    (event,) = [event for event in call.events if isinstance(event, FellBack)]
    assert (event.failed, event.deployment) == ("two/m", "one/m")
    assert [(row.deployment, row.queue, row.final) for row in driver.rows] == [
        ("two/m", 12, False),
        ("one/m", 0, True),
    ]


def test_a_moved_stream_tells_its_deployment_from_the_first_chunk_on() -> None:
    call = calling(paid("one"), paid("two"), limited=True, strategy="weighted", stream=True)
    seen: list[str] = []

    def before(k: int, effect: Effect) -> None:
        if isinstance(effect, Emit):
            seen.append(call.context.route.deployment)

    driver = HandDriver([streams("a", "b")], before, hosts=[MOVED]).run(call)
    assert (driver.text, {*seen}) == ("ab", {"two/m"})


def test_a_moved_call_has_the_parameters_of_the_deployment_that_serves_it() -> None:
    models = [{"m": Model(params={"temperature": heat})} for heat in (0.25, 0.75)]
    one, other = (
        OpenAIBackend(name, base_url=f"https://{name}.test", models=each)
        for name, each in zip(("one", "two"), models, strict=True)
    )
    driver = HandDriver([ANSWER], hosts=[MOVED]).run(
        calling(one, other, limited=True, strategy="weighted", seed=1)
    )
    assert json.loads(driver.sends[0].request.body)["temperature"] == 0.75


def test_a_deployment_that_may_not_be_asked_any_more_gives_the_slot_back_first() -> None:
    both = two(strategy="weighted")
    call = both.call()

    def before(k: int, effect: Effect) -> None:
        if isinstance(effect, Wait):
            for _ in range(5):
                admission = both.health.admit(both.deployment("two"), call.context.plan.request)
                admission.settle(AttemptOutcome(HealthReport(counts=True)))  # type: ignore[union-attr]

    driver = HandDriver([ANSWER], before, hosts=[MOVED]).run(call)
    assert (driver.kinds, options(driver)) == (
        ["Enter", "Wait", "Leave", "Enter", "Send", "Read"],
        [["one/m", "two/m"], ["one/m"]],
    )
    (row,) = driver.rows
    assert (row.deployment, row.queue) == ("one/m", 12), "its wait is not forgotten"


def test_a_deployment_without_a_turn_gives_the_slot_back_and_is_not_moved_to_again() -> None:
    limits = {"m": Model(rpm=1)}
    backends = [
        OpenAIBackend(name, base_url=f"https://{name}.test", models=limits) for name in ("one", "two")
    ]
    both = Shared(*backends, limited=True, strategy="weighted")
    call = both.call()
    room: list[Any] = []

    def before(k: int, effect: Effect) -> None:
        if isinstance(effect, Wait):
            room.append(both.rate_limits.take(call.context.plan.candidates[1].deployment.limit))  # type: ignore[arg-type]

    driver = HandDriver([ANSWER], before, hosts=[MOVED, Granted(0)]).run(call)
    assert (driver.asked, options(driver)) == (["one"], [["one/m", "two/m"], ["one/m"]])
    assert any("two/m passed over: its limit rpm=1" in each for each in driver.completion.route.reasons)
    counted = {name: each.requests for (_, name), each in both.rate_limits.stats().items()}
    assert sorted(counted.values()) == [1, 1], "the call counts once, at the deployment that served it"


def test_the_turn_of_the_first_choice_is_given_back() -> None:
    limits = {"m": Model(rpm=1)}
    backends = [
        OpenAIBackend(name, base_url=f"https://{name}.test", models=limits) for name in ("one", "two")
    ]
    both = Shared(*backends, limited=True, strategy="weighted")
    assert both.gets(ANSWER, hosts=[MOVED]).asked == ["two"]
    assert both.gets(ANSWER).asked == ["one"], "it has room"


def test_only_the_deployment_that_serves_reserves_and_spends() -> None:
    scene = Scene(
        backend("one"),
        backend("two"),
        budgets={"backend:one": Budget(2), "backend:two": Budget(2)},
        limited=True,
    )
    held: list[Any] = []

    def before(k: int, effect: Effect) -> None:
        if isinstance(effect, Wait | Send):
            held.append([scene.stands(f"backend:{name}")[1] for name in ("one", "two")])

    driver = HandDriver([ANSWER], before, hosts=[MOVED])
    driver.run(scene.call(max_tokens=100))
    spent = Decimal("1.1")
    assert held == [[spent, 0], [0, spent]]
    assert scene.stands("backend:one") == (0, 0)
    assert scene.stands("backend:two") == (driver.completion.cost, 0)


def test_who_would_wait_for_a_budget_gives_the_slot_back_first() -> None:
    scene = Scene(backend("one"), backend("two"), budgets={"backend:two": Budget(2)}, limited=True)
    scene.holds("1.5", "backend:two")
    driver = HandDriver([ANSWER], hosts=[MOVED]).run(scene.call(max_tokens=100))
    assert (driver.kinds, driver.asked) == (["Enter", "Wait", "Leave", "Enter", "Send", "Read"], ["one"])
    assert options(driver) == [["one/m", "two/m"], ["one/m"]], "it moves there once"
    assert driver.rows[0].queue == 12
    assert any("wait for its budget" in reason for reason in driver.completion.route.reasons)
    assert scene.stands("backend:two") == (0, Decimal("1.5")), "what others reserved"


def test_a_request_that_only_shows_to_be_unsupported_gives_the_slot_back() -> None:
    class Late(OpenAIBackend):
        """Says that it cannot serve the request only when it is asked for it in full."""

        def encode(self, request: Any, model: str, stream: bool) -> Any:
            from ccroute.errors import InvalidRequestError

            raise InvalidRequestError("no such voice")

    both = paid("one"), Late("two", base_url="https://two.test")
    driver = HandDriver([ANSWER], hosts=[MOVED]).run(calling(*both, limited=True, strategy="weighted"))
    assert driver.kinds == ["Enter", "Wait", "Leave", "Enter", "Send", "Read"]
    assert (driver.asked, len(driver.rows)) == (["one"], 1)


def test_retry_tokens_stay_with_the_backend_that_was_asked() -> None:
    both = two(strategy="weighted")
    for name in ("one", "two"):
        both.retry_budget.take(both.deployment(name).backend.identity, 5.0)
    identities = [both.deployment(name).backend.identity for name in ("one", "two")]
    both.gets(ANSWER, hosts=[MOVED])
    left = [both.retry_budget.left[each][0] for each in identities]
    assert left[0] < 5.0 + 0.41, "only the time has added to it"
    assert left[1] == pytest.approx(5.0 + 12 / 30 + 0.1)


def test_a_move_to_a_backend_that_was_tried_takes_its_retry_tokens() -> None:
    names = {"any": ["one/a", "one/b", "one/c"]}
    three = Shared(
        paid("one"),
        aliases=names,
        model="any",
        limited=True,
        strategy="weighted",
        retry=RetryPolicy(attempts=3),
    )
    driver = three.gets(BROKEN, ANSWER, hosts=[FREE, Granted(1)])
    assert [row.deployment for row in driver.rows] == ["one/a", "one/c"]
    identity = three.deployment("one").backend.identity
    assert three.retry_budget.left[identity][0] < 10
    three.retry_budget.take(identity, three.retry_budget.left[identity][0] - 0.5)
    retry = RetryState(driver_plan(three), three.call().state)
    first, other = driver_plan(three).candidates[:2]
    retry.failed(first, _fault(), 1000.0)
    why_not = retry.moved(other, first)
    assert why_not.why == "its retry budget is used up"  # type: ignore[union-attr]


def driver_plan(shared: Shared) -> Any:
    return shared.call().context.plan


def _fault() -> Any:
    from ccroute.errors import ConnectionFailedError
    from ccroute.failures import AMBIGUOUS
    from ccroute.flow.attempt.fault import Fault

    return Fault(ConnectionFailedError("gone"), AMBIGUOUS)


# -- Ends


@pytest.mark.parametrize("stream", [False, True])
def test_a_moved_call_that_is_stopped_anywhere_settles_everything_once(stream: bool) -> None:
    class Stop(BaseException):
        pass

    def moved(before: Callable[[int, Effect], None] | None = None) -> tuple[Call, HandDriver]:
        call = calling(paid("one"), paid("two"), limited=True, strategy="weighted", stream=stream)
        reply = streams("a", "b") if stream else ANSWER
        return call, HandDriver([reply], before, hosts=[MOVED])

    call, driver = moved()
    points = len(driver.run(call).effects)
    for at in range(points):

        def stop(k: int, effect: Effect, at: int = at) -> None:
            if k == at:
                raise Stop

        call, driver = moved(stop)
        with pytest.raises(Stop):
            driver.run(call)
        (row,) = call.rows
        waited = call.clock.elapsed
        assert row.queue == (12 if waited else 0)
        assert (row.deployment, row.final) == ("two/m" if waited else "one/m", True)
        assert call.context.latest is not None
        assert call.context.latest.held == []
        for each in call.context.plan.candidates:
            assert call.state.load.in_flight(each.deployment.backend.origin) == 0


def test_a_call_waits_for_several_hosts_until_its_deadline() -> None:
    both = two(strategy="weighted")
    driver = HandDriver([ANSWER], hosts=[Queue(seconds=99.0)])
    raised = driver.fail(both.call(timeout=10.0, retry=RetryPolicy()))
    assert isinstance(raised, QueueTimeoutError)
    (attempt,) = raised.attempts
    assert (attempt.deployment, attempt.queued) == ("one/m", pytest.approx(9.95))
    assert (
        "one/m: waited 9.9 s for a slot" in raised.reasons
        or "one/m: waited 10.0 s for a slot" in raised.reasons
    )


def test_a_full_queue_is_a_failure_of_the_first_choice() -> None:
    full = Failure("queue", "its queue is full", sent=False)
    driver = two(strategy="weighted", retry=RetryPolicy()).gets(ANSWER, hosts=[full])
    assert options(driver) == [["one/m", "two/m"], ["two/m"]]
    assert driver.asked == ["two"]
