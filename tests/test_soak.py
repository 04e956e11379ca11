"""Threads and tasks at once on one router, hosts that fail in every way, and thousands of calls in flight.

`benchmarks/soak.py` and `benchmarks/in_flight.py`, shorter.
"""

from __future__ import annotations

import subprocess
import sys

import soak
from in_flight import KILOBYTES, at_rest, fly

FEW, MANY = 200, 2000
LINEAR = 2.0
"""How much more CPU a call among many may take: coverage and a busy machine blur it."""


def test_after_thousands_of_calls_nothing_is_lost_and_nothing_left() -> None:
    # In a process of its own: there it takes a quarter of the time that it takes under coverage.
    command = [sys.executable, "-W", "error", soak.__file__, "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_thousands_of_calls_in_flight_cost_no_more_each() -> None:
    base = at_rest()
    few, many = fly(FEW, base), fly(MANY, base)
    assert many.cpu <= few.cpu * LINEAR
    assert many.kilobytes < KILOBYTES
