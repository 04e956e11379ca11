"""The files that a command names, as a router."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ccroute.errors import ConfigError

if TYPE_CHECKING:
    from ccroute import Router
    from ccroute.config import Loaded
    from ccroute.routing.tables.tables import Tables


@contextlib.contextmanager
def named(files: Sequence[str]) -> Iterator[None]:
    """A fault of a single file begins with its path, too."""
    try:
        yield
    except ConfigError as error:
        if len(files) > 1:
            raise
        own = f"{os.path.basename(files[0])}: "  # before a fault of the file as a whole
        raise ConfigError(*(f"{files[0]}: {fault.removeprefix(own)}" for fault in error.faults)) from None


def router_of(files: Sequence[str]) -> Router:
    from ccroute import Router

    with named(files):
        return Router.from_config(list(files))


def read_files(files: Sequence[str], *, keep_unset: bool = False) -> tuple[Loaded, Tables]:
    """What the files hold, and the tables that a router would decide by.

    `keep_unset`: variables need not be set, because nothing is asked.
    """
    from ccroute.config import read
    from ccroute.routing.arguments import checked

    with named(files):
        loaded = read(list(files), keep_unset=keep_unset)
        return loaded, checked(**loaded.options).tables
