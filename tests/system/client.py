"""An HTTP client that hides nothing: it sends the bytes it is given and tells how the answer really ended.

Library clients join header lines, swallow a missing final chunk or retry; these tests are about exactly that.
"""

import json
import re
import select
import socket
import struct
import time
from collections.abc import Iterable
from typing import Any, Self
from urllib.parse import urlsplit

DEADLINE = 20.0
PING = b'event: ping\ndata: {"type": "ping"}\n\n'

HeaderList = Iterable[tuple[str, str]]


class Exchange:
    """One request and its answer, read as slowly as the test wants.

    `ended` is "clean" (final chunk or full length), "cut" (the connection ended before that) or None (not yet).
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = bytearray()
        self._left: int | None = None
        self._chunked = False
        self._head_request = False
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.body = bytearray()
        self.ended: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @classmethod
    def open(
        cls,
        base_url: str,
        method: str,
        target: str,
        headers: HeaderList = (),
        body: bytes | None = None,
        *,
        length: int | None = None,
    ) -> Self:
        """Send a request; `length` announces more body than is sent now (`send` brings the rest)."""
        where = urlsplit(base_url)
        connection = socket.create_connection((where.hostname or "", where.port or 80), DEADLINE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        lines = [f"{method} {target} HTTP/1.1", f"Host: {where.netloc}"]
        lines += [f"{name}: {value}" for name, value in headers]
        given = {name.lower() for name, _ in headers}
        if body is not None and not given & {"content-length", "transfer-encoding"}:
            lines.append(f"Content-Length: {len(body) if length is None else length}")
        exchange = cls(connection)
        exchange._head_request = method == "HEAD"
        exchange.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b""))
        return exchange

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def send_until_refused(self, data: bytes) -> None:
        """Send, but stop without an error when the server hangs up on an upload it does not want."""
        try:
            for start in range(0, len(data), 65536):
                self._socket.sendall(data[start : start + 65536])
        except (BrokenPipeError, ConnectionResetError):
            return

    # --- the answer ----------------------------------------------------------------------------------------------

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(values) if values else None

    def head(self) -> Self:
        """Read status and headers. Interim (1xx) answers are skipped."""
        while not self.status:
            self._fill_until(b"\r\n\r\n")
            head, _, rest = bytes(self._buffer).partition(b"\r\n\r\n")
            self._buffer = bytearray(rest)
            first, *lines = head.decode("latin-1").split("\r\n")
            status = int(first.split(" ")[1])
            if status >= 200:
                self.status = status
                self.headers = [(n, v.strip()) for n, _, v in (line.partition(":") for line in lines)]
        self._framing()
        return self

    def read(self) -> Self:
        """Read to the end of the answer, or to where the connection ends."""
        self.head()
        while self.ended is None:
            self._take()
        return self

    def read_until(self, marker: bytes, count: int = 1) -> Self:
        """Read until the body holds `marker` so many times."""
        self.head()
        while self.body.count(marker) < count:
            if self.ended:
                raise AssertionError(f"the answer ended ({self.ended}) without {marker!r}: {bytes(self.body)!r}")
            self._take()
        return self

    def read_bytes(self, size: int) -> Self:
        """Read until the body has at least `size` bytes."""
        self.head()
        while len(self.body) < size and self.ended is None:
            self._take()
        return self

    def is_silent_for(self, seconds: float) -> bool:
        """Whether nothing at all arrives in that time (bytes already read do not count)."""
        readable, _, _ = select.select([self._socket], [], [], seconds)
        return not readable

    def json(self) -> Any:
        return json.loads(self.body)

    def error(self) -> tuple[str, str]:
        """Type and message of an Anthropic error body; fails if it has not that shape."""
        answer = self.json()
        assert answer["type"] == "error"
        return answer["error"]["type"], answer["error"]["message"]

    @property
    def interception_id(self) -> str:
        found = self.header("x-aibridge-interception-id")
        assert found
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", found)
        return found

    @property
    def without_pings(self) -> bytes:
        return bytes(self.body).replace(PING, b"")

    def close(self) -> None:
        self._socket.close()

    def reset(self) -> None:
        """Hang up with a RST, as a process that is killed with unread bytes does."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    # --- framing -------------------------------------------------------------------------------------------------

    def _framing(self) -> None:
        if self._chunked or self._left is not None or self.ended:
            return
        self._chunked = (self.header("transfer-encoding") or "").lower() == "chunked"
        length = self.header("content-length")
        self._left = int(length) if length is not None else None
        if self._head_request or self.status in (204, 304) or (self._left == 0 and not self._chunked):
            self.ended = "clean"

    def _take(self) -> None:
        if self._chunked:
            self._take_chunk()
            return
        if not self._buffer and not self._receive():
            self.ended = "cut" if self._left else "clean"
            return
        self.body += self._buffer
        if self._left is not None:
            self._left -= len(self._buffer)
            self.ended = "clean" if self._left == 0 else None
        self._buffer.clear()

    def _take_chunk(self) -> None:
        """Move what is there of the current chunk; a chunk need not be whole to be read."""
        if self._left is None:
            while b"\r\n" not in self._buffer:
                if not self._receive():
                    self.ended = "cut"
                    return
            line, _, rest = bytes(self._buffer).partition(b"\r\n")
            self._buffer, self._left = bytearray(rest), int(line.partition(b";")[0], 16) + 2
            if self._left == 2:
                self._last_chunk()
            return
        if not self._buffer and not self._receive():
            self.ended = "cut"
            return
        data, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
        content = max(self._left - 2, 0)
        self.body += data[:content]
        self._left -= len(data)
        if self._left == 0:
            self._left = None

    def _last_chunk(self) -> None:
        while len(self._buffer) < 2 and self._receive():
            pass
        self.ended = "clean" if self._buffer[:2] == b"\r\n" else "cut"

    def _fill_until(self, marker: bytes) -> None:
        while marker not in self._buffer:
            if not self._receive():
                raise ConnectionError(f"the connection ended before the headers did: {bytes(self._buffer)!r}")

    def _receive(self) -> bool:
        try:
            data = self._socket.recv(262144)
        except ConnectionResetError:
            return False
        self._buffer += data
        return bool(data)


def eventually(check: Any, within: float = DEADLINE, every: float = 0.03) -> Any:
    """The first true value that `check()` gives; fails if there is none in time."""
    end = time.monotonic() + within
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < end, f"did not come true within {within} s"
        time.sleep(every)
