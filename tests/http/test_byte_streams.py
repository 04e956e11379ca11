"""Connections as bytes, on real sockets: read, write, wait and close, for threads, asyncio and trio."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
from tests.support import loops
from tests.support.certificates import Authority
from tests.support.scripted import BlackHole, refused_port

from ccroute.http.message import LATE, TransportError
from ccroute.http.streams import ByteStream, Network, blocking, can_read
from ccroute.http.streams.event_loops import current_loop
from ccroute.http.streams.loops import PAUSE_ABOVE, LoopNetwork
from ccroute.http.streams.sockets import SocketStream, ThreadNetwork, TrioNetwork

CLOSED = "the connection was closed"


@dataclass(frozen=True)
class Kind:
    """One of the three kinds of connections."""

    mode: loops.Mode
    network: Callable[[], Network]

    def run(self, function: Callable[..., Any], *args: object) -> Any:
        if self.mode == "sync":
            return blocking.run(function(*args))
        return loops.run(self.mode, function, *args)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[Any, socket.socket]]:
        """A connection, and its other end."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            network = self.network()
            [address] = await network.resolve(*listener.getsockname(), soon())
            stream = await network.open(address, soon())
            with closing(stream), closing(listener.accept()[0]) as peer:
                yield stream, peer
            if self.mode == "async":
                await asyncio.sleep(0)


KINDS = [Kind("sync", ThreadNetwork), Kind("async", LoopNetwork), Kind("trio", TrioNetwork)]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.mode)
on_loops = pytest.mark.parametrize("kind", KINDS[1:], ids=lambda kind: kind.mode)


def soon(seconds: float = 5.0) -> float:
    return time.monotonic() + seconds


async def read_all(stream: ByteStream) -> bytes:
    data = b""
    while piece := await stream.read(soon()):
        data += piece
    return data


async def fault(reading: Any) -> tuple[str, str]:
    with pytest.raises(TransportError) as caught:
        await reading
    return caught.value.kind, caught.value.detail


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@each_kind
def test_bytes_go_both_ways_until_the_end(kind: Kind) -> None:
    async def talk() -> None:
        async with kind.connected() as (stream, peer):
            stream.write(b"ask")
            assert peer.recv(10) == b"ask"
            peer.sendall(b"answer")
            assert await stream.read(soon()) == b"answer"
            peer.shutdown(socket.SHUT_WR)
            assert await stream.read(soon()) == b""
            assert await stream.read(soon()) == b""

    kind.run(talk)


@each_kind
def test_a_read_ends_at_its_instant(kind: Kind) -> None:
    async def wait() -> None:
        async with kind.connected() as (stream, peer):
            for seconds in (0.05, 0.02, 0.05):  # a timer that is too late, and one that is too early
                began = time.monotonic()
                assert await fault(stream.read(soon(seconds))) == ("timeout", LATE)
                assert seconds * 0.9 < time.monotonic() - began < seconds + 0.1
            peer.sendall(b"x")
            assert await stream.read(float("inf")) == b"x"

    kind.run(wait)


@each_kind
def test_no_byte_is_read_after_its_instant(kind: Kind) -> None:
    async def late() -> None:
        async with kind.connected() as (stream, peer):
            peer.sendall(b"one")
            assert await stream.read(soon()) == b"one"
            peer.sendall(b"two")
            assert select.select([stream._sock], [], [], 5)[0]
            await asyncio.sleep(0.01) if kind.mode == "async" else None  # the loop has it now
            assert await fault(stream.read(time.monotonic())) == ("timeout", LATE)
            assert await stream.read(soon()) == b"two"

    kind.run(late)


@each_kind
def test_a_closed_connection_is_not_read(kind: Kind) -> None:
    async def closed() -> None:
        async with kind.connected() as (stream, peer):
            peer.sendall(b"x")
            stream.close()
            stream.close()
            assert await fault(stream.read(soon())) == ("broken", CLOSED)
            assert not stream.is_quiet()

    kind.run(closed)


@each_kind
def test_nothing_is_sent_on_a_closed_connection(kind: Kind) -> None:
    async def closed() -> None:
        async with kind.connected() as (stream, peer):
            stream.close()
            stream.write(b"never sent")
            await asyncio.sleep(0) if kind.mode == "async" else None  # the loop's socket closes after it
            assert peer.recv(10) == b""

    kind.run(closed)


@each_kind
def test_a_connection_that_is_reset_is_broken(kind: Kind) -> None:
    async def broken() -> None:
        async with kind.connected() as (stream, peer):
            reset(peer)
            assert await fault(stream.read(soon())) == ("broken", "connection reset by peer")

    kind.run(broken)


@each_kind
def test_a_large_write_goes_on_while_read_waits(kind: Kind) -> None:
    async def send() -> None:
        async with kind.connected() as (stream, peer):
            received = bytearray()

            def receive() -> None:
                while len(received) < len(large) + 4:
                    received.extend(peer.recv(1 << 20))
                peer.sendall(b"ok")

            listener = threading.Thread(target=receive)
            assert not stream.writing
            stream.write(large)
            stream.write(b"more")
            assert stream.writing
            listener.start()
            assert await stream.read(soon()) == b"ok"
            listener.join()
            assert received == large + b"more"
            assert not stream.writing

    large = bytes(range(256)) * 40_000
    kind.run(send)


@each_kind
def test_an_answer_is_read_though_nothing_can_be_written(kind: Kind) -> None:
    async def send() -> None:
        async with kind.connected() as (stream, peer):
            peer.sendall(b"no")
            peer.close()
            stream.write(b"x")  # the other end resets the connection
            stream.write(b"x" * 100_000)
            assert await stream.read(soon()) == b"no"

    kind.run(send)


@each_kind
def test_a_connection_is_quiet_until_something_comes(kind: Kind) -> None:
    async def listen() -> None:
        async with kind.connected() as (stream, peer):
            assert stream.is_quiet()
            peer.sendall(b"x")
            assert select.select([stream._sock], [], [], 5)[0]
            assert not stream.is_quiet()
            assert await stream.read(soon()) == b"x"
            assert stream.is_quiet()
            peer.close()
            assert select.select([stream._sock], [], [], 5)[0]
            assert not stream.is_quiet()

    kind.run(listen)


@each_kind
def test_a_close_from_another_thread_ends_a_read(kind: Kind) -> None:
    async def closed() -> None:
        async with kind.connected() as (stream, peer):
            closer = threading.Timer(0.02, stream.close)
            closer.start()
            began = time.monotonic()
            with pytest.raises(TransportError, match=CLOSED):
                while await stream.read(soon()) == b"":  # the shutdown's own end
                    pass
            assert time.monotonic() - began < 1
            closer.join()
            assert peer.recv(1) == b""

    kind.run(closed)


class TlsServer:
    """Answers once on the other end of a connection, and ends it when the test says so."""

    def __init__(self, tmp_path: Path, end: Callable[[socket.socket], None]) -> None:
        authority = Authority()
        self.client = ssl.create_default_context(cafile=authority.write(tmp_path))
        self._server = authority.server()
        self._end = end
        self._ends = threading.Event()

    async def answers(self, stream: Any, peer: socket.socket) -> None:
        serving = threading.Thread(target=self._serve, args=[peer])
        serving.start()
        await stream.start_tls(self.client, "127.0.0.1", soon())
        stream.write(b"ask")
        assert await stream.read(soon()) == b"answer"
        assert stream.is_quiet()
        self._ends.set()
        serving.join()

    def _serve(self, sock: socket.socket) -> None:
        with self._server.wrap_socket(sock, server_side=True) as tls:
            assert tls.recv(10) == b"ask"
            tls.sendall(b"answer")
            assert self._ends.wait(5)
            self._end(tls)


@each_kind
def test_bytes_are_encrypted_after_start_tls(kind: Kind, tmp_path: Path) -> None:
    async def talk() -> None:
        async with kind.connected() as (stream, peer):
            await TlsServer(tmp_path, socket.socket.close).answers(stream, peer)
            assert await stream.read(soon()) == b""

    kind.run(talk)


def test_an_encrypted_connection_that_is_reset_is_broken_on_a_loop(tmp_path: Path) -> None:
    # A socket that blocks cannot tell this from an end: the ssl module says the same of both.
    async def talk() -> None:
        async with KINDS[1].connected() as (stream, peer):
            await TlsServer(tmp_path, reset).answers(stream, peer)
            assert (await fault(stream.read(soon())))[0] == "broken"

    asyncio.run(talk())


def test_plain_bytes_before_the_handshake_are_refused() -> None:
    async def talk() -> None:
        async with KINDS[1].connected() as (stream, peer):
            peer.sendall(b"answer")
            while not stream._arrived:
                await asyncio.sleep(0)
            kind, detail = await fault(stream.start_tls(ssl.create_default_context(), "127.0.0.1", soon()))
            assert (kind, "before the TLS handshake" in detail) == ("connect", True)

    asyncio.run(talk())


@on_loops
def test_a_stream_is_read_on_its_own_loop_only(kind: Kind) -> None:
    async def here() -> None:
        async with kind.connected() as (stream, _):
            await loops.in_thread(kind.run, elsewhere, stream)

    async def elsewhere(stream: ByteStream) -> None:
        with pytest.raises(RuntimeError, match="another event loop"):
            await stream.read(soon())

    kind.run(here)


def test_ctrl_c_while_trio_waits_to_write_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    async def send() -> None:
        async with KINDS[2].connected() as (stream, _):
            stream.write(b"x" * 10_000_000)
            with pytest.raises(KeyboardInterrupt):
                await stream.read(soon())

    monkeypatch.setattr(anyio, "wait_readable", interrupted)
    trio.run(send)


def test_a_flood_is_not_buffered_without_limit() -> None:
    async def slow() -> None:
        async with KINDS[1].connected() as (stream, peer):
            sender = threading.Thread(target=lambda: (peer.sendall(flood), peer.close()))
            sender.start()
            while not stream._paused:
                await asyncio.sleep(0)
            held = stream._size
            for _ in range(20):
                await asyncio.sleep(0)
            assert held == stream._size <= PAUSE_ABOVE + (256 << 10)
            assert await read_all(stream) == flood
            sender.join()

    flood = b"x" * 12_000_000
    asyncio.run(slow())


def test_an_endless_limit_sets_no_timer() -> None:
    async def wait() -> None:
        async with KINDS[1].connected() as (stream, peer):
            reading = asyncio.ensure_future(stream.read(soon(0.02)))
            await asyncio.sleep(0)
            peer.sendall(b"one")
            assert await reading == b"one"
            reading = asyncio.ensure_future(stream.read(float("inf")))
            await asyncio.sleep(0.04)  # the first read's timer rings
            assert not reading.done()
            assert stream._timer is None
            peer.sendall(b"two")
            assert await reading == b"two"

    asyncio.run(wait())


# -- connecting ----------------------------------------------------------------------------------------------


@each_kind
def test_a_connection_that_is_refused_is_an_os_error(kind: Kind) -> None:
    async def connect() -> None:
        network = kind.network()
        [address] = await network.resolve("127.0.0.1", refused_port(), soon())
        with pytest.raises(ConnectionRefusedError):
            await network.open(address, soon())

    kind.run(connect)


@each_kind
def test_a_connection_nobody_accepts_ends_at_its_instant(kind: Kind) -> None:
    async def connect() -> None:
        network = kind.network()
        [address] = await network.resolve("127.0.0.1", hole.port, soon())
        assert await fault(network.open(address, soon(0.05))) == ("timeout", LATE)

    with BlackHole() as hole:
        kind.run(connect)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], str]], None]:
    """Answers look-ups of `server.invalid`."""
    look_up = socket.getaddrinfo

    def install(find: Callable[[], str]) -> None:
        def resolve(host: Any, *args: Any, **options: Any) -> Any:
            if host not in ("server.invalid", b"server.invalid"):
                return look_up(host, *args, **options)
            flags = [*args, *options.values()][-1]
            if isinstance(flags, socket.AddressInfo) and flags & socket.AI_NUMERICHOST:
                raise socket.gaierror(socket.EAI_NONAME, "not a number")
            return look_up(find(), *args, **options)

        monkeypatch.setattr(socket, "getaddrinfo", resolve)

    return install


@each_kind
def test_a_name_has_addresses(kind: Kind, names: Any) -> None:
    async def found() -> Any:
        return await kind.network().resolve("server.invalid", 80, soon())

    names(lambda: "127.0.0.1")
    assert [address[4] for address in kind.run(found)] == [("127.0.0.1", 80)]


@on_loops
def test_a_look_up_on_a_loop_ends_at_its_instant(kind: Kind, names: Any) -> None:
    ended = threading.Event()

    def find() -> str:
        assert ended.wait(5)
        return "127.0.0.1"

    async def wait() -> None:
        assert await fault(kind.network().resolve("server.invalid", 80, soon(0.05))) == ("timeout", LATE)
        ended.set()

    names(find)
    kind.run(wait)


def test_a_socket_that_connects_at_once_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(sock: socket.socket, where: Any) -> int:
        sock.setblocking(True)
        sock.connect(where)
        sock.setblocking(False)
        return 0

    async def talk() -> None:
        async with KINDS[0].connected() as (stream, peer):
            peer.sendall(b"x")
            assert await stream.read(soon()) == b"x"

    monkeypatch.setattr(socket.socket, "connect_ex", connect)
    blocking.run(talk())


# -- what systems and sockets do otherwise -------------------------------------------------------------------


@pytest.fixture
def no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, which has select only."""
    monkeypatch.delattr(select, "poll")


@pytest.mark.usefixtures("no_poll")
def test_without_poll_select_waits() -> None:
    async def talk() -> None:
        async with KINDS[0].connected() as (stream, peer):
            assert stream.is_quiet()
            assert await fault(stream.read(soon(0.02))) == ("timeout", LATE)
            stream.write(b"x" * 10_000_000)
            assert stream.writing
            assert await fault(stream.read(soon(0.02))) == ("timeout", LATE)
            peer.sendall(b"x")
            assert await stream.read(soon()) == b"x"
            peer.close()
            assert not stream.is_quiet()

    blocking.run(talk())


@pytest.mark.usefixtures("no_poll")
def test_without_poll_a_refused_connection_is_no_late_one() -> None:
    async def connect() -> None:
        [address] = await ThreadNetwork().resolve("127.0.0.1", refused_port(), soon())
        with pytest.raises(ConnectionRefusedError):
            await ThreadNetwork().open(address, soon())

    blocking.run(connect())


def test_a_socket_that_is_closed_is_not_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    sock = socket.socket()
    sock.close()
    assert can_read(sock)
    monkeypatch.delattr(select, "poll")
    assert can_read(sock)


def test_a_connection_closed_in_its_handshake_ends_it() -> None:
    class Closes(ThreadNetwork):
        async def wait(self, sock: Any, until: float, **_: bool) -> None:
            stream.close()  # as another thread would

    async def handshake() -> None:
        begun = stream.start_tls(ssl.create_default_context(), "127.0.0.1", soon())
        assert await fault(begun) == ("broken", CLOSED)

    here, there = socket.socketpair()
    here.setblocking(False)
    stream = SocketStream(here, Closes())
    with closing(there):
        blocking.run(handshake())
        assert there.recv(1)  # its first bytes
        while there.recv(1000):
            pass


@pytest.mark.parametrize("gone", [["trio"], ["trio", "asyncio"]], ids=["trio", "neither"])
def test_a_loop_that_was_never_imported_is_not_the_running_one(
    gone: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in gone:
        monkeypatch.delitem(sys.modules, name)
    assert current_loop() is None


class Tls:
    """A TLS socket whose operations first ask for one of the two directions."""

    def __init__(self, *wants: type[OSError]) -> None:
        self._wants = [*wants]
        self.done: list[str] = []

    def _do(self, what: str) -> None:
        if self._wants:
            raise self._wants.pop(0)
        self.done.append(what)

    def do_handshake(self) -> None:
        self._do("handshake")

    def recv(self, size: int) -> bytes:
        self._do("recv")
        return b"x"

    def wrap_socket(self, *_: object, **__: object) -> Tls:
        return self


class Waits(ThreadNetwork):
    """Notes what it is asked to wait for."""

    def __init__(self) -> None:
        self.waits: list[tuple[bool, bool]] = []

    async def wait(self, sock: Any, until: float, *, read: bool = True, write: bool = False) -> None:
        self.waits.append((read, write))


def test_tls_may_want_to_write_to_read() -> None:
    wants = (ssl.SSLWantWriteError, ssl.SSLWantReadError)
    network, tls = Waits(), Tls(*wants, *wants)
    stream = SocketStream(tls, network)  # type: ignore[arg-type]
    blocking.run(stream.start_tls(tls, "server.invalid", soon()))  # type: ignore[arg-type]
    assert blocking.run(stream.read(soon())) == b"x"
    assert network.waits == [(True, True), (True, False)] * 2
    assert tls.done == ["handshake", "recv"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ssl.SSLCertVerificationError("bad"), "tls"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "connect"),
    ],
)
def test_a_handshake_that_fails_says_why(error: OSError, kind: str) -> None:
    class Fails(Tls):
        def do_handshake(self) -> None:
            raise error

    tls = Fails()
    stream = SocketStream(tls, Waits())  # type: ignore[arg-type]
    assert blocking.run(fault(stream.start_tls(tls, "server.invalid", soon())))[0] == kind  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS[:2], ids=lambda kind: kind.mode)
def test_a_forked_child_closes_only_its_own_copy(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fork() -> None:
        async with kind.connected() as (stream, peer):
            with closing(stream._sock.dup()) as parents:
                with monkeypatch.context() as child:
                    child.setattr(os, "getpid", lambda: 0)
                    stream.close()
                parents.setblocking(True)
                parents.sendall(b"still here")
                assert peer.recv(20) == b"still here"
            if kind.mode == "async":  # the child's loop is the parent's
                stream._end()

    kind.run(fork)


def test_a_coroutine_that_suspends_is_not_run_blocking() -> None:
    ended = []

    async def suspend() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            ended.append(True)

    with pytest.raises(RuntimeError, match="awaited an event loop"):
        blocking.run(suspend())
    assert ended == [True]
