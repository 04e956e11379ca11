"""`ccroute report`: what the calls in a ledger have cost."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from ccroute.accounting import PriceBook, Report
from ccroute.accounting.price_lists import or_install, price_of_model
from ccroute.cli.files import read_files
from ccroute.cli.output import Output
from ccroute.errors import ConfigError
from ccroute.routing.tables.prices import price_of
from ccroute.types import Price


def run(arguments: argparse.Namespace, output: Output) -> None:
    by: list[Any] = [part.strip() for given in arguments.by or ["agent"] for part in given.split(",")]
    baseline, csv = _baseline(arguments), arguments.csv
    try:
        report = Report.from_ledger(arguments.ledger, by, arguments.since, arguments.until, baseline)
    except ValueError as error:  # a wrong --by, --since or --until
        raise ConfigError(f"--{error}") from None
    if csv == "-":
        report.to_csv(sys.stdout)
    elif csv is not None:
        if (
            os.path.exists(csv)
            and os.path.exists(arguments.ledger)
            and os.path.samefile(csv, arguments.ledger)
        ):
            raise ConfigError(f"--csv {csv}: that is the ledger")
        report.to_csv(csv)
        output.note(f"{csv} has {len(report)} rows")
    elif output.as_json:
        output.json(report.to_dict())
    elif report:
        output.result(report)
    else:
        output.text("no calls")


def _baseline(arguments: argparse.Namespace) -> Price | None:
    """The price of the baseline: from the configuration, or else from the provider that made the model."""
    name, config = arguments.baseline, arguments.config
    if name is None:
        return None
    if config is None:
        price = price_of_model(name, PriceBook(), usual=True)
        if price is None:
            how = f"--config FILE names a configuration with one{or_install()}"
            raise ConfigError(f'--baseline: "{name}" has no price: {how}')
    else:
        price = price_of(read_files([config], keep_unset=True)[1], name, usual=True)
        if price is None:
            raise ConfigError(f'{config}: "{name}" has no price: give it one under "prices"{or_install()}')
    return price
