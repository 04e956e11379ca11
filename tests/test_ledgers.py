"""A router and its ledger: a path, a ledger that is given, a user's own."""

from __future__ import annotations

import contextlib
import gc
import os
import sqlite3
import subprocess
import sys
import threading
import warnings
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Caller
from tests.support.loops import on_all_loops
from tests.support.openai_like import chat, chat_sse
from tests.support.scripted import Hang, ScriptedServer, answer, stream

from ccroute import Model, OpenAIBackend, Price, Report, Router
from ccroute.accounting import LedgerRow, MemoryLedger, SqliteLedger
from ccroute.accounting.row import Key
from ccroute.accounting.stores.sqlite import columns
from ccroute.accounting.tally import Tally
from ccroute.errors import ConfigError

SETTINGS = {"backends": {"local": {"kind": "ollama"}}}


def sessions(path: Path) -> list[str]:
    """The calls' sessions in the file, as another program finds them."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [name for (name,) in connection.execute("SELECT session FROM attempts ORDER BY started")]


def asked(request: Any) -> Any:
    """An answer, or a stream that stays open after its first content, whichever the request wants."""
    if request.json.get("stream"):
        return stream([*chat_sse(["so far"])[:2], Hang()])
    return answer(json=chat("fine"))


def backend(server: ScriptedServer) -> OpenAIBackend:
    return OpenAIBackend("main", base_url=server.url, models={"m": Model(price=Price(1, 1))})


# -- A path


@on_all_loops
def test_a_call_is_in_the_file_when_its_caller_has_the_answer(caller: Caller, tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    with ScriptedServer(asked) as server, Router([backend(server)], ledger=path) as router:
        assert not path.exists(), "nothing is opened before the first call"
        reply = caller.complete(router, "hi", model="main/m", session="one")
        assert sessions(path) == ["one"]
        [stored] = router.rows()
        assert (stored.cost, stored.usage) == (reply.cost, reply.usage)
        assert router.report(by=()).total["cost"] == reply.cost
        assert Report.from_ledger(path, by=()).total["cost"] == reply.cost


@pytest.mark.parametrize("how", ["closed", "dropped"])
def test_a_stream_that_was_left_is_in_the_file(how: str, tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    with ScriptedServer(asked) as server, Router([backend(server)], ledger=path) as router:
        started = router.stream("hi", model="main/m", session="left")
        assert next(started).text == "so far"
        if how == "closed":
            started.close()
        del started
        gc.collect()
        assert sessions(path) == ["left"]
        assert [each.outcome for each in router.rows()] == ["cancelled"]


def test_a_stream_dropped_in_the_middle_of_a_write_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, values = tmp_path / "usage.db", columns.values
    with ScriptedServer(asked) as server, Router([backend(server)], ledger=path) as router:
        held = [router.stream("hi", model="main/m", session="dropped")]
        next(held[0])

        def collecting(each: LedgerRow) -> Any:
            held.clear()
            return values(each)

        monkeypatch.setattr(columns, "values", collecting)
        router.complete("hi", model="main/m", session="whole")
        assert set(sessions(path)) == {"dropped", "whole"}


@on_all_loops
def test_a_router_closes_the_file_that_it_opened(caller: Caller, tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    with ScriptedServer(asked) as server:
        router = Router([backend(server)], ledger=str(path))
        caller.complete(router, "hi", model="main/m")
        if caller.mode == "sync":
            router.close()
        else:
            caller.run(router.aclose)
        assert os.listdir(tmp_path) == ["usage.db"]
        assert router.report(by=()).total["requests"] == 1, "it can be read later"
        router.close()


def test_a_call_that_ends_after_close_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    with ScriptedServer(asked) as server:
        router = Router([backend(server)], ledger=path)
        started = router.stream("hi", model="main/m", session="late")
        next(started)
        router.close()
        started.close()
    assert sessions(path) == ["late"]
    assert os.listdir(tmp_path) == ["usage.db"]


def test_a_forgotten_router_closes_its_file_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    with ScriptedServer(asked) as server, warnings.catch_warnings():
        warnings.simplefilter("error")
        router = Router([backend(server)], ledger=path)
        router.complete("hi", model="main/m", session="one")
        del router
        gc.collect()
    assert sessions(path) == ["one"]
    assert os.listdir(tmp_path) == ["usage.db"]


def test_what_two_routers_record_in_one_file_is_one_report(tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    with ScriptedServer(asked) as server:
        with Router([backend(server)], ledger=path) as one, Router([backend(server)], ledger=path) as other:
            threads = [
                threading.Thread(target=each.complete, args=["hi"], kwargs={"model": "main/m"})
                for each in (one, other) * 8
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert one.report(by=()).total == other.report(by=()).total
            assert one.report(by=()).total["requests"] == 16


# -- A ledger that is given


def test_a_ledger_that_was_given_stays_open(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "usage.db")
    with ScriptedServer(asked) as server:
        for _ in range(2):
            with Router([backend(server)], ledger=ledger) as router:
                router.complete("hi", model="main/m")
        assert ledger._cursor is not None
    ledger.close()
    assert len(ledger.rows()) == 2


class Careful:
    """A user's ledger, whose lock is no lock for finalisers. It cannot record calls of agent `bad`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.held: list[LedgerRow] = []
        self.meanwhile: list[Any] = []

    def record(self, row: LedgerRow) -> None:
        with self.lock:
            self.meanwhile.clear()
            if row.session == "bad":
                raise ValueError("bad")
            self.held.append(row)

    def tallies(self, since: datetime | None = None, until: datetime | None = None) -> Mapping[Key, Tally]:
        memory = MemoryLedger()
        for each in self.held:
            memory.record(each)
        return memory.tallies(since, until)

    def rows(self, since: datetime | None = None, until: datetime | None = None) -> list[LedgerRow]:
        return self.held


@pytest.mark.parametrize("then", ["call", "report", "rows", "close"])
def test_a_users_ledger_needs_to_know_nothing_of_finalisers(then: str) -> None:
    ledger = Careful()
    with ScriptedServer(asked) as server, Router([backend(server)], ledger=ledger) as router:
        ledger.meanwhile = [router.stream("hi", model="main/m", session="dropped")]
        next(ledger.meanwhile[0])
        router.complete("hi", model="main/m", session="first")
        assert ledger.held[0].session == "first"
        dropped = router.stream("hi", model="main/m", session="dropped, too")
        next(dropped)
        del dropped
        gc.collect()
        if then == "call":
            router.complete("hi", model="main/m", session="second")
        elif then == "report":
            assert router.report(by=()).total["requests"] == 3
        elif then == "rows":
            assert len(router.rows()) == 3
        else:
            router.close()
        assert {each.session for each in ledger.held} >= {"first", "dropped", "dropped, too"}


def test_a_users_ledger_that_fails_for_a_dropped_stream_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    ledger = Careful()
    with ScriptedServer(asked) as server, Router([backend(server)], ledger=ledger) as router:
        dropped = router.stream("hi", model="main/m", session="bad")
        next(dropped)
        call = dropped._context.id
        del dropped
        gc.collect()
        assert router.complete("hi", model="main/m").text == "fine"
        assert len(router.rows()) == 1
    assert f"the ledger could not record call {call}, which was abandoned: bad" in caplog.text


# -- In a file


def test_a_path_in_a_file_is_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("etc", "work"):
        (tmp_path / folder).mkdir()
    file = tmp_path / "etc" / "ccroute.toml"
    file.write_text('ledger = "usage.db"\n[backends.local]\nkind = "ollama"\n')
    monkeypatch.chdir(tmp_path / "work")
    with Router.from_config(file) as router:
        assert os.listdir(file.parent) == ["ccroute.toml"], "nothing is opened before the first call"
        assert repr(router._state.ledger) == f"SqliteLedger('{file.parent}/usage.db')"
    with Router.from_config([file, {"ledger": "mine.db"}]) as router:
        assert repr(router._state.ledger) == f"SqliteLedger('{tmp_path}/work/mine.db')"
    with Router.from_config({**SETTINGS, "ledger": f"{tmp_path}/usage.db"}) as router:
        assert repr(router._state.ledger) == f"SqliteLedger('{tmp_path}/usage.db')"
    with Router.from_config(file, ledger=None) as router:
        assert isinstance(router._state.ledger, MemoryLedger)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (3, "^ledger: should be a valid string"),
        ("", "^ledger: give the path of a file"),
        ("mysql://me:secret@host/db", "^ledger: ccroute knows no mysql:// ledger"),
        ("no/such/usage.db", "^ledger: there is no folder /.*/no/such$"),
    ],
)
def test_a_path_that_cannot_be_is_a_fault_of_the_file(given: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as raised:
        Router.from_config({**SETTINGS, "ledger": given})
    assert "secret" not in str(raised.value)


def test_a_router_without_a_path_loads_no_sqlite() -> None:
    code = """
import sys
import ccroute
ccroute.Router([ccroute.OllamaBackend()]).report()
assert "sqlite3" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("ask", [Router.rows, Router.report, Router.stats, Router.close])
def test_a_forked_child_first_renews_what_it_shares(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    router, renewed = Router([OpenAIBackend(base_url="http://localhost")]), list[int]()
    monkeypatch.setattr(router._state.ledger, "after_fork", lambda: renewed.append(os.getpid()))
    router._process = -1  # as in a child
    ask(router)
    ask(router)
    assert renewed == [os.getpid()]
