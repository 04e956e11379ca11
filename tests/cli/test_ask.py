"""`ccroute ask` and `ccroute explain`, against a server on a real socket."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.cli.conftest import Terminal
from tests.support import openai_like
from tests.support.scripted import Hang, ScriptedServer, Wait, answer, stream

from ccroute.cli.output import read_text

SOURCE = Path(__file__).parents[2] / "src"
SSE = "text/event-stream"


def config(server):
    return {
        "backends": {
            "p": {
                "kind": "openai",
                "base_url": server.url,
                "api_key": "sk-one",
                "models": {"m": {"price": "free"}},
            }
        },
        "aliases": {"gpt": "p/m"},
        "agents": {"python-expert": "gpt"},
        "retry": {"attempts": 1},
    }


def streamed(*texts, **options):
    return stream(openai_like.chat_sse([*texts], **options), content_type=SSE)


@pytest.fixture
def serving(write):
    """A server that plays replies, and the name of a file that leads to it."""
    opened = []

    def serving(*replies, **options):
        server = ScriptedServer(replies, **options)
        opened.append(server.__enter__())
        return server, write("ccroute.json", config(server))

    yield serving
    for server in opened:
        server.__exit__(None, None, None)


def test_the_answer_is_streamed_and_what_it_took_follows_on_stderr(ccroute, serving):
    server, file = serving(streamed("Hello", " there"))
    ran = ccroute("ask", file, "--agent", "python-expert", "--model", "opus", "Say hello")
    assert (ran.code, ran.out) == (0, "Hello there\n")
    route, facts = ran.err.splitlines()
    assert route == "python-expert → opus → gpt → p/m (overridden)"
    assert facts.startswith("free · ")
    assert " tokens · " in facts
    sent = server.requests[0].json
    assert sent["stream"] is True
    assert sent["messages"] == [{"role": "user", "content": "Say hello"}]


def test_without_a_stream_the_answer_comes_whole(ccroute, serving):
    server, file = serving(answer(json=openai_like.chat("All of it\n")))
    ran = ccroute(
        "ask",
        file,
        "--agent",
        "python-expert",
        "--no-stream",
        "--system",
        "Be brief",
        "--max-tokens",
        "9",
        "Hi",
    )
    assert ran.out == "All of it\n"
    sent = server.requests[0].json
    assert not sent.get("stream")
    assert [each["role"] for each in sent["messages"]] == ["system", "user"]
    assert 9 in sent.values()


def test_json_is_the_whole_completion(ccroute, serving):
    _, file = serving(answer(json=openai_like.chat("Hi")))
    ran = ccroute("ask", file, "--model", "gpt", "--json", "Hello")
    assert ran.err == ""
    assert ran.json["choices"][0]["message"]["content"] == "Hi"
    assert ran.json["route"]["deployment"] == "p/m"


@pytest.mark.parametrize("words", [[], ["-"]])
def test_the_prompt_may_come_from_standard_input(ccroute, serving, words):
    server, file = serving(streamed("ok"))
    assert ccroute("ask", file, "--model", "gpt", *words, stdin="From a pipe\n").code == 0
    assert server.requests[0].json["messages"][-1]["content"] == "From a pipe\n"


@pytest.mark.parametrize("words", [["- a list"], ["--", "--flag"]])
def test_a_prompt_may_begin_with_a_dash(ccroute, serving, words):
    server, file = serving(streamed("ok"))
    assert ccroute("ask", file, "--model", "gpt", *words).code == 0
    assert server.requests[0].json["messages"][-1]["content"] == words[-1]


def test_several_files_and_a_prompt_are_told_apart(ccroute, serving, write):
    server, file = serving(streamed("ok"))
    other = write("other.json", {"default_model": "gpt"})
    assert ccroute("ask", file, other, "Hello").code == 0
    assert ccroute("ask", other, "--timeout", "1", "Hello").code == 2
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["ccroute.json", "typo.yaml"], "typo.yaml: there is no such file"),
        (["-"], "give a file before the prompt"),
        (
            ["ccroute.json", "Hello"],
            "no model: give model= or agent=, or build the router with default_model=",
        ),
        (["ccroute.json", "--agent", "nobody", "Hello"], 'unknown agent "nobody"'),
    ],
)
def test_what_cannot_be_asked_is_said_before_anything_is_sent(ccroute, serving, words, fault):
    server, _ = serving()
    ran = ccroute("ask", *words)
    assert ran.out == ""
    assert ran.code in {1, 2}
    assert fault in ran.err
    assert server.requests == []


def test_a_failed_call_is_lines_and_code_1(ccroute, serving):
    _, file = serving(answer(500, json=openai_like.error("it broke")))
    ran = ccroute("ask", file, "--model", "gpt", "Hello")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("p/m: ")
    assert "sk-one" not in ran.err


def test_a_broken_stream_shows_what_came_and_fails(ccroute, serving):
    begun = openai_like.chat_sse(["so far"], usage=None, finish=None, done=False)
    _, file = serving(stream(begun, content_type=SSE))
    ran = ccroute("ask", file, "--model", "gpt", "Hello")
    assert ran.code == 1
    assert ran.out == "so far"


def test_an_answer_that_was_cut_off_says_so(ccroute, serving):
    _, file = serving(streamed("Once", finish="length"))
    assert "cut off" in ccroute("ask", file, "--model", "gpt", "Tell").err


def test_a_models_words_control_no_terminal_but_a_pipe_gets_them(ccroute, serving):
    _, file = serving(streamed("\x1b[31mred\n"), streamed("\x1b[31mred\n"))
    assert ccroute("ask", file, "--model", "gpt", "Hi", terminal=True).out == "�[31mred\n"
    assert ccroute("ask", file, "--model", "gpt", "Hi").out == "\x1b[31mred\n"


def test_a_prompt_that_is_no_text_is_a_fault(ccroute, serving):
    _, file = serving()
    ran = ccroute("ask", file, "--model", "gpt", stdin=b"\xff")
    assert (ran.code, ran.err) == (2, "standard input is not UTF-8 text\n")


# explain.


def test_explain_prints_where_a_request_would_go(ccroute, serving):
    server, file = serving()
    ran = ccroute("explain", file, "--agent", "python-expert", "--prompt", "Say hello")
    assert ran.code == 0
    assert ran.out.startswith("python-expert → gpt (about ")
    assert "p/m" in ran.out
    assert server.connections == 0
    assert "p/m" in ccroute("explain", file, "--agent", "python-expert", terminal=True).out


def test_explain_reads_a_long_prompt_and_gives_json(ccroute, serving):
    _, file = serving()
    ran = ccroute("explain", file, "--agent", "python-expert", "--prompt", "-", "--json", stdin="word " * 900)
    assert ran.json["candidates"][0]["deployment"] == "p/m"
    assert ran.json["estimated_tokens"] > 500


def test_explain_of_an_unknown_agent_is_a_usage_error(ccroute, serving):
    _, file = serving()
    ran = ccroute("explain", file, "--agent", "pyton-expert")
    assert ran.code == 2
    assert "python-expert" in ran.err


# As a process of its own.


def process(*argv):
    return subprocess.Popen(
        [sys.executable, "-m", "ccroute", *argv],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_process_streams_and_ctrl_c_ends_it_with_130(serving):
    first, *rest = openai_like.chat_sse(["Hello", " there"], usage=None, finish=None, done=False)
    _, file = serving(stream([first, *rest, Hang()], content_type=SSE))
    with process("ask", file, "--model", "gpt", "Hi") as ran:
        assert ran.stdout.read(5) == b"Hello"  # while the answer is not over
        ran.send_signal(signal.SIGINT)
        _, err = ran.communicate(timeout=20)
    assert ran.returncode == 130
    assert b"Traceback" not in err


def test_a_closed_pipe_is_no_traceback(serving):
    closed = threading.Event()
    pieces = openai_like.chat_sse(["Hello", "x" * 100_000, "y" * 100_000])
    _, file = serving(stream([pieces[0], pieces[1], Wait(closed), *pieces[2:]], content_type=SSE))
    with process("ask", file, "--model", "gpt", "Hi") as ran:
        assert ran.stdout.read(5) == b"Hello"
        ran.stdout.close()
        closed.set()
        err = ran.stderr.read()
    assert ran.returncode == 141
    assert err == b""


def test_the_version_is_printed_without_loading_the_library():
    code = (
        "import sys\nfrom ccroute.cli import main\nmain(['--version'])\n"
        "print(sorted({'pydantic', 'asyncio', 'httptools', 'rich', 'yaml', 'tomli_w'} & sys.modules.keys()))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.splitlines()[1] == "[]"


def test_an_empty_prompt_is_refused(ccroute, serving):
    server, file = serving()
    ran = ccroute("ask", file, "--model", "gpt", stdin=" \n")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "the prompt is empty: give it as the last word, or in standard input\n"
    assert server.requests == []


def test_a_terminal_is_told_that_its_prompt_is_awaited(monkeypatch, capsys):
    stdin = Terminal("Hello")
    assert read_text(stdin) == "Hello"
    assert capsys.readouterr().err == "reading the prompt; Ctrl-D ends it\n"


def test_what_failed_before_a_fallback_is_shown(ccroute, serving, write):
    _, file = serving(answer(500, json=openai_like.error("it broke")), streamed("ok"))
    more = write(
        "more.json", {"fallbacks": {"gpt": ["p/other"]}, "retry": {"attempts": 2, "per_deployment": 1}}
    )
    ran = ccroute("ask", file, more, "--model", "gpt", "Hello")
    assert (ran.code, ran.out) == (0, "ok\n")
    assert ran.err.splitlines()[1].startswith("  tried p/m: ")
    assert "it broke" in ran.err


@pytest.mark.parametrize("words", [["--timeout", "-1"], ["--max-tokens", "0"], ["--agent", "private"]])
def test_a_call_that_was_never_sent_is_code_2(ccroute, serving, write, words):
    server, file = serving()
    private = write("private.json", {"agents": {"private": {"model": "gpt", "local_only": True}}})
    model = [] if "--agent" in words else ["--model", "gpt"]
    assert ccroute("ask", file, private, *model, *words, "Hello").code == 2
    assert server.requests == []


def test_one_attempt_is_not_listed_again(ccroute, serving):
    _, file = serving(answer(500, json=openai_like.error("it broke")))
    assert len(ccroute("ask", file, "--model", "gpt", "Hello").err.splitlines()) == 1


def test_explain_without_a_prompt_takes_a_short_one(ccroute, write):
    claude = write("c.toml", 'default_model = "c/x"\n[backends.c]\nkind = "anthropic"\napi_key = "sk-one"\n')
    (candidate,) = ccroute("explain", claude, "--json").json["candidates"]
    assert candidate["allowed"]
