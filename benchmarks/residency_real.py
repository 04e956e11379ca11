"""The same agents and models as in `residency.py`, at a real Ollama that has one model loaded at a time.

Each way to call it gets the same requests: agents that wait for each answer before they ask again, or all
requests at once. "By hand" is one request after the other, ordered by model: what an ordering can reach.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx

from ccroute import Completion, OllamaBackend, Router, Timeout
from ccroute.routing.scheduling import ArrivalOrder, Scheduler

LOADED = 0.05
"""Seconds: less only finds the model in memory."""
PATIENCE = 3600.0


@dataclass(frozen=True)
class Asked:
    """A request: its agent, its model and the tokens of its answer."""

    agent: str
    model: str
    tokens: int


@dataclass(frozen=True)
class Answered:
    """When an answer came and how long its caller waited for it, without the answer's own time; whether the
    model was loaded for it. Seconds."""

    waited: float
    loaded: bool


@dataclass(frozen=True)
class Result:
    """What one way of calling reached: its name, makespan in seconds, and its answers."""

    name: str
    makespan: float
    answers: Sequence[Answered]

    @property
    def loads(self) -> int:
        return sum(answer.loaded for answer in self.answers)

    def waits(self) -> tuple[float, float, float]:
        """The median, the 95th percentile and the longest wait."""
        waits = sorted(answer.waited for answer in self.answers)
        return statistics.median(waits), waits[int(0.95 * (len(waits) - 1))], waits[-1]


Send = Callable[[Asked], Answered]


def measure(url: str, requests: Sequence[Asked], *, log: Callable[[str], None] = print) -> list[Result]:
    """Every way to call, one after the other."""
    by_agent: dict[str, list[Asked]] = {}
    for asked in requests:
        by_agent.setdefault(asked.agent, []).append(asked)
    grouped = sorted(requests, key=lambda asked: asked.model)
    results = []

    def run(name: str, callers: Sequence[Sequence[Asked]], send: Send) -> None:
        unload(url, requests)
        result = together(name, callers, send)
        log(f"{name}: {result.makespan:.1f} s, {result.loads} loads")
        results.append(result)

    agents, at_once = list(by_agent.values()), [[asked] for asked in requests]
    with httpx.Client(base_url=url, timeout=PATIENCE, limits=httpx.Limits(max_connections=1000)) as client:
        run("by hand, grouped by model", [grouped], lambda asked: _direct(client, asked))
        run("Ollama alone, agents wait", agents, lambda asked: _direct(client, asked))
        run("Ollama alone, all at once", at_once, lambda asked: _direct(client, asked))
    for order, scheduler in (("FIFO", ArrivalOrder()), ("ccroute", None)):
        for how, callers in (("agents wait", agents), ("all at once", at_once)):
            with _router(url, scheduler) as router:
                run(f"{order}, {how}", callers, lambda asked, router=router: _routed(router, asked))
    unload(url, requests)
    with _router(url, None) as router:
        results.append(many("ccroute, complete_many", router, requests))
        log(f"{results[-1].name}: {results[-1].makespan:.1f} s, {results[-1].loads} loads")
    return results


def unload(url: str, requests: Sequence[Asked]) -> None:
    """Let the server have no model loaded, and wait until it says so."""
    with httpx.Client(base_url=url, timeout=60.0) as client:
        for model in {asked.model for asked in requests}:
            client.post("/api/chat", json={"model": model, "messages": [], "keep_alive": 0})
        until = time.monotonic() + 30.0
        while client.get("/api/ps").json()["models"]:
            if time.monotonic() > until:
                raise TimeoutError("the server keeps a model loaded")
            time.sleep(0.1)  # a server of its own: there is no event to wait for


def together(name: str, callers: Sequence[Sequence[Asked]], send: Send) -> Result:
    """Each caller in a thread of its own, which waits for an answer before it asks again."""

    def calls(requests: Sequence[Asked]) -> list[Answered]:
        return [send(asked) for asked in requests]

    began = time.monotonic()
    with ThreadPoolExecutor(len(callers)) as pool:
        answers = [answer for found in pool.map(calls, callers) for answer in found]
    return Result(name, time.monotonic() - began, answers)


def many(name: str, router: Router, requests: Sequence[Asked]) -> Result:
    """All requests as one batch."""
    began, answers = time.monotonic(), []
    batch = [_call(asked) for asked in requests]
    for answer in router.complete_many(batch):
        if not isinstance(answer, Completion):
            raise answer
        answers.append(_answered(answer, began))
    return Result(name, time.monotonic() - began, answers)


def table(results: Sequence[Result]) -> list[str]:
    """The results as lines of Markdown."""
    grouped = results[0].makespan
    lines = [
        "| | makespan, s | × by hand | loads | wait p50 / p95 / max, s |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for result in results:
        p50, p95, longest = result.waits()
        ratio = result.makespan / grouped
        lines.append(
            f"| {result.name} | {result.makespan:.1f} | {ratio:.2f} | {result.loads} "
            f"| {p50:.1f} / {p95:.1f} / {longest:.1f} |"
        )
    return lines


def _router(url: str, scheduler: Scheduler | None) -> Router:
    backend = OllamaBackend("local", url)
    timeout = Timeout(total=PATIENCE)
    return Router([backend], timeout=timeout, max_queue=10_000, scheduler=scheduler)


def _call(asked: Asked) -> dict[str, object]:
    return {"prompt": "hi", "model": f"local/{asked.model}", "max_tokens": asked.tokens}


def _direct(client: httpx.Client, asked: Asked) -> Answered:
    body = {
        "model": asked.model,
        "stream": False,
        "messages": [{"role": "user", "content": "hi"}],
        "options": {"num_predict": asked.tokens},
    }
    began = time.monotonic()
    told = client.post("/api/chat", json=body).raise_for_status().json()
    return _waited(told, time.monotonic() - began)


def _routed(router: Router, asked: Asked) -> Answered:
    began = time.monotonic()
    return _answered(router.complete(**_call(asked)), began)  # type: ignore[arg-type]  # of a mixed dict


def _answered(answer: Completion, began: float) -> Answered:
    return _waited(answer.raw, time.monotonic() - began)


def _waited(told: dict[str, int], seconds: float) -> Answered:
    own = (told["prompt_eval_duration"] + told["eval_duration"]) / 1e9
    # Ollama's load_duration includes the wait for another model: only together with the order it tells a load.
    return Answered(max(seconds - own, 0.0), told["load_duration"] / 1e9 > LOADED)
