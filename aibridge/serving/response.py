"""gunicorn's response, but its head leaves with the first bytes of the body: one packet instead of two."""

from typing import Any

from gunicorn.http import wsgi

TOGETHER = 65536  # bytes of a body up to which it is worth copying it behind the head


class Response(wsgi.Response):  # type: ignore[misc]  # gunicorn has no types
    """What is overridden is private to gunicorn, which is pinned."""

    headers_sent: bool

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._head = b""

    def framed(self, data: bytes) -> bytes:
        """`data` for somebody else to send; it counts as sent."""
        self.sent += len(data)
        return self._wire(data)

    def send_headers(self) -> None:
        if not self.headers_sent:
            lines = [*self.default_headers(), *(f"{name}: {value}\r\n" for name, value in self.headers), "\r\n"]
            self._head = "".join(lines).encode("latin-1")
            self.headers_sent = True

    def can_sendfile(self) -> bool:
        return False  # it would go past us

    def close(self) -> None:
        self.send_headers()
        self._send(b"0\r\n\r\n" if self.chunked else b"")

    def _emit_body(self, data: bytes) -> None:
        self._send(self._wire(data))

    def _wire(self, data: bytes) -> bytes:
        """`data` as it goes over the wire (RFC 9112, section 7.1)."""
        return b"%X\r\n%b\r\n" % (len(data), data) if self.chunked else data

    def _send(self, data: bytes) -> None:
        head, self._head = self._head, b""
        if len(data) <= TOGETHER:
            data = head + data
        elif head:
            self.sock.sendall(head)
        if data:
            self.sock.sendall(data)
