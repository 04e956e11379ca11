"""`ccroute ask`: one prompt, and the answer as it comes."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from ccroute.cli.files import router_of
from ccroute.cli.output import Output, read_text
from ccroute.display import printable, rounded_usd
from ccroute.errors import ConfigError

if TYPE_CHECKING:
    from ccroute import Completion

_NAMES_FILE = (".toml", ".json", ".yaml", ".yml")


def run(arguments: argparse.Namespace, output: Output) -> None:
    files, prompt = _files_and_prompt(arguments.files)
    if not prompt.strip():
        raise ConfigError("the prompt is empty: give it as the last word, or in standard input")
    options = {
        name: getattr(arguments, name) for name in ("agent", "model", "system", "max_tokens", "timeout")
    }
    with router_of(files) as router:
        if output.as_json or arguments.no_stream:
            completion = router.complete(prompt, **options)
            if output.as_json:
                output.json(completion.to_dict())
                return
            _write(completion.text, output)
            ends = completion.text.endswith("\n")
        else:
            ends = True
            with router.stream(prompt, **options) as stream:
                for chunk in stream:
                    if chunk.text:
                        _write(chunk.text, output)
                        ends = chunk.text.endswith("\n")
                completion = stream.completion
        if not ends:
            print(flush=True)
    output.note(*_summary(completion))


def _write(text: str, output: Output) -> None:
    """A model's words control no terminal. A pipe gets them as they are."""
    sys.stdout.write(printable(text) if output.is_terminal else text)
    sys.stdout.flush()


def _summary(completion: Completion[object]) -> list[str]:
    usage, cost = completion.usage, completion.cost
    about = "about " if usage.estimated else ""
    facts = [
        "cost unknown" if cost is None else "free" if cost == 0 else rounded_usd(cost),
        f"{about}{usage.prompt_tokens} + {usage.completion_tokens} tokens",
        f"{completion.latency:.1f} s",
    ]
    cut = ["the answer was cut off at its longest"] if completion.finish_reason == "length" else []
    failed = [each for each in completion.route.attempts if each.outcome != "ok"]
    tried = [f"  tried {each.deployment}: {each.reason}" for each in failed]
    return [str(completion.route), *tried, " · ".join([*facts, *cut])]


def _files_and_prompt(words: list[str]) -> tuple[list[str], str]:
    """The last word is the prompt, unless it is a file."""
    *files, last = words
    if os.path.exists(last) or (not files and last != "-"):
        return words, read_text(sys.stdin)
    if not files:
        raise ConfigError("give a file before the prompt")
    if last.endswith(_NAMES_FILE) and not any(map(str.isspace, last)):
        raise ConfigError(f"{last}: there is no such file")  # instead of asking a model about its name
    return files, read_text(sys.stdin) if last == "-" else last
