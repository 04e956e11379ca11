"""The origin of a URL: scheme, host and port. Knows names and addresses; makes no look-up."""

from __future__ import annotations

import ipaddress
from typing import Final, NamedTuple

PORTS: Final = {"http": 80, "https": 443}
"""The schemes of an address and their usual ports."""


class Origin(NamedTuple):
    """Scheme, host and port: the only place to which a backend's key may go."""

    scheme: str
    host: str
    port: int

    @property
    def address(self) -> str:
        """`host:port`, also with the usual port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def authority(self) -> str:
        """Host and port; the port only where it is not the scheme's usual one."""
        return self.address.removesuffix(f":{PORTS[self.scheme]}")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def literal_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that `host` is; None for a name. IPv4 within IPv6 becomes plain IPv4."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_this_machine(host: str) -> bool:
    """Whether `host` names this machine, by name or loopback address."""
    address = literal_address(host)
    return host == "localhost" if address is None else address.is_loopback


def is_private(host: str) -> bool:
    """Whether `host` is `localhost` or a literal loopback or private address."""
    address = literal_address(host)
    if address is None:
        return host == "localhost"
    return address.is_loopback or (address.is_private and not address.is_unspecified)
