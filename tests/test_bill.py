"""The ledger says what the provider bills: `benchmarks/bill.py`, shorter."""

from __future__ import annotations

import subprocess
import sys

import bill


def test_the_ledger_is_what_the_provider_bills() -> None:
    # In a process of its own: there it takes a quarter of the time that it takes under coverage.
    command = [sys.executable, "-W", "error", bill.__file__, "--calls", "600", "--processes", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "difference: 0" in done.stdout
