"""Replaces secrets that are written in a file by references.

Knows which values are secret, and what a variable for one is called; must not know how a file is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from ccroute.backends.credentials import looks_like_key
from ccroute.config.reading.secrets import INLINE, Environment
from ccroute.config.reading.source import Place

_PUBLIC_HEADERS: Final = frozenset(
    {
        "accept",
        "anthropic-beta",
        "anthropic-version",
        "content-type",
        "http-referer",
        "openai-beta",
        "referer",
        "user-agent",
        "x-openrouter-categories",
        "x-openrouter-title",
        "x-title",
    }
)
"""Headers whose values are no secrets. OpenRouter's: https://openrouter.ai/docs/app-attribution."""
_SCHEME: Final = re.compile(r"(?:(?:Bearer|Basic|Token|Key|ApiKey)\s+)?", re.IGNORECASE)
_WORD: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_SECRET_WORDS: Final = frozenset(
    {
        "apikey",
        "auth",
        "authorization",
        "bearer",
        "cookie",
        "credential",
        "credentials",
        "dsn",
        "key",
        "passphrase",
        "passwd",
        "password",
        "pwd",
        "secret",
        "token",
    }
)
_USER_INFO: Final = re.compile(
    r"""(?<=://)
    ((?: (?: \$\{[^}]*\} | \$(?!\{) | [^$/?\#\s:@] )* : )?)  # a user
    ((?: \$\{[^}]*\} | \$(?!\{) | [^$/?\#\s@] )+) (?=@)  # a password""",
    re.VERBOSE,
)
_QUERY: Final = re.compile(r"(?<=[?&])([^=&#\s]+=)([^&#\s]+)")
_LONGEST_REST: Final = 8
"""Characters of a secret beside a reference that may be no secret themselves, such as `key-${ID}`."""


@dataclass(slots=True)
class Variables:
    """The variables that a written file needs for secrets that stood in the files themselves.

    `taken` are names that mean something else. `made` has each new name with its value, and `places` where
    it was.
    """

    environment: Environment
    taken: set[str]
    made: dict[str, str] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=dict)

    def reference(self, value: str, name: str, where: str) -> str:
        """A reference to a variable for `value`. The same value has one variable."""
        found = next((known for known, other in self.made.items() if other == value), None)
        if found is None:
            name = re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_")
            name = name if name[:1].isalpha() else f"SECRET_{name}".rstrip("_")
            names = (name if n == 1 else f"{name}_{n}" for n in count(1))
            found = next(each for each in names if self._is_free(each, value))
            self.made[found] = value
        self.places.setdefault(found, []).append(where)
        return f"${{{found}}}"

    def _is_free(self, name: str, value: str) -> bool:
        known = name in self.made or name in self.taken
        return not known and self.environment.get(name) in (None, "", value)


def has_literal(text: str) -> bool:
    """Whether the text of a secret holds more of it than references to variables."""
    rest = INLINE.sub("", text[_scheme(text) :])
    defaults = any(reference[2] for reference in INLINE.finditer(text))
    return bool(rest if not INLINE.search(text) else defaults or len(rest) >= _LONGEST_REST)


def without_literal(text: str, value: str, name: str, where: str, variables: Variables) -> str:
    """The text of a secret with a reference instead of `value`; `Bearer` before it stays."""
    if not has_literal(text):
        return text
    at = _scheme(value)
    if (reference := INLINE.fullmatch(text, _scheme(text))) is not None:  # its default is the secret
        variables.taken.discard(reference[1])
        name = reference[1]
    return value[:at] + variables.reference(value[at:], name, where)


def without_credentials(text: str, name: str, where: str, variables: Variables) -> str:
    """A URL without a password in it, or other text as it is."""

    def hide(found: re.Match[str]) -> str:
        if found.re is _QUERY and not is_secret_name(found[1]):
            return found[0]
        value = INLINE.sub(lambda reference: reference[2] or "", found[2])
        return found[1] + without_literal(found[2], value, f"{name}_PASSWORD", where, variables)

    return _QUERY.sub(hide, _USER_INFO.sub(hide, text)) if "://" in text else text


def is_secret_name(name: object) -> bool:
    """Whether a key or a header has a name of something secret: `apiKey`, `redis_password`."""
    return not _SECRET_WORDS.isdisjoint(word.lower() for word in _WORD.findall(str(name)))


def is_secret_header(name: str, value: str) -> bool:
    return name.lower() not in _PUBLIC_HEADERS or looks_like_key(value)


def is_free_secret(place: Place, value: str) -> bool:
    """Whether a value is secret that a file may hold for a purpose that ccroute does not know."""
    return is_secret_name(place[-1]) or looks_like_key(value)


def usual_name(place: Place, usual: Mapping[str, str | None]) -> str:
    """The name of the variable for a secret at `place`; `usual` are the usual ones of backends' keys."""
    last = str(place[-1])
    if place[0] == "backends" and place[2:] == ("api_key",):
        return usual.get(str(place[1])) or f"{place[1]}_API_KEY"
    return last if len(place) == 1 or str(place[1]) == last else f"{place[1]}_{last}"


def _scheme(text: str) -> int:
    """The length of `Bearer ` before a secret."""
    found = _SCHEME.match(text)
    return found.end() if found else 0
