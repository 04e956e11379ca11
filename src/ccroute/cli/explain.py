"""`ccroute explain`: where a request would go, and why. Nothing is sent."""

from __future__ import annotations

import argparse
import sys

from ccroute.cli.files import router_of
from ccroute.cli.output import Output, read_text


def run(arguments: argparse.Namespace, output: Output) -> None:
    prompt = read_text(sys.stdin) if arguments.prompt == "-" else arguments.prompt
    with router_of(arguments.files) as router:
        plan = router.explain(
            prompt, agent=arguments.agent, model=arguments.model, max_tokens=arguments.max_tokens
        )
    if output.as_json:
        output.json(plan.to_dict())
    else:
        output.result(plan)
