"""A real Ollama that has one model loaded at a time gets the requests of `workload.py`, in every way.

Agents wait for each answer before they ask again, or all requests are made at once. "By hand" is one request
after the other, ordered by model: what an ordering can reach. Before each run, no model is loaded.
"""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import httpx

from ccroute import Completion, OllamaBackend, Router, Timeout
from ccroute.routing.scheduling import ArrivalOrder, Scheduler
from workload import Request

PATIENCE = 3600.0
"""Seconds that a call may take."""
_numbers = itertools.count()
LOOK_EVERY = 0.03
"""Seconds between two looks at what is loaded; the quickest load takes ten times as long."""


class Result(NamedTuple):
    """What one way of calling reached: the makespan in seconds, how often a model was loaded, and for each
    call the seconds until its model began to work for it."""

    name: str
    makespan: float
    loads: int
    waits: Sequence[float]


def measure(port: int, models: Sequence[str], requests: Sequence[Request]) -> list[Result]:
    """Every way to call, one after the other; prints each as it ends. `models`: what a, b and c stand for."""
    url, names = f"http://127.0.0.1:{port}", dict(zip("abc", models, strict=True))
    asked = [request._replace(model=names[request.model]) for request in requests]
    by_agent: dict[str, list[Request]] = {}
    for request in asked:
        by_agent.setdefault(request.agent, []).append(request)
    agents, at_once = list(by_agent.values()), [[request] for request in asked]
    grouped = [sorted(asked, key=lambda request: request.model)]
    results = []

    def run(name: str, work: Callable[[], Sequence[float]]) -> None:
        unload(url, models)
        with counted_loads(url) as loads:
            began = time.monotonic()
            waits = work()
            result = Result(name, time.monotonic() - began, len(loads), waits)
        print(f"{name}: {result.makespan:.1f} s, {result.loads} loads", flush=True)
        results.append(result)

    with httpx.Client(base_url=url, timeout=PATIENCE, limits=httpx.Limits(max_connections=1000)) as client:
        for name, callers in {
            "by hand, grouped by model": grouped,
            "Ollama alone, agents wait": agents,
            "Ollama alone, all at once": at_once,
        }.items():
            run(name, lambda callers=callers: together(callers, lambda request: _direct(client, request)))
    for order, scheduler in {"first come, first served": ArrivalOrder(), "ccroute": None}.items():
        for how, callers in {"agents wait": agents, "all at once": at_once}.items():
            with _router(url, scheduler) as router:
                send = lambda request, router=router: _routed(router, request)  # noqa: E731  # bound now
                run(f"{order}, {how}", lambda callers=callers, send=send: together(callers, send))
    with _router(url, None) as router:
        run("ccroute, complete_many", lambda: many(router, asked))
    return results


def unload(url: str, models: Sequence[str]) -> None:
    """Let the server have no model loaded, and wait until it says so."""
    with httpx.Client(base_url=url, timeout=60.0) as client:
        for model in models:
            client.post(
                "/api/chat", json={"model": model, "messages": [], "keep_alive": 0}
            ).raise_for_status()
        until = time.monotonic() + 30.0
        while client.get("/api/ps").json()["models"]:
            if time.monotonic() > until:
                raise TimeoutError("the server keeps a model loaded")
            time.sleep(LOOK_EVERY)


@contextmanager
def counted_loads(url: str) -> Iterator[list[str]]:
    """The models that the server loads meanwhile, one after the other. (A `load_duration` has the wait for
    another model in it, and calls that wait for the same load all have it.)"""
    loads: list[str] = []
    over = threading.Event()

    def look() -> None:
        before: set[str] = set()
        with httpx.Client(base_url=url, timeout=60.0) as client:
            while not over.wait(LOOK_EVERY):
                now = {model["name"] for model in client.get("/api/ps").json()["models"]}
                loads.extend(now - before)
                before = now

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield loads
    finally:
        over.set()
        thread.join()


def together(callers: Sequence[Sequence[Request]], send: Callable[[Request], float]) -> list[float]:
    """Each caller has a thread of its own, which waits for an answer before it asks again."""

    def calls(requests: Sequence[Request]) -> list[float]:
        return [send(request) for request in requests]

    with ThreadPoolExecutor(len(callers)) as pool:
        return [wait for waits in pool.map(calls, callers) for wait in waits]


def many(router: Router, requests: Sequence[Request]) -> list[float]:
    """All requests as one batch."""
    began, waits = time.monotonic(), []
    for answer in router.complete_many([_call(request) for request in requests]):
        if not isinstance(answer, Completion):
            raise answer
        waits.append(_wait(answer.raw, time.monotonic() - began))
    return waits


def table(results: Sequence[Result]) -> str:
    """The results in Markdown."""
    lines = [
        "| order | makespan s | × by hand | loads | wait p50 / p95 / longest s |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, makespan, loads, unsorted in results:
        waits, ratio = sorted(unsorted), makespan / results[0].makespan
        p50, p95, longest = statistics.median(waits), waits[int(0.95 * (len(waits) - 1))], waits[-1]
        lines.append(
            f"| {name} | {makespan:.1f} | {ratio:.2f} | {loads} | {p50:.1f} / {p95:.1f} / {longest:.1f} |"
        )
    return "\n".join(lines)


def _router(url: str, scheduler: Scheduler | None) -> Router:
    timeout = Timeout(total=PATIENCE)
    return Router([OllamaBackend("local", url)], timeout=timeout, max_queue=10_000, scheduler=scheduler)


def _call(request: Request) -> dict[str, object]:
    return {"prompt": _prompt(), "model": f"local/{request.model}", "max_tokens": request.words}


def _direct(client: httpx.Client, request: Request) -> float:
    body = {
        "model": request.model,
        "stream": False,
        "messages": [{"role": "user", "content": _prompt()}],
        "options": {"num_predict": request.words},
    }
    began = time.monotonic()
    answer = client.post("/api/chat", json=body).raise_for_status().json()
    return _wait(answer, time.monotonic() - began)


def _routed(router: Router, request: Request) -> float:
    began = time.monotonic()
    answer = router.complete(_prompt(), model=f"local/{request.model}", max_tokens=request.words)
    return _wait(answer.raw, time.monotonic() - began)


def _prompt() -> str:
    """Another one for each request: a server does not read again what two prompts begin with."""
    return f"{next(_numbers)} is a number"


def _wait(answer: dict[str, int], seconds: float) -> float:
    """What remains of a call's seconds without the model's work for it."""
    return max(seconds - (answer["prompt_eval_duration"] + answer["eval_duration"]) / 1e9, 0.0)
