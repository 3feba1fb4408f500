"""An HTTP/1.1 server that answers as a test tells it to, down to the single write.

It knows sockets and HTTP framing, not what the bodies mean (`conversations.py` does). One thread per connection;
connections are kept alive like a provider's. Every wait has a deadline and ends when the server is closed.
"""

import gzip
import json
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, Self

DEADLINE = 20.0
TICK = 0.02

Headers = tuple[tuple[str, str], ...]

# One step of a body: bytes are one write (and one HTTP chunk), an Event is waited for, a number is a pause
# in seconds.
Step = bytes | threading.Event | float


class PeerGone(Exception):
    """The other side closed the connection before it had the whole answer."""


@dataclass(frozen=True)
class Reply:
    """One scripted answer.

    `before` is waited for before the first byte. `interim` goes out before the status line (1xx answers).
    `ending`: "clean", "cut" (FIN without the final chunk or with bytes missing), "torn" (FIN inside a chunk),
    "reset" (RST), "close" (a whole answer, then the server closes the idle connection unannounced).
    """

    status: int = 200
    headers: Headers = ()
    body: Iterable[Step] = ()
    framing: Literal["length", "chunked", "until-close"] = "length"
    ending: Literal["clean", "cut", "torn", "reset", "close"] = "clean"
    before: threading.Event | None = None
    interim: bytes = b""
    raw: bool = False

    @classmethod
    def json(cls, body: bytes | dict[str, Any], status: int = 200, headers: Headers = ()) -> Self:
        content = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
        return cls(status, (("content-type", "application/json"), *headers), (content,))

    @classmethod
    def sse(cls, body: bytes | Iterable[Step], headers: Headers = ()) -> Self:
        steps = (body,) if isinstance(body, bytes) else body
        kind = ("content-type", "text/event-stream; charset=utf-8")
        return cls(200, (kind, ("cache-control", "no-cache"), *headers), steps, "chunked")

    @classmethod
    def nothing(cls, ending: Literal["cut", "reset"]) -> Self:
        """The connection ends without a byte of an answer."""
        return cls(raw=True, ending=ending)

    @classmethod
    def garbage(cls, content: bytes = b"\x00\x01SSH-2.0-not-http\r\n\r\nmore\r\n") -> Self:
        return cls(raw=True, body=(content,), ending="cut")

    def but(self, **changes: Any) -> Self:
        return replace(self, **changes)

    def in_single_bytes(self) -> Self:
        whole = self.content()
        return self.but(body=tuple(whole[i : i + 1] for i in range(len(whole))))

    def split_at(self, *positions: int) -> Self:
        whole, edges = self.content(), (0, *positions, None)
        return self.but(body=tuple(whole[a:b] for a, b in pairwise(edges)))

    def gzipped(self) -> Self:
        packed = gzip.compress(self.content())
        half = len(packed) // 2
        headers = (*self.headers, ("content-encoding", "gzip"))
        return self.but(headers=headers, body=(packed[:half], packed[half:]))

    def content(self) -> bytes:
        return b"".join(step for step in self.body if isinstance(step, bytes))


@dataclass
class Received:
    """One request as it came in. `gone` is set when the peer closed while its answer was still under way."""

    method: str
    target: str
    headers: Headers
    connection: int
    body: bytearray = field(default_factory=bytearray)
    arrived: threading.Event = field(default_factory=threading.Event)
    gone: threading.Event = field(default_factory=threading.Event)
    answered: threading.Event = field(default_factory=threading.Event)

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    def header(self, name: str) -> str | None:
        """All values of `name`, joined as HTTP allows, or None."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(values) if values else None

    def names(self) -> set[str]:
        return {name.lower() for name, _ in self.headers}

    def json(self) -> Any:
        return json.loads(self.body)

    def wait_for_body(self, size: int, within: float = DEADLINE) -> None:
        """Until `size` bytes of the body are here."""
        _until(lambda: len(self.body) >= size, within, f"{size} bytes of the request body")


Handler = Callable[[Received], Reply]

UNSCRIPTED = Reply.json(
    {"type": "error", "error": {"type": "test", "message": "no reply is scripted"}}, status=599
)


class FakeProvider:
    """`reply()` queues answers, `always()` sets what comes when none is queued, `received` holds the requests."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self._script: deque[Reply] = deque()
        self._handler: Handler = _unscripted
        self._news = threading.Condition()
        self._closed = threading.Event()
        self._epoch = 0
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, name="fake-provider", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reply(self, *replies: Reply) -> None:
        with self._news:
            self._script.extend(replies)

    def always(self, reply: Reply | Handler) -> None:
        self._handler = reply if callable(reply) else lambda _: reply

    @staticmethod
    def hold() -> threading.Event:
        """A step that holds an answer until the test sets it."""
        return threading.Event()

    def request(self, number: int = 1, within: float = DEADLINE) -> Received:
        """The `number`-th request since the last reset, as soon as its headers are here."""
        with self._news:
            if not self._news.wait_for(lambda: len(self.received) >= number, within):
                raise TimeoutError(f"request {number} did not reach the provider within {within} s")
            return self.received[number - 1]

    def whole_request(self, number: int = 1, within: float = DEADLINE) -> Received:
        received = self.request(number, within)
        if not received.arrived.wait(within):
            raise TimeoutError("the request body did not arrive whole")
        return received

    def wait_until_all_is_closed(self, within: float = DEADLINE) -> None:
        """Until no connection is open any more."""
        _until(lambda: not self._sockets, within, "end of all connections")

    def reset(self) -> None:
        """Forget script and requests; answers still under way end."""
        with self._news:
            self._epoch += 1
            self._script.clear()
            self._handler = _unscripted
            self.received = []

    def refuse(self) -> None:
        """From now on nobody listens on the port (connections are refused)."""
        self._closed.set()
        # shutdown wakes the accepting thread; close alone would leave the port open while it sleeps in accept
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def close(self) -> None:
        if not self._closed.is_set():
            self.refuse()
        for connection in list(self._sockets):
            _shut(connection)

    # --- connections ---------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        number = 0
        while not self._closed.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            number += 1
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.add(connection)
            threading.Thread(target=self._serve, args=(connection, number), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        wire = _Wire(connection)
        try:
            while (received := wire.read_head(number)) is not None:
                self._announce(received)
                wire.read_body(received)
                if not self._answer(wire, received, self._next_reply(received)):
                    return
        except (OSError, PeerGone, ValueError):
            return
        finally:
            connection.close()
            self._sockets.discard(connection)

    def _announce(self, received: Received) -> None:
        with self._news:
            self.received.append(received)
            self._news.notify_all()

    def _next_reply(self, received: Received) -> Reply:
        with self._news:
            scripted = self._script.popleft() if self._script else None
        return scripted or self._handler(received)

    def _answer(self, wire: "_Wire", received: Received, reply: Reply) -> bool:
        """Send `reply`; whether the connection may carry another request."""
        epoch = self._epoch

        def stale() -> bool:
            return self._epoch != epoch

        try:
            if reply.before:
                wire.wait(reply.before, stale)
            wire.send(reply.interim)
            if not reply.raw:
                wire.send(_head(reply))
            for step in reply.body:
                match step:
                    case bytes():
                        wire.send(_framed(reply, received, step))
                    case threading.Event():
                        wire.wait(step, stale)
                    case _:
                        wire.pause(step)
            return self._end(wire, received, reply)
        except (PeerGone, OSError):
            received.gone.set()
            return False
        finally:
            received.answered.set()

    @staticmethod
    def _end(wire: "_Wire", received: Received, reply: Reply) -> bool:
        match reply.ending:
            case "reset":
                wire.reset()
                return False
            case "torn":
                wire.send(b"400\r\ntorn off in")
                return False
            case "cut":
                return False
        if reply.framing == "chunked" and received.method != "HEAD":
            wire.send(b"0\r\n\r\n")
        return reply.ending == "clean" and reply.framing != "until-close"


class _Wire:
    """One connection: reads requests with a buffer of its own, and notices when the peer leaves."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = bytearray()

    def read_head(self, connection_number: int) -> Received | None:
        """The next request's first line and headers; None when the peer has closed."""
        while b"\r\n\r\n" not in self._buffer:
            data = self._socket.recv(65536)
            if not data:
                return None
            self._buffer += data
        head, _, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        self._buffer = bytearray(rest)
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
        return Received(method, target, headers, connection_number)

    def read_body(self, received: Received) -> None:
        if (received.header("transfer-encoding") or "").lower() == "chunked":
            self._read_chunks(received.body)
        else:
            self._move(int(received.header("content-length") or 0), received.body)
        received.arrived.set()

    def _read_chunks(self, body: bytearray) -> None:
        while size := int(self._line().partition(b";")[0], 16):
            self._move(size, body)
            self._line()
        while self._line():
            pass

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            self._receive()
        line, _, rest = bytes(self._buffer).partition(b"\r\n")
        self._buffer = bytearray(rest)
        return line

    def _move(self, size: int, body: bytearray) -> None:
        while size:
            if not self._buffer:
                self._receive()
            taken = self._buffer[:size]
            del self._buffer[:size]
            body += taken
            size -= len(taken)

    def _receive(self) -> None:
        data = self._socket.recv(262144)
        if not data:
            raise PeerGone
        self._buffer += data

    def send(self, data: bytes) -> None:
        if data:
            self._check()
            self._socket.sendall(data)

    def wait(self, event: threading.Event, stale: Callable[[], bool]) -> None:
        end = time.monotonic() + DEADLINE
        while not event.wait(TICK):
            self._check()
            if stale() or time.monotonic() > end:
                raise PeerGone

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)
        self._check()

    def _check(self) -> None:
        """Raises PeerGone if the peer has closed: a read would give the end instead of waiting."""
        readable, _, _ = select.select([self._socket], [], [], 0)
        if readable and not self._socket.recv(1, socket.MSG_PEEK):
            raise PeerGone

    def reset(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


def _unscripted(_: Received) -> Reply:
    return UNSCRIPTED


def _head(reply: Reply) -> bytes:
    headers = list(reply.headers)
    if reply.framing == "chunked":
        headers.append(("transfer-encoding", "chunked"))
    elif reply.framing == "until-close":
        headers.append(("connection", "close"))
    elif not any(name == "content-length" for name, _ in headers):
        headers.append(("content-length", str(len(reply.content()))))
    lines = [f"HTTP/1.1 {reply.status} Scripted", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _framed(reply: Reply, received: Received, data: bytes) -> bytes:
    if reply.raw:
        return data
    if received.method == "HEAD":
        return b""
    return b"%x\r\n%b\r\n" % (len(data), data) if reply.framing == "chunked" and data else data


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        connection.close()


def _until(condition: Callable[[], bool], within: float, what: str) -> None:
    end = time.monotonic() + within
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"no {what} within {within} s")
        time.sleep(TICK)


def endless(piece: bytes, pause: float = 0.02) -> Iterator[Step]:
    """A body that never ends by itself."""
    while True:
        yield piece
        yield pause


def spaced(pieces: Sequence[bytes], pause: float) -> Iterator[Step]:
    """`pieces` with a pause after each, as a model writes."""
    for piece in pieces:
        yield piece
        yield pause
