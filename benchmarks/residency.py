"""Which model is loaded where, in simulations: the orders in which a host with several models may serve its
callers, compared in virtual time. ccroute's own scheduler is driven unchanged.

    python benchmarks/residency.py [--quick] [--json FILE] [--plot FILE]
    python benchmarks/residency.py --ollama 11434 [--models med-a,med-b,med-c] [--rounds 5] [--words 3]

With `--ollama`, a real server on this port gets the same 70 requests in every way: about 15 minutes.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ccroute.routing.scheduling import ArrivalOrder, LoadedFirst
from offline import lower_bound, optimum, search
from residency_plot import plot
from virtual_hosts import Agent, Call, Machine, Run, ollama, simulate
from workload import MIXED, Request, requests

AGENTS = {"a": 9, "b": 4, "c": 1}
RESULTS = Path(__file__).parent / "results"
Order = Callable[[Sequence[Agent], Machine], Run]


class Figures(NamedTuple):
    """A server's times, in seconds: of an answer of 20 words, and of a load."""

    answer: float
    load: float

    def machine(self, hosts: int = 1) -> Machine:
        return Machine(dict.fromkeys("abcdefgh", self.load), hosts)


TOY, SEEDS = Figures(1.1, 1.1), Figures(20.0, 45.0)


def waiting(asked: Iterable[Request], figures: Figures) -> list[Agent]:
    """Each agent waits for its answer, and then asks again at once."""
    by_agent: dict[str, list[Request]] = {}
    for request in asked:
        by_agent.setdefault(request.agent, []).append(request)
    return [
        Agent(own[0].model, [Call(_begin(n) if i == 0 else 0.0, figures.answer) for i in range(len(own))])
        for n, own in enumerate(by_agent.values())
    ]


def at_once(asked: Iterable[Request], figures: Figures) -> list[Agent]:
    """All requests are made at once."""
    return [Agent(request.model, [Call(_begin(n), figures.answer)]) for n, request in enumerate(asked)]


def eight_hours(pause: float, seed: int, rounds: int = 100) -> list[Agent]:
    """14 agents with the seeds' figures, and random pauses and answers: 7.8 hours of work for one host."""
    chance = random.Random(seed)
    models = chance.sample(MIXED, len(MIXED))
    return [Agent(model, _calls(chance, pause, rounds, SEEDS.answer)) for model in models]


def several(counts: Sequence[int], pause: float, seed: int, rounds: int = 30) -> list[Agent]:
    """So many agents of each model; pauses and answers are random."""
    chance = random.Random(seed)
    models = [model for model, count in zip("abcdefgh", counts, strict=False) for _ in range(count)]
    chance.shuffle(models)
    return [Agent(model, _calls(chance, pause, rounds, SEEDS.answer)) for model in models]


def poisson(busy: float, seed: int, burst: int = 1, seconds: float = 12_000) -> list[Agent]:
    """Calls that come by themselves, at random instants, alone or in bursts for one model. The answers alone
    would keep the host busy for this share of the time."""
    chance, now, found = random.Random(seed), 0.0, list[Agent]()
    while now < seconds:
        now += chance.expovariate(busy / SEEDS.answer / burst)
        model = chance.choice(MIXED)
        for _ in range(1 if burst == 1 else chance.randint(1, 2 * burst - 1)):
            found.append(Agent(model, [Call(now + chance.random(), _random_answer(chance, SEEDS.answer))]))
    return found


def by_model(agents: Iterable[Agent]) -> list[Agent]:
    """The same calls without arrivals, ordered by model, as a batch may be."""
    calls = [Agent(each.model, [Call(0.0, call.seconds)]) for each in agents for call in each.calls]
    return sorted(calls, key=lambda agent: agent.model)


ORDERS: Mapping[str, Order] = {
    "first come, first served": lambda agents, machine: simulate(agents, machine, ArrivalOrder()),
    "Ollama's own": ollama,
    "ccroute": lambda agents, machine: simulate(agents, machine, LoadedFirst()),
}
BATCHES: Mapping[str, Order] = {
    "ccroute, complete_many": lambda agents, machine: simulate(by_model(agents), machine, LoadedFirst(), 4),
    "by hand, grouped by model": lambda agents, machine: simulate(
        by_model(agents), machine, ArrivalOrder(), 1
    ),
}


class Row(NamedTuple):
    """What an order does with a workload, on average over its seeds; `longest` is of all of them."""

    case: str
    order: str
    makespan: float
    ratio: float  # of the makespan to the least possible one
    loads: float
    p50: float
    p95: float
    longest: float
    mean: float


def row(case: str, order: str, runs: Sequence[tuple[Run, float]]) -> Row:
    """`runs`: each with the makespan that its own is compared with."""
    waits = [sorted(waited.seconds for waited in run.waits) for run, _ in runs]
    return Row(
        case,
        order,
        statistics.mean(run.makespan for run, _ in runs),
        statistics.mean(run.makespan / best for run, best in runs),
        statistics.mean(run.loads for run, _ in runs),
        statistics.mean(each[len(each) // 2] for each in waits),
        statistics.mean(each[int(0.95 * len(each))] for each in waits),
        max(each[-1] for each in waits),
        statistics.mean(statistics.mean(each) for each in waits),
    )


def compare(case: str, workloads: Sequence[Sequence[Agent]], machine: Machine) -> list[Row]:
    """All orders, over several seeds of a workload."""
    bounds = [lower_bound(agents, machine) for agents in workloads]
    return [
        row(case, name, [(order(a, machine), least) for a, least in zip(workloads, bounds, strict=True)])
        for name, order in ORDERS.items()
    ]


def seventy() -> list[Row]:
    """The table of 70 requests, toy's and seeds' figures."""
    rows = []
    for name, figures in {"toy": TOY, "seeds": SEEDS}.items():
        machine = figures.machine()
        for how, made in {"agents wait": waiting, "all at once": at_once}.items():
            agents = made(requests(), figures)
            grouped = 70 * figures.answer + 3 * figures.load
            for order, serve in {**ORDERS, **(BATCHES if made is at_once else {})}.items():
                rows.append(row(f"{name}, {how}", order, [(serve(agents, machine), grouped)]))
    return rows


def a_day(seeds: int, width: int) -> tuple[list[Row], dict[str, list[float | None]]]:
    """Eight hours, for several lengths of the pauses; and ccroute's makespan as a ratio to the best schedules
    that a search finds which knows all calls: to any, and to one in which nobody waits longer than with
    ccroute. None: it finds none."""
    rows, ratios = [], {}
    for pause in (0.0, 30.0, 120.0, 300.0):
        case, machine = f"pauses of {pause:g} s", SEEDS.machine()
        rows += compare(case, [eight_hours(pause, seed) for seed in range(seeds)], machine)
        agents = eight_hours(pause, 0)
        ours, least = ORDERS["ccroute"](agents, machine), lower_bound(agents, machine)
        ratios[case] = list[float | None]()
        for name, longest in {
            "offline": float("inf"),
            "offline, waits no longer": max(waited.seconds for waited in ours.waits),
        }.items():
            found = search(agents, machine, longest, width) or search(agents, machine, longest, 3 * width)
            ratios[case].append(ours.makespan / found if found else None)
            if found:
                rows.append(Row(case, name, found, found / least, *[float("nan")] * 5))
    return rows, ratios


def several_hosts(seeds: int) -> list[Row]:
    rows = []
    for hosts, counts in {
        1: (9, 4, 1),
        2: (5, 5),
        3: (9, 4, 1),
        4: (6, 6, 6, 6),
        8: (20, 10, 4, 2, 1),
    }.items():
        for pause in (0.0, 30.0):
            agents, several_of = "/".join(map(str, counts)), "s" if hosts > 1 else ""
            case = f"{hosts} host{several_of}, {agents} agents, pauses of {pause:g} s"
            workloads = [several(counts, pause, seed) for seed in range(seeds)]
            rows += compare(case, workloads, SEEDS.machine(hosts))
    return rows


def by_themselves(seeds: int) -> list[Row]:
    rows = []
    for load in (1.0, 10.0, 60.0):
        for busy, burst in ((0.5, 1), (0.8, 1), (0.8, 6)):
            how = f"bursts of {burst}" if burst > 1 else "one by one"
            case = f"loads of {load:g} s, {100 * busy:.0f} % busy, {how}"
            workloads = [poisson(busy, seed, burst) for seed in range(seeds)]
            rows += compare(case, workloads, Figures(SEEDS.answer, load).machine())
    return rows


def against_optimum(count: int) -> dict[str, tuple[float, float]]:
    """Ratio to the true optimum of small random workloads (12 calls): on average, and the worst."""
    ratios: dict[str, list[float]] = {name: [] for name in ORDERS}
    for seed in range(count):
        agents = several((2, 1, 1), 20.0, seed, rounds=3)
        best = optimum(agents, SEEDS.machine())
        for name, order in ORDERS.items():
            ratios[name].append(order(agents, SEEDS.machine()).makespan / best)
    return {name: (statistics.mean(each), max(each)) for name, each in ratios.items()}


def predictions() -> dict[str, tuple[float, float, float]]:
    """How good the predicted wait is: the mean wait, the mean prediction, and the mean error, in seconds."""
    workloads = {f"eight hours, pauses of {pause:g} s": eight_hours(pause, 0) for pause in (0.0, 30.0, 120.0)}
    workloads |= {f"one by one, {100 * busy:.0f} % busy": poisson(busy, 0) for busy in (0.3, 0.6, 0.8)}
    found = {}
    for name, agents in workloads.items():
        run = simulate(agents, SEEDS.machine(), LoadedFirst())
        pairs = [(each.seconds, each.predicted) for each in run.waits if each.predicted is not None]
        found[name] = (
            statistics.mean(waited for waited, _ in pairs),
            statistics.mean(predicted for _, predicted in pairs),
            statistics.mean(abs(waited - predicted) for waited, predicted in pairs),
        )
    return found


def markdown(rows: Iterable[Row]) -> str:
    lines = [
        "| workload | order | makespan s | ratio | loads | wait p50 / p95 / longest s | mean wait s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for each in rows:
        waits = f"{each.p50:.0f} / {each.p95:.0f} / {each.longest:.0f}" if each.loads == each.loads else "–"
        loads, mean = (f"{x:.0f}" if x == x else "–" for x in (each.loads, each.mean))
        cells = [each.case, each.order, f"{each.makespan:,.0f}", f"{each.ratio:.2f}", loads, waits, mean]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _begin(number: int) -> float:
    return number * 1e-4  # in this order, but as good as at once


def _calls(chance: random.Random, pause: float, rounds: int, answer: float) -> list[Call]:
    return [
        Call(chance.expovariate(1 / pause) if pause else 0.0, _random_answer(chance, answer))
        for _ in range(rounds)
    ]


def _random_answer(chance: random.Random, mean: float) -> float:
    return chance.gammavariate(4.0, mean / 4.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer seeds, a shallow search")
    parser.add_argument("--json", type=Path, metavar="FILE", default=RESULTS / "residency.json")
    parser.add_argument("--plot", type=Path, metavar="FILE", default=RESULTS / "residency.svg")
    parser.add_argument("--ollama", type=int, metavar="PORT", help="a real Ollama with one loaded model")
    parser.add_argument("--models", default="med-a,med-b,med-c", help="its models, the most asked first")
    parser.add_argument("--rounds", type=int, default=5, help="requests of each agent to it")
    parser.add_argument("--words", type=int, default=3, help="of its answers")
    given = parser.parse_args()
    if given.ollama is not None:
        from residency_real import measure, table  # needs a server

        print(table(measure(given.ollama, given.models.split(","), requests(given.rounds, given.words))))
        return
    seeds, width, count = (1, 5, 5) if given.quick else (5, 20, 40)
    day, to_offline = a_day(seeds, width)
    tables = {
        "70 requests (ratio to grouped by hand)": seventy(),
        "Eight hours of 14 agents, seeds' figures (ratio to a lower bound)": day,
        "Several hosts, seeds' figures (ratio to a lower bound)": several_hosts(min(seeds, 3)),
        "Calls that come by themselves, answers of 20 s (ratio to a lower bound)": by_themselves(
            min(seeds, 3)
        ),
    }
    for title, rows in tables.items():
        print(f"\n{title}\n\n{markdown(rows)}")
    print("\nEight hours, makespan as a ratio to offline: to any schedule, to one with its longest wait\n")
    for case, found in to_offline.items():
        print(f"| {case} | {' | '.join(f'{each:.2f}' if each else '–' for each in found)} |")
    print("\nSmall workloads, makespan as a ratio to the true optimum: mean, worst\n")
    for name, (mean, worst) in (small := against_optimum(count)).items():
        print(f"| {name} | {mean:.2f} | {worst:.2f} |")
    print("\nPredicted waits: mean wait, mean prediction, mean error in seconds\n")
    for name, (waited, predicted, error) in (errors := predictions()).items():
        print(f"| {name} | {waited:.0f} | {predicted:.0f} | {error:.0f} |")
    if not given.quick:
        results = {title: [each._asdict() for each in rows] for title, rows in tables.items()}
        measured = {"tables": results, "offline": to_offline, "optimum": small, "predictions": errors}
        text = json.dumps(measured, indent=1)
        given.json.write_text(text.replace("NaN", "null") + "\n")
        given.plot.write_text(plot(tables))


if __name__ == "__main__":
    main()
