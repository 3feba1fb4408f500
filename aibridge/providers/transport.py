"""Connections to providers: HTTP/1.1 over pooled sockets, under the vendor SDKs' HTTP client.

It differs from the SDKs' stock transport in what a gateway needs: a body yields IDLE in every silent moment
(so that pings can be sent and a departed client noticed), waiting for the head asks the same of the caller,
no connection limit makes a stream wait, and framing is parsed in C (llhttp through httptools).

States of a connection: idle in the pool -> sending -> waiting for the head -> in the body -> idle again if
the message ended and both sides keep it alive, else closed. A request is sent again, once, only if a
connection taken from the pool broke while it was being sent: then the provider cannot have seen all of it.
If such a connection ends right after that and without a byte of an answer, the provider had most likely closed it
while we were writing; this is told as Unreachable, and whether to ask again is for the retry policy to say.
"""

import base64
import socket
import ssl
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import httptools
import httpx2

from aibridge.errors import ClientGone, Unreachable, UpstreamError, UpstreamTimeout
from aibridge.providers.decoding import ProviderBody, RawHeaders, decoded
from aibridge.providers.refusals import Refusal
from aibridge.sockets import readable
from aibridge.upstream.call import IDLE

RECEIVE_SIZE = 65536
SEND_SIZE = 256 * 1024
HEAD_LIMIT = 256 * 1024
IDLE_SECONDS = 60.0  # how long an unused connection is kept
IDLE_CONNECTIONS = 256  # per origin
STALE_SECONDS = 1.0  # how soon after a request the end of a reused connection shows that it was closed before

# Extensions of a request. Whether its answer is still wanted, a `Callable[[], bool]`; and its target in bytes,
# since an httpx2.URL spells some characters in its own way (httpcore knows this extension, too).
ABANDONED = "aibridge.abandoned"
TARGET = "target"

# Extension of a response: its body as it comes here, for httpx2 shows its own wrapping only.
BODY = "aibridge.body"

# How a socket says that there is nothing to read: within its time limit, or at once if it does not block.
_NOTHING_YET = (TimeoutError, BlockingIOError, ssl.SSLWantReadError)

Origin = tuple[str, str, int]


class HttpClient(httpx2.Client):
    """The SDKs' HTTP client. What they send is complete, so it goes to the transport as it is: no cookies, no
    redirects, no authentication, none of which would change anything but the time it takes."""

    def send(self, request: httpx2.Request, *, stream: bool = False, **_: object) -> httpx2.Response:
        response = self._transport.handle_request(request)
        response.request = request
        try:
            if not stream:
                response.read()
        except BaseException:
            response.close()
            raise
        return response

    def prepare_tls(self) -> None:
        """Make the TLS context now; it takes 20 ms, which would otherwise be the first request's."""
        if isinstance(self._transport, Transport):
            self._transport.tls_context()


class _Message:
    """What llhttp told of one response; the names of the methods are httptools'."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.pieces: list[bytes] = []
        self.has_head = False
        self.complete = False
        self.keep_alive = False
        self.until_close = False
        self._parser = httptools.HttpResponseParser(self)

    @property
    def ended(self) -> bool:
        """Whether it is complete, and all of it has been taken."""
        return self.complete and not self.pieces

    def feed(self, data: bytes) -> None:
        """Raises UpstreamError when this is no HTTP."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not self.complete:
                raise UpstreamError("the provider's answer is not valid HTTP") from error

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.has_head:  # what comes later are trailers
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        self.status = self._parser.get_status_code()
        self.has_head = self.status >= 200
        framed = {b"content-length", b"transfer-encoding"}
        self.until_close = not any(name in framed for name, _ in self.headers)

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self.pieces.append(body)

    def on_message_complete(self) -> None:
        if self.has_head:
            # llhttp forgets this once the callback returns.
            self.keep_alive = self._parser.should_keep_alive() and not self.until_close
            self.complete = True
        else:
            self.headers.clear()  # an interim response (1xx); the real one follows


@dataclass(slots=True)
class _Connection:
    """A connected socket. `moment` is how long one wait may take before the caller is heard again."""

    sock: socket.socket
    moment: float
    used: float = 0.0  # when it came to the pool; 0: it is new
    sent: float = 0.0
    answered: bool = False  # a byte has come since the last request
    broken: OSError | None = None  # what went wrong while the request was sent

    def receive(self) -> bytes | None:
        """The next bytes, b"" at the end, None if a moment passed without any."""
        try:
            data = self.sock.recv(RECEIVE_SIZE)
        except _NOTHING_YET:
            return None
        self.answered = self.answered or bool(data)
        return data

    def send(self, data: bytes, timeout: float, abandoned: Callable[[], bool]) -> None:
        """Raises OSError, TimeoutError if nothing is taken for so long, and ClientGone."""
        left, taken = memoryview(data), time.monotonic()
        while left:
            try:
                left = left[self.sock.send(left[:SEND_SIZE]) :]
                taken = time.monotonic()
            except TimeoutError:
                if abandoned():
                    self.close()
                    raise ClientGone from None
                if time.monotonic() - taken > timeout:
                    raise
        self.sent, self.answered = time.monotonic(), False

    def stale(self) -> bool:
        """Whether a connection that has just ended was a pooled one that the other side had given up."""
        return self.used > 0 and not self.answered and time.monotonic() - self.sent < STALE_SECONDS

    def close(self) -> None:
        self.sock.close()


class Body(ProviderBody):
    """A response body. Raises UpstreamError when it is cut, UpstreamTimeout after `silence` seconds."""

    source: socket.socket | None = None  # as in `upstream.call.UpstreamBody`; asked for after every step

    def __init__(
        self,
        connection: _Connection,
        message: _Message,
        silence: float,
        release: Callable[[_Connection, bool], None],
    ) -> None:
        self._connection = connection
        self._message = message
        self._silence = silence
        self._release = release
        self._released = threading.Lock()
        if not message.complete and not message.pieces:
            self.source = connection.sock

    def __iter__(self) -> Iterator[bytes]:
        connection, message = self._connection, self._message
        heard = time.monotonic()
        while True:
            pieces, message.pieces = message.pieces, []
            self.source = None if message.complete else connection.sock
            if pieces:
                yield pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if message.complete:
                self.close()
                return
            try:
                data = connection.receive()
            except OSError as error:
                self.close()
                raise UpstreamError(f"the connection to the provider broke: {_reason(error)}") from error
            if data is None:
                if time.monotonic() - heard > self._silence:
                    self.close()
                    raise UpstreamTimeout("the provider was silent for too long")
                yield IDLE
            elif data:
                heard = time.monotonic()
                message.feed(data)
                if message.ended:
                    self.source = None
                    yield IDLE  # the end comes in a step of its own
            elif message.until_close:
                message.complete = True
                self.source = None
                yield IDLE
            else:
                self.close()
                raise UpstreamError("the provider closed the connection in the middle of its answer")

    def close(self) -> None:
        self.source = None
        if self._released.acquire(blocking=False):
            self._release(self._connection, self._message.complete and self._message.keep_alive)


class Transport(httpx2.BaseTransport):
    """An httpx2 transport; `moment` is the longest time in seconds between two signs of life to the caller."""

    def __init__(self, moment: float, tls: ssl.SSLContext | None = None) -> None:
        self._moment = moment
        self._tls = tls
        self._idle: dict[Origin, deque[_Connection]] = defaultdict(deque)
        self._proxies = getproxies()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Raises httpx2's exceptions for what fails before the head, as the SDKs expect, and ClientGone."""
        origin = origin_of(request.url)
        timeouts = request.extensions["timeout"]
        proxy = self._proxy(origin)
        wire = _serialised(request, proxy if request.url.scheme == "http" else None)
        abandoned = request.extensions.get(ABANDONED, never)
        connection = self._sent(origin, proxy, wire, timeouts, abandoned)
        message = _Message()
        try:
            self._await_head(connection, message, timeouts["read"], abandoned)
        except (OSError, httpx2.RemoteProtocolError) as error:
            connection.close()
            if connection.stale():
                raise Unreachable(f"an idle connection had ended: {error}") from error
            if connection.broken:
                raise httpx2.WriteError(_reason(connection.broken)) from error
            if isinstance(error, OSError):
                raise httpx2.ReadError(_reason(error)) from error
            raise
        except BaseException:
            connection.close()
            raise
        body = Body(connection, message, timeouts["read"], lambda conn, keep: self._put(origin, conn, keep))
        return answered(message.status, message.headers, body, abandoned)

    def close(self) -> None:
        for idle in self._idle.values():
            while idle:
                idle.pop().close()

    def _sent(
        self,
        origin: Origin,
        proxy: SplitResult | None,
        wire: bytes,
        timeouts: Mapping[str, float],
        abandoned: Callable[[], bool],
    ) -> _Connection:
        """A connection that has taken the whole request."""
        pooled = self._take(origin)
        if pooled is not None:
            try:
                pooled.send(wire, timeouts["read"], abandoned)
                return pooled
            except OSError:
                pooled.close()
        try:
            connection = self._connect(origin, proxy, timeouts["connect"])
        except TimeoutError as error:
            raise httpx2.ConnectTimeout("no connection in time") from error
        except OSError as error:
            raise httpx2.ConnectError(_reason(error)) from error
        try:
            connection.send(wire, timeouts["read"], abandoned)
        except OSError as error:
            connection.broken = error  # the provider may have refused the rest, and said why
        return connection

    def _await_head(
        self, connection: _Connection, message: _Message, timeout: float, abandoned: Callable[[], bool]
    ) -> None:
        asked, received = time.monotonic(), 0
        while not message.has_head:
            data = connection.receive()
            if data is None:
                if abandoned():
                    raise ClientGone
                if time.monotonic() - asked > timeout:
                    raise httpx2.ReadTimeout("no answer in time")
            elif not data:
                raise httpx2.RemoteProtocolError("the connection was closed before an answer")
            else:
                received += len(data)
                message.feed(data)
                if received > HEAD_LIMIT and not message.has_head:
                    raise httpx2.RemoteProtocolError("the head of the answer is too large")

    def _take(self, origin: Origin) -> _Connection | None:
        idle = self._idle[origin]
        while True:
            try:
                connection = idle.pop()
            except IndexError:
                return None
            if time.monotonic() - connection.used < IDLE_SECONDS and not readable(connection.sock):
                return connection
            connection.close()

    def _put(self, origin: Origin, connection: _Connection, keep: bool) -> None:
        idle = self._idle[origin]
        self._reap(idle)
        if keep and not connection.broken and len(idle) < IDLE_CONNECTIONS:
            connection.used = time.monotonic()
            idle.append(connection)
        else:
            connection.close()

    @staticmethod
    def _reap(idle: "deque[_Connection]") -> None:
        """Close what has not been used for long: the last used are taken first, so it gathers at the left."""
        while True:
            try:
                oldest = idle.popleft()
            except IndexError:
                return
            if time.monotonic() - oldest.used < IDLE_SECONDS:
                idle.appendleft(oldest)
                return
            oldest.close()

    def _connect(self, origin: Origin, proxy: SplitResult | None, timeout: float) -> _Connection:
        scheme, host, port = origin
        address = (host, port) if proxy is None else (proxy.hostname or "", proxy.port or 80)
        sock = socket.create_connection(address, timeout)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if proxy is not None and scheme == "https":
                _tunnel(sock, host, port, proxy)
            if scheme == "https":
                sock = self.tls_context().wrap_socket(sock, server_hostname=host)
            sock.settimeout(self._moment)
        except BaseException:
            sock.close()
            raise
        return _Connection(sock, self._moment)

    def tls_context(self) -> ssl.SSLContext:
        """Made on first use: it costs 20 ms and reads the trust store of the machine."""
        if self._tls is None:
            self._tls = httpx2.create_ssl_context()
        return self._tls

    def _proxy(self, origin: Origin) -> SplitResult | None:
        address = proxy_for(origin, self._proxies)
        if address is None:
            return None
        proxy = urlsplit(address)
        if proxy.scheme != "http":
            raise httpx2.ProxyError(f"a proxy is reached by http, not by {proxy.scheme}")
        return proxy


def answered(
    status: int, headers: RawHeaders, body: ProviderBody, abandoned: Callable[[], bool]
) -> httpx2.Response:
    """What a transport returns: the body decoded, and bounded if it is an error's, which the SDKs read whole."""
    headers, plain = decoded(headers, body)
    if status >= 400:
        plain = Refusal(plain, abandoned)
    return httpx2.Response(status, headers=headers, stream=plain, extensions={BODY: plain})


def origin_of(url: httpx2.URL) -> Origin:
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)


def proxy_for(origin: Origin, proxies: Mapping[str, str]) -> str | None:
    """The URL of the environment's proxy (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY) for an origin."""
    scheme, host, port = origin
    address = proxies.get(scheme) or proxies.get("all")
    if not address or proxy_bypass(f"{host}:{port}"):
        return None
    return address if "://" in address else f"http://{address}"


def _serialised(request: httpx2.Request, proxy: SplitResult | None) -> bytes:
    """The request on the wire; to a proxy the target is absolute (RFC 9112, section 3.2.2)."""
    target = request.extensions.get(TARGET) or request.url.raw_path
    credentials = b""
    if proxy is not None:
        credentials = _proxy_authorization(proxy)
        target = str(request.url.copy_with(raw_path=b"/")).encode("ascii").rstrip(b"/") + target
    parts = [request.method.encode("ascii"), b" ", target, b" HTTP/1.1\r\n"]
    for name, value in request.headers.raw:
        parts += (name, b": ", value, b"\r\n")
    return b"".join((*parts, credentials, b"\r\n", request.content))


def _tunnel(sock: socket.socket, host: str, port: int, proxy: SplitResult) -> None:
    """CONNECT (RFC 9110, section 9.3.6). Raises OSError if the proxy refuses."""
    there = f"{host}:{port}".encode("ascii")
    request = b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (there, there, _proxy_authorization(proxy))
    sock.sendall(request)
    head = b""
    while b"\r\n\r\n" not in head:
        piece = sock.recv(4096)
        if not piece or len(head) > HEAD_LIMIT:
            raise OSError("the proxy closed the connection")
        head += piece
    status = head.split(b"\r\n", 1)[0].split(b" ")
    if len(status) < 2 or not status[1].startswith(b"2"):
        raise OSError(f"the proxy refused: {b' '.join(status[1:]).decode('latin-1')}")


def _proxy_authorization(proxy: SplitResult) -> bytes:
    """The header line for the user in a proxy's URL; nothing if there is none."""
    if not proxy.username:
        return b""
    user = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return b"Proxy-Authorization: Basic " + base64.b64encode(user) + b"\r\n"


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def never() -> bool:
    return False


def http_client(transport: httpx2.BaseTransport) -> HttpClient:
    """The one client of the process, for every SDK. Nothing of the environment is added to what they send."""
    return HttpClient(transport=transport, trust_env=False, follow_redirects=False)
