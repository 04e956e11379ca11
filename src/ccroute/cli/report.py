"""`ccroute report`: what the calls in a ledger have cost."""

from __future__ import annotations

import argparse

from ccroute.accounting import Report
from ccroute.cli.output import Output


def run(arguments: argparse.Namespace, output: Output) -> None:
    report = Report.from_ledger(
        arguments.ledger,
        by=tuple(arguments.by.split(",")),
        since=arguments.since,
        until=arguments.until,
        baseline=arguments.baseline,
    )
    if output.as_json:
        output.json(report.to_dict())
    else:
        output.result(report)
