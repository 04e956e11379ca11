"""A real Ollama with toy models, where its `serve.py` is at hand; elsewhere its tests are skipped.

`CCROUTE_OLLAMA_SERVE` names the script; else `../shared/tools/ollama` beside the project is looked at.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.support.scripted import refused_port

__all__ = ["RealOllama", "ollama_server", "serve_ollama"]

FOLDER = Path.home() / ".cache" / "ccroute-ollama"
"""Where the script keeps the unpacked server and its models, shared by all runs."""


def script() -> Path:
    """Where the script is, or would be."""
    beside = Path(__file__).parents[3] / "shared" / "tools" / "ollama" / "serve.py"
    return Path(os.environ.get("CCROUTE_OLLAMA_SERVE") or beside)


def missing() -> str | None:
    """Why no real Ollama can be started here; None if it can."""
    if not script().is_file():
        return "no real Ollama here: CCROUTE_OLLAMA_SERVE names no serve.py"
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return "the real Ollama at hand is for Linux on x86_64"
    return None


@dataclass
class RealOllama:
    """A running server."""

    url: str
    process: subprocess.Popen[str]

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """What the server itself says, past ccroute: a GET, or a POST of `body`."""
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data), timeout=60) as reply:
            return json.load(reply)

    def loaded(self) -> dict[str, dict[str, Any]]:
        """The loaded models by name, as `/api/ps` tells of them."""
        return {model["name"]: model for model in self.ask("/api/ps")["models"]}

    def is_empty(self) -> bool:
        """Whether no model is loaded, or soon none is: a runner takes a moment to go."""
        until = time.monotonic() + 10
        while self.loaded():
            if time.monotonic() > until:
                return False
        return True

    def runners(self) -> list[psutil.Process]:
        """The processes that compute, one for each loaded model."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        return [process for process in below if "runner" in process.cmdline()[1:2]]


@contextmanager
def serve_ollama(port: int | None = None, **environment: str) -> Iterator[RealOllama]:
    """A server of one's own, for tests that break it. `environment` sets `OLLAMA_…` variables."""
    import fcntl  # only where the server can run

    port = port or refused_port()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "start.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two starts at once would write the same models
        process = subprocess.Popen(
            [sys.executable, str(script()), str(port), "--dir", str(FOLDER)],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        with process.stdout as said:
            ready = said.readline().strip() == "ready"
    try:
        assert ready, f"the server did not start: see {FOLDER}/serve-{port}.log"
        yield RealOllama(f"http://127.0.0.1:{port}", process)
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="session")
def ollama_server() -> Iterator[RealOllama]:
    """One server for the whole session: one model loaded at a time, one request at a time."""
    if reason := missing():
        pytest.skip(reason)
    with serve_ollama() as server:
        yield server
