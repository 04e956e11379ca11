"""The rows of the fault matrix: their marker, their harness, and one line for each at the end."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

pytest.register_assert_rewrite("tests.faults.harness", "tests.faults.parallel")

from tests.conftest import Caller  # noqa: E402 - what is registered above has to come first
from tests.faults.harness import FaultHarness, Late  # noqa: E402
from tests.faults.parallel import ParallelHarness  # noqa: E402
from tests.support.loops import Mode  # noqa: E402

MODES: tuple[Mode, ...] = ("sync", "async", "trio")


@dataclass
class Line:
    """What became of one row: by mode, how many of its tests passed, failed or were skipped."""

    fault: str
    tests: dict[str, Counter[str]] = field(default_factory=lambda: {mode: Counter() for mode in MODES})

    def shown(self, mode: str) -> str:
        counts = self.tests[mode].items()
        return f"{mode} {', '.join(f'{count} {outcome}' for outcome, count in counts) or 'not run'}"

    @property
    def passed(self) -> bool:
        return all(set(counts) == {"passed"} for counts in self.tests.values())


LINES = pytest.StashKey[dict[int, Line]]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "row(number, fault): a row of the fault matrix")
    config.stash[LINES] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    row = item.get_closest_marker("row")
    if row is not None and (report.when == "call" or not report.passed):
        number, fault = row.args
        line = item.config.stash[LINES].setdefault(number, Line(fault))
        mode = getattr(item, "callspec", None) and item.callspec.params.get("caller")  # type: ignore[attr-defined]
        for each in [mode] if mode else MODES:
            line.tests[each][report.outcome] += 1
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = sorted(config.stash[LINES].items())
    if not lines:
        return
    terminalreporter.section("fault matrix")
    width = max(len(line.fault) for _, line in lines)
    for number, line in lines:
        shown = "  ".join(f"{line.shown(mode):<17}" for mode in MODES)
        text = f"{number:>3}  {line.fault:<{width}}  {shown}".rstrip()
        terminalreporter.write_line(text, **{"green" if line.passed else "red": True})


@pytest.fixture(params=MODES)
def caller(request: pytest.FixtureRequest) -> Caller:
    """Runs a test once blocking, once on asyncio, and once on trio."""
    return Caller(request.param)


@pytest.fixture
def harness(caller: Caller, caplog: pytest.LogCaptureFixture) -> Iterator[FaultHarness]:
    """Servers, routers and calls in one mode; what the matrix asks after every fault is checked there."""
    with caplog.at_level(logging.DEBUG, logger="ccroute"), FaultHarness(caller, caplog) as harness:
        yield harness


@pytest.fixture
def parallel(caller: Caller, caplog: pytest.LogCaptureFixture) -> Iterator[ParallelHarness]:
    """Many callers at once, in one mode."""
    with caplog.at_level(logging.DEBUG, logger="ccroute"), ParallelHarness(caller, caplog) as parallel:
        yield parallel


@pytest.fixture
def alone(caplog: pytest.LogCaptureFixture) -> Iterator[ParallelHarness]:
    """The same, for what all modes share or only one has."""
    with (
        caplog.at_level(logging.DEBUG, logger="ccroute"),
        ParallelHarness(Caller("sync"), caplog) as parallel,
    ):
        yield parallel


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """A machine that stands still makes a call late; a fault of ours is late each of three times."""
    try:
        return (yield)
    except Late:
        harnesses = [
            each for each in pyfuncitem.funcargs.values() if isinstance(each, FaultHarness | ParallelHarness)
        ]
        if not harnesses:
            raise
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    for last in (False, True):
        for harness in harnesses:
            harness.clear()
        try:
            pyfuncitem.obj(**arguments)
            break
        except Late:
            if last:
                raise
    return True
