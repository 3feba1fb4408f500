"""The reverse proxy for routes that are not intercepted: any method, streamed both ways, nothing recorded."""

from collections.abc import Iterator
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from aibridge.errors import UpstreamError, UpstreamTimeout
from aibridge.interception.gateway import ForwardedRequest, ForwardedResponse
from aibridge.interception.headers import end_to_end
from aibridge.upstream.call import UpstreamBody

_CHUNK = 65536


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
        adapter = HTTPAdapter(pool_maxsize=64)
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
        return self._session.send(prepared, timeout=self._timeout, allow_redirects=False, **settings)


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
