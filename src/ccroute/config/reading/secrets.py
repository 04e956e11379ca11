"""Expands references to environment variables in the values of a file, and hides the values in messages.

`${NAME}` and `${NAME:-default}` anywhere in a value; `env:NAME` and `os.environ/NAME` as the whole
value. A variable's value is not expanded again. In place of a secret, a text that only resembles a reference
is a fault: it would be sent as the secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from ccroute.config.reading.source import Place, Source

INLINE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_WHOLE = re.compile(r"(?:env:|os\.environ/)([A-Za-z_][A-Za-z0-9_]*)")
# "$K", "${K", "$(K)", "env: K", also after a scheme, as in "Bearer $K".
_BOTCHED = re.compile(
    r"(?:[a-z-]+ +)?\$(?:(?:env:)?[a-z_]\w*\}?|[{(].*)|(?:env:|os\.environ).*", re.IGNORECASE | re.DOTALL
)
# Only where the whole value is a name, and not inside a text that may be a key: "$(K)", "env: K",
# "os.environ['K']".
_VARIABLE = re.compile(r"""(?:^|[\s$({\[:'"])([A-Z_][A-Z0-9_]*)(?!\w)""")
_CREDENTIALS = re.compile(r"//[^/\s]*@")

_HALF = re.compile(r"[\ud800-\udfff]")
"""Half a character, which only JSON's escapes can write. No other text can hold it."""
_SHORTEST = 6
"""A shorter value is hidden only where it is quoted: elsewhere it may be part of another word."""

MISSING: Final = object()
"""What a value becomes when its variable is not set."""


class Environment:
    """The variables that a file may refer to.

    keep_unset: a reference to a variable that is not set stays as it is, which is no fault: the file is only
                moved.
    """

    def __init__(self, variables: Mapping[str, str], *, keep_unset: bool = False) -> None:
        self._variables = variables
        self.keep_unset = keep_unset
        self._seen: dict[str, str] = {}

    def get(self, name: str) -> str | None:
        value = self._variables.get(name)
        if value:
            self._seen[value] = name
        return value

    def define(self, name: str, value: str) -> None:
        """Set a variable, as a file may for itself. It replaces one of the environment."""
        self._variables = {**self._variables, name: value}

    def expand(self, value: Any, place: Place, source: Source) -> Any:
        """A copy of `value` with every reference in its strings replaced.

        A variable that is not set is a fault of `source`, and the value that needs it is left out.
        """
        if isinstance(value, str):
            return self._text(value, place, source)
        if isinstance(value, Mapping):
            found = {}
            for key, inner in value.items():
                # A mapping, or what a YAML library makes of a file, has numbers where a file has their text.
                if (isinstance(key, str) and not _HALF.search(key)) or type(key) is int:
                    found[str(key)] = self.expand(inner, (*place, str(key)), source)
                else:
                    source.fault((*place, str(key)), "a key should be a string")
            return {key: inner for key, inner in found.items() if inner is not MISSING}
        if isinstance(value, list | tuple):
            items = [self.expand(inner, (*place, i), source) for i, inner in enumerate(value)]
            return [inner for inner in items if inner is not MISSING]
        return value

    def hide(self, text: str) -> str:
        """`text` with the variable's name in place of each value that came from the environment.

        Where a URL was written instead of a name, its credentials are taken out.
        """
        for value in sorted(self._seen, key=len, reverse=True):
            reference = f"${{{self._seen[value]}}}"
            text = text.replace(f'"{value}"', f'"{reference}"')
            if len(value) >= _SHORTEST:
                text = text.replace(value, reference)
        return _CREDENTIALS.sub("//…@", text)

    def _text(self, text: str, place: Place, source: Source) -> Any:
        is_key = place[-1] in {"api_key", "apiKey"}
        faults: list[str] = []
        empty: list[str] = []

        def look_up(reference: re.Match[str]) -> str:
            name, default = reference[1], reference[2] if reference.re is INLINE else None
            value = self.get(name)
            if default is not None:
                if "${" in default:
                    faults.append(f"the default of ${{{name}}} cannot hold another variable")
                return value or default
            if self.keep_unset and not (value if is_key else value is not None):
                source.unset.add(place)
                return f"${{{name}}}"
            if value is None:
                faults.append(f"environment variable {name} is not set")
            elif not value:
                empty.append(name)
            return value or ""

        whole = _WHOLE.fullmatch(text)
        expanded, references = (look_up(whole), 1) if whole else _replaced(look_up, text)
        if references:
            source.references[place] = (native_spelling(text), expanded)
        if empty and not expanded and not faults and is_key:
            faults.append(f"environment variable {' and '.join(dict.fromkeys(empty))} is empty")
        is_secret = is_key or place[-2:-1] == ("headers",)
        if not references and is_secret and _BOTCHED.fullmatch(text):
            # The text may be a secret, so it is not shown. Variables are in capitals.
            name = found[1] if (found := _VARIABLE.search(text)) else "NAME"
            faults.append(f"looks like a reference to a variable, but is none: write ${{{name}}}")
        if not faults:
            return expanded
        for fault in faults:
            source.fault(place, fault)
        source.left_out.append(place)
        return MISSING


def _replaced(look_up: Callable[[re.Match[str]], str], text: str) -> tuple[str, int]:
    """`INLINE.subn`, in linear time also for many references that never end."""
    end = text.rfind("}") + 1
    expanded, references = INLINE.subn(look_up, text[:end])
    return expanded + text[end:], references


def native_spelling(text: str) -> str:
    """A reference as the native shape writes it: `env:NAME` becomes `${NAME}`."""
    whole = _WHOLE.fullmatch(text)
    return f"${{{whole[1]}}}" if whole else text
