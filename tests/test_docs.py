"""README and docs show only what runs: every Python block, in order, file by file, against mocked servers. A
notebook shows what its cells give."""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
from pathlib import Path

import httpx
import nbformat
import pytest
import respx
from nbformat import NotebookNode
from tests.support.anthropic_like import message, message_sse
from tests.support.anthropic_like import usage as anthropic_usage
from tests.support.notebooks import NOTEBOOKS, REFRESH, clean, run
from tests.support.openai_like import chat, tool_call

from ccroute import Router
from ccroute.cli import main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OLLAMA = {
    "model": "qwen",
    "message": {"role": "assistant", "content": "hello"},
    "done": True,
    "done_reason": "stop",
}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def compatible(request: httpx.Request) -> httpx.Response:
    """Calls the first tool it is offered, once; keeps to a schema; says hello to everything else."""
    asked = json.loads(request.content)
    if "tools" in asked and asked["messages"][-1]["role"] == "user":
        call = tool_call(asked["tools"][0]["function"]["name"], '{"topic": "retries"}')
        return httpx.Response(200, json=chat(None, finish="tool_calls", tool_calls=[call]))
    return httpx.Response(200, json=chat('{"severity": "high"}') if "response_format" in asked else chat())


@pytest.fixture
def servers() -> object:
    """The servers that the examples name, as far as respx can play them."""
    usage = anthropic_usage(10, 5)
    whole = message("hello", usage=usage)
    with respx.mock(assert_all_called=False) as mocked:
        for ollama in ("localhost", "10.0.0.12"):
            mocked.post(f"http://{ollama}:11434/api/chat").respond(
                json={**OLLAMA, "prompt_eval_count": 10, "eval_count": 5}
            )
        mocked.post("http://localhost:9/api/chat").mock(side_effect=httpx.ConnectError("refused"))
        mocked.post("http://localhost:8000/v1/chat/completions").mock(side_effect=compatible)
        mocked.get("http://localhost:11434/api/tags").respond(
            json={"models": [{"name": "qwen2.5-coder:32b"}]}
        )
        mocked.get("http://localhost:11434/api/ps").respond(json={"models": []})
        mocked.get("http://localhost:8000/v1/models").respond(json={"data": [{"id": "qwen2.5-coder:32b"}]})
        mocked.get("https://api.anthropic.com/v1/models?limit=1000").respond(401)
        paid = mocked.post("https://api.anthropic.com/v1/messages")
        streamed = b"".join(message_sse(["hel", "lo"]))
        paid.mock(
            side_effect=lambda request: (
                respx.MockResponse(200, content=streamed)
                if b'"stream":true' in request.content
                else respx.MockResponse(200, json=whole)
            )
        )
        yield mocked


@pytest.fixture
def folder(servers: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The working folder of an example, where its servers answer."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "example-key")
    # respx plays servers behind httpx; `transport=` of an example's own wins.
    monkeypatch.setattr(Router, "__init__", functools.partialmethod(Router.__init__, transport="httpx"))
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_example_runs(page: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for language, name in (("toml", "ccroute.toml"), ("yaml", "config.yaml")):
        for text in blocks(page, language):
            (folder / name).write_text(text)
    names: dict[str, object] = {"__name__": page.stem}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec", dont_inherit=True), names)  # as a user's own file


COMMANDS = ROOT / "docs" / "command-line.md"
SHOWN = re.compile(r"^\$ ccroute (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)


def test_every_command_prints_what_its_example_shows(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "ccroute.toml").write_text(blocks(COMMANDS, "toml")[0])
    shown = SHOWN.findall("".join(blocks(COMMANDS, "console")))
    assert {line.split()[0] for line, _ in shown} == {"check", "explain", "ask", "migrate"}
    for line, output in shown:
        assert main(shlex.split(line)) == 0, line
        printed = capsys.readouterr()
        pattern = ".*".join(map(re.escape, " ".join(output.split()).split("…")))
        assert re.fullmatch(pattern, " ".join(f"{printed.out}{printed.err}".split()), re.DOTALL), line


def outputs(notebook: NotebookNode) -> list[tuple[str, list[object]]]:
    """What each cell shows. Pixels differ between versions of a library."""
    return [
        (
            cell.id,
            [
                {**each, "data": {**each.data, "image/png": None}} if "data" in each else each
                for each in cell.outputs
            ],
        )
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_every_notebook_shows_what_its_cells_give(path: Path) -> None:
    kept = nbformat.read(path, as_version=4)
    assert kept == clean(nbformat.read(path, as_version=4)), f"it has counts or metadata: {REFRESH}"
    assert outputs(kept) == outputs(run(path)), f"what it shows is old: {REFRESH}"
    shown = path.read_text()
    for private in ("stderr", str(Path.home()), str(ROOT)):
        assert private not in shown, "it shows a warning, or a path of this machine"


def test_the_readme_opens_with_the_two_commands_and_ten_lines() -> None:
    readme = (ROOT / "README.md").read_text()
    assert readme.index("make demo") < readme.index("make test") < readme.index("```python")
    assert all(len(example.splitlines()) <= 10 for example in blocks(ROOT / "README.md", "python"))


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """What links to its headings are called on GitHub."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)", prose(page)):
        name, _, anchor = target.partition("#")
        if not target.startswith("http"):
            other = page.parent / name if name else page
            assert os.path.exists(other), target
            assert not anchor or anchor in anchors(other), target


PROMISE = re.compile(r'\]\(\.\./(tests/[\w/]+\.py) "(\w+)"\)')


def test_every_promise_of_reliability_leads_to_a_test() -> None:
    promises = PROMISE.findall((ROOT / "docs" / "reliability.md").read_text())
    assert len(promises) > 150
    for path, name in promises:
        assert re.search(
            rf"^(async )?def {name}\(|^class {name}\(", (ROOT / path).read_text(), re.MULTILINE
        ), name


def test_every_row_of_the_fault_matrix_is_promised() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    assert [int(row) for row in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)] == [
        *range(1, 63),
        *range(67, 75),
    ]
