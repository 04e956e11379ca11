"""The router from outside, once for the sync and once for the async methods, on real sockets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import httpx
import pytest
import respx
from tests.conftest import Caller
from tests.support.anthropic_like import message
from tests.support.ollama import FakeOllama
from tests.support.openai_like import chat, chat_sse, chunk, sse, usage
from tests.support.scripted import (
    Close,
    Hang,
    Request,
    Reset,
    ScriptedServer,
    Send,
    Step,
    Trickle,
    Wait,
    answer,
    head,
    refused_port,
    stream,
)
from tests.support.scripted import chunk as chunk_of

from ccroute import (
    Agent,
    AnthropicBackend,
    Model,
    OllamaBackend,
    OpenAIBackend,
    Price,
    RetryPolicy,
    Router,
    Timeout,
    errors,
)
from ccroute.observe import CooledDown

FAST = RetryPolicy(base=0, max=0)
PAID = Price(3, 15)
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def backend(server: ScriptedServer, name: str = "main", **options: object) -> OpenAIBackend:
    return OpenAIBackend(name, base_url=server.url, **options)  # type: ignore[arg-type]


def test_an_agents_model_wins_over_the_requested_one(caller: Caller) -> None:
    with ScriptedServer([answer(json=chat("done", model="served"))]) as server:
        router = Router([backend(server)], {"fast": "main/m1", "big": "main/m2"}, {"python-expert": "fast"})
        reply = caller.complete(router, "fix it", agent="Python Expert", model="big")
        router.close()
    assert server.requests[0].json["model"] == "m1"
    assert (reply.text, reply.model, reply.finish_reason) == ("done", "served", "stop")
    route = reply.route
    assert (route.agent, route.requested_model, route.model) == ("python-expert", "big", "fast")
    assert (route.deployment, route.backend, route.overridden) == ("main/m1", "main", True)
    assert [attempt.outcome for attempt in route.attempts] == ["ok"]


def test_a_stream_gives_its_chunks_and_then_the_whole_completion(caller: Caller) -> None:
    with ScriptedServer(
        [stream(chat_sse(["Hel", "lo ", "world"], model="served", usage=usage(10, 5)))]
    ) as server:
        router = Router([backend(server, models={"m": Model(price=PAID)})], default_model="main/m")
        heard = caller.stream(router, "hi")
        router.close()
    assert heard.error is None
    assert [chunk.text for chunk in heard.chunks] == ["Hel", "lo ", "world", ""]
    assert heard.chunks[-1].finish_reason == "stop"
    assert heard.chunks[-1].usage == heard.completion.usage
    assert heard.completion.text == "Hello world"
    assert heard.completion.cost == Decimal("0.000105")
    assert heard.stream is not None
    assert (heard.stream.id, heard.stream.model) == ("chatcmpl-1", "served")
    assert heard.stream.route == heard.completion.route


def test_a_503_moves_on_to_the_fallback_at_once(caller: Caller) -> None:
    with ScriptedServer([answer(503)]) as faulty, FakeOllama(models=["qwen"]) as ollama:
        router = Router(
            [backend(faulty), OllamaBackend("local", ollama.url)],
            {"big": "main/m", "small": "local/qwen"},
            {"a": Agent("big", fallback=["small"])},
        )
        reply = caller.complete(router, "hi", agent="a")
        router.close()
    assert reply.route.fallback
    assert reply.route.backend == "local"
    assert [(a.deployment, a.failure) for a in reply.route.attempts] == [
        ("main/m", "rejected"),
        ("local/qwen", None),
    ]
    assert reply.cost == 0


def test_a_call_without_a_fallback_is_tried_again_where_it_failed(caller: Caller) -> None:
    with ScriptedServer([answer(503), answer(json=chat("second"))]) as server:
        router = Router([backend(server)], default_model="main/m", retry=FAST)
        reply = caller.complete(router, "hi")
        router.close()
    assert reply.text == "second"
    assert len(reply.route.attempts) == 2


def test_retry_after_is_awaited_if_no_other_candidate_is_left(caller: Caller) -> None:
    limited = answer(429, headers={"retry-after-ms": "80"})
    with ScriptedServer([limited, answer(json=chat())]) as server:
        router = Router([backend(server)], default_model="main/m", retry=FAST)
        reply = caller.complete(router, "hi")
        router.close()
    assert reply.latency >= 0.08


def test_a_retry_after_beyond_the_deadline_is_raised_at_once(caller: Caller) -> None:
    with ScriptedServer([answer(429, headers={"retry-after": "30"})]) as server:
        router = Router([backend(server)], default_model="main/m")
        with pytest.raises(errors.RateLimitError) as caught:
            caller.complete(router, "hi", timeout=5)
        router.close()
    assert caught.value.retry_after == 30
    assert len(caught.value.attempts) == 1


def test_the_total_timeout_ends_a_silent_call_on_time(caller: Caller) -> None:
    with ScriptedServer([[Hang()]]) as server:
        router = Router([backend(server)], default_model="main/m")
        with pytest.raises(errors.DeadlineExceededError) as caught:
            caller.complete(router, "hi", timeout=0.3)
        assert server.wait_closed()
        router.close()
    assert 0.28 <= caught.value.attempts[0].duration < 0.4


def test_a_backends_own_timeout_moves_the_call_on(caller: Caller) -> None:
    with ScriptedServer([[Hang()]]) as slow, ScriptedServer([answer(json=chat("fast"))]) as quick:
        backends = [backend(slow, "slow", timeout=0.1), backend(quick, "quick")]
        router = Router(backends, {"m": "slow/m"}, timeout=5)
        reply = caller.complete(router, "hi", model="m", fallback=["quick/m"])
        router.close()
    assert reply.text == "fast"
    assert reply.route.attempts[0].error == "BackendTimeoutError"


def test_a_stream_that_breaks_before_content_falls_back(caller: Caller) -> None:
    with (
        ScriptedServer([stream([b": ping\n\n", Reset()])]) as bad,
        ScriptedServer([stream(chat_sse(["ok"]))]) as good,
    ):
        router = Router([backend(bad, "bad"), backend(good, "good")], retry=FAST)
        heard = caller.stream(router, "hi", model="bad/m", fallback=["good/m"])
        router.close()
    assert heard.error is None
    assert heard.text == "ok"
    assert heard.completion.route.attempts[0].failure == "ambiguous"


def test_a_stream_that_breaks_after_content_is_priced(caller: Caller) -> None:
    forty = [chunk({"content": "word"}) for _ in range(40)]
    with ScriptedServer([stream([*forty, Close()])]) as server:
        router = Router(
            [backend(server, models={"m": Model(price=PAID)})], default_model="main/m", retry=FAST
        )
        heard = caller.stream(router, "hi")
        row = router.report().to_dicts()[0]
        router.close()
    error = heard.error
    assert isinstance(error, errors.StreamInterruptedError)
    assert error.partial is not None
    assert error.partial.text == heard.text == "word" * 40
    assert (error.partial.usage.output, error.partial.usage.estimated) == (40, True)
    assert error.partial.cost == row["cost"] > 0
    assert error.attempts[0].outcome == "interrupted"
    assert len(server.requests) == 1


def test_an_abandoned_stream_closes_its_connection_within_a_second(caller: Caller) -> None:
    with ScriptedServer([stream([chunk({"content": "one"}), Hang()])]) as server:
        router = Router([backend(server)], default_model="main/m")
        if caller.mode == "sync":
            for _ in router.stream("hi"):
                break
        else:

            async def abandon() -> None:
                async for _ in router.astream("hi"):
                    break
                assert await asyncio.to_thread(server.wait_closed, 1.0)

            asyncio.run(abandon())
        assert server.wait_closed(1.0)
        row = router.report(by=("agent", "backend")).to_dicts()[0]
        router.close()
    assert (row["attempts"], row["failures"]) == (1, 0)


def test_a_stream_closed_early_closes_its_connection(caller: Caller) -> None:
    with ScriptedServer([stream([chunk({"content": "one"}), Hang()])]) as server:
        router = Router([backend(server)], default_model="main/m")
        if caller.mode == "sync":
            with router.stream("hi") as started:
                next(started)
            assert list(started) == []
        else:

            async def leave() -> None:
                async with router.astream("hi") as started:
                    await anext(started)
                assert [chunk async for chunk in started] == []

            asyncio.run(leave())
        assert server.wait_closed(1.0)
        router.close()


async def test_a_cancelled_call_closes_its_connection_within_a_second() -> None:
    with ScriptedServer([[Hang()]]) as server:
        async with Router([backend(server)], default_model="main/m") as router:
            task = asyncio.create_task(router.acomplete("hi"))
            assert await asyncio.to_thread(server.wait_requests)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(server.wait_closed, 1.0)
            assert router.report().to_dicts()[0]["attempts"] == 1


async def test_the_sync_api_works_inside_a_running_event_loop() -> None:
    with (
        ScriptedServer([answer(json=chat("from a notebook"))]) as server,
        Router([backend(server)]) as router,
    ):
        assert router.complete("hi", model="main/m").text == "from a notebook"


def test_one_router_serves_32_threads() -> None:
    with ScriptedServer(lambda request: answer(json=chat(request.json["messages"][0]["content"]))) as server:
        router = Router([backend(server)], default_model="main/m")
        start = threading.Barrier(32)

        def ask(thread: int) -> list[str]:
            start.wait()
            return [router.complete(f"{thread}-{i}").text for i in range(10)]

        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(ask, range(32)))
        rows = router.report().to_dicts()
        router.close()
        assert server.wait_idle()
    assert answers == [[f"{thread}-{i}" for i in range(10)] for thread in range(32)]
    assert rows[0]["requests"] == 320
    assert server.connections <= 32


def test_one_router_serves_five_event_loops_in_turn() -> None:
    with ScriptedServer([answer(json=chat())], repeat=True) as server:
        router = Router([backend(server)], default_model="main/m")

        async def ask_twice() -> str:
            await router.acomplete("hi")
            return (await router.acomplete("hi")).text

        assert [asyncio.run(ask_twice()) for _ in range(5)] == ["Hello there."] * 5
        assert server.wait_idle()
        assert server.connections == 5
        router.close()


async def test_a_hundred_concurrent_calls_reuse_their_connections() -> None:
    with ScriptedServer([answer(json=chat())], repeat=True) as server:
        async with Router([backend(server)], default_model="main/m") as router:
            for _ in range(3):
                await asyncio.gather(*(router.acomplete("hi") for _ in range(100)))
        assert await asyncio.to_thread(server.wait_idle)
    assert server.connections <= 100


def test_a_closed_router_says_so(caller: Caller) -> None:
    router = Router([OllamaBackend()], default_model="ollama/m")
    router.close()
    with pytest.raises(errors.RouterClosedError, match="make a new one"):
        caller.complete(router, "hi")


def test_a_local_only_agents_prompt_never_reaches_a_paid_host(caller: Caller) -> None:
    with ScriptedServer([answer(json=message())]) as paid:
        router = Router(
            [
                AnthropicBackend("paid", base_url=paid.url, api_key="sk-test"),
                OllamaBackend("home", "http://127.0.0.1:9"),
            ],
            {"private": "home/m", "big": "paid/m"},
            {"a": Agent("private", fallback=["big"], local_only=True), "b": Agent("big", local_only=True)},
            retry=FAST,
        )
        with pytest.raises(errors.ConnectionFailedError):
            caller.complete(router, "secret", agent="a")
        with pytest.raises(errors.EgressDeniedError, match="paid/m"):
            caller.complete(router, "secret", agent="b")
        router.close()
    assert paid.connections == 0


def test_what_an_override_saved_is_in_the_report(caller: Caller) -> None:
    with ScriptedServer([answer(json=chat(usage=usage(1000, 100)))], repeat=True) as server:
        router = Router(
            [OpenAIBackend("free", base_url=server.url, local=True)],
            {"cheap": "free/m"},
            {"a": "cheap"},
            prices={"opus": Price(15, 75)},
            baseline="opus",
        )
        reply = caller.complete(router, "hi", agent="a", model="opus")
        row = router.report(by="agent").to_dicts()[0]
        router.close()
    assert reply.cost == 0
    assert row["override_saved"] == row["saved"] == Decimal("0.0225")
    assert (row["overrides"], row["saved_percent"]) == (1, 100)


def test_an_unknown_price_is_none_and_counted_as_unknown(caller: Caller) -> None:
    with ScriptedServer([answer(json=chat())]) as server:
        router = Router([OpenAIBackend("far", base_url=server.url)], default_model="far/m")
        reply = caller.complete(router, "hi")
        row = router.report().to_dicts()[0]
        router.close()
    assert reply.cost is None
    assert (row["cost"], row["unknown_cost_requests"]) == (None, 1)


def test_a_conversation_goes_on_with_the_replys_own_message(caller: Caller) -> None:
    with ScriptedServer([answer(json=chat("four"))], repeat=True) as server:
        router = Router([backend(server)], default_model="main/m")
        messages: list[object] = [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "2+2?"},
        ]
        messages += [
            caller.complete(router, messages=messages).message,
            {"role": "user", "content": "and now?"},
        ]
        caller.complete(router, messages=messages)
        router.close()
    sent = server.requests[1].json["messages"]
    assert [(m["role"], m["content"]) for m in sent][2:] == [("assistant", "four"), ("user", "and now?")]


def test_anything_respx_mocks_is_seen_by_both_modes(caller: Caller) -> None:
    far = OpenAIBackend("far", base_url="https://api.example.com/v1")
    with respx.mock, Router([far], transport="httpx") as router:
        route = respx.post("https://api.example.com/v1/chat/completions").respond(json=chat("mocked"))
        assert caller.complete(router, "hi", model="far/m").text == "mocked"
        assert route.call_count == 1


def test_an_httpx_transport_carries_calls_and_streams(caller: Caller) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        if b'"stream":true' in request.content:
            return httpx.Response(200, content=b"".join(chat_sse(["a", "b"])))
        return httpx.Response(200, json=chat("through"))

    router = Router(
        [OpenAIBackend("far", base_url="https://x.example")], transport=httpx.MockTransport(handle)
    )
    assert caller.complete(router, "hi", model="far/m").text == "through"
    assert caller.stream(router, "hi", model="far/m").text == "ab"
    router.close()


def test_what_a_stream_gives_before_its_end_has_no_completion() -> None:
    with ScriptedServer([stream(chat_sse(["a"]))]) as server, Router([backend(server)]) as router:
        started = router.stream("hi", model="main/m")
        next(started)
        assert started.route.deployment == "main/m"
        with pytest.raises(RuntimeError, match="has not ended"):
            _ = started.completion
        started.close()


def test_parameters_a_wire_cannot_carry_are_refused_or_listed(caller: Caller) -> None:
    with ScriptedServer([answer(json=chat())]) as server:
        strict = Router([backend(server)], default_model="main/m")
        with pytest.raises(errors.InvalidRequestError, match="top_k"):
            caller.complete(strict, "hi", top_k=5)
        lax = Router([backend(server)], default_model="main/m", drop_params=True)
        reply = caller.complete(lax, "hi", top_k=5)
        strict.close()
        lax.close()
    assert any("top_k" in reason for reason in reply.route.reasons)
    assert "top_k" not in server.requests[0].json


def test_a_dead_host_is_named_with_what_to_do(caller: Caller) -> None:
    dead = OllamaBackend("mini", f"http://127.0.0.1:{refused_port()}")
    router = Router([dead], default_model="mini/m", retry=FAST)
    with pytest.raises(errors.ConnectionFailedError, match=r"mini/m: cannot connect to http://127.*running"):
        caller.complete(router, "hi")
    router.close()


def test_the_ledger_counts_each_call_once_and_each_attempt(caller: Caller) -> None:
    with ScriptedServer([answer(503), answer(json=chat()), answer(json=chat())]) as server:
        router = Router([backend(server)], default_model="main/m", retry=FAST)
        caller.complete(router, "hi", session="s1", metadata={"ticket": 7})
        caller.complete(router, "hi", session="s2")
        rows = {row["session"]: row for row in router.report(by="session").to_dicts()}
        router.close()
    assert (rows["s1"]["requests"], rows["s1"]["attempts"], rows["s1"]["failures"]) == (1, 2, 1)
    assert (rows["s2"]["requests"], rows["s2"]["attempts"], rows["s2"]["failures"]) == (1, 1, 0)
    assert "s1" in str(router.report(by="session"))


def test_an_error_frame_in_a_stream_is_typed(caller: Caller) -> None:
    error = sse({"error": {"type": "server_error", "message": "boom", "code": 500}})
    with ScriptedServer([stream([error, b"data: [DONE]\n\n"])]) as server:
        router = Router([backend(server)], default_model="main/m", retry=RetryPolicy(attempts=1))
        heard = caller.stream(router, "hi")
        router.close()
    assert isinstance(heard.error, errors.ServerError)


def test_timeouts_are_exact_however_slowly_a_server_trickles(caller: Caller) -> None:
    with ScriptedServer([[Trickle(b"HTTP/1.1 200 OK\r\n" + b"x-a: 1\r\n" * 1000, 0.02)]]) as server:
        router = Router([backend(server)], default_model="main/m", retry=RetryPolicy(attempts=1))
        with pytest.raises(errors.BackendTimeoutError) as caught:
            caller.complete(router, "hi", timeout=Timeout(first=0.3))
        router.close()
    assert 0.28 <= caught.value.attempts[0].duration < 0.4


def test_a_stream_has_one_reader_and_any_thread_may_close_it() -> None:
    with (
        ScriptedServer([stream([chunk({"content": "one"}), Hang()])]) as server,
        Router([backend(server)]) as router,
    ):
        started = router.stream("hi", model="main/m", fallback=["main/n"])
        next(started)
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(list, started)
            while not started._drive._running:
                pass
            with pytest.raises(RuntimeError, match="already being read"):
                next(started)
            started.close()
            assert reading.result(5) == []
        assert server.wait_closed(1.0)
        assert router.report(by="model").to_dicts()[0]["attempts"] == 1


async def test_an_async_stream_has_one_reader_and_any_task_may_close_it() -> None:
    with ScriptedServer([stream([chunk({"content": "one"}), Hang()])]) as server:
        async with Router([backend(server)], default_model="main/m") as router:
            started = router.astream("hi")
            await anext(started)
            reading = asyncio.create_task(anext(started))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="already being read"):
                await anext(started)
            await started.aclose()
            with pytest.raises(StopAsyncIteration):
                await reading
            assert await asyncio.to_thread(server.wait_closed, 1.0)


def test_a_stream_begun_on_one_loop_is_not_read_on_another() -> None:
    with (
        ScriptedServer([stream([chunk({"content": "one"}), Hang()])]) as server,
        Router([backend(server)]) as router,
    ):
        started = router.astream("hi", model="main/m")
        loop = asyncio.new_event_loop()
        loop.run_until_complete(anext(started))  # type: ignore[arg-type]
        with pytest.raises(RuntimeError, match="began on another event loop"):
            asyncio.run(anext(started))  # type: ignore[arg-type]
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
        assert server.wait_closed(1.0)


def test_a_streams_attempt_limit_ends_at_its_first_content(caller: Caller) -> None:
    slow = [
        step for piece in chat_sse(["Hel", "lo ", "world"]) for step in (Wait(0.05), Send(chunk_of(piece)))
    ]
    slow = [Send(head(headers=[("transfer-encoding", "chunked")])), *slow, Send(chunk_of(b""))]
    with ScriptedServer([slow]) as server:
        with Router([backend(server)], default_model="main/m", timeout=Timeout(attempt=0.12)) as router:
            heard = caller.stream(router, "hi")
    assert (heard.error, heard.text) == (None, "Hello world")


def test_an_attempt_that_takes_too_long_falls_back(caller: Caller) -> None:
    with ScriptedServer([[Hang()]]) as slow, ScriptedServer([answer(json=chat("here"))]) as quick:
        backends = [backend(slow, "slow"), backend(quick, "quick")]
        with Router(backends, timeout=Timeout(attempt=0.1)) as router:
            reply = caller.complete(router, "hi", model="slow/m", fallback=["quick/m"])
    assert reply.text == "here"
    assert "(attempt=0.1 s): if it needs longer, raise that limit" in reply.route.attempts[0].reason


def test_an_error_says_who_was_not_asked_and_why(caller: Caller) -> None:
    with ScriptedServer([answer(503)], repeat=True) as faulty:
        names = ("a", "b", "c", "d")
        backends = [backend(faulty, name) for name in names] + [OllamaBackend("local")]
        with Router(backends, retry=FAST) as router:
            with pytest.raises(errors.OverloadedError) as caught:
                caller.complete(
                    router,
                    "hi",
                    model="local/m",
                    tool_choice="required",
                    tools=[TOOL],
                    fallback=["a/m", "b/m", "c/m", "d/m"],
                )
    [left_out, *_, last] = caught.value.reasons
    assert left_out.startswith("local/m left out: cannot carry tool_choice")
    assert last == "d/m not asked: the 3 attempts of a call are used up; RetryPolicy(attempts=…) allows more"
    assert caught.value.__notes__ == [left_out, last]


def test_the_error_of_a_cooling_deployment_says_why(caller: Caller) -> None:
    heard: list[CooledDown] = []
    limited = answer(429, headers={"retry-after": "30"}, json={"error": {"message": "slow down, please"}})
    with ScriptedServer([limited]) as server:
        with Router(
            [backend(server)],
            retry=RetryPolicy(attempts=1),
            on_event=lambda e: heard.append(e) if isinstance(e, CooledDown) else None,
        ) as router:
            with pytest.raises(errors.RateLimitError):
                caller.complete(router, "hi", model="main/m")
    assert [event.reason for event in heard] == ["RateLimitError, HTTP 429"]


def refusing(*names: str) -> Callable[[Request], Iterable[Step]]:
    """A server that refuses some fields, one at a time, and answers a body without them."""

    def reply(request: Request) -> Iterable[Step]:
        for name in names:
            if name in request.json:
                refusal = {
                    "message": f"Unsupported parameter: '{name}' is not supported with this model.",
                    "param": name,
                }
                return answer(400, json={"error": refusal})
        return answer(json=chat("done"))

    return reply


def test_a_refused_parameter_is_dropped_and_remembered(caller: Caller) -> None:
    asked = {"temperature": 0.2, "top_p": 0.5, "max_tokens": 9}
    with ScriptedServer(refusing("temperature", "top_p")) as server:
        with Router([backend(server)], default_model="main/m", drop_params=True) as router:
            first = caller.complete(router, "hi", **asked)
            again = caller.complete(router, "hi", **asked)
            plain = caller.complete(router, "hi")
    assert [attempt.failure for attempt in first.route.attempts] == [
        "invalid_request",
        "invalid_request",
        None,
    ]
    assert [len(reply.route.attempts) for reply in (again, plain)] == [1, 1]
    assert "main/m: temperature dropped, the server refused it" in again.route.reasons
    assert server.requests[3].json.keys() & asked.keys() == {"max_tokens"}
    assert first.cost is None or first.cost == 0


def test_a_refused_parameter_fails_the_call_without_drop_params(caller: Caller) -> None:
    with ScriptedServer(refusing("temperature")) as server:
        with Router([backend(server)], default_model="main/m") as router:
            for _ in range(2):
                with pytest.raises(errors.InvalidRequestError) as caught:
                    caller.complete(router, "hi", temperature=0.2)
    assert (caught.value.parameter, caught.value.elsewhere, len(server.requests)) == ("temperature", True, 2)


def test_a_server_that_refuses_absent_fields_is_asked_once_more(caller: Caller) -> None:
    refusal = {"message": "'temperature' is not supported with this model", "param": "temperature"}
    with ScriptedServer([answer(400, json={"error": refusal})], repeat=True) as server:
        with Router([backend(server)], default_model="main/m", drop_params=True) as router:
            with pytest.raises(errors.InvalidRequestError):
                caller.complete(router, "hi", temperature=0.2)
    assert len(server.requests) == 2


def test_tokens_are_counted_without_a_network() -> None:
    agents = {"helper": Agent(model="fast", params={"tools": [TOOL]})}
    nowhere = OpenAIBackend("main", base_url="http://127.0.0.1:9")
    with Router([nowhere], {"fast": "main/m"}, agents) as router:
        assert router.count_tokens("a" * 400, model="fast") == 104
        picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 300_000}}
        asked = [{"role": "user", "content": [picture]}]
        assert router.count_tokens(messages=asked, model="main/m", system="s") == 1009
        assert router.count_tokens("a" * 400, agent="helper") > 104, "the agent's tools count too"
        for wrong, error in (
            ({"model": "nobody"}, errors.UnknownModelError),
            ({"agent": "stranger", "model": "fast"}, errors.UnknownAgentError),
            ({}, errors.InvalidRequestError),
            ({"model": "fast", "temperature": "hot"}, errors.InvalidRequestError),
        ):
            with pytest.raises(error):
                router.count_tokens("hi", **wrong)  # type: ignore[arg-type]  # wrong on purpose
    with Router([nowhere], count_tokens=lambda request: 7 * len(request.messages)) as router:
        assert router.count_tokens("hi", model="main/m") == 7


def test_a_prompt_that_fits_nowhere_is_counted_all_the_same() -> None:
    small = OpenAIBackend("main", base_url="http://127.0.0.1:9", models={"m": Model(context_window=100)})
    with Router([small]) as router:
        assert router.count_tokens("a" * 4000, model="main/m") == 1004


def test_calls_at_the_same_time_each_drop_what_the_server_refuses() -> None:
    with ScriptedServer(refusing("temperature")) as server:
        with Router([backend(server)], default_model="main/m", drop_params=True) as router:
            with ThreadPoolExecutor(8) as pool:
                calls = [pool.submit(router.complete, "hi", temperature=0.2) for _ in range(8)]
                assert {call.result().text for call in calls} == {"done"}


def test_a_parameter_is_dropped_after_several_refused_values(caller: Caller) -> None:
    def reply(request: Request) -> Iterable[Step]:
        effort = request.json.get("reasoning_effort")
        if effort in ("minimal", "low", "medium"):
            refusal = {
                "message": f"'reasoning_effort' does not support '{effort}'",
                "param": "reasoning_effort",
            }
            return answer(400, json={"error": refusal})
        return answer(json=chat(effort or "none"))

    with ScriptedServer(reply) as server:
        with Router([backend(server)], default_model="main/m", drop_params=True) as router:
            efforts = ("minimal", "minimal", "high", "low", "medium", "high")
            said = [caller.complete(router, "hi", reasoning_effort=effort).text for effort in efforts]
    assert said == ["none", "none", "high", "none", "none", "none"]
    assert len(server.requests) == 6 + 3


def test_a_counter_of_tokens_that_fails_loses_neither_answer_nor_row(caller: Caller) -> None:
    told = {name: value for name, value in chat("fine").items() if name != "usage"}
    with ScriptedServer([answer(502), answer(json=told)]) as server:
        backend = OpenAIBackend("main", base_url=server.url, models={"m": Model(price=PAID)})
        with Router([backend], default_model="main/m", retry=FAST, count_tokens=lambda _: 1 // 0) as router:
            assert caller.complete(router, "hi").text == "fine"
            rows = router.rows()
    assert [(row.outcome, bool(row.cost), row.usage.estimated) for row in rows] == [
        ("failed", True, True),
        ("ok", True, True),
    ]
