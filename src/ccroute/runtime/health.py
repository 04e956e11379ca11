"""Runs the health checks of all backends: one after the other, or on an event loop at the same time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ccroute.flow import Flow
from ccroute.runtime.drive import AsyncDrive, Drive
from ccroute.runtime.limiter import Limiters
from ccroute.types import BackendHealth

if TYPE_CHECKING:
    from ccroute.http.connections import Connections

Checks = Mapping[str, Flow[BackendHealth]]
"""The check of each backend, by its name."""


def check_all(checks: Checks, connections: Connections, limiters: Limiters) -> dict[str, BackendHealth]:
    """What each check found."""
    found = {}
    for name, flow in checks.items():
        drive = Drive(flow, connections, limiters)
        drive.advance()
        found[name] = drive.finished()
    return found


async def acheck_all(
    checks: Checks, connections: Connections, limiters: Limiters
) -> dict[str, BackendHealth]:
    """`check_all`, at the same time."""
    from anyio import create_task_group  # only where somebody asks

    drives = {name: AsyncDrive(flow, connections, limiters) for name, flow in checks.items()}
    async with create_task_group() as group:
        for drive in drives.values():
            group.start_soon(drive.advance)
    return {name: drive.finished() for name, drive in drives.items()}
