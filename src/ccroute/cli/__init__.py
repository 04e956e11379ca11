"""The command line, `ccroute`: checks, explains, asks, reports and migrates, with what the library says.

Knows arguments, exit codes and terminals; must not decide anything itself. A command's module is loaded when
the command is used.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence

from ccroute.cli.arguments import parsed
from ccroute.cli.output import Output

FAILED = 1
"""A call failed."""
WRONG = 2
"""The command or a file is wrong. Nothing was sent."""
INTERRUPTED = 130
"""Ctrl-C, as shells count it."""
CLOSED = 141
"""The reader of the output has gone away, as shells count it."""
_TARGETS = "as in aliases={"
"""Advice for Python, in the fault of a name without a target."""
_GIVE_TARGETS = 'give another file that has a table [aliases], with lines such as: opus = "backend/model"'


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command with these arguments (None: those of the process). Returns the exit code."""
    arguments = parsed(argv)
    if isinstance(arguments, int):
        return arguments
    output = Output(as_json=arguments.json)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    if arguments.command == "check" and not arguments.verbose:
        handler.setLevel(logging.ERROR)  # it prints warnings itself
    logger = logging.getLogger("ccroute")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel({0: logging.WARNING, 1: logging.INFO}.get(arguments.verbose, logging.DEBUG))
    try:
        importlib.import_module(f"ccroute.cli.{arguments.command}").run(arguments, output)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Python writes what is left when it ends: to nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED
    except Exception as error:
        return _failed(error, output)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    return 0


def _failed(error: Exception, output: Output) -> int:
    """Write the error in plain lines, and return the exit code. A bug is raised again."""
    from ccroute.errors import CcrouteError, ConfigError, EgressDeniedError, RequestError

    is_usage, hint = isinstance(error, ConfigError | OSError), ""
    if isinstance(error, ConfigError):
        faults: tuple[str, ...] = error.faults
        if any(_TARGETS in fault for fault in faults):
            hint = _GIVE_TARGETS
    elif isinstance(error, CcrouteError):
        is_usage = isinstance(error, RequestError | EgressDeniedError) and not error.attempts
        tried = error.attempts if len(error.attempts) > 1 else ()
        faults = (str(error), *(f"  tried {each.deployment}: {each.reason}" for each in tried))
    elif isinstance(error, OSError) and error.filename is not None:
        faults = (f"{error.filename}: {error.strerror}",)
    else:
        raise error
    output.fail(type(error).__name__, faults, hint)
    return WRONG if is_usage else FAILED
