"""HTTP calls that another thread can end, whatever they wait for: a connection, a header, the next byte.

Each connection of the pool notes which call uses it, so that an end that comes late never hits the next user.
"""

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

_thread = threading.local()


class Interruptible:
    """A call: what its thread sends while inside goes over connections that `interrupt` shuts down."""

    def __init__(self) -> None:
        self.connection: _Noting | None = None
        # http.client forgets the socket of an answer that ends with its connection, and still reads from it.
        self.socket: Any = None

    def __enter__(self) -> Self:
        _thread.call = self
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        _thread.call = None

    def interrupt(self) -> None:
        """From any thread, any number of times."""
        connection = self.connection
        if connection is None or connection.call is not self:
            return
        sock = connection.sock or self.socket
        if isinstance(sock, socket.socket):
            # Not SSLSocket's own shutdown, which takes the TLS state away from the thread that is reading.
            with suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


class _Noting:
    """The part of both kinds of connection that notes the call."""

    call: Interruptible | None = None
    sock: Any

    def note(self) -> None:
        self.call = getattr(_thread, "call", None)
        if self.call:
            self.call.connection = self
            self.call.socket = self.sock


class _Connection(_Noting, HTTPConnection):
    def connect(self) -> None:
        self.note()
        super().connect()

    def request(self, *args: Any, **options: Any) -> None:
        self.note()
        super().request(*args, **options)
        self.note()


class _SecureConnection(_Noting, HTTPSConnection):
    def connect(self) -> None:
        self.note()
        super().connect()

    def request(self, *args: Any, **options: Any) -> None:
        self.note()
        super().request(*args, **options)
        self.note()


class InterruptibleAdapter(HTTPAdapter):
    """Connections of ours in requests' pools. Those over SOCKS proxies stay as they are: nothing can end them."""

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **options)
        if pool.ConnectionCls is HTTPConnection:
            pool.ConnectionCls = _Connection
        elif pool.ConnectionCls is HTTPSConnection:
            pool.ConnectionCls = _SecureConnection
        return pool
