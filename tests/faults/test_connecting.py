"""Rows 1 to 7: no connection, no trust, no answer."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from tests.faults.harness import SHORT, FaultHarness, on_time, row, whole_and_streamed
from tests.faults.servers import FaultyServer
from tests.support.certificates import Authority
from tests.support.openai_like import chat
from tests.support.scripted import (
    BlackHole,
    Close,
    Hang,
    Reset,
    Send,
    Step,
    Trickle,
    answer,
    head,
    refused_port,
)

from ccroute import Timeout
from ccroute.errors import BackendTimeoutError, ConnectionFailedError, DeadlineExceededError

NO_SUCH_HOST = "http://no-such-host.invalid"
CONNECT = Timeout(total=5, connect=SHORT)
FIRST = Timeout(total=5, first=SHORT)
WORDS = b"HTTP/1.1 200 OK\r\n" + b"x-word: by word\r\n" * 500


@row(1, "connection refused")
@whole_and_streamed
def test_a_refused_connection_costs_nothing_and_falls_back(harness: FaultHarness, stream: bool) -> None:
    harness.is_retried(f"http://127.0.0.1:{refused_port()}", ConnectionFailedError, "not_sent", stream=stream)


@row(1, "connection refused")
def test_refused_connections_open_the_breaker(harness: FaultHarness) -> None:
    harness.opens_breaker(f"http://127.0.0.1:{refused_port()}")


@pytest.fixture
def no_name(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Every look-up of a name ends in this error of the resolver's, whatever network there is."""
    look_up = socket.getaddrinfo

    def resolve(host: Any, *args: Any, **options: Any) -> Any:
        if str(host).endswith(".invalid"):
            raise socket.gaierror(request.param, "not known")
        return look_up(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@row(2, "DNS failure")
@whole_and_streamed
@pytest.mark.parametrize("no_name", [socket.EAI_NONAME, socket.EAI_AGAIN], indirect=True)
@pytest.mark.usefixtures("no_name")
def test_an_unknown_host_name_costs_nothing_and_falls_back(harness: FaultHarness, stream: bool) -> None:
    harness.is_retried(NO_SUCH_HOST, ConnectionFailedError, "not_sent", stream=stream)


@row(2, "DNS failure")
@pytest.mark.parametrize("no_name", [socket.EAI_NONAME], indirect=True)
@pytest.mark.usefixtures("no_name")
def test_names_that_are_not_found_open_the_breaker(harness: FaultHarness) -> None:
    harness.opens_breaker(NO_SUCH_HOST)


@row(3, "TLS expired or wrong host")
@whole_and_streamed
@pytest.mark.parametrize("fault", ["expired", "wrong host", "unknown authority"])
def test_a_server_with_a_wrong_certificate_is_sent_nothing(
    harness: FaultHarness, tmp_path: Path, fault: str, stream: bool
) -> None:
    authority = Authority()
    context = {
        "expired": authority.expired,
        "wrong host": authority.wrong_host,
        "unknown authority": Authority().server,
    }[fault]()
    faulty = harness.faulty(tls=context, cure=lambda faulty: _trust(faulty, authority))
    ca_file = str(authority.write(tmp_path))
    harness.moves_on(faulty, ConnectionFailedError, "not_sent", stream=stream, ca_file=ca_file)
    harness.is_not_retried(faulty, ConnectionFailedError, "not_sent", stream=stream, ca_file=ca_file)
    assert faulty.wait_idle()
    assert (faulty.requests, faulty.connections, faulty.failed_handshakes) == ([], 2, 2)


def _trust(faulty: FaultyServer, authority: Authority) -> None:
    faulty._tls = authority.server()


@row(3, "TLS expired or wrong host")
def test_a_server_without_tls_is_not_spoken_to_without_it(harness: FaultHarness, tmp_path: Path) -> None:
    authority = Authority()
    plain = harness.faulty(on_connect=[*answer(json=chat("evil")), Hang()])
    url, ca_file = plain.url.replace("http:", "https:"), str(authority.write(tmp_path))
    harness.moves_on(url, ConnectionFailedError, "not_sent", ca_file=ca_file)
    harness.is_not_retried(url, ConnectionFailedError, "not_sent", ca_file=ca_file)
    assert plain.requests == []


@row(4, "connect black hole")
def test_a_black_hole_ends_at_the_connect_timeout(harness: FaultHarness) -> None:
    hole = harness.enter(BlackHole())
    on_time(harness.is_retried(hole.url, BackendTimeoutError, "not_sent", limits=CONNECT), SHORT)
    on_time(harness.moves_on(hole.url, BackendTimeoutError, "not_sent", stream=True, limits=CONNECT), SHORT)


@row(4, "connect black hole")
def test_a_black_hole_ends_at_the_deadline(harness: FaultHarness) -> None:
    hole = harness.enter(BlackHole())
    on_time(harness.fails(hole.url, DeadlineExceededError, "not_sent", timeout=SHORT), SHORT)


@row(4, "connect black hole")
def test_a_stuck_handshake_ends_at_the_connect_timeout(harness: FaultHarness, tmp_path: Path) -> None:
    mute = harness.faulty(on_connect=[Hang()])
    url, ca_file = mute.url.replace("http:", "https:"), str(Authority().write(tmp_path))
    on_time(harness.moves_on(url, BackendTimeoutError, "not_sent", limits=CONNECT, ca_file=ca_file), SHORT)
    assert mute.requests == []


@row(5, "headers trickle")
def test_headers_that_trickle_end_at_the_first_content_timeout(harness: FaultHarness) -> None:
    faulty = harness.faulty([Trickle(WORDS, 0.01, size=5)])
    on_time(harness.is_retried(faulty, BackendTimeoutError, "ambiguous", limits=FIRST), SHORT)
    on_time(harness.moves_on(faulty, BackendTimeoutError, "ambiguous", stream=True, limits=FIRST), SHORT)


@row(5, "headers trickle")
@whole_and_streamed
def test_headers_that_trickle_end_at_the_deadline(harness: FaultHarness, stream: bool) -> None:
    faulty = harness.faulty([Trickle(WORDS, 0.01, size=5)])
    on_time(harness.fails(faulty, DeadlineExceededError, "ambiguous", stream=stream, timeout=SHORT), SHORT)


@row(5, "headers trickle")
def test_headers_that_trickle_open_the_breaker(harness: FaultHarness) -> None:
    harness.opens_breaker(harness.faulty([Trickle(WORDS, 0.01, size=5)]), limits=Timeout(total=5, first=0.05))


@row(6, "reset before headers")
@whole_and_streamed
@pytest.mark.parametrize(
    "steps",
    [
        [Reset()],
        [Close()],
        [Send(b"HTTP/1.1 20"), Reset()],
        [Send(b"HTTP/1.1 200 OK\r\nx-a: 1\r\n"), Close()],
    ],
    ids=["reset", "end", "reset in the status line", "end in the headers"],
)
def test_a_connection_that_ends_before_the_headers_is_ambiguous(
    harness: FaultHarness, steps: list[Step], stream: bool
) -> None:
    harness.is_retried(harness.faulty(steps), ConnectionFailedError, "ambiguous", stream=stream)


@row(7, "reset inside JSON")
@pytest.mark.parametrize("end", [Reset(), Close()], ids=["reset", "end"])
@pytest.mark.parametrize("framing", [{"content-length": "1000"}, {"transfer-encoding": "chunked"}], ids=str)
def test_a_connection_that_ends_inside_the_answer_is_ambiguous(
    harness: FaultHarness, framing: dict[str, str], end: Step
) -> None:
    start = b'c\r\n{"choices":[\r\n' if "transfer-encoding" in framing else b'{"choices":['
    harness.is_retried(
        harness.faulty([Send(head(200, framing) + start), end]), ConnectionFailedError, "ambiguous"
    )
