"""Answers as steps: bytes to write, and breaks in between. For the servers that fail on purpose."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from enum import Enum

import server

_NO_LINGER = struct.pack("ii", 1, 0)


class Break(Enum):
    """What a server does besides answering."""

    WAIT = "let the client read what came"
    RESET = "reset the connection"
    CLOSE = "close the connection"
    HOLD = "wait for the client to leave"


Step = bytes | Break
WAIT, RESET, CLOSE, HOLD = Break.WAIT, Break.RESET, Break.CLOSE, Break.HOLD


class PlaysSteps(server.FixedAnswers):
    """One connection, whose answers are steps. `wait`: seconds that WAIT takes."""

    wait = 0.005

    def play(self, steps: Iterator[Step]) -> None:
        """Do the steps, one after the other, and then call `played`; or `left` if the client leaves first."""
        for step in steps:
            if self.transport.is_closing():
                self.left()
                return
            if isinstance(step, bytes):
                self.transport.write(step)
            elif step is WAIT:
                asyncio.get_running_loop().call_later(self.wait, self.play, steps)
                return
            elif step is CLOSE:
                self.transport.close()
            elif step is RESET:
                sock = self.transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
                self.transport.abort()
        self.played()

    def played(self) -> None:
        """All steps are done."""

    def left(self) -> None:
        """The client left before all steps were done."""
