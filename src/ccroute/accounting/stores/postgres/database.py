"""A PostgreSQL database: its address, which may have a password, and connections to it.

Knows libpq's parameters; must not know tables. No text that is made here contains a password.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

from ccroute.accounting.stores.base import log
from ccroute.errors import ConfigError

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict
    from psycopg.pq import Conninfo
except ImportError as error:
    raise ConfigError(
        f"ledger: a postgresql:// ledger needs psycopg ({error}): pip install 'ccroute[postgres]'"
    ) from error

Connection: TypeAlias = "psycopg.Connection[Any]"

SCHEMES: Final = ("postgresql", "postgres")
_USUAL: Final = {
    "connect_timeout": "10",  # seconds
    "client_encoding": "utf8",
    "fallback_application_name": "ccroute",
    # So the loss of a server is noticed within about a minute, also during a query.
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",  # ms
}
"""Defaults for what neither the address nor libpq's variables set."""
_PLACE: Final = ("host", "hostaddr", "port", "dbname", "user", "service")
"""The parameters that identify a database."""
_ENCODED: Final = 'in a user, a password and a database, "@" is written %40, "/" %2F, ":" %3A, "%" %25'


class Database:
    """The database at `address`, a URL or libpq's `key=value` text.

    libpq fills in what the address leaves out: from PGHOST, PGPASSWORD and similar variables, a password
    file, a service file. Raises `ConfigError` if this is no address. Opens nothing.
    """

    def __init__(self, address: str) -> None:
        given = _parsed(address)
        usual = {o.keyword.decode(): o.val.decode() for o in Conninfo.get_defaults() if o.val is not None}
        self._parameters: dict[str, Any] = {k: v for k, v in _USUAL.items() if k not in usual} | given
        self._place = {name: (usual | given).get(name, "") for name in _PLACE}
        for host, port in zip(*(self._place[name].split(",") for name in ("host", "port")), strict=False):
            if "@" in host[1:] or not (port.isdigit() or not port):
                raise ConfigError(f"ledger: the PostgreSQL address has no proper host and port; {_ENCODED}")

    def __repr__(self) -> str:
        """The address without secrets."""
        place = self._place
        if place["service"] and not place["host"]:
            return f"postgresql://?service={place['service']}"
        user = f"{place['user']}@" if place["user"] else ""
        host = place["host"] or place["hostaddr"]
        port = f":{place['port']}" if place["port"].strip(",") not in {"", "5432"} else ""
        if host.startswith("/"):  # the folder of a socket
            return f"postgresql://{user}{port}/{place['dbname']}?host={host}"
        return f"postgresql://{user}{f'[{host}]' if ':' in host else host}{port}/{place['dbname']}"

    def connect(self) -> Connection:
        """A new connection, which the caller closes. Raises `psycopg.Error`.

        No statement is prepared, so that it may lead through a pooler such as PgBouncer.
        """
        connection = psycopg.connect(**self._parameters, autocommit=True, prepare_threshold=None)
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        return connection

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees the database as it is at its first statement.

        Raises `ConfigError` if it cannot be read.
        """
        try:
            with contextlib.closing(self.connect()) as connection:
                connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                connection.read_only = True
                with connection.transaction():
                    connection.execute("SET LOCAL work_mem = '64MB'")  # for sums of many groups
                    yield connection
        except psycopg.Error as error:
            raise ConfigError(f"ledger: {self} cannot be read: {reason(error)}") from error

    def usual_journal(self) -> Path:
        """The default path of the journal: one file for each database, in the user's folder for state
        (XDG)."""
        given = os.environ.get("XDG_STATE_HOME", "")
        state = given if os.path.isabs(given) else os.path.expanduser("~/.local/state")
        digest = hashlib.sha256("\0".join(self._place.values()).encode()).hexdigest()
        return Path(state, "ccroute", f"postgresql-{digest[:12]}.db")


def make_folder(journal: Path) -> None:
    """Make the folder of a usual journal. Raises `ConfigError` if it cannot be."""
    folder = journal.parent
    try:
        if not folder.is_absolute():
            raise OSError("the user has no home")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            "ledger: rows wait in a journal on disk until PostgreSQL has them, and there is no folder for it "
            f'({error}); name a file on a disk that lasts: "postgresql://…?journal=/data/ledger.db", or '
            'PostgresLedger(…, journal="/data/ledger.db")'
        ) from None
    if _ends_with_container(folder):
        log.warning(
            "ledger: the journal %s is in memory or in a container's own file system, and rows that "
            "PostgreSQL does not have yet are lost with it; name a file on a volume: "
            "postgresql://…?journal=/data/ledger.db",
            journal,
        )


def _ends_with_container(folder: Path) -> bool:
    """Whether the folder is lost when the container or the machine stops. Known on Linux only."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return False
    kinds = {place: kind for _, place, kind, *_ in mounts}
    nearest = next(kinds[str(each)] for each in (folder, *folder.parents) if str(each) in kinds)
    return nearest in {"overlay", "aufs", "tmpfs", "ramfs"}


def reason(error: BaseException) -> str:
    """The message of the server or of libpq, in one line, without values of a row."""
    said = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return " ".join((said or str(error) or type(error).__name__).split())


def _parsed(address: str) -> dict[str, Any]:
    scheme, is_url, rest = address.partition("://")
    if is_url:
        if scheme not in SCHEMES:
            raise ConfigError("ledger: the address of a PostgreSQL database begins with postgresql://")
        server, _, path = rest.partition("/")
        if server.count("@") > 1 or "@" in path.partition("?")[0]:
            raise ConfigError(f"ledger: the PostgreSQL address cannot be read; {_ENCODED}")
    try:
        return conninfo_to_dict(address)
    except psycopg.ProgrammingError as error:
        # The text that libpq quotes may be a part of a password.
        why = re.sub('".*"', "…", str(error), flags=re.DOTALL).strip()
    hint = f"; {_ENCODED}" if is_url else ""
    raise ConfigError(f"ledger: the PostgreSQL address cannot be read: {why}{hint}")
