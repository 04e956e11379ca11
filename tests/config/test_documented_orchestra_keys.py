"""docs/orchestra.md lists every key that is read, and no other."""

import re
from pathlib import Path

import pytest

from ccroute.config.foreign.servers import SERVER_KEYS
from ccroute.config.orchestra import gateway, rules
from ccroute.config.orchestra.agent import AGENT_KEYS, MAPPING
from ccroute.config.orchestra.budgets import AGENT_SPENDS, SPENDS, UNCLEAR
from ccroute.config.orchestra.fallbacks import OTHER_TRIGGERS, TABLE_KEYS
from ccroute.config.orchestra.providers import OTHER_TYPES, PROVIDER_KEYS

PAGE = (Path(__file__).parents[2] / "docs" / "orchestra.md").read_text("utf-8")


def rows(heading):
    """The cells of the first table after a text."""
    table = PAGE.partition(heading)[2].partition("| --- ")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines()[1:]]


def keys(cell):
    return re.findall(r"`([\w.-]+)`", cell)


def first_cells(heading):
    return sorted(key for row in rows(heading) for key in keys(row[0]))


@pytest.mark.parametrize(
    ("heading", "known"),
    [
        ("## Agents in tables", {*AGENT_KEYS, *AGENT_SPENDS, *SERVER_KEYS, MAPPING, "local_only"}),
        ("A fallback as a table:", TABLE_KEYS),
        ("`llmGateway.providers.<id>`;", PROVIDER_KEYS),
        ("`llmGateway.routing`:", gateway.ROUTING_KEYS),
        (
            "## A gateway's rules",
            [
                "agent_model_overrides",
                "enable_agent_override",
                "fallback_providers",
                *(f"routing.{key}" for key in rules.ROUTING_KEYS),
                *(f"cost_settings.{key}" for key in SPENDS),
                *(f"performance_settings.{key}" for key in rules.PERFORMANCE_KEYS),
            ],
        ),
    ],
)
def test_each_key_of_an_orchestra_file_is_documented_once(heading, known):
    assert first_cells(heading) == sorted(known)


def test_each_word_for_a_trigger_is_documented():
    table = {
        word: trigger for row in rows("| trigger | ") for trigger in keys(row[0]) for word in keys(row[1])
    }
    assert table == dict(OTHER_TRIGGERS)


def test_each_word_for_a_type_of_provider_is_documented():
    table = {word: keys(row[1])[0] for row in rows("| `providerType` | kind") for word in keys(row[0])}
    assert table == dict(OTHER_TYPES)


def test_each_unclear_key_of_money_is_documented():
    sentence = re.search(r"^`max_budget`.*?name no window", PAGE, re.MULTILINE | re.DOTALL)
    assert keys(sentence[0]) == [*UNCLEAR]
