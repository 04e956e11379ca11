"""`benchmarks/residency.py`, shorter: what the order of calls at a host is to reach."""

from __future__ import annotations

import math

import pytest

import residency
from ccroute.routing.scheduling import LoadedFirst
from offline import lower_bound, optimum, search
from residency_plot import plot
from virtual_hosts import Agent, Call, Machine, simulate

FIFO, OURS, BATCH = "first come, first served", "ccroute", "ccroute, complete_many"


def test_seventy_requests_take_as_long_as_grouped_and_nobody_waits_longer_than_in_order() -> None:
    rows = {(row.case, row.order): row for row in residency.seventy()}
    for name in ("toy", "seeds"):
        waiting, once = f"{name}, agents wait", f"{name}, all at once"
        assert rows[waiting, OURS].ratio <= 1.15
        assert rows[once, OURS].ratio <= 1.01
        assert rows[once, BATCH].ratio <= 1.02
        for case in (waiting, once):
            ours, fifo = rows[case, OURS], rows[case, FIFO]
            assert ours.longest <= fifo.longest
            assert ours.p95 <= fifo.p95
            assert ours.mean < fifo.mean
    assert rows["seeds, agents wait", OURS].ratio <= 1.09
    assert rows["toy, agents wait", FIFO].loads == 51  # as measured on a real Ollama
    assert 19 <= rows["toy, agents wait", "Ollama's own"].loads <= 21
    assert "| ccroute |" in residency.markdown(rows.values())


@pytest.mark.parametrize(("pause", "most"), [(0.0, 1.12), (30.0, 1.22)])
def test_in_eight_hours_nobody_waits_longer_than_bound_and_batch(pause: float, most: float) -> None:
    agents, machine = residency.eight_hours(pause, seed=1), residency.SEEDS.machine()
    run = simulate(agents, machine, LoadedFirst())
    load, answer = residency.SEEDS.load, residency.SEEDS.answer
    bound_and_batch = 12 * load + load + residency.AGENTS["a"] * answer
    longest = max(waited.seconds for waited in run.waits)
    assert longest <= 1.05 * bound_and_batch  # answers take random times
    assert run.makespan <= most * lower_bound(agents, machine)


def test_a_wait_is_predicted() -> None:
    for waited, predicted, error in residency.predictions().values():
        assert abs(predicted - waited) <= 0.25 * waited
        assert error <= 0.4 * waited


def test_the_offline_figures_agree_on_a_small_workload() -> None:
    machine = Machine({"a": 45.0, "b": 45.0})
    agents = [Agent(model, [Call(0.0, 20.0), Call(30.0, 20.0)]) for model in "aab"]
    best = optimum(agents, machine)
    assert lower_bound(agents, machine) <= best
    assert search(agents, machine, math.inf) == best
    assert search(agents, machine, 10.0) is None
    assert best <= simulate(agents, machine, LoadedFirst()).makespan <= 1.5 * best


def test_figures_are_drawn() -> None:
    rows = residency.by_themselves(1)[:3]
    drawn = plot({"here": rows})
    assert drawn.count("<circle") >= 2 * len(rows)
    assert rows[0].case in drawn
