"""A small HTTP server on a Router, for programs that speak OpenAI's or Anthropic's API.

    POST /v1/chat/completions                       OpenAI's clients: base_url http://127.0.0.1:4000/v1
    POST /v1/messages, /v1/messages/count_tokens    Anthropic's clients: base_url http://127.0.0.1:4000
    GET  /v1/models, /health

Whichever API a client speaks, any backend may answer. A wrapper is three steps, and `ccroute.wire` has the
first and the last: parse the body, ask the router, dump the answer. Here they stand on Python's own HTTP
server, a thread per connection: enough for a team's own network. Change BACKENDS and ALIASES, then run

    CCROUTE_KEY=sk-team python examples/wrapper.py 4000    clients send that key, agents their name as x-agent
"""

from __future__ import annotations

import contextlib
import hmac
import itertools
import json
import os
import sys
import time
from collections.abc import Generator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ccroute import OllamaBackend, Router
from ccroute.wire import anthropic, openai

BACKENDS = [OllamaBackend("local", "http://localhost:11434")]
ALIASES = {"sonnet": "local/qwen2.5-coder:32b", "haiku": "local/qwen2.5-coder:7b"}
MAX_BODY = 32 * 1024 * 1024  # bytes: a long conversation with images

Reply = dict[str, Any] | tuple[bytes, Generator[bytes, None, None]]  # or: first bytes, rest


class Wrapper(ThreadingHTTPServer):
    """Serves `router` on 127.0.0.1. `key` is what clients must send."""

    daemon_threads, request_queue_size = True, 128

    def __init__(self, router: Router, key: str | None, port: int = 0) -> None:
        self.router, self.key = router, key
        super().__init__(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


class Refused(Exception): ...  # by the wrapper itself: an HTTP status and a sentence


class Handler(BaseHTTPRequestHandler):
    server: Wrapper
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # each piece of a stream leaves at once

    def do_POST(self) -> None:
        try:
            reply = self.reply(self.path.partition("?")[0], self.read_body())
        except Refused as refused:
            self.send_json(refused.args[0], self.wire().error_body(*refused.args))
        except Exception as error:  # whatever it was, the client gets its own protocol's form of it
            self.log_error("%r", error)
            status, told = self.wire().dump_error(error)
            self.send_json(status, told, self.wire().error_headers(error))
        else:
            self.send_json(200, reply) if isinstance(reply, dict) else self.send_stream(*reply)

    do_GET = do_POST

    def wire(self) -> Any:
        """The protocol that this client speaks."""
        theirs = self.path.startswith("/v1/messages") or "anthropic-version" in self.headers
        return anthropic if theirs else openai

    def reply(self, path: str, body: bytes) -> Reply:
        if path == "/health":
            return {"status": "ok"}
        self.check_key()
        match self.command, path:
            case "GET", "/v1/models":
                return self.wire().dump_models(self.server.router.models())
            case "POST", "/v1/messages/count_tokens":
                anthropic.parse_count_tokens(body)
                return anthropic.dump_count_tokens(len(body) // 4)  # an estimate: 4 characters a token
            case "POST", "/v1/messages" | "/v1/chat/completions":
                return self.ask(body)
        raise Refused(404, "there is no such path here")

    def ask(self, body: bytes) -> Reply:
        wire, router = self.wire(), self.server.router
        request = wire.parse_request(body)
        options = {**request.kwargs, "agent": self.headers.get("x-agent")}
        if not request.stream:
            return wire.dump_completion(router.complete(**options))
        stream = router.stream(**options)
        if wire is anthropic:
            pieces = anthropic.dump_stream(stream)
        else:
            pieces = openai.dump_stream(stream, include_usage=request.include_usage, created=int(time.time()))
        return next(pieces), pieces  # what fails before the first bytes is answered with a status

    def read_body(self) -> bytes:
        size = self.headers.get("content-length", "0")
        if size.isdigit() and int(size) <= MAX_BODY and "transfer-encoding" not in self.headers:
            return self.rfile.read(int(size))
        self.close_connection = True  # what is left unread would be taken for the next request
        raise Refused(413, f"send at most {MAX_BODY} bytes, and say how many")

    def check_key(self) -> None:
        bearer = self.headers.get("authorization", "").removeprefix("Bearer ")
        given = bearer or self.headers.get("x-api-key", "")
        if self.server.key and not given:
            raise Refused(401, "no key: send it as a bearer token or as x-api-key")
        if self.server.key and not hmac.compare_digest(given.encode(), self.server.key.encode()):
            raise Refused(403, "this key is not known here")

    def send_json(self, status: int, value: Mapping[str, Any], headers: Mapping[str, str] = {}) -> None:
        data = json.dumps(value).encode()
        self.send_head(status, "application/json", {"content-length": f"{len(data)}", **headers})
        self.wfile.write(data)

    def send_stream(self, first: bytes, rest: Generator[bytes, None, None]) -> None:
        self.close_connection = True  # kept only if the stream comes to its end
        # A client that hangs up ends the backend's work: closing `rest` closes the router's stream.
        with contextlib.closing(rest), contextlib.suppress(ConnectionError):
            self.send_head(200, "text/event-stream", {"transfer-encoding": "chunked"})
            for piece in itertools.chain([first], rest, [b""]):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.close_connection = False

    def send_head(self, status: int, content: str, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"content-type": content, **headers}.items():
            self.send_header(name, value)
        self.end_headers()


def main() -> None:
    # Clients of one API send what another's servers do not know: drop_params leaves it out.
    router = Router(BACKENDS, ALIASES, drop_params=True)
    with router, Wrapper(router, os.environ.get("CCROUTE_KEY"), int(sys.argv[1])) as server:
        print(f"serving {', '.join(ALIASES)} at {server.url}")
        server.serve_forever()


if __name__ == "__main__":
    main()
