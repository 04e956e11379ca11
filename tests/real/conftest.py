"""What real users reported of providers and servers: each report a test, and one line for each at the end."""

from __future__ import annotations

from collections.abc import Generator

import pytest

LINES = pytest.StashKey[dict[str, tuple[str, set[str]]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "complaint(link, says): a report by users, with its address")
    config.stash[LINES] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" or not report.passed:
        for mark in item.iter_markers("complaint"):
            link, says = mark.args
            item.config.stash[LINES].setdefault(link, (says, set()))[1].add(report.outcome)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = sorted(config.stash[LINES].items(), key=lambda line: line[0].lower())
    if not lines:
        return
    terminalreporter.section("reports by users")
    for link, (says, outcomes) in lines:
        passed = outcomes == {"passed"}
        line = f"{', '.join(sorted(outcomes)):<7} {says}  {link.removeprefix('https://github.com/')}"
        terminalreporter.write_line(line, **{"green" if passed else "red": True})
