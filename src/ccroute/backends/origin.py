"""A backend's address: scheme, host, port and path, and whether it is a machine of the user's own.

Knows names and addresses; must not know keys, wires or models.
"""

from __future__ import annotations

import ipaddress
import os
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from ccroute.backends.credentials import PRINTABLE, looks_like_key
from ccroute.errors import ConfigError

PORTS: Final = {"http": 80, "https": 443}
"""The schemes of an address and their usual ports."""


class Origin(NamedTuple):
    """The only place to which a backend's key may go."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """Host and port; the port only where it is not the scheme's usual one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if PORTS[self.scheme] == self.port else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def is_private(host: str) -> bool:
    """Whether `host` is `localhost` or a literal loopback or private address. Names are not looked up."""
    address = literal_address(host)
    if address is None:
        return host == "localhost"
    return address.is_loopback or (address.is_private and not address.is_unspecified)


def literal_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that `host` is; None for a name. IPv4 within IPv6 becomes plain IPv4."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def check_name(kind: str, name: object) -> None:
    """Raise `ConfigError` if `name` cannot name a backend. The error does not repeat an address or a key."""
    if not isinstance(name, str):
        raise ConfigError(
            f'{kind}: the first argument is the backend\'s name, a str such as "main", which stands before '
            f"the slash of backend/model, not {type(name).__name__}; a key is given as api_key="
        )
    if "://" in name:  # it may hold a password
        raise ConfigError(
            f"{kind}: the first argument is the backend's name, and this is an address: give it as base_url="
        )
    if looks_like_key(name):
        raise ConfigError(
            f"{kind}: the first argument is the backend's name, and this looks like a key: "
            "give it as api_key="
        )
    if not name or "/" in name or not PRINTABLE.fullmatch(name):
        raise ConfigError(f"backend name {name!r}: use printable ASCII without a slash")


def check_ca_file(name: str, ca_file: str) -> None:
    """Raise `ConfigError` unless the file holds certificates in PEM form."""
    if not os.path.isfile(ca_file):
        raise ConfigError(f"backend {name}: there is no ca_file {ca_file}")
    import ssl  # slow to import, and rarely needed here

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca_file)
    except OSError:
        raise ConfigError(f"backend {name}: ca_file {ca_file} holds no certificates in PEM form") from None


def parse_base_url(name: str, base_url: str) -> tuple[Origin, str]:
    """Return the origin and the path. Raises `ConfigError`, which never repeats a possible password."""
    fault = f"backend {name}: base_url must look like http://localhost:11434 or https://host/v1"
    try:
        url = urlsplit(base_url)
        port = url.port
    except ValueError:
        raise ConfigError(fault) from None
    if url.username is not None or url.password is not None:
        raise ConfigError(f"backend {name}: base_url holds credentials; give them as api_key= or headers=")
    if url.scheme not in PORTS or not url.hostname or url.query or url.fragment:
        raise ConfigError(fault)
    if not base_url.isascii() or not base_url.isprintable() or " " in base_url:
        raise ConfigError(fault)
    return Origin(url.scheme, url.hostname, port or PORTS[url.scheme]), url.path.rstrip("/")
