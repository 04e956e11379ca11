"""`ccroute check`: whether files can be used, where their names lead, and what is not read."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from ccroute.backends import Backend
from ccroute.cli.files import read_files
from ccroute.cli.output import Output
from ccroute.config.references import target_names
from ccroute.config.writing.document import summarised
from ccroute.display import rounded_usd
from ccroute.errors import ConfigError
from ccroute.routing.tables.deployments import Deployment
from ccroute.routing.tables.tables import Tables
from ccroute.types import Budget, Price

_REPLACED = "comes later and wins"


class _Warnings(logging.Handler):
    """Keeps warnings, so that they are printed below the routes."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage().removeprefix("config: "))


def run(arguments: argparse.Namespace, output: Output) -> None:
    logger, warnings = logging.getLogger("ccroute"), _Warnings()
    logger.addHandler(warnings)
    try:
        loaded, tables = read_files(arguments.files)
    except ConfigError:
        output.note(*(f"warning: {text}" for text in warnings.texts))
        raise
    finally:
        logger.removeHandler(warnings)
    for name, places in loaded.settings.variables.items():
        text = f"holds a secret itself; ${{{name}}} would keep it out of the file"
        warnings.texts += [f"{place}: {text}" for place in dict.fromkeys(places)]
    replaced = [each for each in loaded.ignored if each.reason.endswith(_REPLACED)]
    warnings.texts += [f"{each.place}: {each.reason}" for each in replaced]
    ignored = [each for each in loaded.ignored if each not in replaced]
    routes, agents = _routes(tables), _agents(tables)
    budgets = [_budget(scope, budget) for scope, budget in loaded.options.get("budgets", {}).items()]
    if output.as_json:
        output.json(
            {
                "files": arguments.files,
                "routes": routes,
                "agents": agents,
                "budgets": budgets,
                "warnings": warnings.texts,
                "ignored": [each._asdict() for each in ignored],
            }
        )
        return
    output.table("routes", *_route_table(routes))
    output.table("agents", *_agent_table(agents))
    output.table("budgets", *_budget_table(budgets))
    output.lines("warnings", warnings.texts)
    output.lines("ignored", summarised(ignored))


def _routes(tables: Tables) -> list[dict[str, Any]]:
    """Every name that a call may give, with its deployments."""
    listed = tables.models()
    aliased = {name for each in listed if each.kind != "deployment" for name in each.deployments}
    return [
        {
            "name": each.id,
            "kind": each.kind,
            "deployments": (
                [{"deployment": name} for name in target_names(tables.aliases[each.id])]
                if each.kind == "pattern"
                else [_facts(tables.deployment(name)) for name in each.deployments]
            ),
        }
        for each in listed
        if each.kind != "deployment" or each.id not in aliased
    ]


def _facts(deployment: Deployment) -> dict[str, Any]:
    price, backend = deployment.price, deployment.backend
    return {
        "deployment": deployment.name,
        "kind": _kind(backend),
        "address": str(backend.origin),
        "local": deployment.is_local,
        "price": None if price is None else {"input": str(price.input), "output": str(price.output)},
        "price_source": deployment.price_source,
        "why_unpriced": deployment.why_unpriced or None,
        "context_window": deployment.info.context_window,
    }


def _kind(backend: Backend) -> str:
    return getattr(backend, "preset", backend.kind) or type(backend).__name__


def _agents(tables: Tables) -> list[dict[str, Any]]:
    """Every agent with its model. The names were resolved before, so none of them is unknown."""
    found = []
    for name, agent in tables.agents.items():
        model = agent.model or tables.default_model
        found.append(
            {
                "agent": name,
                "model": model,
                "deployments": [] if model is None else list(tables.resolve(model)[0].deployments),
                "group": agent.group,
                "local_only": agent.local_only,
            }
        )
    return found


def _budget(scope: str, budget: Budget) -> dict[str, Any]:
    return {
        "budget": scope,
        "usd": None if budget.usd is None else str(budget.usd),
        "tokens": budget.tokens,
        "per": budget.per,
        "then": budget.then,
        "tz": budget.tz,
    }


def _route_table(routes: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]], tuple[int, ...]]:
    rows = []
    for route in routes:
        for i, each in enumerate(route["deployments"]):
            name = route["name"] if i == 0 else ""
            if route["kind"] == "pattern":
                rows.append([name, each["deployment"], "", "", "", ""])
                continue
            window = each["context_window"]
            rows.append(
                [
                    name,
                    each["deployment"],
                    each["kind"],
                    _price(each["price"]),
                    each["price_source"] or each["why_unpriced"],
                    "unknown" if window is None else f"{window:,}",
                ]
            )
    return ["name", "deployment", "kind", "USD per million", "price from", "window"], rows, (3, 5)


def _price(price: dict[str, str] | None) -> str:
    """A price in USD per million tokens of prompts and answers."""
    if price is None:
        return "unknown"
    found = Price(price["input"], price["output"])
    return (
        f"{rounded_usd(found.input)} / {rounded_usd(found.output)}" if found.input or found.output else "free"
    )


def _agent_table(agents: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    rows = [[each["agent"], each["model"] or "the call's", ", ".join(each["deployments"])] for each in agents]
    return ["agent", "model", "deployment"], rows


def _budget_table(budgets: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]], tuple[int, ...]]:
    rows = []
    for each in budgets:
        limits = [_exact(Decimal(each["usd"]))] if each["usd"] is not None else []
        limits += [f"{each['tokens']:,} tokens"] if each["tokens"] is not None else []
        zone = "" if each["tz"] == "UTC" or each["per"] in ("session", "total") else f" in {each['tz']}"
        rows.append([each["budget"], " and ".join(limits), each["per"] + zone, each["then"]])
    return ["budget", "limit", "per", "then"], rows, (1,)


def _exact(usd: Decimal) -> str:
    return rounded_usd(usd) if usd == round(usd, 6) else f"${usd:f}"
