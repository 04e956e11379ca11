"""Several processes at one real Ollama, each with its own router: they share nothing, and do not fight."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.support.ollama_real import RealOllama

PROGRAM = """
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
from ccroute import OllamaBackend, Router

url, models, times = sys.argv[1], sys.argv[2].split(","), int(sys.argv[3])
with Router([OllamaBackend("local", url)], timeout=100) as router, ThreadPoolExecutor(16) as pool:
    assert sys.stdin.readline()
    began = time.monotonic()
    ask = lambda i: router.complete("hi", model="local/" + models[i % len(models)], max_tokens=3)
    replies = [*pool.map(ask, range(times * len(models)))]
    stats = router.stats().backends["local"]
    print(json.dumps({
        "answers": [reply.model for reply in replies],
        "attempts": sum(len(reply.route.attempts) for reply in replies),
        "loads": sum(reply.raw["load_duration"] > 50_000_000 for reply in replies),
        "waited": max(reply.route.queued for reply in replies),
        "left": [stats.slots_held, stats.queued],
        "seconds": time.monotonic() - began,
    }))
"""


def run_together(url: str, processes: int, models: str, times: int) -> list[dict[str, object]]:
    """What so many processes say that begin at the same moment."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, url, models, str(times)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]
    try:
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return [json.loads(process.communicate(timeout=100)[0]) for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()


def test_two_processes_at_one_server_are_all_answered(ollama_server: RealOllama) -> None:
    models = ["say-hello", "tiny-a"]
    for said in run_together(ollama_server.url, 2, ",".join(models), 2):
        assert said["answers"] == models * 2
        assert said["attempts"] == 4, "a call was tried again"
        assert said["left"] == [0, 0]
