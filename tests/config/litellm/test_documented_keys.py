"""docs/litellm.md lists every key and every provider that the translator knows, and no other."""

import re
from pathlib import Path

import pytest

from ccroute.config.litellm import keys
from ccroute.config.litellm.model_list.providers import PROVIDERS, REASONS

PAGE = (Path(__file__).parents[3] / "docs" / "litellm.md").read_text("utf-8")


def rows(heading):
    """The two cells of each row of the first table after a heading."""
    table = PAGE.partition(f"\n{heading}\n")[2].partition("| --- ")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines()[1:]]


def named(cells):
    return sorted(name for cell in cells for name in re.findall(r"`([^`]+)`", cell))


@pytest.mark.parametrize(
    ("heading", "known"),
    [
        ("### The file", keys.TOP),
        ("### `model_list[]`", keys.ENTRY),
        ("### `litellm_params`", keys.PARAMS),
        ("### `model_info`", keys.INFO),
        ("### `router_settings`", keys.ROUTER),
        ("### `litellm_settings`", keys.LITELLM),
        ("### `general_settings`", keys.GENERAL),
    ],
)
def test_each_key_is_documented_once_as_it_is_treated(heading, known):
    found = rows(heading)
    ignored = [cells for cells in found if cells[1].startswith("ignored: ")]
    assert named(cells[0] for cells in found) == sorted(known)
    for key, reason in known.items():
        assert reason is None or [f"ignored: {reason}"] == [
            text for cell, text in ignored if f"`{key}`" in cell
        ]


def test_each_provider_is_documented_once():
    kinds = {name: (kind, url) for cell, kind, url in rows("## Providers") for name in named([cell])}
    assert kinds == {name: (f"`{p.kind}`", p.url or "yours") for name, p in PROVIDERS.items()}
    refused = rows("Left out are:")
    assert {name: why for cell, why in refused for name in named([cell])} == dict(REASONS)
    assert not PROVIDERS.keys() & REASONS.keys()


def test_every_provider_has_a_source():
    assert all(provider.source.startswith("https://") for provider in PROVIDERS.values())
