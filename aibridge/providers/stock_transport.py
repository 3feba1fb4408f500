"""Connections to providers through httpx2's own transport, for networks that `transport.py` does not speak to.

The same contract: a moment of silence is IDLE in a body, and before its head the time to ask whether anybody still
waits; a body can be closed from any thread; failures are the same exceptions. The stock transport waits for bytes
with nothing else in mind, so a request runs on a thread of its own, and what comes passes through a small queue.

One thing it cannot do: it sends no byte above 127 in a target, so these are percent-encoded.
"""

import re
import ssl
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty, Queue
from socket import SHUT_RDWR
from typing import Any
from urllib.request import getproxies

import httpx2

from aibridge.errors import ClientGone, Unreachable, UpstreamError, UpstreamTimeout
from aibridge.providers.decoding import ProviderBody
from aibridge.providers.transport import (
    ABANDONED,
    IDLE_CONNECTIONS,
    STALE_SECONDS,
    TARGET,
    Origin,
    answered,
    never,
    origin_of,
    proxy_for,
)
from aibridge.upstream.call import IDLE

IDLE_SECONDS = 5.0  # how long an unused connection is kept: well below what any provider does
PIECES_AHEAD = 4  # how many pieces of a body, of 64 KiB at most, are read before anybody asks for them

CLOSED = "the connection to the provider was closed"

_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")


class _Line:
    """One connection at most: a stock transport for a single request at a time, and the stream that it opened
    last, for this is what has to be shut down under a thread that waits for it."""

    def __init__(self, transport: httpx2.HTTPTransport) -> None:
        self.transport = transport
        self.used = 0.0  # when it came to the pool
        self.answered = False  # a byte has come since the last request
        self._stream: Any = None  # a httpcore2.NetworkStream

    def opened(self, stream: Any) -> None:
        read = stream.read

        def heard(*arguments: Any, **options: Any) -> bytes:
            data: bytes = read(*arguments, **options)
            self.answered = self.answered or bool(data)
            return data

        stream.read = heard  # nothing else tells whether a connection ended before or in an answer
        self._stream = stream

    def cut(self) -> None:
        if self._stream is not None:
            with suppress(OSError):  # it is closed
                self._stream.get_extra_info("socket").shutdown(SHUT_RDWR)


class Exchange(ProviderBody):
    """One request and its answer; iterating gives the body. `run` is for a thread of its own."""

    def __init__(self, line: _Line, moment: float, release: Callable[[_Line], None]) -> None:
        self._line = line
        self._moment = moment
        self._release = release
        self._arrived: Queue[httpx2.Response | bytes | Exception | None] = Queue(PIECES_AHEAD)
        self._settled = threading.Lock()  # taken by who decides what becomes of the line: the thread, or `close`
        self._closed = False
        self._reused = True  # no connection was opened for it
        self._begun = False  # the request is being sent
        self._sent = 0.0
        self._in_body = False
        self._broken: Exception | None = None  # what went wrong while the request was sent

    def run(self, request: httpx2.Request) -> None:
        try:
            response = self._line.transport.handle_request(request)
            self._in_body = True
            try:
                self._put(response)
                for chunk in response.stream:  # type: ignore[union-attr]  # the synchronous kind
                    self._put(chunk)
            finally:
                response.close()
            if not self._settled.acquire(blocking=False):
                raise UpstreamError(CLOSED)  # the end of a body may be no more than that
            self._release(self._line)
            self._arrived.put(None)
        except Exception as error:
            self._line.transport.close()
            self._arrived.put(self._told(error))  # there is room: `close` has made some if there was none

    def noted(self, event: str, details: dict[str, Any]) -> None:
        """httpcore's "trace" extension: what it has just done, or is about to do."""
        match event.split(".")[1:]:
            case ["connect_tcp" | "start_tls", "complete"]:
                self._reused = False
                self._line.opened(details["return_value"])
                if self._closed:
                    self._line.cut()
            case ["send_request_headers", "started"]:
                self._begun = details["request"].method != b"CONNECT"  # that one is for the proxy
            case ["send_request_headers" | "send_request_body", "failed"]:
                self._broken = details["exception"]  # the provider may have refused the rest, and said why
            case ["receive_response_headers", "started"]:
                self._sent, self._line.answered = time.monotonic(), False

    def head(self, abandoned: Callable[[], bool]) -> httpx2.Response:
        """The answer, its body unread. Raises what httpx2 raises, and ClientGone."""
        while True:
            arrived = self._take()
            if isinstance(arrived, httpx2.Response):
                return arrived
            if abandoned():
                self.close()
                raise ClientGone

    def __iter__(self) -> Iterator[bytes]:
        while True:
            arrived = self._take()
            if arrived is None:
                return
            assert isinstance(arrived, bytes)
            yield arrived

    def close(self) -> None:
        if self._settled.acquire(blocking=False):
            self._closed = True
            self._line.cut()
            with suppress(Empty):
                while True:
                    self._arrived.get_nowait()

    def _put(self, piece: httpx2.Response | bytes) -> None:
        if self._closed:
            raise UpstreamError(CLOSED)
        self._arrived.put(piece)

    def _take(self) -> httpx2.Response | bytes | None:
        try:
            arrived = self._arrived.get(timeout=self._moment)
        except Empty:
            if self._closed:
                raise UpstreamError(CLOSED) from None
            return IDLE
        if isinstance(arrived, Exception):
            raise arrived
        return arrived

    def _told(self, error: Exception) -> Exception:
        """What failed, as our own transport tells it."""
        if not isinstance(error, httpx2.TransportError):
            return error
        late = isinstance(error, httpx2.TimeoutException)
        if self._in_body:
            return (
                UpstreamTimeout("the provider was silent for too long")
                if late
                else UpstreamError(f"the connection to the provider broke: {error}")
            )
        if not self._begun:  # it may have been the proxy's connection that failed
            return httpx2.ConnectTimeout(str(error)) if late else httpx2.ConnectError(str(error))
        if late:
            return error
        if self._reused and not self._line.answered and time.monotonic() - self._sent < STALE_SECONDS:
            return Unreachable(f"an idle connection had ended: {error}")
        return httpx2.WriteError(str(self._broken)) if self._broken else error


class StockTransport(httpx2.BaseTransport):
    """An httpx2 transport; `moment` is the longest time in seconds between two signs of life to the caller."""

    def __init__(self, moment: float, tls: ssl.SSLContext | None = None) -> None:
        self._moment = moment
        self._tls = tls
        self._proxies = getproxies()
        self._idle: dict[Origin, deque[_Line]] = defaultdict(deque)
        self._lock = threading.Lock()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Raises httpx2's exceptions for what fails before the head, as the SDKs expect, and ClientGone."""
        origin = origin_of(request.url)
        exchange = Exchange(self._take(origin), self._moment, lambda line: self._put(origin, line))
        abandoned = request.extensions.get(ABANDONED, never)
        request.extensions = {**request.extensions, "trace": exchange.noted}
        if TARGET in request.extensions:
            request.extensions[TARGET] = _BEYOND_ASCII.sub(_encoded, request.extensions[TARGET])
        threading.Thread(target=exchange.run, args=(request,), name="exchange", daemon=True).start()
        answer = exchange.head(abandoned)
        sent = [(name.lower(), value) for name, value in answer.headers.raw]
        return answered(answer.status_code, sent, exchange, abandoned)

    def close(self) -> None:
        with self._lock:
            lines = [line for idle in self._idle.values() for line in idle]
            self._idle.clear()
        for line in lines:
            line.transport.close()

    def _take(self, origin: Origin) -> _Line:
        """The line that was used last. If its connection has ended, it makes a new one by itself."""
        with self._lock:
            idle = self._idle[origin]
            return idle.pop() if idle else self._new_line(origin)

    def _put(self, origin: Origin, line: _Line) -> None:
        line.used = time.monotonic()
        unused = []
        with self._lock:
            idle = self._idle[origin]
            idle.append(line)
            while idle[0].used < line.used - IDLE_SECONDS or len(idle) > IDLE_CONNECTIONS:
                unused.append(idle.popleft())
        for old in unused:
            old.transport.close()

    def _new_line(self, origin: Origin) -> _Line:
        if self._tls is None:
            self._tls = httpx2.create_ssl_context()
        address = proxy_for(origin, self._proxies)
        limits = httpx2.Limits(keepalive_expiry=IDLE_SECONDS)
        try:
            proxy = httpx2.Proxy(address, ssl_context=self._for_proxy(address)) if address else None
            return _Line(httpx2.HTTPTransport(verify=self._tls, limits=limits, proxy=proxy))
        except (ValueError, ImportError) as error:  # an unknown kind of proxy, or SOCKS without its package
            raise httpx2.ProxyError(str(error)) from error

    def _for_proxy(self, address: str) -> ssl.SSLContext | None:
        return self._tls if address.startswith("https:") else None


def _encoded(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match[0][0]
