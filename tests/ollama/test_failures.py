"""What goes wrong at a real Ollama: mistakes of callers, answers broken off, processes that die."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import pytest
from tests.conftest import Caller
from tests.ollama.conftest import WIDE
from tests.support.ollama_real import RealOllama, serve_ollama
from tests.support.scripted import refused_port

from ccroute import Model, OllamaBackend, RetryPolicy, Router, Timeout, errors

LONG = "x = 1\n" * 400  # about 2,400 tokens there, at windows of 512
LONGER_THAN_ESTIMATED = "1 2 3 4 5 " * 50  # a token a character there, four to a token here


def failed(caller: Caller, router: Router, *args: object, **options: object) -> list[Exception]:
    """What is raised whole and streamed."""
    with pytest.raises(errors.CcrouteError) as caught:
        caller.complete(router, *args, **options)
    heard = caller.stream(router, *args, **options)
    assert heard.error is not None
    return [caught.value, heard.error]


def test_the_server_refuses_a_prompt_beyond_the_window(router: Router, caller: Caller) -> None:
    for error in failed(caller, router, LONG, model="local/say-hello"):
        assert isinstance(error, errors.ContextWindowExceededError)
        assert error.status == 400


def test_a_described_window_is_checked_before_anything_is_sent(ollama_server: RealOllama) -> None:
    backend = OllamaBackend("local", ollama_server.url, models={"say-hello": Model(context_window=256)})
    with Router([backend]) as router:
        with pytest.raises(errors.ContextWindowExceededError) as caught:
            router.complete(LONG, model="local/say-hello")
        assert (caught.value.limit, caught.value.attempts) == (256, ())
        with pytest.raises(errors.ContextWindowExceededError) as caught:
            router.complete(LONGER_THAN_ESTIMATED, model="local/say-hello")
        assert caught.value.status == 400


def test_an_overflow_goes_on_to_a_larger_window(ollama_server: RealOllama, caller: Caller) -> None:
    windows = {"say-hello": Model(context_window=256), "say-think": WIDE}
    with Router([OllamaBackend("local", ollama_server.url, models=windows)]) as router:
        options = {"model": "local/say-hello", "fallback": ["local/say-think"]}
        reply = caller.complete(router, LONGER_THAN_ESTIMATED, **options)
    assert (reply.text, [attempt.outcome for attempt in reply.route.attempts]) == (
        "Hello there.",
        ["failed", "ok"],
    )


def test_a_real_answer_that_only_repeats_itself_is_no_success(router: Router, caller: Caller) -> None:
    whole, streamed = failed(caller, router, "hi", model="local/say-loop")
    assert isinstance(whole, errors.ProtocolError)
    assert isinstance(streamed, errors.StreamInterruptedError)
    assert streamed.partial is not None
    assert streamed.partial.text.startswith(" same same same")
    assert streamed.partial.usage.estimated


def test_the_error_of_an_unknown_model_says_what_to_do(router: Router, caller: Caller) -> None:
    for error in failed(caller, router, "hi", model="local/nope:7b"):
        assert isinstance(error, errors.ModelNotFoundError)
        assert "ollama pull nope:7b" in str(error)


def test_a_model_of_the_cloud_is_denied_where_the_cloud_is_off(router: Router, caller: Caller) -> None:
    for error in failed(caller, router, "hi", model="local/gpt-oss:120b-cloud", fallback=False):
        assert isinstance(error, errors.PermissionDeniedError)
        assert "cloud is disabled" in str(error)


@pytest.mark.parametrize(
    "options",
    [
        {"extra": {"keep_alive": "soon"}},
        {"extra": {"think": "minimal"}},
        {"top_logprobs": 50, "logprobs": True},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,%%%"}}],
                }
            ]
        },
    ],
)
def test_mistakes_of_callers_are_theirs(router: Router, options: dict[str, object]) -> None:
    asked = {"model": "local/say-hello"} | ({} if "messages" in options else {"prompt": "hi"}) | options
    with pytest.raises(errors.InvalidRequestError):
        router.complete(**asked)


def test_a_name_that_no_model_can_have_is_a_model_that_is_not_there(router: Router) -> None:
    with pytest.raises(errors.ModelNotFoundError, match="invalid model name"):
        router.complete("hi", model="local/a b/c d")


def test_after_a_killed_runner_the_next_call_is_answered(
    patient: Router, ollama_server: RealOllama, caller: Caller
) -> None:
    came = 0
    with pytest.raises(errors.StreamInterruptedError) as caught:
        with patient.stream("hi", model="local/say-cycle") as stream:
            for _ in stream:
                came += 1
                if came == 3:
                    [runner] = ollama_server.runners()
                    runner.kill()
    assert isinstance(caught.value.__cause__, errors.ServerError)
    assert caught.value.partial is not None
    assert caught.value.partial.text.startswith(" alpha beta gamma")
    assert caller.complete(patient, "hi", model="local/say-cycle", max_tokens=2).text == " alpha beta"


def test_a_runner_killed_in_a_whole_answer_is_tried_again(patient: Router, ollama_server: RealOllama) -> None:
    patient.complete("hi", model="local/say-cycle", max_tokens=1)  # loaded, with the same window
    [runner] = ollama_server.runners()
    backend = OllamaBackend("again", ollama_server.url, models={"say-cycle": WIDE})
    with Router([backend], retry=RetryPolicy(base=0)) as router:
        answers: list[object] = []

        def ask(router: Router, model: str) -> None:
            try:
                answers.append(router.complete("hi", model=model, max_tokens=200))
            except errors.CcrouteError as error:
                answers.append(error)

        for asked, model in ((patient, "local/say-cycle"), (router, "again/say-cycle")):
            [runner] = ollama_server.runners()
            spent = sum(runner.cpu_times()[:2])
            thread = threading.Thread(target=ask, args=(asked, model))
            thread.start()
            while sum(runner.cpu_times()[:2]) < spent + 0.04:  # until it generates
                time.sleep(0.005)
            runner.kill()
            thread.join(30)
            if asked is patient:
                patient.complete("hi", model="local/say-cycle", max_tokens=1)
    failed, answered = answers
    assert isinstance(failed, errors.ServerError)
    assert failed.status == 500
    assert [attempt.outcome for attempt in answered.route.attempts] == ["failed", "ok"]  # type: ignore[attr-defined]


def test_a_restarted_server_is_used_again(ollama_server: RealOllama, caller: Caller) -> None:
    port = refused_port()
    with Router([OllamaBackend("own", f"http://127.0.0.1:{port}")], retry=RetryPolicy(attempts=1)) as router:
        with serve_ollama(port):
            assert caller.complete(router, "hi", model="own/say-hello").text
        with pytest.raises(errors.ConnectionFailedError, match="is it running there"):
            caller.complete(router, "hi", model="own/say-hello")
        if caller.mode == "sync":
            return
        with serve_ollama(port):
            assert caller.complete(router, "hi", model="own/say-hello").text


async def test_a_cancelled_call_stops_the_server(patient: Router) -> None:
    """The server has one place, and 4,000 words take much longer: an answer in time says they are over."""
    await patient.acomplete("hi", model="local/say-cycle", max_tokens=1)

    async def read_on() -> None:
        async for _ in patient.astream("hi", model="local/say-cycle", max_tokens=4000):
            came.set()

    came = asyncio.Event()
    task = asyncio.create_task(read_on())
    await came.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (await patient.acomplete("hi", model="local/say-cycle", max_tokens=1, timeout=4)).text == " alpha"


def test_a_closed_stream_stops_the_server(patient: Router) -> None:
    patient.complete("hi", model="local/say-cycle", max_tokens=1)
    with patient.stream("hi", model="local/say-cycle", max_tokens=4000) as stream:
        next(iter(stream))
    assert patient.complete("hi", model="local/say-cycle", max_tokens=1, timeout=4).text == " alpha"


def test_a_timeout_during_a_load_names_the_time_of_the_last_load(
    ollama_server: RealOllama, caller: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    with Router([OllamaBackend("local", ollama_server.url)], retry=RetryPolicy(attempts=1)) as router:
        for model in ("tiny-a", "say-hello", "tiny-a"):  # one has room, so each of them is loaded
            caller.complete(router, "hi", model=f"local/{model}", max_tokens=1)
        with pytest.raises(errors.BackendTimeoutError, match=r"shorter than the load \(\d+\.\d s when last"):
            caller.complete(router, "hi", model="local/say-hello", timeout=Timeout(first=0.005))
        assert caller.complete(router, "hi", model="local/say-hello").text
    warning = [
        r
        for r in caplog.records
        if r.levelno == logging.WARNING and "did not answer in time" in r.getMessage()
    ]
    assert len(warning) == 1


def test_a_host_name_that_the_server_does_not_know_is_explained(ollama_server: RealOllama) -> None:
    backend = OllamaBackend("local", ollama_server.url, headers={"host": "ollama.example.com"})
    with Router([backend]) as router:
        with pytest.raises(errors.PermissionDeniedError, match="OLLAMA_HOST"):
            router.complete("hi", model="local/say-hello")
