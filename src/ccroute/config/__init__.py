"""Reads files into the objects that a caller would write by hand.

Knows the shapes of files, and where in them a fault is; must not know sockets, calls or routers:
`load` returns the keyword arguments for one.
"""

from ccroute.config.load import Loaded, load, read
from ccroute.config.reading.source import Ignored

__all__ = ["Ignored", "Loaded", "load", "read"]
