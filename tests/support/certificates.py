"""Certificates for TLS tests: one good authority, and servers that it vouches for, or should not have."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self) -> None:
        self._ca = trustme.CA()

    def server(self, *names: str, expired: bool = False) -> ssl.SSLContext:
        """A server's context for these names (default: 127.0.0.1 and localhost)."""
        now = datetime.now(UTC)
        cert = self._ca.issue_cert(
            *(names or ("127.0.0.1", "localhost")),
            not_before=now - timedelta(days=2),
            not_after=now + timedelta(days=-1 if expired else 1),
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        cert.configure_cert(context)
        return context

    def wrong_host(self) -> ssl.SSLContext:
        return self.server("elsewhere.example")

    def expired(self) -> ssl.SSLContext:
        return self.server(expired=True)

    def client(self) -> ssl.SSLContext:
        """A client's context that trusts this authority and no other."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._ca.configure_trust(context)
        return context

    def write(self, folder: Path) -> Path:
        """The authority's certificate as a PEM file, for `ca_file=`."""
        path = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(path))
        return path
