"""What the sources say, as one native file: references as they stood, and no values of secrets."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any, Final

from pydantic import SecretStr

from ccroute._version import __version__
from ccroute.accounting.stores.opening import with_path
from ccroute.config.merge import Merged
from ccroute.config.native.settings import (
    AgentTable,
    BackendTable,
    FallbackTable,
    PriceTable,
    Settings,
    Table,
)
from ccroute.config.native.values import is_limit
from ccroute.config.reading.secrets import INLINE, Environment
from ccroute.config.reading.source import Ignored, Place
from ccroute.config.writing.secrets import (
    Variables,
    is_free_secret,
    is_secret_header,
    usual_name,
    without_credentials,
    without_literal,
)
from ccroute.config.writing.toml import Layout

_FREE_FORM: Final = frozenset({"params", "cache", "ledger"})
"""Keys whose values may hold anything."""
_KEYS_SHOWN: Final = 12
_MANY: Final = re.compile(r"(.*) \((\d+) times\)")
"""A place that stands for several, as `Source.ignored` writes it."""
_EXACT: Final = 2**53
"""Below it a float is one whole number."""


@dataclass(frozen=True)
class MergedSettings:
    """What all sources say, without what a later source replaces.

    files:   the sources' names.
    ignored: the keys that were not read.
    usual:   each backend's usual variable for its key, if it has one.
    """

    merged: Merged
    files: tuple[str, ...]
    ignored: tuple[Ignored, ...]
    environment: Environment
    usual: Mapping[str, str | None]

    def to_toml(self, folder: str | os.PathLike[str] = ".") -> str:
        """One native TOML file, to be kept in `folder`, that makes the same router, without secrets' values.

        References to variables stay. A secret that is written in a file becomes a reference, and a comment
        says which variable to set. Raises `ConfigError` without tomli-w, and for a value that
        TOML cannot hold.
        """
        document = self._document
        top = [f"Written by ccroute {__version__} from {' and '.join(self.files)}."]
        parts = {
            "Set these variables, because their values stood in the files themselves:": [
                f"{name}: {', '.join(dict.fromkeys(places))}" for name, places in self.variables.items()
            ],
            "Left out, because TOML has no null:": document.left_out,
            "Not taken over:": summarised(self.ignored),
        }
        for title, lines in parts.items():
            top += ["", title, *(f"  {line}" for line in lines)] if lines else []
        table = document.table
        if "ledger" in table:
            table = table | {"ledger": self._ledger(table["ledger"], folder)}
        return Layout(document.comments, _headed).text(table, top)

    def _ledger(self, path: str, folder: str | os.PathLike[str]) -> str:
        """The path of the ledger or of its journal, which counts from the folder of its file."""
        source = self.merged.source(("ledger",))
        if source is None or source.path is None:
            return path
        home = source.path.parent

        def from_folder(path: str) -> str:
            is_whole = os.path.isabs(path) or path.startswith(("~", "$"))
            return path if is_whole else os.path.relpath(home / path, folder)

        return with_path(path, from_folder)

    @property
    def variables(self) -> Mapping[str, Sequence[str]]:
        """The variables to set for secrets that are written in the files, with their places."""
        return self._document.variables.places

    @cached_property
    def _document(self) -> _Document:
        return _Document(self)


class _Document:
    """The settings as a plain table, with references in place of secrets."""

    def __init__(self, settings: MergedSettings) -> None:
        self._merged = settings.merged
        self._usual = settings.usual
        given = settings.merged.settings
        # What a variable already means: by its name in a file, or to a backend without a key.
        texts = [text for source in self._merged.sources for text, _ in source.references.values()]
        taken = {reference[1] for text in texts for reference in INLINE.finditer(text)}
        with_key = {name for name, table in given.backends.items() if table.api_key is not None}
        taken |= {variable for name, variable in settings.usual.items() if variable and name not in with_key}
        self.variables = Variables(settings.environment, taken)
        self.comments: dict[Place, str] = {}
        self.left_out: list[str] = []
        self.table = self._table(given, ())

    def _table(self, table: Table, place: Place) -> Any:
        written = {}
        for key, value in table.given().items():
            if value == {} and isinstance(table, Settings | BackendTable):
                continue  # a translator's empty section
            if value is not None:
                written[key] = self._value(value, (*place, key))
            elif is_limit(type(table), key):
                written[key] = "off"
        if isinstance(table, AgentTable | FallbackTable) and written.keys() == {"model"}:
            return written["model"]
        if isinstance(table, PriceTable) and written == {"input": 0, "output": 0}:
            return "free"
        return written

    def _value(self, value: object, place: Place) -> Any:
        plain = value.get_secret_value() if isinstance(value, SecretStr) else value
        text = self._text(plain, place)
        if isinstance(plain, str):
            return self._string(plain if text is None else text, plain, place)
        if text is not None:
            return text
        if isinstance(value, Table):
            return self._table(value, place)
        if isinstance(value, Mapping):
            entries = {str(key): self._value(inner, (*place, str(key))) for key, inner in value.items()}
            return {key: inner for key, inner in entries.items() if inner is not None}
        if isinstance(value, list | tuple):
            items = [self._value(inner, (*place, i)) for i, inner in enumerate(value)]
            return [inner for inner in items if inner is not None]
        if value is None:
            self.left_out.append(self._merged.where(place))
        if isinstance(value, float | Decimal) and -_EXACT < value < _EXACT and value == int(value):
            return int(value)
        return value

    def _text(self, value: object, place: Place) -> str | None:
        """What the file has in place of `value`, where it refers to variables; None where it does not."""
        found = self._merged.origin(place)
        if found is None:
            return None
        source, place = found
        text, expanded = source.references.get(source.origin(place), (None, ""))
        if not source.renamed or text is None:
            return source.stand_ins.get(place, text)
        if isinstance(value, str):  # translated: a backend's name may be before it, and no slash after it
            for ending in (expanded, expanded.rstrip("/")):
                if ending and value.endswith(ending):
                    return value.removesuffix(ending) + text
        elif str(value) == expanded:
            return text
        return source.stand_ins.get(place)

    def _string(self, text: str, value: str, place: Place) -> str:
        """`text` without a secret in it. `value` is the same with its variables expanded."""
        where, name = self._merged.where(place), usual_name(place, self._usual)
        if _is_secret(value, place):
            written = without_literal(text, value, name, where, self.variables)
        else:
            written = without_credentials(text, name, where, self.variables)
        if written != text:
            self.comments[place] = f"Set this variable: {where} held the value itself."
        return written


def _is_secret(value: str, place: Place) -> bool:
    match place:
        case ("backends", _, "headers", name):
            return is_secret_header(str(name), value)
        case ("backends", _, "api_key"):
            return True
        case ("backends", _, key, *_) if key not in BackendTable.model_fields:  # of a kind of one's own
            return is_free_secret(place, value)
    return not _FREE_FORM.isdisjoint(place) and is_free_secret(place, value)


def _headed(place: Place) -> bool | None:
    """The order of aliases counts, and a line cannot follow a header: so none of them has one."""
    match place:
        case (_,) | ("backends", _) | ("backends", _, "models"):
            return True
        case ("aliases", *_):
            return False
    return None


def summarised(ignored: Sequence[Ignored]) -> list[str]:
    """The ignored keys, together where they have the same reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for each in ignored:
        file, colon, place = each.place.rpartition(": ")
        reasons.setdefault((file + colon, each.reason), []).append(place)
    lines = []
    for (file, reason), places in reasons.items():
        if len(places) == 1:
            lines.append(f"{file}{places[0]}: {reason}")
            continue
        keys: Counter[str] = Counter()
        for place in places:
            found = _MANY.fullmatch(place)
            one, times = (found[1], int(found[2])) if found else (place, 1)
            keys[one.rpartition(".")[2].partition("[")[0] or one] += times
        shown = [key if n == 1 else f"{key} ×{n}" for key, n in keys.most_common(_KEYS_SHOWN)]
        shown += [f"and {len(keys) - _KEYS_SHOWN} more"] if len(keys) > _KEYS_SHOWN else []
        lines.append(f"{file}{', '.join(shown)}: {reason}")
    return lines
