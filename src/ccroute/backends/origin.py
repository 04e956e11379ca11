"""Checks a backend's name and address. Must not know wires or models."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from ccroute.backends.credentials import PRINTABLE, looks_like_key
from ccroute.errors import ConfigError
from ccroute.http.origin import PORTS, Origin


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
    from ccroute.http.tls import make_context  # slow to import, and rarely needed here

    try:
        make_context(ca_file)
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
