"""With `drop_params`, a parameter that a server refused is left out at once, and of later calls."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.flow.support import ONCE, Call, HandDriver, ScriptedReply, Shared, answers, calling, paid
from tests.support.openai_like import error

from ccroute.errors import InvalidRequestError
from ccroute.routing import RefusedParameters
from ccroute.types import Request


def refuses(parameter: str) -> ScriptedReply:
    scripted = error(f"Unsupported parameter: '{parameter}'", param=parameter, code="unsupported_parameter")
    return ScriptedReply(400, [json.dumps(scripted).encode()])


def asked(driver: HandDriver) -> list[float | None]:
    """The temperature of each request that was sent."""
    return [json.loads(sent.request.body).get("temperature") for sent in driver.sends]


def call(known: RefusedParameters, *, drop: bool = True, **options: Any) -> Call:
    return calling(paid(), retry=ONCE, drop_params=drop, refused_parameters=known, **options)


def test_a_refused_parameter_is_dropped_without_another_attempt() -> None:
    driver = HandDriver([refuses("temperature"), answers("yes")]).run(
        call(RefusedParameters(), temperature=0.3)
    )
    assert (asked(driver), driver.completion.text) == ([0.3, None], "yes")
    assert "paid/m: temperature dropped, the server refused it" in driver.completion.route.reasons
    assert driver.slept == []


def test_later_calls_do_not_send_what_was_refused() -> None:
    known = RefusedParameters()
    HandDriver([refuses("temperature"), answers()]).run(call(known, temperature=0.3))
    assert asked(HandDriver([answers()]).run(call(known, temperature=0.3))) == [None]
    assert asked(HandDriver([answers()]).run(call(known, temperature=0.7))) == [0.7], "another value may do"
    assert asked(HandDriver([answers()]).run(call(known))) == [None]


def test_after_three_refused_values_none_is_sent() -> None:
    known = RefusedParameters()
    for value in (0.1, 0.2, 0.3):
        HandDriver([refuses("temperature"), answers()]).run(call(known, temperature=value))
    assert asked(HandDriver([answers()]).run(call(known, temperature=0.9))) == [None]
    deployment = call(known).context.plan.candidates[0].deployment
    assert known.of(deployment, Request(temperature=0.5)) == {"temperature"}


def test_a_server_that_refuses_what_was_not_sent_is_not_asked_again() -> None:
    driver = HandDriver([refuses("temperature")])
    assert isinstance(driver.fail(call(RefusedParameters(), temperature=0.3)), InvalidRequestError)
    assert asked(driver) == [0.3, None]
    driver = HandDriver([refuses("temperature")])
    assert isinstance(driver.fail(call(RefusedParameters())), InvalidRequestError)
    assert len(driver.sends) == 1, "it was never given"


def test_without_drop_params_nothing_is_learned() -> None:
    known = RefusedParameters()
    driver = HandDriver([refuses("temperature"), answers()])
    assert isinstance(driver.fail(call(known, drop=False, temperature=0.3)), InvalidRequestError)
    assert asked(HandDriver([answers()]).run(call(known, temperature=0.3))) == [0.3]


def test_what_is_remembered_of_refusals_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccroute.routing.refused_parameters.MAX_KNOWN", 2)
    known, refused = RefusedParameters(), InvalidRequestError("no")
    refused.parameter = "temperature"
    shared, request = Shared(), Request(temperature=0.3)
    for name in "abc":
        assert known.learn(shared.deployment(model=name), request, refused) == "temperature"
    found = [bool(known.of(shared.deployment(model=name), request)) for name in "abc"]
    assert found == [False, False, True]


def test_of_many_refused_values_only_a_few_are_remembered() -> None:
    known, refused = RefusedParameters(), InvalidRequestError("no")
    refused.parameter = "temperature"
    deployment = Shared().deployment()
    for value in range(9):  # calls that were on the way at once
        assert known.learn(deployment, Request(temperature=value / 10), refused) == "temperature"
    assert known.of(deployment, Request(temperature=2.0)) == {"temperature"}
    assert known.of(deployment, Request()) == frozenset()
