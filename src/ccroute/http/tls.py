"""TLS contexts. A server's certificate is always checked."""

from __future__ import annotations

import ssl

from ccroute.http.message import TransportError, reason


def make_context(ca_file: str | None) -> ssl.SSLContext:
    """A context that trusts the public authorities, or only those in `ca_file`. Takes about 20 ms.

    Raises `OSError` if `ca_file` cannot be read or has no certificates in PEM form.
    """
    if ca_file is not None:
        return ssl.create_default_context(cafile=ca_file)
    import certifi  # the authorities that httpx trusts, besides the machine's own

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def handshake_failure(error: OSError) -> TransportError:
    """The error of a handshake that failed: of TLS, or of the connection under it."""
    return TransportError("tls" if isinstance(error, ssl.SSLError) else "connect", reason(error))
