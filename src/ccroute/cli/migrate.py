"""`ccroute migrate`: files as one native TOML file."""

from __future__ import annotations

import argparse
import os

from ccroute.cli.files import named
from ccroute.cli.output import Output
from ccroute.config import read
from ccroute.config.writing.document import summarised
from ccroute.errors import ConfigError


def run(arguments: argparse.Namespace, output: Output) -> None:
    with named(arguments.files):
        loaded = read(arguments.files, keep_unset=True)
    text = loaded.settings.to_toml(os.path.dirname(arguments.output or "") or ".")
    if arguments.output is not None:
        try:
            with open(arguments.output, "w" if arguments.force else "x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            raise ConfigError(f"{arguments.output} exists; --force replaces it") from None
    if output.as_json:
        output.json(
            {
                "toml": text,
                "variables": {name: list(places) for name, places in loaded.settings.variables.items()},
                "ignored": [each._asdict() for each in loaded.ignored],
            }
        )
        return
    if arguments.output is None:
        print(text, end="")
    for name, places in loaded.settings.variables.items():
        output.note(f"set {name}: its value stood in {', '.join(dict.fromkeys(places))}")
    output.note(*(f"ignored {line}" for line in summarised(loaded.ignored)))
