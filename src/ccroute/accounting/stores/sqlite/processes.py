"""The name of this process in a shared file, and whether another process has ended.

Knows Linux's /proc. On other systems, nothing is known about other processes.
"""

from __future__ import annotations

import os
import time
from functools import lru_cache
from zlib import crc32


def this_process() -> str:
    """A name that no other process has, now or later: where it runs, its id, and when it started."""
    return _name(os.getpid())


@lru_cache(1)
def _name(pid: int) -> str:
    return f"{_place()} {pid} {_state(pid)[1] or time.time_ns()}"


def has_ended(name: str) -> bool | None:
    """Whether the process with that name has ended; None if it cannot be seen from here."""
    place, pid, started = name.split(" ")
    if name == this_process():
        return False
    if not place or place != _place():
        return None
    state, since = _state(int(pid))
    if state:
        return state in {"Z", "X"} or since != started
    try:  # /proc may hide it
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return None


def _place() -> str:
    """Identifies the start of this machine, and the set of processes that see each other: a container is one
    set."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return f"{crc32(file.read() + os.readlink('/proc/self/ns/pid').encode()):08x}"
    except OSError:
        return ""


def _state(pid: int) -> tuple[str, str]:
    """The state of a process ("" if there is no such process), and when it started. Source:
    https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html"""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return "", ""
    return fields[0].decode(), fields[19].decode()
