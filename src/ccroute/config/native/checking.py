"""Turns a file's table into `Settings`. A fault has the terms and the place of the file.

Knows pydantic's errors; must not know what a key means.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, time
from typing import Annotated, Any, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ccroute.backends.registry import find_kind
from ccroute.config.native.settings import BackendTable, Settings, Table
from ccroute.config.reading.source import Place, Source
from ccroute.errors import ConfigError
from ccroute.routing.names import did_you_mean


def checked_settings(table: dict[str, Any], source: Source) -> Settings:
    """Return the settings in `table`. Changes `table`.

    Every fault goes to `source`. The wrong parts are removed, so that the names in the rest can still be
    checked.
    """
    settings, faults = _validated(table)
    if settings is not None:
        return settings
    faults = [fault for fault in faults if not _stands_in(table, fault, source)]
    for fault in faults:
        if not source.faulty(where := source.where(_place(fault))):
            source.faults.append((where, _text(fault)))
    for fault in reversed(faults):
        place = _place(fault)[: -1 if fault["type"] == "missing" else None]
        source.left_out.append(place)
        _take_out(table, place)
    # A section that is invalid without the removed part is removed too. That is not another fault.
    settings, faults = _validated(table)
    for fault in faults:
        table.pop(str(fault["loc"][0]), None)
    return settings or Settings.model_validate(table)


def _stands_in(table: dict[str, Any], fault: ErrorDetails, source: Source) -> bool:
    """Put a value that fits in place of a reference whose variable is not set: what it will hold is unknown.

    Returns whether there is one.
    """
    place = _place(fault)
    lengths = range(len(place), 0, -1) if source.unset else ()
    length = next((n for n in lengths if source.origin(place[:n]) in source.unset), None)
    if length is None:
        return False
    place = place[:length]
    holder: Any = table
    for step in place[:-1]:
        holder = holder[step]
    kept = holder[place[-1]]
    for value in (1, True, *re.findall("'(.*?)'", fault["msg"]), "free", "openai", "stop", "UTC"):
        holder[place[-1]] = value
        if not any(_place(other)[:length] == place for other in _validated(table)[1]):
            source.stand_ins[place] = kept
            return True
    holder[place[-1]] = kept
    return False


def _validated(table: dict[str, Any]) -> tuple[Settings | None, list[ErrorDetails]]:
    """The settings, or None and the faults."""
    unknown = list(_unknown_options(table.get("backends")))
    try:
        settings = Settings.model_validate(table)
    except ValidationError as error:
        return None, error.errors(include_url=False) + unknown
    return (None, unknown) if unknown else (settings, [])


def _unknown_options(backends: object) -> Iterator[ErrorDetails]:
    """Return a fault for each key of a backend's table that its kind does not take."""
    known = BackendTable.model_fields
    for name, table in backends.items() if isinstance(backends, dict) else ():
        own = [key for key in table if key not in known] if isinstance(table, dict) else []
        try:
            kind = find_kind(str(table.get("kind", name))) if own else None
        except ConfigError:
            kind = None  # reported as a fault of `kind`
        for key in own:
            if kind is None or key not in kind.options:
                yield ErrorDetails(type="extra_forbidden", loc=("backends", name, key), msg="", input=None)


def _place(fault: ErrorDetails) -> Place:
    place = fault["loc"]
    # pydantic adds "[key]" to the place of a wrong key, which only `params` and `above` can have.
    if place[-1] != "[key]":
        return place
    return place[:-1] if place[-3:-2] in {("params",), ("above",)} else place


def _text(fault: ErrorDetails) -> str:
    match fault["type"]:
        case "extra_forbidden":
            return f"unknown key{did_you_mean(str(fault['loc'][-1]), _keys_at(fault['loc'][:-1]))}"
        case "missing":
            return "is missing"
        case "value_error":
            return str(fault.get("ctx", {})["error"])
        case "dict_type" | "model_type":
            place = fault["loc"]
            is_budget = place[-1] == "budget" or (place[0] == "budgets" and len(place) == 2)
            return "should be a table" + " with usd, tokens or both" * is_budget
        case "string_type" if isinstance(fault["input"], date | time):
            return "is a date or a time in this format: put it in quotes"
    # pydantic's own messages do not repeat the input.
    return fault["msg"].removeprefix("Input ").removeprefix("Decimal input ")


def _keys_at(place: Place) -> list[str]:
    """Return the keys that the table at `place` may have."""
    table: type[Table] = Settings
    steps = iter(place)
    for step in steps:
        annotation = table.model_fields[str(step)].annotation
        for _ in range(_containers(annotation)):
            next(steps)
        table = next(_tables_in(annotation))
    return table.keys()


def _containers(annotation: object) -> int:
    """How many dicts and lists are around a table."""
    if get_origin(annotation) is Annotated:
        return _containers(get_args(annotation)[0])
    inner = get_args(annotation)[-1] if get_origin(annotation) in (dict, list) else None
    return 0 if inner is None else 1 + _containers(inner)


def _tables_in(annotation: object) -> Iterator[type[Table]]:
    if isinstance(annotation, type) and issubclass(annotation, Table):
        yield annotation
    for inner in get_args(annotation):
        yield from _tables_in(inner)


def _take_out(table: dict[str, Any], place: Place) -> None:
    holder: Any = table
    last = place[0]
    for step in place[1:]:
        inner = holder[last]
        if isinstance(inner, dict) and step not in inner:
            return  # removed with another fault
        if not isinstance(inner, dict | list):
            break  # a short form is removed as a whole
        holder, last = inner, step
    del holder[last]
