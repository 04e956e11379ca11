"""Arguments, help, versions and exit codes of the command line."""

import logging

import pytest

from ccroute import __version__
from ccroute.cli.arguments import _parser
from ccroute.cli.files import router_of

COMMANDS = ["check", "explain", "ask", "report", "migrate"]


def test_the_version_is_a_line(ccroute):
    assert ccroute("--version") == (0, f"ccroute {__version__}\n", "")


def test_without_a_command_there_is_help_and_code_2(ccroute):
    ran = ccroute()
    assert ran.code == 2
    assert "exit codes: 0 done, 1 a call failed, 2 the command or a file is wrong" in ran.err


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_has_an_example(ccroute, command):
    ran = ccroute(command, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert f"example:\n  ccroute {command} " in ran.out


@pytest.mark.parametrize(
    "argv",
    [
        ("chekc", "x.toml"),
        ("check", "x.toml", "--nope"),
        ("report", "a.db", "b.db"),
        ("report",),
        ("ask", "x.toml", "--max-tokens", "many"),
    ],
)
def test_a_wrong_argument_is_a_line_and_code_2(ccroute, argv):
    ran = ccroute(*argv)
    assert (ran.code, ran.out) == (2, "")
    assert "error: " in ran.err.splitlines()[-1]


def test_files_may_stand_before_and_after_options(ccroute, write):
    one, two = write("a.json", {"agents": {"x": "m"}}), write("b.json", {"aliases": {"m": "ollama/q"}})
    assert ccroute("check", one, "--json", two).json["files"] == [one, two]


def test_ctrl_c_ends_with_130_and_no_traceback(ccroute, write, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ccroute.cli.explain.router_of", interrupted)
    assert ccroute("explain", write("a.json", {})) == (130, "", "")


def test_a_bug_is_no_plain_error(ccroute, write, monkeypatch):
    monkeypatch.setattr("ccroute.cli.explain.router_of", lambda files: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ccroute("explain", write("a.json", {}))


def test_the_log_is_as_before_afterwards(ccroute):
    logger = logging.getLogger("ccroute")
    before = logger.level, list(logger.handlers)
    ccroute("check", "nowhere.toml", "-vv")
    assert (logger.level, logger.handlers) == before


def test_each_command_of_the_help_exists():
    for command in COMMANDS:
        __import__(f"ccroute.cli.{command}")
    assert all(f"  {command} " in _parser().format_help() for command in COMMANDS)


def test_a_file_of_a_router_is_named_in_its_faults(write):
    with pytest.raises(Exception, match=r"^a\.json: retri: unknown key"):
        router_of([write("a.json", {"retri": 1, "agents": {}})])
