"""A database's address and the journal's place: what is taken, what is refused, and what nobody may see."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.accounting.postgres.conftest import Place
from tests.accounting.support import row

from ccroute import Router
from ccroute.accounting import PostgresLedger
from ccroute.errors import ConfigError

SECRET = "hunter-two/100%"
ENCODED = "hunter-two%2F100%25"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [*os.environ]:
        if name.startswith("PG"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def shown(ledger: object) -> str:
    return repr(ledger).removeprefix("PostgresLedger('").partition("'")[0]


@pytest.mark.parametrize(
    ("address", "as_shown"),
    [
        (f"postgresql://me:{ENCODED}@db.example.com:5433/usage", "postgresql://me@db.example.com:5433/usage"),
        (f"postgres://me:{ENCODED}@db.example.com:5432/usage", "postgresql://me@db.example.com/usage"),
        (f"postgresql://me@h/db?password={ENCODED}&sslmode=verify-full", "postgresql://me@h/db"),
        ("postgresql://me@one,two:5433/db", "postgresql://me@one,two:,5433/db"),
        ("postgresql://me@[::1]/db", "postgresql://me@[::1]/db"),
        ("postgresql://me@/db?host=/run/postgresql", "postgresql://me@/db?host=/run/postgresql"),
        ("host=h dbname=db user=me password='a b'", "postgresql://me@h/db"),
        ("service=usage", "postgresql://?service=usage"),
    ],
)
def test_an_address_is_shown_without_its_password(address: str, as_shown: str) -> None:
    assert shown(PostgresLedger(address)) == as_shown


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("postgresql://me:hunter%zz@host/db", "cannot be read: invalid percent-encoded token: …; in a user"),
        ("postgresql://me:hunter@two@host/db", r'cannot be read; in a user, .* "@" is written %40'),
        ("postgresql://me:hunter/two@host/db", 'cannot be read; in a user, .* "/" %2F'),
        ("postgresql://me:hunter:two@host:port/db", "has no proper host and port; in a user"),
        ("postgresql://me@host/db?sslmod=require", "cannot be read: invalid URI query parameter: …"),
        ("host=a@hunter", "has no proper host and port"),
        ("host=h password=hunter two", "cannot be read: missing … in connection info string$"),
        ("mysql://me:hunter@host/db", "begins with postgresql://"),
    ],
)
def test_what_is_no_address_is_refused_without_its_password(address: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"^ledger: the .*{says}") as raised:
        PostgresLedger(address)
    assert "hunter" not in f"{raised.value}{raised.value.__context__}"


def test_libpqs_variables_and_files_are_read(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = tmp_path / "services.conf"
    host, options = place.url.partition("host=")[2].split("&options=")
    services.write_text(f"[usage]\nhost={host}\nuser=postgres\noptions={options.replace('%3D', '=')}\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    monkeypatch.setenv("PGDATABASE", "postgres")
    ledger = place.ledger("postgresql:///?service=usage")
    ledger.record(row(id="a"))
    ledger.close()
    assert place.ids() == ["a"]


def test_no_password_is_in_a_log_an_error_or_a_file_name(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = f"postgresql://me:{ENCODED}@localhost:1/db"
    ledger = PostgresLedger(url)
    ledger.record(row())
    with pytest.raises(ConfigError) as raised:
        ledger.rows()
    ledger.close()
    made = [str(path) for path in (tmp_path / "state").rglob("*")]
    assert any(path.endswith(".db") for path in made)
    for text in (caplog.text, str(raised.value), repr(raised.value), repr(ledger), *made):
        assert text
        assert SECRET not in text
        assert ENCODED not in text


# -- The journal's place


def test_each_database_has_a_journal_in_the_users_own_folder(tmp_path: Path) -> None:
    addresses = ["postgresql://me@host/one", "postgresql://me@host/two", "postgresql://me:new@host/one"]
    one, two, again = [PostgresLedger(address)._path for address in addresses]
    assert one == again != two
    assert {one.parent, two.parent} == {tmp_path / "state" / "ccroute"}
    assert one.parent.stat().st_mode & 0o777 == 0o700


def test_the_journal_may_be_named_in_the_address_or_beside_it(tmp_path: Path) -> None:
    named = tmp_path / "a b.db"
    for address in (
        f"postgresql://h/db?journal={tmp_path}/a%20b.db",
        f"postgresql://h/db?journal={tmp_path}/a%20b.db&sslmode=require",
        f"postgresql://h/db?sslmode=require&journal={tmp_path}/a%20b.db",
    ):
        ledger = PostgresLedger(address)
        assert ledger._path == named
        assert "journal" not in ledger._database._parameters
    assert PostgresLedger("postgresql://h/db?journal=/other.db", named)._path == named


@pytest.mark.parametrize(
    ("kind", "warns"), [("ext4", False), ("overlay", True), ("tmpfs", True), (None, False)]
)
def test_a_journal_that_ends_with_its_container_is_warned_of(
    kind: str | None, warns: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    read, mounts = Path.read_text, f"rootfs / ext4 rw 0 0\nsome {tmp_path} {kind} rw 0 0\n"

    def read_text(path: Path, *options: Any) -> str:
        if str(path) != "/proc/self/mounts":
            return read(path, *options)
        if kind is None:  # macOS
            raise FileNotFoundError
        return mounts

    monkeypatch.setattr(Path, "read_text", read_text)
    ledger = PostgresLedger("postgresql://host/db")
    assert (f"the journal {ledger._path} is in memory or in a container's" in caplog.text) == warns
    caplog.clear()
    PostgresLedger("postgresql://host/db", tmp_path / "named.db")
    assert caplog.text == ""


@pytest.mark.parametrize("home", ["/dev/null", "/proc/self"])
def test_a_user_without_a_folder_is_told_to_name_a_journal(
    home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", home)
    with pytest.raises(
        ConfigError, match=r'no folder for it .*"postgresql://…\?journal=/data/ledger.db", or'
    ):
        Router([], ledger="postgresql://host/db")


@pytest.mark.parametrize(
    ("journal", "says"),
    [
        ("", "give the path of a file"),
        (":memory:", "leave it out"),
        ("/no/such/folder/journal.db", "there is no folder /no/such/folder"),
    ],
)
def test_a_journal_that_cannot_be_is_refused(journal: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"^ledger: {says}"):
        Router([], ledger=f"postgresql://host/db?journal={journal}")


def test_a_journal_in_a_file_is_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    file = tmp_path / "etc" / "ccroute.toml"
    address = "postgresql://me:${PASSWORD}@host/db?journal=j%20.db&sslmode=require"
    file.write_text(f'ledger = "{address}"\n[backends.local]\nkind = "ollama"\n')
    monkeypatch.setenv("PASSWORD", ENCODED)
    with Router.from_config(file) as router:
        made = router._state.ledger
        assert repr(made) == f"PostgresLedger('postgresql://me@host/db', journal='{tmp_path}/etc/j .db')"


# -- Without psycopg


def test_without_psycopg_it_is_said_what_to_install() -> None:
    code = """
import sys
sys.modules["psycopg"] = None
import ccroute
from ccroute import Report, Router
from ccroute.accounting import PostgresLedger
from ccroute.errors import ConfigError
for use in (PostgresLedger, lambda url: Router([], ledger=url), Report.from_ledger):
    try:
        use("postgresql://host/db")
    except ConfigError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.count("needs psycopg (") == done.stdout.count("pip install 'ccroute[postgres]'") == 3


def test_a_router_without_postgresql_loads_no_psycopg(tmp_path: Path) -> None:
    code = "import sys, ccroute; ccroute.Router([], ledger=sys.argv[1]); print('psycopg' in sys.modules)"
    command = [sys.executable, "-c", code, str(tmp_path / "usage.db")]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "False\n"
