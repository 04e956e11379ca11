"""Reads, checks and compares a backend's key, and lists the values that may never be shown.

Knows keys and header values; must not know which server they are for.
"""

from __future__ import annotations

import base64
import re
from collections import deque
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Final
from urllib.parse import quote, quote_plus

from pydantic import SecretStr

from ccroute.errors import AuthenticationError, ConfigError

ApiKey = str | SecretStr | Callable[[], str | SecretStr]
"""A key, or a callable that returns the current one (for rotation); it is called once per attempt."""

PRINTABLE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_KEY: Final = re.compile(
    r"sk-(?:ant|proj|or|svcacct|admin)-.+|(?:sk|pk)[-_](?=\S*\d)\S{16,}|AIza\S{20,}|Bearer .+"
    r"|(?:gsk|xai|hf|r8|pplx|nvapi|csk|tgp|fw)[-_](?=\S*\d)\S{16,}|(?=\S*\d)(?=\S*[A-Za-z])\w{32,}",
    re.ASCII,
)
"""Known prefixes of providers' keys, and letters and digits that are too long for a name."""
_SHORTEST_SECRET: Final = 8
"""Characters. A shorter value is a placeholder or an ordinary word such as `beta`."""
_KEYS_KEPT: Final = 8
"""The number of rotated keys that are remembered, to keep them out of messages."""


class Secrets(tuple[str, ...]):
    """Values that no message, log line or event may show."""

    def __repr__(self) -> str:
        """Without the secrets."""
        return f"Secrets({len(self)} values)"

    @cached_property
    def codes(self) -> list[str]:
        """The secrets in lower case, in each usual form: plain, in a URL, in JSON, in HTML, in base64."""
        import json  # only where an error may repeat them
        from html import escape

        codes = set[str]()
        for secret in {*self, *(value.removeprefix("Bearer ") for value in self)}:  # of headers
            if len(secret) >= _SHORTEST_SECRET:
                in_json = json.dumps(secret)[1:-1]
                codes |= {secret, quote(secret, safe=""), quote(secret), quote_plus(secret), escape(secret)}
                codes |= {in_json, json.dumps(in_json)[1:-1], in_json.replace("/", "\\/")}
                codes |= {in_json.replace("+", "\\u002b"), quote(quote(secret, safe=""), safe="")}
                codes.add("".join(f"%{byte:02x}" for byte in secret.encode()))
                for before in range(3):  # base64 of "user:secret", too, whatever the user's length
                    code = base64.b64encode(bytes(before) + secret.encode()).decode().rstrip("=")
                    code = code[(0, 2, 3)[before] : len(code) - ((before + len(secret.encode())) % 3 > 0)]
                    codes |= {code, code.replace("+", "-").replace("/", "_")}
        return [code.lower() for code in codes]


class Credentials:
    """The key of one backend. Its `secrets` are the used keys and the values of the caller's headers."""

    def __init__(self, backend: str, api_key: ApiKey | None, headers: Mapping[str, str]) -> None:
        if not (api_key is None or callable(api_key) or isinstance(api_key, str | SecretStr)):
            raise ConfigError(f"backend {backend}: api_key must be a str, a SecretStr or a callable")
        self._backend = backend
        self._api_key = api_key
        self.is_fixed = not callable(api_key)
        self._used: deque[str] = deque(maxlen=_KEYS_KEPT)
        self._private = [value for value in headers.values() if len(value) >= _SHORTEST_SECRET]
        self.secrets = Secrets(self._private)
        if isinstance(api_key, str | SecretStr):
            self._checked_key(api_key)

    def read(self) -> str | None:
        """Return the key to send; None or empty without one. A callable is called.

        Raises `AuthenticationError` if the callable fails: another backend may still answer.
        """
        key = self._api_key
        if key is None:
            return None
        if not callable(key):
            return self._checked_key(key)
        try:
            return self._checked_key(key())
        except ConfigError as error:
            raise AuthenticationError(str(error), backend=self._backend) from None
        except Exception as error:
            kind = type(error).__name__
            raise AuthenticationError(
                f"api_key could not give a key ({kind})", backend=self._backend
            ) from None

    def _checked_key(self, key: str | SecretStr) -> str:
        value = key.get_secret_value() if isinstance(key, SecretStr) else key
        if value and not PRINTABLE.fullmatch(value):
            raise ConfigError(f"backend {self._backend}: api_key holds characters other than printable ASCII")
        if value and value not in self._used:
            self._used.append(value)
            self.secrets = Secrets((*self._used, *self._private))
        return value


def fingerprint(key: str | None) -> int:
    """Return a number that is equal for equal keys. The key cannot be computed from it."""
    return hash(key)


def looks_like_key(text: str) -> bool:
    return _KEY.fullmatch(text) is not None


def checked_header(backend: str, name: str, value: str) -> tuple[bytes, bytes]:
    """Return a header as bytes. Raises `ConfigError`, which never repeats the value."""
    if not _HEADER_NAME.fullmatch(name):
        raise ConfigError(f"backend {backend}: a header name holds characters that HTTP does not allow")
    if not isinstance(value, str) or (value and not PRINTABLE.fullmatch(value)):
        raise ConfigError(f"backend {backend}: header {name} holds characters other than printable ASCII")
    return name.encode(), value.encode()
