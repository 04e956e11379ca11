"""`ccroute report`: what the calls in a ledger have cost."""

from __future__ import annotations

import argparse

from ccroute.accounting import Report
from ccroute.cli.files import read_files
from ccroute.cli.output import Output
from ccroute.errors import ConfigError
from ccroute.routing.prices import price_of
from ccroute.types import Price


def run(arguments: argparse.Namespace, output: Output) -> None:
    report = Report.from_ledger(
        arguments.ledger,
        by=arguments.by.split(","),
        since=arguments.since,
        until=arguments.until,
        baseline=_baseline(arguments),
    )
    if output.as_json:
        output.json(report.to_dict())
    else:
        output.result(report)


def _baseline(arguments: argparse.Namespace) -> Price | None:
    """The price of the baseline, which only a configuration has."""
    if arguments.baseline is None:
        return None
    if arguments.config is None:
        raise ConfigError("--baseline needs --config FILE, a configuration that has its price")
    _, tables = read_files([arguments.config])
    price = price_of(tables, arguments.baseline)
    if price is None:
        raise ConfigError(f'{arguments.config}: "{arguments.baseline}" has no price')
    return price
