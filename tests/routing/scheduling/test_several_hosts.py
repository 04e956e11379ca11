"""Calls that several hosts may serve with equal right: who serves them, and that the hosts settle."""

from __future__ import annotations

import random

import pytest
from tests.routing.scheduling.support import ONE, SWAPS, TWO, Bed

from ccroute.routing.scheduling import HostLimits, LoadedFirst, Place
from virtual_hosts import Agent, Call, Machine, simulate


def both(model: str) -> tuple[Place, Place]:
    return Place(ONE, model), Place(TWO, model)


def pair(load: float = 10.0, **options: HostLimits) -> Bed:
    return Bed(load=load, limits={"one": SWAPS, "two": SWAPS} | options)


def test_a_call_goes_where_its_model_is_loaded_though_another_host_is_preferred() -> None:
    bed = pair()
    bed.hosts.listed(TWO, [("a", None)], 0.0)
    bed.enter("a", *both("a"))
    assert bed.grants["a"].place.host == TWO
    assert not bed.grants["a"].loads


def test_of_hosts_that_are_alike_the_preferred_one_serves() -> None:
    bed = pair()
    bed.enter("a", *reversed(both("a")))
    assert bed.grants["a"].place.host == TWO


def test_a_free_host_leaves_a_call_to_the_host_that_has_its_model_and_answers_sooner() -> None:
    bed = pair()
    bed.enter("a0", *both("a"))
    bed.now = 10.0
    bed.enter("a1", *both("a"))
    assert bed.look() == []  # a call takes a second, a load ten
    assert bed.end("a0", after=1.0) == ["a1"]
    assert bed.grants["a1"].place.host == ONE


def test_a_host_that_keeps_its_model_for_the_next_caller_is_no_reason_for_another_to_wait() -> None:
    bed = pair()
    bed.hosts.listed(ONE, [("a", None)], 0.0)
    bed.hosts.listed(TWO, [("a", None)], 0.0)
    bed.enter("a", *both("a"))
    bed.end("a", after=1.0)  # now the first host waits a moment for the next one
    bed.enter("b", *both("b"))
    assert bed.grants["b"].place.host == TWO


def test_a_free_host_loads_a_model_where_the_queue_elsewhere_takes_longer() -> None:
    bed = pair()
    bed.enter("a0", *both("a"))
    bed.now = 10.0
    for number in range(1, 12):
        bed.enter(f"a{number}", *both("a"))
    assert {grant.place.host for grant in bed.grants.values()} == {ONE, TWO}


def test_a_call_that_hangs_elsewhere_is_not_waited_for_without_end() -> None:
    bed = pair()
    bed.enter("hangs", *both("a"))
    bed.enter("a", *both("a"))
    while "a" not in bed.grants:
        bed.now += 0.5
        bed.look()
        assert bed.now < 30.0
    assert bed.grants["a"].place.host == TWO


def test_a_host_loads_a_model_for_which_there_is_no_other_host() -> None:
    bed = pair()
    bed.enter("a0", *both("a"))
    bed.enter("b", Place(TWO, "b"))
    assert bed.grants["b"].place.host == TWO


def test_the_host_whose_model_is_missed_least_loads_another_one() -> None:
    bed = pair()
    bed.enter("a0", *both("a"))
    bed.enter("b0", *both("b"))
    for number in range(1, 6):
        bed.enter(f"a{number}", *both("a"))
        bed.end("a0" if number == 1 else f"a{number - 1}", after=10.0)
    bed.end("a5", "b0", after=60.0)
    bed.now += 30.0
    bed.enter("c", *both("c"))
    assert bed.grants["c"].evicted == ["b"]
    assert bed.grants["c"].place.host == TWO


def test_a_call_waits_in_one_queue_and_is_served_once() -> None:
    bed = pair()
    for number in range(4):
        bed.enter(f"a{number}", *both("a"))
    assert bed.hosts.waiting_at(ONE) == bed.hosts.waiting_at(TWO) == len(bed.hosts)
    bed.order()
    assert [*bed.grants] == ["a0", "a1", "a2", "a3"]
    assert len(bed.hosts) == 0
    assert not bed[ONE].queues
    assert not bed[TWO].queues


def test_a_host_that_loads_no_models_serves_at_once() -> None:
    bed = pair(two=HostLimits(1))
    bed.enter("a0", Place(ONE, "a"), Place(TWO, ""))
    assert bed.grants["a0"].place == Place(TWO, "")


def test_a_call_is_not_left_to_a_host_where_others_have_a_higher_priority() -> None:
    bed = pair(two=HostLimits(1, loads_models=True, memory_gb=10.0))
    bed.hosts.listed(TWO, [("a", 1.0), ("b", 1.0)], 0.0)
    for call in ("a0", "a1"):
        bed.enter(call, Place(TWO, "a"), priority=1)
    bed.enter("low", *both("b"))
    assert bed.grants["low"].place.host == ONE


def test_what_one_host_does_may_be_a_reason_for_another() -> None:
    bed = pair()
    for _ in range(9):
        bed[ONE].estimate("a", 0.0).asked(0.0)
    bed.enter("a", Place(ONE, "a"))
    bed.enter("b", Place(TWO, "b"))
    bed.enter("c", Place(TWO, "c"))
    bed.enter("d", *both("d"))  # rather at the second one, whose model is missed less; but that serves c
    bed.now = 60.0
    assert bed.end("a", "b") == []  # these may be asked for again in a moment
    bed.now += 1.0
    assert bed.look() == ["c", "d"]
    assert bed.grants["d"].place.host == ONE


def test_hosts_that_are_gone_are_no_choice() -> None:
    bed = pair()
    bed.enter("a0", *both("a"))
    bed.enter("b0", *both("b"))
    bed.enter("a1", *both("a"))
    bed.hosts.configure({TWO: SWAPS})
    bed.hosts.listed(ONE, [], 1.0)
    bed.hosts.measured(bed.grants["a0"], 1.0, 1.0, 1.0)
    bed.hosts.leave("a0", bed.now)
    assert bed.end("b0", after=11.0) == []  # b may be asked for again in a moment
    bed.now += 1.0
    assert bed.look() == ["a1"]


@pytest.mark.parametrize("pause", [0.0, 30.0])
def test_two_hosts_keep_one_model_each(pause: float) -> None:
    """In turn, they would load more than a hundred times."""
    chance = random.Random(1)
    agents = [
        Agent(model, [Call(chance.random() * (2 * pause + 0.01), 20.0) for _ in range(30)])
        for model in "ab"
        for _ in range(5)
    ]
    run = simulate(agents, Machine({"a": 45.0, "b": 45.0}, hosts=2), LoadedFirst())
    assert run.loads <= 6
    assert run.makespan <= 1.2 * max(300 * 20.0 / 2 + 45.0, 30 * (20.0 + pause))
