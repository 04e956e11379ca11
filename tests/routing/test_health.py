"""Cooldowns, refused keys and models, and a health that many threads share."""

from __future__ import annotations

import gc
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.flow.support import FakeClock
from tests.routing.support import (
    ANSWERED,
    FAILED,
    MODULE,
    NEUTRAL,
    NO_KEY,
    NO_MODEL,
    NO_MONEY,
    ONE,
    OTHER,
    SLOW_DOWN,
    TWO,
    Watched,
    pending,
)

from ccroute.observe import BreakerClosed, BreakerOpened, CooledDown, Event, Recovered
from ccroute.routing import Deployment, Health
from ccroute.routing.acquired import HealthReport, Unavailable
from ccroute.routing.health.switches import Admission

# -- Cooling: what the server asked for


def test_a_deployment_gets_no_calls_for_as_long_as_asked() -> None:
    watched = Watched().ends(SLOW_DOWN)
    assert watched.events == [CooledDown("a/1", 20.0, "slow down")]
    reason = watched.unavailable()
    assert (reason.until, reason.error, reason.cooling) == (watched.now + 20, SLOW_DOWN.error, True)
    assert watched.health.unavailable(TWO) is None
    assert isinstance(watched.after(19.9).unavailable(early=True), Unavailable), "it may be slept through"
    assert isinstance(watched.after(0.1).admitted(), Admission)
    assert isinstance(watched.admitted(), Admission), "it needs no probe"


def test_a_longer_cooldown_wins_and_a_shorter_one_changes_nothing() -> None:
    watched = Watched()
    admissions = [watched.admitted() for _ in range(3)]
    for admission, seconds in zip(admissions, [20.0, 5.0, 60.0], strict=True):
        watched.health.settle(admission, SLOW_DOWN._replace(cool=seconds))
    assert [event.seconds for event in watched.events if isinstance(event, CooledDown)] == [20.0, 60.0]
    assert watched.unavailable().until == watched.now + 60


def test_a_retry_after_alone_does_not_count_for_the_breaker() -> None:
    watched = Watched()
    admissions = [watched.admitted() for _ in range(9)]
    for admission in admissions:
        watched.health.settle(admission, SLOW_DOWN)
    assert watched.opened == []
    watched.after(20).ends(*[FAILED] * 4)
    assert watched.opened == []
    assert watched.ends(FAILED).opened == [30.0]


def test_a_failure_with_retry_after_cools_and_counts() -> None:
    busy = FAILED._replace(cool=7.0)
    watched = Watched()
    for _ in range(5):
        watched.ends(busy).after(7)
    assert len(watched.opened) == 1
    assert sum(isinstance(event, CooledDown) for event in watched.events) == 5


def test_an_expired_breaker_still_waits_for_the_cooldown() -> None:
    busy = FAILED._replace(cool=100.0)
    watched = Watched()
    for admission in [watched.admitted() for _ in range(5)]:
        watched.health.settle(admission, busy)
    reason = watched.after(31).unavailable()
    assert (reason.cooling, reason.until) == (True, watched.now + 69)
    probe = watched.after(69).admitted()
    assert isinstance(watched.unavailable(), Unavailable), "and then for the probe"
    watched.health.settle(probe, ANSWERED)


def test_of_breaker_and_cooldown_the_later_end_is_given() -> None:
    watched = Watched()
    for admission in [watched.admitted() for _ in range(5)]:
        watched.health.settle(admission, FAILED._replace(cool=100.0))
    assert watched.unavailable().until == watched.now + 100


# -- Credentials and models


def test_a_refused_key_turns_its_backend_off_for_5_minutes() -> None:
    watched = Watched().ends(NO_KEY)
    assert watched.events == [CooledDown("a", 300.0, "who?")]
    for deployment in (ONE, TWO):
        reason = watched.unavailable(deployment)
        assert (reason.until, reason.error, reason.keys is not None) == (
            watched.now + 300,
            NO_KEY.error,
            True,
        )
        assert not reason.cooling
    assert watched.health.unavailable(OTHER) is None
    probe = watched.after(300).admitted(TWO)
    assert watched.unavailable(ONE).keys is not None, "one probe for the whole backend"
    watched.health.settle(probe, ANSWERED)
    assert (watched.health.unavailable(ONE), watched.health.unavailable(TWO)) == (None, None)


def test_a_key_refused_again_is_off_twice_as_long_up_to_an_hour() -> None:
    watched = Watched()
    for _ in range(7):
        watched.ends(NO_KEY).after(3600)
    seconds = [event.seconds for event in watched.events if isinstance(event, CooledDown)]
    assert seconds == [300, 600, 1200, 2400, 3600, 3600, 3600]
    watched.ends(ANSWERED, NO_KEY)
    assert watched.events[-1] == CooledDown("a", 300.0, "who?"), "after a success it starts again"


def test_a_hundred_late_refusals_turn_a_key_off_once() -> None:
    watched = Watched()
    for admission in [watched.admitted(deployment) for deployment in (ONE, TWO) for _ in range(50)]:
        watched.health.settle(admission, NO_KEY)
    assert watched.events == [CooledDown("a", 300.0, "who?")]


def test_a_bad_key_does_not_count_against_the_deployment() -> None:
    watched = Watched()
    for _ in range(9):
        watched.ends(NO_KEY).after(3600)
    watched.ends(ANSWERED)
    assert watched.opened == []
    assert not [event for event in watched.events if isinstance(event, BreakerClosed)]


def test_a_billing_limit_lasts_as_long_as_the_server_said() -> None:
    watched = Watched()
    for seconds in (900.0, 900.0, 86_400.0, 900.0):
        watched.ends(NO_MONEY._replace(seconds=seconds))
        assert watched.unavailable(TWO).until == watched.now + seconds
        watched.after(seconds)


def test_a_shorter_refusal_of_an_early_probe_shortens_nothing() -> None:
    watched = Watched().ends(NO_MONEY._replace(seconds=86_400.0))
    until = watched.unavailable().until
    watched.after(10).ends(NO_MONEY, early=True)
    assert watched.unavailable().until == until


def test_after_a_billing_limit_a_refused_key_is_off_for_5_minutes() -> None:
    watched = Watched().ends(NO_MONEY._replace(seconds=86_400.0)).after(86_400).ends(NO_KEY)
    assert watched.unavailable().until == watched.now + 300


def test_a_missing_model_turns_off_its_deployment_only() -> None:
    watched = Watched().ends(NO_MODEL)
    assert watched.events == [CooledDown("a/1", 300.0, "what?")]
    assert (watched.unavailable().until, watched.unavailable().keys is not None) == (watched.now + 300, False)
    assert watched.health.unavailable(TWO) is None
    watched.after(300).ends(NO_MODEL)
    assert watched.unavailable().until == watched.now + 300, "it does not double"
    watched.after(300).ends(ANSWERED)
    assert watched.health.unavailable(ONE) is None


def test_a_refused_models_probe_that_fails_shortens_nothing() -> None:
    watched = Watched().ends(NO_MODEL).after(300).ends(FAILED)
    assert watched.unavailable().until >= watched.now + 300


def test_a_call_may_prove_key_and_deployment_at_once() -> None:
    watched = Watched()
    late = watched.admitted()
    watched.ends(*[FAILED] * 5)
    watched.health.settle(late, NO_KEY)
    assert watched.unavailable().until == watched.now + 300, "the later of the two counts"
    probe = watched.after(300).admitted()
    assert isinstance(watched.unavailable(TWO), Unavailable)
    watched.health.settle(probe, ANSWERED)
    assert (watched.health.unavailable(ONE), watched.health.unavailable(TWO)) == (None, None)
    assert watched.events[-2:] == [BreakerClosed("a/1"), Recovered("a")]


def test_another_key_is_asked_at_once() -> None:
    watched = Watched().ends(NO_KEY)
    watched.health.renew(OTHER.backend)
    assert watched.unavailable().keys is not None
    watched.health.renew(ONE.backend)
    assert watched.health.unavailable(ONE) is None
    assert isinstance(watched.admitted(), Admission)
    assert isinstance(watched.admitted(), Admission), "and needs no probe"


def test_the_old_keys_probe_says_nothing_about_the_new_key() -> None:
    watched = Watched().ends(NO_KEY).after(300)
    probe = watched.admitted()
    watched.health.renew(ONE.backend)
    watched.ends(NO_KEY)
    watched.health.settle(probe, ANSWERED)
    assert watched.unavailable().keys is not None, "only a call with this key can prove it"


# -- Off, forks, memory


def test_health_that_is_off_admits_always_and_emits_nothing() -> None:
    watched = Watched(on=False)
    for report in (*[FAILED] * 9, SLOW_DOWN, NO_KEY, NO_MONEY, NO_MODEL):
        watched.ends(report)
    assert watched.health.unavailable(ONE) is None
    assert watched.events == []


def test_a_forked_child_waits_for_no_lock_and_no_probe() -> None:
    watched = Watched().ends(*[FAILED] * 5).after(30)
    probe = watched.admitted()
    watched.health._inbox.lock.acquire()
    watched.health.after_fork()
    own = watched.admitted()
    del probe
    gc.collect()
    assert isinstance(watched.unavailable(), Unavailable), "the parent's probe gives nothing back here"
    watched.health.settle(own, ANSWERED)
    assert watched.health.unavailable(ONE) is None


def test_memory_is_bounded_however_many_models_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{MODULE}.MAX_KNOWN", 10)
    watched = Watched()
    for number in range(50):
        watched.ends(FAILED, at=replace(ONE, name=f"a/{number}", model=str(number)))
    assert len(watched.health.stats()[0]) == 10


# -- Locks and listeners


def test_listeners_run_without_the_lock_and_may_use_health() -> None:
    clock, emitted = FakeClock(), []
    free: list[bool] = []

    def listen(event: Event) -> None:
        emitted.append(type(event))
        free.append(health._inbox.lock.acquire(blocking=False))
        if free[-1]:
            health._inbox.lock.release()
        health.unavailable(ONE)
        admission = health.admit(TWO)
        if isinstance(admission, Admission):
            health.settle(admission, SLOW_DOWN if len(emitted) < 3 else NEUTRAL)

    health = Health(clock, listen)
    for _ in range(5):
        admission = health.admit(ONE)
        assert isinstance(admission, Admission)
        health.settle(admission, FAILED)
    assert emitted == [BreakerOpened, CooledDown]
    assert all(free)


def test_a_finaliser_in_the_middle_of_the_lock_tells_nothing() -> None:
    watched = Watched()
    late, refused = watched.admitted(), watched.admitted()
    apply, free = watched.health._switches.apply, list[bool]()

    def applying(*report: Any) -> None:
        apply(*report)  # what it finds out is told after the lock
        watched.health.settle(late, NEUTRAL)
        free.append(not watched.events)

    watched.health._inbox._apply = applying
    watched.health.settle(refused, NO_KEY)
    assert free[0], "a listener under the lock could never use the router"
    assert [type(event) for event in watched.events] == [CooledDown]


def test_settling_while_the_lock_is_held_never_waits() -> None:
    watched = Watched()
    admissions = [watched.admitted() for _ in range(5)]
    with watched.health._inbox.lock:  # a finaliser in the middle of admit()
        for admission in admissions:
            watched.health.settle(admission, FAILED)
        assert watched.events == [], "nothing is emitted under the lock"
    assert isinstance(watched.health.unavailable(ONE), Unavailable)
    assert watched.opened == [30.0]


def test_a_probe_collected_while_the_lock_is_held_is_free_again() -> None:
    watched = Watched().ends(*[FAILED] * 5).after(30)
    probes: list[Any] = [watched.admitted()]
    probes.append(probes)  # only the collector can free it
    with watched.health._inbox.lock:
        del probes
        gc.collect()
    assert isinstance(watched.admitted(), Admission)


def test_a_report_counts_from_the_end_of_its_attempt() -> None:
    watched = Watched()
    admission = watched.admitted()
    with watched.health._inbox.lock:
        watched.health.settle(admission, SLOW_DOWN)
        watched.after(15)
    assert watched.unavailable().until == watched.now + 5


# -- Threads


def test_thirty_two_threads_never_have_two_probes_of_one_switch() -> None:
    clock = FakeClock()
    events: Counter[type[Event]] = Counter()
    health = Health(clock, lambda event: events.update([type(event)]))
    out: Counter[int] = Counter()
    guard, start = threading.Lock(), threading.Barrier(32)
    seen: list[int] = []
    faults: list[BaseException] = []
    reports = [FAILED, FAILED, FAILED, FAILED, ANSWERED, NEUTRAL, NO_KEY, SLOW_DOWN, NO_MODEL, None]

    def hammer(seed: int) -> None:
        chance = random.Random(seed)
        start.wait()
        for _ in range(150):
            admission = health.admit(chance.choice([ONE, TWO, OTHER]), early=chance.random() < 0.2)
            if isinstance(admission, Unavailable):
                clock.elapsed += 1
                continue
            with guard:
                out.update(map(id, admission.probes))
                seen.extend(out[id(switch)] for switch in admission.probes)
            report = chance.choice(reports)
            with guard:
                out.subtract(map(id, admission.probes))
            if report is not None:
                health.settle(admission, report)

    threads = [threading.Thread(target=_caught(hammer, faults), args=(seed,)) for seed in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert len(seen) > 50
    assert set(seen) == {1}
    assert events[BreakerOpened] > 0
    assert events[BreakerClosed] > 0
    clock.elapsed += 10_000
    for deployment in (ONE, TWO, OTHER):
        assert isinstance(health.admit(deployment), Admission), "no lease was lost"
    assert pending(health) == []


def _caught(work: Callable[[int], None], faults: list[BaseException]) -> Callable[[int], None]:
    def run(seed: int) -> None:
        try:
            work(seed)
        except BaseException as fault:
            faults.append(fault)

    return run


def test_a_report_that_is_wrong_is_the_error_of_one_call() -> None:
    watched = Watched()
    admission = watched.admitted()
    with pytest.raises(TypeError):
        watched.health.settle(admission, HealthReport(counts=True, cool="20"))  # type: ignore[arg-type]
    assert watched.health.unavailable(ONE) is None
    assert isinstance(watched.admitted(), Admission)


def test_a_failing_deployment_is_not_forgotten_for_healthy_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{MODULE}.MAX_KNOWN", 10)
    watched = Watched().ends(NO_MODEL)
    for i in range(30):
        other = Deployment(f"a/other{i}", ONE.backend, f"other{i}", ONE.info, None)
        admission = watched.health.admit(other)
        assert isinstance(admission, Admission)
        watched.health.settle(admission, ANSWERED)
    assert watched.unavailable() is not None
