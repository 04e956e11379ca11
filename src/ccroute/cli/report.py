"""`ccroute report`: what the calls in a ledger have cost."""

from __future__ import annotations

import argparse

from ccroute.accounting import Report
from ccroute.cli.files import read_files
from ccroute.cli.output import Output
from ccroute.errors import ConfigError
from ccroute.routing.tables.prices import price_of
from ccroute.types import Price


def run(arguments: argparse.Namespace, output: Output) -> None:
    baseline = _baseline(arguments)
    try:
        report = Report.from_ledger(
            arguments.ledger, arguments.by.split(","), arguments.since, arguments.until, baseline
        )
    except ValueError as error:  # a wrong --by, --since or --until
        raise ConfigError(f"--{error}") from None
    if output.as_json:
        output.json(report.to_dict())
    elif report:
        output.result(report)
    else:
        output.text("no calls")


def _baseline(arguments: argparse.Namespace) -> Price | None:
    """The price of the baseline, which only a configuration has."""
    if arguments.baseline is None:
        return None
    if arguments.config is None:
        raise ConfigError("--baseline needs --config FILE, a configuration that has its price")
    _, tables = read_files([arguments.config], keep_unset=True)
    price = price_of(tables, arguments.baseline)
    if price is None:
        raise ConfigError(f'{arguments.config}: "{arguments.baseline}" has no price')
    return price
