"""What a failure cost, who is tried next, and how long it is waited for."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tenacity
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.flow.support import FakeClock, HandDriver, answers, calling, fails, paid, planned, router_state

from ccroute import OpenAIBackend, errors
from ccroute.errors import (
    AuthenticationError,
    BackendError,
    ConnectionFailedError,
    ContextWindowExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    PermissionDeniedError,
    QuotaExhaustedError,
    RateLimitError,
    ServerError,
)
from ccroute.failures import DELIVERED, TRIGGERS, rule_of
from ccroute.flow.attempt.fault import Fault
from ccroute.flow.retry import NextAttempt, RetryState
from ccroute.routing import Plan, RetryBudget
from ccroute.routing.retry_budget import RetryTokens
from ccroute.types import FailureClass, Model, RetryPolicy

NOW = 100.0
ROOT = Path(__file__).parents[2]
PATH = os.pathsep.join([str(ROOT), str(ROOT / "src")])


# -- The state of one call, driven by hand


def places(*names: str, fallback: Sequence[str] = (), windows: dict[str, int] | None = None) -> Plan:
    """A plan of candidates `backend/model` in order, those of `fallback` last."""
    windows = windows or {}
    backends: dict[str, dict[str, Model]] = {}
    for name in (*names, *fallback):
        backend, _, model = name.partition("/")
        backends.setdefault(backend, {})[model] = Model(context_window=windows.get(name))
    made = [OpenAIBackend(name, base_url=f"https://{name}.test", models=backends[name]) for name in backends]
    return planned(made, aliases={"any": list(names)}, model="any", fallback=list(fallback))


class FailingCall:
    """One call whose attempts fail one after the other."""

    def __init__(
        self,
        plan: Plan,
        *,
        triggers: Any = TRIGGERS,
        draw: float = 0.5,
        **policy: Any,
    ) -> None:
        ages = itertools.count(step=1e6)  # so that no retry budget is ever empty
        state = router_state(
            FakeClock(draws=[draw]),
            retry=RetryPolicy(**policy),
            retry_budget=RetryBudget(lambda: next(ages)),
        )
        self.state = RetryState(plan._replace(triggers=triggers), state)
        self.step: NextAttempt | None = self.state.next(NOW)
        self.tried: list[str] = []

    def fail(self, *faults: Fault) -> str | None:
        """Fail so, one step after the other; the deployment that is next, if any."""
        for fault in faults:
            assert self.step is not None, f"the call ended after {self.tried}"
            self.tried.append(self.step.candidate.deployment.name)
            self.state.failed(self.step.candidate, fault, NOW)
            self.step = self.state.next(NOW)
        return None if self.step is None else self.step.candidate.deployment.name

    @property
    def wait(self) -> float:
        assert self.step is not None
        return self.step.wait


def fault(error: errors.CcrouteError, **options: Any) -> Fault:
    return Fault(error, rule_of(error), **options)


def refused() -> Fault:
    error = ConnectionFailedError("refused")
    error.sent = False
    return fault(error)


BUSY = fault(OverloadedError("busy", status=503))
LIMITED = fault(RateLimitError("slow down", status=429))
BROKE = fault(ServerError("bad gateway", status=502))
NO_KEY = fault(AuthenticationError("who?", status=401))
FORBIDDEN = fault(PermissionDeniedError("no", status=403))
NO_MONEY = fault(QuotaExhaustedError("pay", status=429))
NO_MODEL = fault(ModelNotFoundError("what?", status=404))
WRONG = fault(InvalidRequestError("what?", status=400))
CUT = Fault(errors.StreamInterruptedError("cut"), DELIVERED)
TOO_LONG = fault(ContextWindowExceededError("too long", status=400))


def test_a_rejected_call_goes_to_the_next_deployment_at_once() -> None:
    failing = FailingCall(places("a/m", "b/m", fallback=["c/m"]))
    assert failing.fail(BUSY) == "b/m"
    assert failing.wait == 0
    assert failing.fail(BUSY) == "c/m"
    assert failing.fail(BUSY) is None


@pytest.mark.parametrize("attempts", [1, 2, 3, 5])
def test_no_more_than_so_many_attempts_count(attempts: int) -> None:
    failing = FailingCall(places(*(f"{name}/m" for name in "abcdef")), attempts=attempts)
    assert failing.fail(*[BUSY] * attempts) is None
    assert len(set(failing.tried)) == attempts


def test_no_deployment_is_tried_more_often_than_allowed() -> None:
    failing = FailingCall(places("a/m"), attempts=9, per_deployment=3)
    assert failing.fail(BUSY, BUSY, BUSY) is None


def test_what_was_never_sent_uses_no_attempt_and_still_is_bounded() -> None:
    failing = FailingCall(places("a/m", "b/m", "c/m"), attempts=2)
    assert failing.fail(refused(), refused(), refused()) == "a/m"
    assert failing.fail(refused(), refused(), refused()) is None
    assert FailingCall(places("a/m"), attempts=1).fail(refused()) is None


def test_all_deployments_come_before_any_is_tried_again() -> None:
    failing = FailingCall(places("a/m", "b/m"), attempts=4)
    failing.fail(BUSY, BUSY, BUSY, BUSY)
    assert failing.tried == ["a/m", "b/m", "a/m", "b/m"]


def test_the_last_attempt_is_kept_for_a_backend_that_was_not_tried() -> None:
    failing = FailingCall(places("a/1", "a/2", "a/3", "a/4", fallback=["home/m"]))
    assert failing.fail(BROKE, BROKE) == "home/m"


def test_two_bad_gateways_still_reach_the_local_model() -> None:
    failing = FailingCall(places("a/m", fallback=["home/m"]), attempts=3, per_deployment=2)
    assert failing.fail(BROKE) == "home/m"
    failing = FailingCall(places("a/1", "a/2", fallback=["home/m"]))
    assert failing.fail(BROKE) == "a/2", "another deployment first"
    assert failing.fail(BROKE) == "home/m"


def test_the_last_attempt_stays_where_no_other_backend_is_left() -> None:
    failing = FailingCall(places("a/1", "a/2", "a/3"))
    assert failing.fail(BUSY, BUSY) == "a/3"


def test_an_ambiguous_failure_allows_one_more_try_at_its_backend() -> None:
    failing = FailingCall(places("a/1", "a/2", "a/3", "b/m"), attempts=9)
    assert failing.fail(BROKE, BROKE) == "b/m"
    assert failing.fail(BROKE) == "b/m"
    assert failing.fail(BROKE) is None
    failing = FailingCall(places("a/m"), attempts=9, per_deployment=9)
    assert failing.fail(BROKE) == "a/m"
    assert failing.fail(BROKE) is None


@pytest.mark.parametrize("error", [NO_KEY, NO_MONEY])
def test_a_refused_credential_turns_the_whole_backend_off(error: Fault) -> None:
    failing = FailingCall(places("a/1", "a/2", "b/m"))
    assert failing.fail(error) == "b/m"
    assert failing.fail(error) is None


@pytest.mark.parametrize("error", [FORBIDDEN, NO_MODEL, fault(BackendError("moved", status=302))])
def test_a_refused_model_turns_only_its_deployment_off(error: Fault) -> None:
    failing = FailingCall(places("a/1", "a/2", "b/m"), attempts=9)
    assert failing.fail(error) == "a/2"
    assert failing.fail(error) == "b/m"
    assert failing.fail(error) is None


@pytest.mark.parametrize("error", [WRONG, CUT, fault(errors.EgressDeniedError("no"))])
def test_a_callers_mistake_and_a_cut_stream_end_the_call(error: Fault) -> None:
    assert FailingCall(places("a/m", "b/m", fallback=["c/m"])).fail(error) is None


def test_after_an_overflow_only_a_larger_window_helps() -> None:
    windows = {"a/m": 8_000, "b/m": 8_000, "c/m": 16_000, "d/m": 32_000}
    failing = FailingCall(places("a/m", "b/m", "x/m", "c/m", fallback=["d/m", "y/m"], windows=windows))
    assert failing.fail(TOO_LONG) == "c/m"
    assert failing.fail(TOO_LONG) == "d/m"
    assert failing.fail(TOO_LONG) is None


def test_the_servers_context_window_wins_over_the_configured_one() -> None:
    error = ContextWindowExceededError("too long")
    error.limit = 20_000
    failing = FailingCall(places("a/m", "b/m", "c/m", windows={"a/m": 8_000, "b/m": 16_000, "c/m": 32_000}))
    assert failing.fail(fault(error)) == "c/m"


def test_among_unknown_windows_only_another_model_may_be_larger() -> None:
    failing = FailingCall(places("a/m", "b/m", fallback=["c/m"]))
    assert failing.fail(TOO_LONG) == "c/m"


@pytest.mark.parametrize(
    ("error", "trigger"),
    [
        (TOO_LONG, "token_limit"),
        (LIMITED, "rate_limit"),
        (BUSY, "availability"),
        (BROKE, "availability"),
        (refused(), "availability"),
        (NO_KEY, "availability"),
        (NO_MONEY, "availability"),
        (NO_MODEL, "availability"),
    ],
)
def test_a_fallback_is_used_only_for_its_triggers(error: Fault, trigger: str) -> None:
    assert error.rule.trigger == trigger
    others = [name for name in TRIGGERS if name != trigger]
    assert FailingCall(places("a/m", fallback=["c/m"]), triggers=[trigger]).fail(error) == "c/m"
    assert FailingCall(places("a/m", fallback=["c/m"]), triggers=others).fail(error) in {None, "a/m"}


def test_a_fallbacks_own_triggers_count_beside_the_agents() -> None:
    plan = places("a/m", fallback=["b/m", "c/m"])
    first, busy, long = plan.candidates
    plan = plan._replace(
        candidates=[
            first,
            busy._replace(triggers=["rate_limit", "availability"]),
            long._replace(triggers=["token_limit"]),
        ]
    )
    assert FailingCall(plan).fail(NO_KEY) == "b/m"
    assert FailingCall(plan).fail(NO_KEY, NO_KEY) is None
    assert FailingCall(plan).fail(TOO_LONG) == "c/m"
    assert FailingCall(plan).fail(TOO_LONG, TOO_LONG) is None
    assert FailingCall(plan, triggers=["rate_limit"]).fail(TOO_LONG) is None


def test_triggers_do_not_concern_the_aliass_own_deployments() -> None:
    assert FailingCall(places("a/m", "b/m"), triggers=[]).fail(LIMITED) == "b/m"


def test_a_later_failure_may_trigger_a_fallback() -> None:
    failing = FailingCall(places("a/m", fallback=["c/m"]), triggers=["availability"])
    assert failing.fail(LIMITED) == "a/m"
    assert failing.fail(BUSY) == "c/m"


# -- Waiting


@pytest.mark.parametrize("seconds", [0.0, 7.5])
def test_retry_after_is_awaited_only_if_no_candidate_is_left(seconds: float) -> None:
    asked = fault(RateLimitError("slow down", status=429, retry_after=seconds))
    assert asked.error.retry_after == seconds
    failing = FailingCall(places("a/m", "b/m"))
    assert failing.fail(asked) == "b/m"
    assert failing.wait == 0
    assert failing.fail(fault(RateLimitError("slow down", status=429, retry_after=90))) == "a/m"
    assert failing.wait == seconds


def test_of_several_the_one_that_is_ready_first_is_waited_for() -> None:
    failing = FailingCall(places("a/m", "b/m"))
    failing.fail(fault(OverloadedError("x", status=503, retry_after=30)))
    assert failing.fail(fault(OverloadedError("x", status=503, retry_after=20))) == "b/m"
    assert failing.wait == 20


def test_time_that_has_passed_is_not_waited_for_again() -> None:
    failing = FailingCall(places("a/m"))
    failing.fail(fault(OverloadedError("x", status=503, retry_after=30)))
    later = failing.state.next(NOW + 20), failing.state.next(NOW + 50)
    assert [step.wait for step in later if step is not None] == [10, 0]


@pytest.mark.parametrize(
    ("tries", "ceiling"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0), (6, 8.0), (60, 8.0)]
)
@pytest.mark.parametrize("draw", [0.0, 0.5, 0.999])
def test_waits_have_full_jitter_below_a_doubling_bound(tries: int, ceiling: float, draw: float) -> None:
    failing = FailingCall(places("a/m"), attempts=99, per_deployment=99, draw=draw)
    failing.fail(*[BUSY] * tries)
    assert failing.wait == pytest.approx(draw * ceiling)


def test_a_policy_without_waits_waits_never() -> None:
    failing = FailingCall(places("a/m"), base=0, max=0)
    assert failing.fail(BUSY) == "a/m"
    assert failing.wait == 0


@pytest.mark.parametrize(
    ("wait", "slept"),
    [
        (tenacity.wait_fixed(3), [3, 3, 3]),
        (tenacity.wait_fixed(1) + tenacity.wait_random(2, 2), [3, 3, 3]),
        (tenacity.wait_incrementing(1, 2), [1, 3, 5]),
        (tenacity.wait_chain(tenacity.wait_fixed(2), tenacity.wait_fixed(9)), [2, 9, 9]),
        (lambda state: -1, [0, 0, 0]),
    ],
)
def test_a_policys_own_strategy_says_the_wait(wait: Any, slept: list[float]) -> None:
    failing = FailingCall(places("a/m"), attempts=9, per_deployment=9, wait=wait)
    waits = []
    for _ in slept:
        failing.fail(BUSY)
        waits.append(failing.wait)
    assert waits == pytest.approx(slept)


def test_a_strategy_sees_the_error_and_the_number_of_attempts() -> None:
    seen: list[Any] = []

    def wait(state: tenacity.RetryCallState) -> float:
        assert state.outcome is not None
        seen.append((state.attempt_number, state.outcome.failed, state.outcome.exception()))
        return 1.5

    failing = FailingCall(places("a/m", "b/m"), attempts=9, per_deployment=9, wait=wait)
    failing.fail(BUSY, LIMITED, BUSY)
    assert seen == [(1, True, BUSY.error), (1, True, LIMITED.error), (2, True, BUSY.error)]


def test_a_servers_retry_after_wins_over_a_strategy() -> None:
    failing = FailingCall(places("a/m"), wait=tenacity.wait_fixed(3))
    failing.fail(fault(RateLimitError("slow down", status=429, retry_after=7)))
    assert failing.wait == 7


@pytest.mark.parametrize("wait", [3, "1 s", [1, 2]])
def test_a_wait_that_is_no_strategy_is_refused(wait: Any) -> None:
    with pytest.raises(TypeError, match=r"wait is a tenacity wait strategy such as wait_fixed\(1\), not"):
        RetryPolicy(wait=wait)


def test_the_default_policy_needs_no_tenacity() -> None:
    code = """
import sys
sys.modules["tenacity"] = None  # its import fails
from tests.flow.support import HandDriver, ScriptedReply, answers, calling, paid
driver = HandDriver([ScriptedReply(503), ScriptedReply(503), answers()]).run(calling(
    paid(), retry=__import__("ccroute").RetryPolicy(
    attempts=3, per_deployment=3)))
assert len(driver.slept) == 2
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": PATH})


# -- x-should-retry


@pytest.mark.parametrize("error", [BUSY, BROKE, LIMITED, refused()])
def test_a_server_that_forbids_a_retry_gets_none(error: Fault) -> None:
    marked = Fault(error.error, error.rule, retry=False)
    assert FailingCall(places("a/m")).fail(marked) is None
    assert FailingCall(places("a/m", "a/2")).fail(marked) == "a/2"


def test_a_server_that_asks_for_a_retry_gets_one() -> None:
    marked = fault(BackendError("try me", status=405), retry=True)
    failing = FailingCall(places("a/m"), attempts=9)
    assert failing.fail(marked) == "a/m"
    assert failing.fail(marked) is None


@pytest.mark.parametrize("error", [WRONG, NO_KEY, FORBIDDEN, NO_MONEY])
def test_no_server_gets_a_retry_of_what_was_wrong_or_forbidden(error: Fault) -> None:
    assert FailingCall(places("a/m")).fail(Fault(error.error, error.rule, retry=True)) is None


# -- Whatever happens

FAULTS = [BUSY, LIMITED, BROKE, refused(), NO_KEY, FORBIDDEN, NO_MONEY, NO_MODEL, TOO_LONG]


@settings(max_examples=150)
@given(
    faults=st.lists(st.sampled_from(FAULTS), min_size=30, max_size=30),
    names=st.lists(st.sampled_from(["a/1", "a/2", "b/1", "b/2", "c/1"]), min_size=1, unique=True),
    fallback=st.lists(st.sampled_from(["d/1", "d/2", "e/1"]), unique=True),
    triggers=st.lists(st.sampled_from(TRIGGERS), unique=True),
    attempts=st.integers(1, 5),
    per_deployment=st.integers(1, 3),
)
def test_any_call_keeps_its_bounds_on_attempts(
    faults: list[Fault],
    names: list[str],
    fallback: list[str],
    triggers: list[Any],
    attempts: int,
    per_deployment: int,
) -> None:
    failing = FailingCall(
        places(*names, fallback=fallback), triggers=triggers, attempts=attempts, per_deployment=per_deployment
    )
    seen: list[tuple[str, FailureClass]] = []
    for each in faults:
        if failing.step is None:
            break
        deployment = failing.step.candidate.deployment.name
        backend = deployment[0]
        assert 0 <= failing.step.wait <= 8.0
        assert not [
            c for d, c in seen if d == deployment and c in {"credential", "unavailable", "context_length"}
        ], "it was off"
        assert sum(d[0] == backend and c == "ambiguous" for d, c in seen) < 2, "one extra attempt per backend"
        assert not failing.step.candidate.fallback or faults[len(seen) - 1].rule.trigger in triggers
        seen.append((deployment, each.rule.failure))
        failing.fail(each)
    assert failing.step is None
    assert sum(failure != "not_sent" for _, failure in seen) <= attempts
    assert max(Counter(deployment for deployment, _ in seen).values()) <= per_deployment


def broken(said: Any) -> Any:
    """A wait strategy that says this."""
    return lambda state: 1 / 0 if said is None else said


@pytest.mark.parametrize("said", [None, "soon", [], float("nan"), -3])
def test_a_wait_strategy_that_fails_ends_no_call(said: Any) -> None:
    way = FailingCall(places("a/m"), wait=broken(said))
    way.fail(BROKE)
    assert 0 <= way.wait <= 0.5


def test_a_wait_strategy_is_asked_only_where_a_retry_may_follow() -> None:
    asked = list[float]()
    way = FailingCall(places("a/m", fallback=["b/m"]), wait=lambda state: asked.append(1.0) or 1.0)
    assert way.fail(NO_KEY) == "b/m"
    assert asked == []


def test_a_step_whose_retry_tokens_were_just_taken_is_chosen_anew() -> None:
    class Racing(RetryBudget):
        takes = 0

        def take(self, backend: str, cost: float) -> RetryTokens | None:
            self.takes += 1
            return None if self.takes == 1 else super().take(backend, cost)  # another thread is quicker

    budget = Racing(lambda: 0.0)
    driver = HandDriver([fails(502), answers()]).run(calling(paid(), retry_budget=budget))
    assert driver.asked == ["paid", "paid"]
    assert budget.takes == 2
