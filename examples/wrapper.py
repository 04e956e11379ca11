"""A small HTTP server on a Router, for programs that speak OpenAI's or Anthropic's API.

    POST /v1/chat/completions                       OpenAI's clients: base_url http://127.0.0.1:4000/v1
    POST /v1/messages, /v1/messages/count_tokens    Anthropic's clients: base_url http://127.0.0.1:4000
    GET  /v1/models, /health

Any backend may answer a client of either API. A wrapper has three steps: parse the body, ask the router, dump
the answer. `ccroute.serve` has the first and the last. This one uses Python's own HTTP server, with a thread
per connection: enough for a team's own network. The calls run on one event loop, where they can be cancelled:
a client that hangs up ends its call. Change BACKENDS and ALIASES, then run

    CCROUTE_KEY=sk-team python examples/wrapper.py 4000    clients send that key, agents their name as x-agent
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import select
import socket
import sys
import threading
import time
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ccroute import AsyncStream, OllamaBackend, Router
from ccroute.serve import anthropic, openai

BACKENDS = [OllamaBackend("local", "http://localhost:11434")]
ALIASES = {"sonnet": "local/qwen2.5-coder:32b", "haiku": "local/qwen2.5-coder:7b"}
MAX_BODY = 32 * 1024 * 1024  # bytes: a long conversation with images
LOOK = 0.25  # seconds between two checks whether the client is still there

Reply = dict[str, Any] | tuple[bytes, AsyncGenerator[bytes, None], AsyncStream]  # or: first bytes, rest


class Wrapper(ThreadingHTTPServer):
    """Serves `router` on 127.0.0.1. `key` is what clients must send."""

    daemon_threads, request_queue_size = True, 128

    def __init__(self, router: Router, key: str | None, port: int = 0) -> None:
        self.router, self.key = router, key
        super().__init__(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.loop = asyncio.new_event_loop()
        self.calls = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.calls.start()

    def server_close(self) -> None:
        super().server_close()
        asyncio.run_coroutine_threadsafe(self.router.aclose(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.calls.join()
        self.loop.close()


class Refused(Exception): ...  # raised by the wrapper itself: an HTTP status and a sentence


class Handler(BaseHTTPRequestHandler):
    server: Wrapper
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # each piece of a stream leaves at once

    def do_POST(self) -> None:
        try:
            self.answer()
        except ConnectionError:  # the client is gone
            self.close_connection = True

    do_GET = do_HEAD = do_POST

    def answer(self) -> None:
        try:
            reply = self.reply(self.path.partition("?")[0], self.read_body())
        except Refused as refused:
            self.send_json(refused.args[0], self.wire().error_body(*refused.args))
        except ConnectionError:
            raise
        except Exception as error:  # the client gets any error in its own protocol
            self.log_error("%r", error)
            status, body = self.wire().dump_error(error)
            self.send_json(status, body, self.wire().error_headers(error))
        else:
            self.send_json(200, reply) if isinstance(reply, dict) else self.send_stream(*reply)

    def wire(self) -> Any:
        """The protocol that this client speaks."""
        theirs = self.path.startswith("/v1/messages") or "anthropic-version" in self.headers
        return anthropic if theirs else openai

    def reply(self, path: str, body: bytes) -> Reply:
        if path == "/health":
            return {"status": "ok"}
        self.check_key()
        match self.command, path:
            case "GET" | "HEAD", "/v1/models":
                return self.wire().dump_models(self.server.router.models())
            case "POST", "/v1/messages/count_tokens":
                options = self.options(anthropic.parse_count_tokens(body))
                return anthropic.dump_count_tokens(self.server.router.count_tokens(**options))
            case "POST", "/v1/messages" | "/v1/chat/completions":
                return self.ask(body)
        raise Refused(404, "there is no such path here")

    def options(self, request: Any) -> dict[str, Any]:
        self.note("ignored", request.ignored)
        return {**request.kwargs, "agent": self.headers.get("x-agent")}

    def ask(self, body: bytes) -> Reply:
        wire, router = self.wire(), self.server.router
        request = wire.parse_request(body)
        options = self.options(request)
        if not request.stream:
            completion = self.wait(router.acomplete(**options))
            self.note("route", completion.route.reasons)
            return wire.dump_completion(completion)
        stream = router.astream(**options)
        more = {"include_usage": request.include_usage, "created": int(time.time())} if wire is openai else {}
        pieces = wire.adump_stream(stream, **more)
        # A failure before the first bytes is answered with its status.
        return self.wait(piece(pieces)), pieces, stream

    def note(self, what: str, words: Sequence[str]) -> None:
        if words:  # such as parameters that were dropped
            self.log_message("%s: %s", what, "; ".join(words))

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The result of `work`. It is cancelled when the client hangs up."""
        future = asyncio.run_coroutine_threadsafe(work, self.server.loop)
        try:
            while not futures.wait([future], LOOK).done:
                # Readable and empty is the end; other bytes are the client's next request.
                link = self.connection
                if select.select([link], [], [], 0)[0] and not link.recv(1, socket.MSG_PEEK):
                    raise ConnectionAbortedError
            return future.result()
        finally:
            future.cancel()

    def read_body(self) -> bytes:
        size = self.headers.get("content-length", "0")
        if size.isdigit() and int(size) <= MAX_BODY and "transfer-encoding" not in self.headers:
            return self.rfile.read(int(size))
        self.close_connection = True  # unread bytes would be read as the next request
        raise Refused(413, f"send at most {MAX_BODY} bytes, and say how many")

    def check_key(self) -> None:
        kind, _, bearer = self.headers.get("authorization", "").partition(" ")
        given = bearer.strip() if kind.lower() == "bearer" else self.headers.get("x-api-key", "")
        if self.server.key and not given:
            raise Refused(401, "no key: send it as a bearer token or as x-api-key")
        if self.server.key and not hmac.compare_digest(given.encode(), self.server.key.encode()):
            raise Refused(403, "this key is not known here")

    def send_json(self, status: int, value: Mapping[str, Any], headers: Mapping[str, str] = {}) -> None:
        data = json.dumps(value).encode()
        self.send_head(status, "application/json", {"content-length": f"{len(data)}", **headers})
        if self.command != "HEAD":
            self.wfile.write(data)

    def send_stream(self, data: bytes, rest: AsyncGenerator[bytes, None], stream: AsyncStream) -> None:
        self.close_connection = True  # kept only if the stream comes to its end
        try:
            self.send_head(200, "text/event-stream", {"transfer-encoding": "chunked"})
            while data:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
                data = self.wait(piece(rest))
            self.note("route", stream.route.reasons)
        finally:  # closing it closes the router's stream, which ends the backend's work
            asyncio.run_coroutine_threadsafe(close(rest), self.server.loop).result()
        self.wfile.write(b"0\r\n\r\n")
        self.close_connection = False

    def send_head(self, status: int, content: str, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"content-type": content, **headers}.items():
            self.send_header(name, value)
        self.end_headers()


async def piece(pieces: AsyncGenerator[bytes, None]) -> bytes:
    return await anext(pieces, b"")


async def close(pieces: AsyncGenerator[bytes, None]) -> None:
    await pieces.aclose()


def main() -> None:
    # Clients of one API send parameters that other servers do not know: drop_params leaves them out.
    router = Router(BACKENDS, ALIASES, drop_params=True)
    with router, Wrapper(router, os.environ.get("CCROUTE_KEY"), int(sys.argv[1])) as server:
        print(f"serving {', '.join(ALIASES)} at {server.url}")
        server.serve_forever()


if __name__ == "__main__":
    main()
