"""What loading a large orchestra file costs: 119 agents in lists, 700 kB of JSON with their prompts.

Times are after import, the best of several runs. A busy machine shows more, never less.

    python benchmarks/orchestra.py [--json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import timeit
from pathlib import Path
from typing import Any

from ccroute import OllamaBackend, Router
from ccroute.config import load
from ccroute.routing import AgentTable

AGENTS, PROMPT = 119, 5_600
GOAL, RESOLVE_GOAL = 50.0, 5.0
"""Of loading, in ms; of finding an agent and resolving its model, in µs."""
TIERS = ("opus-4.1", "sonnet-4.5", "haiku")
ALIASES = {"opus-4.1": "local/big", "sonnet-4.5": "local/middle", "haiku": "local/small"}
REPEATS = 15


def agent(i: int) -> dict[str, Any]:
    """An entry as these files have it: mostly prompt."""
    return {
        "name": f"Expert For Area {i}",
        "type": f"area-{i}-developer" if i % 3 else "backend-dev",
        "model": TIERS[i % 3],
        "agentFile": f"agents/area-{i}.md",
        "ccproxyMapping": {"apiAlias": "claude-3-5-sonnet", "ollama": "qwen2.5-coder:32b", "phase": i % 4},
        "prompt": f'You write "code" for area {i}.\n' * (PROMPT // 32),
        "description": f"Writes area {i}",
        "capabilities": ["write", "test", "review"],
        "dependencies": [f"Expert For Area {i - 1}"],
        "memoryKeys": {"reads": ["a/*"], "writes": [f"areas/{i}"]},
        "priority": 5,
        "integrations": {"mcp": ["search"], "hooks": {"pre": "lint", "post": "test"}},
        "constraints": {"timeout": 30, "temperature": 0.2},
        "fallback": {"model": "haiku", "triggers": ["token_limit", "rate-limit"], "automatic": True},
    }


def document() -> dict[str, Any]:
    """The whole file."""
    agents = [agent(i) for i in range(AGENTS - 1)]
    third = len(agents) // 3
    return {
        "version": "2.0",
        "architect": agent(1000) | {"name": "Chief Architect", "type": "system-architect"},
        "codingAgents": agents[:third],
        "integrationAgents": agents[third : 2 * third],
        "supportAgents": agents[2 * third :],
        "coordination": {"protocol": "hierarchical", "topology": {"maxAgents": AGENTS}},
    }


def measure() -> dict[str, float]:
    """Times in ms, those of a call in µs, and the file's size in kB."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "orchestra-config.json")
        path.write_text(json.dumps(document(), indent=2))
        given: dict[str, Any] = {"aliases": ALIASES, "backends": [OllamaBackend("local")]}

        def best(work: Any, number: int = 1) -> float:
            return min(timeit.repeat(work, number=number, repeat=REPEATS)) / number

        first = timeit.timeit(lambda: load(path, {}, given), number=1)
        options = load(path, {}, given)
        agents, aliases = AgentTable(options["agents"]), options["aliases"]
        return {
            "kB": path.stat().st_size / 1000,
            "agents": len(agents),
            "parse the JSON, ms": best(lambda: json.loads(path.read_text())) * 1000,
            "first load, ms": first * 1000,
            "load, ms": best(lambda: load(path, {}, given)) * 1000,
            "from_config, ms": best(lambda: Router.from_config(path, env={}, **given).close()) * 1000,
            "find an agent, µs": best(lambda: agents.find("expert-for-area-100"), 1000) * 1e6,
            "resolve its model, µs": best(lambda: aliases.resolve("sonnet-4.5"), 1000) * 1e6,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    found = measure()
    if parser.parse_args().json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        goal = GOAL if name == "from_config, ms" else RESOLVE_GOAL if name.endswith("µs") else None
        print(f"{name:24} {value:8.2f}" + (f"   goal {goal:g}" if goal else ""))


if __name__ == "__main__":
    main()
