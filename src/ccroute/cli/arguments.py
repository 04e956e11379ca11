"""The arguments of every command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ccroute._version import __version__

_FILES = "ccroute.toml, an orchestra's file, LiteLLM's config.yaml, or several of these"
_GIVE_FILE = f"give a file: {_FILES}"


def parsed(argv: Sequence[str] | None) -> argparse.Namespace | int:
    """The arguments, or an exit code where there is nothing to do."""
    parser = _parser()
    try:
        arguments, rest = parser.parse_known_args(argv)
        if arguments.command is None:
            parser.print_help(sys.stderr)
            return 2
        own = arguments.parser
        # argparse takes one run of words for the files; what follows an option belongs to them, too.
        end = rest.index("--") if "--" in rest else len(rest)
        if unknown := list(filter(_is_option, rest[:end])):
            own.error(f"unrecognized arguments: {' '.join(unknown)}")
        if "files" in arguments:
            arguments.files += [*rest[:end], *rest[end + 1 :]]
            if not arguments.files:
                own.error(_GIVE_FILE)
        elif rest:
            own.error(f"unrecognized arguments: {' '.join(rest)}")
    except SystemExit as ended:
        return int(ended.code or 0)
    return arguments


def _is_option(word: str) -> bool:
    """Not `-`, which is standard input, nor a prompt that is a list."""
    return word.startswith("-") and word != "-" and " " not in word


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ccroute",
        description="Route each agent's LLM request: check a configuration, see where a request goes, ask.",
        epilog="exit codes: 0 done, 1 a call failed, 2 the command or a file is wrong",
    )
    parser.add_argument("--version", action="version", version=f"ccroute {__version__}")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def command(name: str, text: str, example: str, *, files: bool = True) -> argparse.ArgumentParser:
        own = commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=f"example:\n  ccroute {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        own.set_defaults(command=name, parser=own)
        own.add_argument("--json", action="store_true", help="print JSON")
        own.add_argument(
            "-v", "--verbose", action="count", default=0, help="log what happens; twice for more"
        )
        if files:
            own.add_argument("files", nargs="*", metavar="FILE", help=f"{_FILES}; the later one wins")
        return own

    command(
        "check",
        "validate files; print their routes, warnings, and what is ignored and why",
        "check orchestra-config.json config.yaml",
    )

    explain = command(
        "explain",
        "print where a request would go and why; nothing is sent",
        "explain ccroute.toml --agent python-expert",
    )
    _add_call(explain)
    explain.add_argument(
        "--prompt", default="Hello", help="the prompt (default: a short one); - reads standard input"
    )

    ask = command(
        "ask",
        "send one prompt, the last word; without it, or with -, standard input",
        'ask ccroute.toml --agent python-expert "Fix the failing test in auth.py"',
    )
    _add_call(ask)
    ask.add_argument("--system", help="a system message")
    ask.add_argument("--timeout", type=float, metavar="SECONDS", help="time for the whole call")
    ask.add_argument("--no-stream", action="store_true", help="print the answer when it is whole")

    report = command(
        "report",
        "print what a ledger's calls have cost",
        "report usage.db --by agent --since 2026-01-01",
        files=False,
    )
    report.add_argument(
        "ledger", metavar="LEDGER", help="a router's ledger: an SQLite file, or postgresql://…"
    )
    report.add_argument(
        "--by",
        action="append",
        metavar="PART",
        help="agent (default), group, alias, model, backend, day or session; several: --by agent --by model, "
        "or --by agent,model",
    )
    report.add_argument("--since", metavar="TIME", help="the first day or time, such as 2026-01-31")
    report.add_argument("--until", metavar="TIME", help="the first day or time that does not count")
    report.add_argument("--baseline", metavar="MODEL", help="the model that savings are measured against")
    report.add_argument(
        "--config",
        metavar="FILE",
        help="the configuration that has the baseline's price, if no provider's list does",
    )
    report.add_argument(
        "--csv", metavar="FILE", help="write the rows as CSV, with exact amounts; - is standard output"
    )

    migrate = command(
        "migrate",
        "write files as one native TOML file, without the values of secrets",
        "migrate orchestra-config.json config.yaml -o ccroute.toml",
    )
    migrate.add_argument("-o", "--output", metavar="FILE", help="the file to write; default: standard output")
    migrate.add_argument("--force", action="store_true", help="replace an existing file")
    return parser


def _add_call(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--agent", help="the agent that asks")
    parser.add_argument("--model", help="the model to ask; an agent's own wins")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="the longest answer")
