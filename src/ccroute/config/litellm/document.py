"""The sections of a file and of its included files, also where one is nested in another by mistake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ccroute.config.foreign.builder import Builder
from ccroute.config.foreign.section import Layer, Section
from ccroute.config.litellm.keys import GENERAL, LITELLM, ROUTER, TOP, note_unread
from ccroute.config.reading.source import Place, Source, content_of


class Document:
    """`entries` are those of `model_list` and of included files."""

    def __init__(self, content: Mapping[str, Any], builder: Builder) -> None:
        self._builder = builder
        self._tables: list[Layer] = [(content, ())]
        self._tables += _included(content, builder)
        for table, place in self._tables:
            note_unread(builder, table, place, TOP)

    def entries(self) -> Iterator[tuple[Any, Place]]:
        yield from self._rows("model_list")

    def credentials(self) -> Mapping[str, Layer]:
        """The values of `credential_list` by name."""
        found: dict[str, Layer] = {}
        for row, place in self._rows("credential_list"):
            match row:
                case {"credential_name": str(name), "credential_values": Mapping() as values}:
                    found[name] = (values, (*place, "credential_values"))
                case _:
                    self._builder.fault(place, "should be a table with credential_name and credential_values")
        return found

    def variables(self) -> Iterator[tuple[str, Any, Place]]:
        """The variables that the file sets for itself."""
        for values, place in self._sections("environment_variables"):
            for name, value in values.items():
                yield name, value, (*place, name)

    def settings(self) -> tuple[Section, Section, Section]:
        """The router's, LiteLLM's and the general settings. The router's settings may be under LiteLLM's,
        and the first two under the general ones."""
        general = list(self._sections("general_settings"))
        router, litellm = list(self._sections("router_settings")), list(self._sections("litellm_settings"))
        for table, place in general:
            for name, layers in (("router_settings", router), ("litellm_settings", litellm)):
                if isinstance(nested := table.get(name), Mapping):
                    layers.append((nested, (*place, name)))
        builder = self._builder
        for layers, known in ((router, ROUTER), (litellm, {**ROUTER, **LITELLM}), (general, GENERAL)):
            for table, place in layers:
                note_unread(builder, table, place, known)
        return Section(builder, *router, *litellm), Section(builder, *litellm), Section(builder, *general)

    def _sections(self, name: str) -> Iterator[Layer]:
        """The tables of that name; an included file's comes first, as it replaces the file's own."""
        for table, place in reversed(self._tables):
            value = table.get(name)
            if isinstance(value, Mapping):
                yield value, _under(place, name)
            elif value is not None:
                self._builder.fault(_under(place, name), "should be a table")

    def _rows(self, name: str) -> Iterator[tuple[Any, Place]]:
        for table, place in self._tables:
            rows = table.get(name)
            if isinstance(rows, list):
                yield from ((row, (*_under(place, name), i)) for i, row in enumerate(rows))
            elif rows is not None:
                self._builder.fault(_under(place, name), "should be a list")


def _under(place: Place, name: str) -> Place:
    """The place of a section, with the name of an included file before it."""
    return (f"{place[0]}: {name}",) if place else (name,)


def _included(content: Mapping[str, Any], builder: Builder) -> Iterator[Layer]:
    """Each file of `include`, with its name as its place. Paths begin at the file's own folder."""
    source, names = builder.source, content.get("include") or []
    for i, name in enumerate(names if isinstance(names, list) else [names]):
        place: Place = ("include", i) if isinstance(names, list) else ("include",)
        if not isinstance(name, str):
            builder.fault(place, "should be a file's name")
        elif source.path is None:
            builder.fault(
                place, "can be followed from a file only: give the included file as a source of its own"
            )
        else:
            inner = Source(f"{source.label}: {name}" if source.label else name)
            yield content_of(source.path.parent / name, inner), (name,)
            source.faults += inner.faults
            source.files |= inner.files
