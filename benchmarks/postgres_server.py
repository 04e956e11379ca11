"""A real PostgreSQL server, which is stopped, killed and started again. Needs `pgserver`."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg


class PostgresServer:
    """A server with a folder of its own, which `close` removes. It listens on a socket in there."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # XDG_RUNTIME_DIR may not be set
            import pgserver

        self._folder = Path(tempfile.mkdtemp(prefix="ccroute-pg-"))
        # It fills the folder, for another user if this one is root. Its server is no child of ours.
        made = pgserver.get_server(self._folder, cleanup_mode=None)
        os.kill(made.get_pid(), signal.SIGINT)
        self._program = Path(pgserver.__file__).parent / "pginstall" / "bin" / "postgres"
        self._user = pwd.getpwuid(self._folder.stat().st_uid).pw_name if os.geteuid() == 0 else None
        while (self._folder / "postmaster.pid").exists():
            time.sleep(0.002)
        self.start()

    def url(self, schema: str | None = None, user: str = "postgres") -> str:
        """The address of the database; `schema` is where unqualified names are."""
        options = f"&options={quote(f'-csearch_path={schema}')}" if schema else ""
        return f"postgresql://{quote(user)}@/postgres?host={self._folder}{options}"

    def execute(self, statement: str, schema: str | None = None) -> list[tuple[Any, ...]]:
        """What a statement gives, in a connection of its own."""
        with contextlib.closing(psycopg.connect(self.url(schema), autocommit=True)) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        """Start it, and wait until it answers. Nothing is synced: a killed server still loses nothing."""
        folder = str(self._folder)
        options = ["-D", folder, "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"]
        until = time.monotonic() + 20
        while True:
            with open(self._folder / "log", "ab") as log:
                self._process = subprocess.Popen(
                    [self._program, *options], user=self._user, stdout=log, stderr=log
                )
            while self._process.poll() is None:
                with contextlib.suppress(psycopg.OperationalError):
                    self.execute("SELECT 1")
                    return
                time.sleep(0.01)
            # A killed server's other processes may end a moment later, and until then no other one starts.
            assert time.monotonic() < until, (self._folder / "log").read_text()

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT breaks its connections, SIGKILL leaves it no time for anything."""
        self._process.send_signal(how)
        self._process.wait(30)

    @contextlib.contextmanager
    def stopped(self, how: signal.Signals = signal.SIGINT) -> Iterator[None]:
        self.stop(how)
        try:
            yield
        finally:
            self.start()

    def close(self) -> None:
        self.stop(signal.SIGKILL)
        shutil.rmtree(self._folder)
