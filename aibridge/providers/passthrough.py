"""The reverse proxy for routes that are not intercepted: any method, streamed both ways, nothing recorded.

Under requests, what comes from a provider is read by a reader of ours, which asks once a moment whether anybody
still wants it; otherwise a client that leaves a silent provider would hold its place until the read timeout.
"""

import io
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from http.client import HTTPResponse
from http.cookiejar import DefaultCookiePolicy
from socket import socket
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from aibridge.errors import ClientGone, UpstreamError, UpstreamTimeout
from aibridge.interception.gateway import ForwardedRequest, ForwardedResponse
from aibridge.interception.headers import end_to_end
from aibridge.upstream.call import UpstreamBody

_CHUNK = 65536
MOMENT = 1.0  # seconds of silence after which is asked whether the answer is still wanted

# Of the request that is being sent: between it and its connection there is requests, which hands nothing on.
_abandoned: ContextVar[Callable[[], bool]] = ContextVar("abandoned")


class _Reader(io.RawIOBase):
    """The bytes from a socket, within its time limit. Raises ClientGone once they are not wanted any more."""

    def __init__(self, sock: socket, file: io.BufferedReader, abandoned: Callable[[], bool]) -> None:
        self._sock = sock
        self._file = file  # while it is open, the socket is
        self._abandoned = abandoned

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        patience = self._sock.gettimeout() or 0.0
        deadline = time.monotonic() + patience
        try:
            while True:
                self._sock.settimeout(max(0.001, min(MOMENT, deadline - time.monotonic())))
                try:
                    return self._sock.recv_into(buffer)
                except TimeoutError:
                    if self._abandoned():
                        raise ClientGone from None
                    if time.monotonic() >= deadline:
                        raise
        finally:
            self._sock.settimeout(patience)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Head(HTTPResponse):
    def __init__(self, sock: socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp = io.BufferedReader(_Reader(sock, self.fp, _abandoned.get()))


class _Plain(HTTPConnection):
    response_class = _Head


class _Secured(HTTPSConnection):
    response_class = _Head


_CONNECTIONS: dict[Any, Any] = {HTTPConnection: _Plain, HTTPSConnection: _Secured}


class _Adapter(HTTPAdapter):
    """Its connections read as it is said above; those through a SOCKS proxy are left as they are."""

    def get_connection_with_tls_context(self, *arguments: Any, **options: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*arguments, **options)
        pool.ConnectionCls = _CONNECTIONS.get(pool.ConnectionCls, pool.ConnectionCls)
        return pool


class _Upload:
    """A request body of known length that requests reads in pieces while it sends."""

    def __init__(self, source: Any, length: int) -> None:
        self._source = source
        self._length = length

    def __len__(self) -> int:
        return self._length

    def read(self, size: int = -1) -> bytes:
        return bytes(self._source.read(size))


class _Download(UpstreamBody):
    """The answer's bytes as they arrive, still in the provider's content encoding."""

    def __init__(self, response: requests.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        raw = self._response.raw
        try:
            while chunk := raw.read1(_CHUNK, decode_content=False):
                yield chunk
            if raw.length_remaining:
                raise UpstreamError("the provider's answer ended early")
        except HTTPError as error:
            raise UpstreamError(f"the provider's answer broke off: {error}") from error

    def close(self) -> None:
        self._response.close()


class Passthrough:
    """Forwards to one provider over its own connection pool; the environment's proxies are honoured."""

    def __init__(self, base_url: str, connect_timeout: float, read_timeout: float) -> None:
        self._base_url = base_url
        self._timeout = (connect_timeout, read_timeout)
        self._session = requests.Session()
        self._session.headers.clear()
        # One user's cookies must not reach the next one's request, nor a .netrc replace a credential.
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.auth = _as_it_is
        adapter = _Adapter(pool_maxsize=64)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def __call__(self, request: ForwardedRequest) -> ForwardedResponse:
        try:
            response = self._send(request)
        except requests.ConnectTimeout as error:
            raise UpstreamError("the provider could not be reached in time") from error
        except requests.Timeout as error:
            raise UpstreamTimeout("the provider did not answer in time") from error
        except requests.RequestException as error:
            raise UpstreamError("the provider could not be reached") from error
        received = tuple((name.lower(), value) for name, value in response.raw.headers.iteritems())
        return ForwardedResponse(response.status_code, end_to_end(received), _Download(response))

    def _send(self, request: ForwardedRequest) -> requests.Response:
        """As `Session.request` does, but with the client's spelling of the target."""
        prepared = self._session.prepare_request(
            requests.Request(request.method, self._base_url, headers=_joined(request.headers), data=_body(request))
        )
        prepared.url = self._base_url + request.path
        settings = self._session.merge_environment_settings(prepared.url, {}, True, None, None)
        asking = _abandoned.set(request.abandoned)
        try:
            return self._session.send(prepared, timeout=self._timeout, allow_redirects=False, **settings)
        finally:
            _abandoned.reset(asking)


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _joined(headers: tuple[tuple[str, str], ...]) -> dict[str, bytes]:
    joined: dict[str, str] = {}
    for name, value in headers:
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return {name: value.encode("latin-1") for name, value in joined.items()}


def _body(request: ForwardedRequest) -> Any:
    if request.length is None:
        return iter(lambda: request.body.read(_CHUNK), b"")
    return _Upload(request.body, request.length) if request.length else None
