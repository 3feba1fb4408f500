"""The relay between real sockets: what it carries, whom it holds up, and when it lets go."""

import select
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from queue import Queue
from threading import Thread

import httpx2
import pytest
import trustme

from aibridge.errors import UpstreamError
from aibridge.providers.transport import BODY, Transport
from aibridge.serving.relay import Flow, Relay
from aibridge.upstream.call import IDLE, UpstreamBody

MOMENT = 0.05
SOON = 10.0  # seconds; nothing takes so long unless it is broken


class Stream:
    """An answer between two pairs of sockets: what is sent at `upstream` comes out at `downstream`."""

    def __init__(self, relay: Relay) -> None:
        self.upstream, self.source = socket.socketpair()
        self.source.settimeout(SOON)
        self.client, self.downstream = socket.socketpair()
        self.downstream.settimeout(SOON)
        self.over = False
        self.silences = 0
        self.let_go: Queue[Flow] = Queue()
        self.flow = Flow(self._answer(), self._source, self.client, bytes.upper, self.let_go.put)
        relay.park(self.flow)

    def _source(self) -> socket.socket | None:
        return None if self.over else self.source

    def _answer(self) -> Iterator[bytes]:
        while True:
            try:
                data = self.source.recv(65536)
            except BlockingIOError:
                self.silences += 1
                yield IDLE
                continue
            if data == b"bug":
                raise ZeroDivisionError
            self.over = not data or data.endswith(b"end")
            yield data

    def close(self) -> None:
        for each in (self.upstream, self.source, self.client, self.downstream):
            each.close()


@pytest.fixture
def time_is_up() -> list[bool]:
    return [False]


@pytest.fixture
def relay(time_is_up: list[bool]) -> Relay:
    relay = Relay(MOMENT, lambda: time_is_up[0])
    relay.start()
    return relay


@pytest.fixture
def stream(relay: Relay) -> Iterator[Stream]:
    stream = Stream(relay)
    yield stream
    stream.close()


def test_bytes_go_out_as_they_come_until_the_source_is_over(stream: Stream) -> None:
    for piece in (b"one", b"two", b"the end"):
        stream.upstream.sendall(piece)
        assert stream.downstream.recv(100) == piece.upper()
    flow = stream.let_go.get(timeout=SOON)
    assert (flow.unsent, flow.gone, flow.failure) == (b"", False, None)
    assert (stream.source.gettimeout(), stream.client.gettimeout()) == (SOON, None)


def test_silence_is_noticed_moment_by_moment(stream: Stream) -> None:
    while stream.silences < 3:
        assert not select.select([stream.downstream], [], [], MOMENT)[0]
    assert stream.let_go.empty()


@pytest.mark.parametrize("says_goodbye", [True, False])
def test_a_client_that_leaves_is_let_go_in_the_midst_of_silence(stream: Stream, says_goodbye: bool) -> None:
    if says_goodbye:
        stream.downstream.shutdown(socket.SHUT_WR)
    else:
        stream.downstream.close()
    assert stream.let_go.get(timeout=SOON).gone


def test_a_client_that_reads_slowly_holds_the_provider_up_and_loses_nothing(stream: Stream) -> None:
    stream.upstream.settimeout(1.0)
    sent = 0
    with suppress(TimeoutError):
        while True:
            sent += stream.upstream.send(b"x" * 65536)
    assert sent < 4_000_000  # what the sockets hold, and one piece
    sender = Thread(target=stream.upstream.sendall, args=(b"y" * 1_000_000 + b"end",))
    sender.start()
    received = b""
    while not received.endswith(b"END"):
        received += stream.downstream.recv(100_000)
    sender.join()
    assert received == b"X" * sent + b"Y" * 1_000_000 + b"END"
    assert stream.let_go.get(timeout=SOON).unsent == b""


def test_a_client_that_never_reads_is_let_go_when_the_time_is_up(stream: Stream, time_is_up: list[bool]) -> None:
    stream.upstream.settimeout(0.2)
    with suppress(TimeoutError):
        while True:
            stream.upstream.send(b"x" * 65536)
    assert stream.let_go.empty()
    time_is_up[0] = True
    assert stream.let_go.get(timeout=SOON).gone


def test_a_bug_costs_its_own_stream_only(relay: Relay, stream: Stream) -> None:
    other = Stream(relay)
    stream.upstream.sendall(b"bug")
    assert isinstance(stream.let_go.get(timeout=SOON).failure, ZeroDivisionError)
    other.upstream.sendall(b"well")
    assert other.downstream.recv(100) == b"WELL"
    other.close()


def test_a_flow_that_cannot_be_continued_costs_no_other(relay: Relay, stream: Stream) -> None:
    """Threads may be in short supply."""
    lost, attempts = Stream(relay), Queue[Flow]()

    def fail(flow: Flow) -> None:
        attempts.put(flow)
        raise RuntimeError("can't start new thread")

    lost.flow.resume = fail
    lost.upstream.sendall(b"the end")
    assert attempts.get(timeout=SOON) is lost.flow
    stream.upstream.sendall(b"well")
    assert stream.downstream.recv(100) == b"WELL"
    assert attempts.empty()
    lost.close()


def test_a_socket_that_is_closed_already_is_a_failure(relay: Relay) -> None:
    left, right = socket.socketpair()
    left.close()
    let_go: Queue[Flow] = Queue()
    relay.park(Flow(iter(()), lambda: left, right, bytes.upper, let_go.put))
    assert let_go.get(timeout=SOON).failure
    right.close()


# --- over TLS ----------------------------------------------------------------------------------------------------

PIECES = (b"a" * 10, b"b" * 100_000, b"c", b"d" * 16_384, b"e" * 16_385)


@pytest.fixture
def provider() -> Iterator[tuple[str, ssl.SSLContext]]:
    """A TLS server that answers one request with PIECES, in chunks, and the context that trusts it."""
    authority = trustme.CA()
    there, here = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(there)
    authority.configure_trust(here)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        Thread(target=_serve_once, args=(listener, there), daemon=True).start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}/", here


def _serve_once(listener: socket.socket, tls: ssl.SSLContext) -> None:
    connection, _ = listener.accept()
    with tls.wrap_socket(connection, server_side=True) as wire:
        wire.recv(65536)
        wire.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in PIECES:
            wire.sendall(b"%X\r\n%b\r\n" % (len(piece), piece))
        wire.sendall(b"0\r\n\r\n")
        wire.recv(1)  # until the other side closes


def test_an_answer_over_tls_is_carried_whole(relay: Relay, provider: tuple[str, ssl.SSLContext]) -> None:
    url, tls = provider
    client, downstream = socket.socketpair()
    downstream.settimeout(SOON)
    let_go: Queue[Flow] = Queue()
    with httpx2.Client(transport=Transport(SOON, tls), trust_env=False) as http, http.stream("GET", url) as answer:
        body = answer.extensions[BODY]
        chunks = iter(body)
        received = _until_it_waits(body, chunks)
        relay.park(Flow(chunks, lambda: body.source, client, _plain, let_go.put))
        received += _read(downstream, sum(map(len, PIECES)) - len(received))
        flow = let_go.get(timeout=SOON)
        assert received == b"".join(PIECES)
        assert not any(flow.answer)
        assert flow.failure is None
    client.close()
    downstream.close()


def _until_it_waits(body: UpstreamBody, chunks: Iterator[bytes]) -> bytes:
    received = b""
    while body.source is None:
        received += next(chunks)
    return received


def _plain(data: bytes) -> bytes:
    return data


def _read(sock: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        received += sock.recv(65536)
    return received


def test_a_provider_that_dies_is_found_out_on_a_thread(relay: Relay) -> None:
    """The relay's own step ends with the source; what an answer does then may take its time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        Thread(target=_die, args=(listener,), daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        client, downstream = socket.socketpair()
        let_go: Queue[Flow] = Queue()
        transport = Transport(SOON)
        with httpx2.Client(transport=transport, trust_env=False) as http, http.stream("GET", url) as answer:
            body = answer.extensions[BODY]
            chunks = _told(body)
            assert _until_it_waits(body, chunks) == b"half"
            relay.park(Flow(chunks, lambda: body.source, client, _plain, let_go.put))
            flow = let_go.get(timeout=SOON)
            assert flow.failure is None
            with pytest.raises(UpstreamError):
                next(flow.answer)
        client.close()
        downstream.close()


def _die(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")


def _told(body: Iterator[bytes]) -> Iterator[bytes]:
    """As `web/stream.py` does it: what is raised is told in a step of its own."""
    try:
        yield from body
    except UpstreamError:
        yield IDLE
        raise
