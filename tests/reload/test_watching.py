"""`from_config(watch=True)`: a call notices that a file was written. Time is handed in, nothing sleeps."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Caller
from tests.reload.support import ONE, TWO, Hosts, Reloads, source

from ccroute import Router
from ccroute.config import sources
from ccroute.config.sources import EVERY, Sources
from ccroute.errors import ConfigError

THREE = "http://three.test/v1"


class File:
    """A configuration file whose times are set, so that each change is one."""

    def __init__(self, path: Path, base_url: str = ONE) -> None:
        self.path = path
        self._written = 1_700_000_000
        self.write(base_url)

    def write(self, base_url: str) -> None:
        self.say(f'default_model = "main/m"\n[backends.main]\nkind = "openai"\nbase_url = "{base_url}"\n')

    def say(self, text: str) -> None:
        self.path.write_text(text)
        self.touch()

    def touch(self) -> None:
        self._written += 1
        os.utime(self.path, (self._written, self._written))


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path / "ccroute.toml")


@pytest.fixture
def at_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are looked at by every call."""
    monkeypatch.setattr(sources, "EVERY", 0.0)


def watching(given: Any, hosts: Hosts, **options: Any) -> Router:
    return Router.from_config(given, env={}, watch=True, transport=hosts.transport, **options)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


# -- The router ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("at_every_call")
def test_the_next_call_after_a_change_uses_it(caller: Caller, file: File) -> None:
    hosts, reloads = Hosts(), Reloads()
    with watching(file.path, hosts, on_event=reloads.listen) as made:
        caller.complete(made, "hi")
        file.write(TWO)
        caller.complete(made, "hi")
        caller.complete(made, "hi")
    assert hosts.asked == ["one.test m", "two.test m", "two.test m"]
    assert [event.changed for event in reloads.events] == [("backends.main",)]


@pytest.mark.usefixtures("at_every_call")
def test_a_plan_is_that_of_the_next_call(file: File) -> None:
    hosts = Hosts()
    with watching(file.path, hosts) as made:
        file.say('default_model = "other/m"\n[backends.other]\nkind = "ollama"\n')
        assert made.explain("hi").candidates[0].deployment == "other/m"
        assert hosts.asked == []


@pytest.mark.usefixtures("at_every_call")
def test_without_watch_nothing_is_looked_at(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts()
    with Router.from_config(file.path, env={}, transport=hosts.transport) as made:
        file.write(TWO)
        monkeypatch.setattr(Sources, "is_due", None)  # nobody may call it
        made.complete("hi")
    assert hosts.asked == ["one.test m"]


def test_files_are_looked_at_once_a_second(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts()
    with watching(file.path, hosts) as made:
        made.complete("hi")
        file.write(TWO)
        for _ in range(3):
            made.complete("hi")
        known = made._reloader.sources
        assert known is not None
        known._next_look -= EVERY
        made.complete("hi")
    assert hosts.asked == ["one.test m"] * 4 + ["two.test m"]


@pytest.mark.usefixtures("at_every_call")
def test_a_bad_file_is_logged_once_and_breaks_no_call(
    caller: Caller, file: File, caplog: pytest.LogCaptureFixture
) -> None:
    hosts = Hosts()
    with watching(file.path, hosts) as made:
        file.say("default_model = \n")
        for _ in range(3):
            caller.complete(made, "hi")
        [warning] = warnings(caplog)
        assert warning.startswith("config: not reloaded, the router goes on with what it has: ccroute.toml: ")
        file.say('baseline = "unknown"\n[backends.main]\nkind = "openai"\nbase_url = "http://a.test"')
        caller.complete(made, "hi")
        assert "baseline: unknown model" in warnings(caplog)[1]
        file.write(TWO)
        caller.complete(made, "hi")
    assert len(warnings(caplog)) == 2
    assert hosts.asked == ["one.test m"] * 4 + ["two.test m"]


@pytest.mark.usefixtures("at_every_call")
def test_an_error_that_is_no_fault_of_the_file_breaks_no_call(
    file: File, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("something secret")

    with watching(file.path, Hosts()) as made:
        file.write(TWO)
        monkeypatch.setattr(sources, "read", broken)
        made.complete("hi")
    [warning] = warnings(caplog)
    assert warning.endswith(": RuntimeError")


@pytest.mark.usefixtures("at_every_call")
def test_a_file_that_is_being_replaced_is_no_error(file: File, caplog: pytest.LogCaptureFixture) -> None:
    hosts = Hosts()
    with watching(file.path, hosts) as made:
        file.path.unlink()
        made.complete("hi")
        made.complete("hi")
        file.write(TWO)
        made.complete("hi")
    assert hosts.asked == ["one.test m", "one.test m", "two.test m"]
    assert warnings(caplog) == []


@pytest.mark.usefixtures("at_every_call")
def test_every_file_of_several_is_watched(file: File, tmp_path: Path) -> None:
    hosts, second = Hosts(), File(tmp_path / "second.toml")
    second.say('[aliases]\nx = "main/a"\n')
    with watching([file.path, second.path, {"max_queue": 4}], hosts) as made:
        second.say('[aliases]\nx = "main/b"\n')
        made.complete("hi", model="x")
        file.write(TWO)
        made.complete("hi", model="x")
    assert hosts.asked == ["one.test b", "two.test b"]


@pytest.mark.usefixtures("at_every_call")
def test_the_files_of_another_source_are_watched_from_then_on(file: File, tmp_path: Path) -> None:
    hosts, second = Hosts(), File(tmp_path / "second.toml", TWO)
    with watching(file.path, hosts) as made:
        made.reload(second.path)
        file.write("http://nobody.test/v1")
        made.complete("hi")
        second.write(THREE)
        made.complete("hi")
    assert hosts.asked == ["two.test m", "three.test m"]


@pytest.mark.usefixtures("at_every_call")
def test_a_reload_by_hand_is_not_repeated_by_a_call(file: File) -> None:
    reloads = Reloads()
    with watching(file.path, Hosts(), on_event=reloads.listen) as made:
        file.write(TWO)
        made.reload()
        made.complete("hi")
    assert len(reloads.events) == 1


@pytest.mark.usefixtures("at_every_call")
def test_mappings_alone_are_never_read_again_by_a_call() -> None:
    hosts, given = Hosts(), source(ONE)
    with watching(given, hosts) as made:
        given["backends"]["main"]["base_url"] = TWO
        made.complete("hi")
    assert hosts.asked == ["one.test m"]


@pytest.mark.usefixtures("at_every_call")
def test_no_call_waits_for_a_reload_of_another_thread(file: File) -> None:
    hosts = Hosts()
    with watching(file.path, hosts) as made, ThreadPoolExecutor(1) as pool:
        file.write(TWO)
        with made._reloader._lock:
            pool.submit(made.complete, "hi").result(timeout=5)
        made.complete("hi")
    assert hosts.asked == ["one.test m", "two.test m"]


def test_a_listener_may_call_the_router(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "EVERY", 0.0)
    hosts, made = Hosts(), list[Router]()
    with watching(file.path, hosts, on_event=lambda _: made[0].complete("from the listener")) as router:
        made.append(router)
        file.write(TWO)
        router.complete("hi")
    assert hosts.asked == ["two.test m", "two.test m"]


# -- When files have changed ---------------------------------------------------------------------------------


def read(*files: File) -> Sources:
    found = Sources([file.path for file in files], env={})
    found.read()
    return found


def test_a_look_is_due_once_a_second() -> None:
    found = Sources({})
    assert [now for now in (10.0, 10.5, 10.9, 11.0, 11.1, 15.0, 15.9) if found.is_due(now)] == [10, 11, 15]


def test_a_changed_time_or_size_is_a_change(file: File) -> None:
    found = read(file)
    assert not found.have_changed()
    file.touch()
    assert found.have_changed()
    assert not found.have_changed(), "each change is one"
    stat = file.path.stat()
    file.path.write_text(file.path.read_text() + "\n")
    os.utime(file.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert found.have_changed()


def test_a_change_during_the_reading_is_noticed_later(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Path.open

    def overtaken(path: Path, *args: Any) -> Any:
        opened = original(path, *args)
        file.touch()
        return opened

    monkeypatch.setattr(Path, "open", overtaken)
    found = read(file)
    monkeypatch.undo()
    assert found.have_changed()


def test_one_missing_file_holds_back_the_changes_of_others(file: File, tmp_path: Path) -> None:
    second = File(tmp_path / "second.toml")
    found = read(file, second)
    file.touch()
    second.path.rename(tmp_path / "away")
    assert not found.have_changed()
    (tmp_path / "away").rename(second.path)
    assert found.have_changed()


def test_a_file_that_vanishes_before_it_is_read_is_tried_again(
    file: File, caplog: pytest.LogCaptureFixture
) -> None:
    found = read(file)
    file.touch()
    assert found.have_changed()
    file.path.rename(file.path.with_suffix(".new"))
    with pytest.raises(ConfigError) as caught:
        found.read()
    found.failed(caught.value)
    assert not found.have_changed()
    file.path.with_suffix(".new").rename(file.path)
    assert found.have_changed()
    assert not caplog.records


@pytest.mark.usefixtures("at_every_call")
def test_a_pipe_in_the_place_of_a_file_stops_no_call(file: File) -> None:
    hosts = Hosts()
    with watching(file.path, hosts) as router:
        file.path.unlink()
        os.mkfifo(file.path)  # to open it would wait for a writer
        router.complete("hi")
        file.path.unlink()
        file.write(TWO)
        router.complete("hi")
    assert hosts.asked == ["one.test m", "two.test m"]
