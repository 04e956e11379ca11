"""Rows 60, 61 and 62: the ledger's disk is full, its file is locked, its process is killed."""

from __future__ import annotations

import contextlib
import json
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import Caller
from tests.faults.harness import row
from tests.support.loops import on_all_loops
from tests.support.openai_like import chat
from tests.support.scripted import ScriptedServer, answer

import kill
from ccroute import OpenAIBackend, Router
from ccroute.observe import Event, LedgerFailed


@contextlib.contextmanager
def routers(path: Path) -> Iterator[tuple[Router, list[Event]]]:
    """A router that has made a call, and what it tells later."""
    events: list[Event] = []
    with ScriptedServer([answer(json=chat("fine"))], repeat=True) as server:
        backend = OpenAIBackend("main", base_url=server.url)
        with Router([backend], default_model="main/m", ledger=path, on_event=events.append) as router:
            router.complete("hi")
            yield router, events


def stored(path: Path) -> int:
    """How many rows another program finds in the file."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM attempts").fetchone()
    return int(count)


@row(60, "ledger disk full")
@on_all_loops
def test_a_full_disk_costs_no_answer_and_no_row(caller: Caller, tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    with routers(path) as (router, events):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (Path(f"{path}-wal").stat().st_size, before[1]))
        try:
            assert caller.complete(router, "hi").text == "fine"
            assert caller.complete(router, "hi").text == "fine"
            assert len(router.rows()) == 3
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert stored(path) == 1
        assert [event.error for event in events if isinstance(event, LedgerFailed)] == [
            "OperationalError"
        ] * 2
        assert caller.complete(router, "hi").text == "fine"
        assert stored(path) == 4


@row(61, "SQLite locked by another process")
@on_all_loops
def test_a_locked_ledger_delays_one_call_and_loses_no_row(caller: Caller, tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    with routers(path) as (router, events):
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            took = []
            for _ in range(3):
                began = time.monotonic()
                assert caller.complete(router, "hi").text == "fine"
                took.append(time.monotonic() - began)
            assert 0.2 < took[0] < 2
            assert sum(took[1:]) < took[0]
            assert router.report(by=()).total["requests"] == 4
            other.execute("ROLLBACK")
        assert stored(path) == 1
        assert [type(event).__name__ for event in events] == ["LedgerFailed"] * 3
    assert stored(path) == 4


@row(62, "kill -9 while writing")
def test_a_killed_process_leaves_every_call_that_returned() -> None:
    # In a process of its own, which forks; benchmarks/kill.py by itself does 200 rounds.
    command = [sys.executable, "-W", "error", kill.__file__, "--rounds", "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    said = json.loads(done.stdout)
    assert said.pop("calls that returned") > 500
    assert said == {"rounds": 20, "of these lost": 0, "twice": 0, "integrity": "ok"}
