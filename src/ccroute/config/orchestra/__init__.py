"""`orchestra-config.json`: the files that orchestrators wrote before ccroute, read as the native shape."""

from ccroute.config.orchestra.shape import is_orchestra, translate

__all__ = ["is_orchestra", "translate"]
