"""Anthropic's API through its official SDK.

The SDK's client keeps the request cycle, the hooks and the error classes; what it sends is ours: the client's
own bytes and headers. That is why `_build_request` is overridden, which is private to the SDK: the version is
pinned and `tests/providers/test_anthropic.py` fails loudly if an upgrade changes it.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import anthropic
import httpx2
from anthropic._models import FinalRequestOptions

from aibridge import settings
from aibridge.errors import ClientGone, UpstreamError, UpstreamTimeout
from aibridge.interception.credentials import CredentialRules
from aibridge.interception.gateway import Provider
from aibridge.providers.decoding import decoded
from aibridge.providers.passthrough import Passthrough
from aibridge.providers.transport import ABANDONED
from aibridge.upstream.call import Headers, Upstream, UpstreamRequest, UpstreamResponse

BASE_URL = "https://api.anthropic.com"


# Under this name our request travels through the SDK's `headers` option to `_build_request`.
_REQUEST = "aibridge.request"


class _Client(anthropic.Anthropic):
    """The SDK's client, sending exactly what an UpstreamRequest says."""

    def _build_request(self, options: FinalRequestOptions, *, retries_taken: int = 0) -> httpx2.Request:
        headers: Any = options.headers
        outgoing = headers.get(_REQUEST) if isinstance(headers, Mapping) else None
        if outgoing is None:
            return super()._build_request(options, retries_taken=retries_taken)
        timeout = self.timeout
        assert isinstance(timeout, httpx2.Timeout)
        return httpx2.Request(
            "POST",
            _url(str(self.base_url).rstrip("/") + options.url),
            headers=[(name.encode(), value.encode("latin-1")) for name, value in outgoing.headers],
            content=outgoing.body,
            extensions={"timeout": timeout.as_dict(), ABANDONED: outgoing.abandoned},
        )


@lru_cache(maxsize=256)
def _url(url: str) -> httpx2.URL:
    return httpx2.URL(url)


def sdk_upstream(client: anthropic.Anthropic) -> Upstream:
    """POSTs through an SDK client. SDK exceptions become ours; an error status is an answer like any other."""

    def call(request: UpstreamRequest) -> UpstreamResponse:
        try:
            # With this `cast_to` the SDK hands over the response itself, unread because of `stream`.
            options: Any = {"headers": {_REQUEST: request}}
            response: Any = client.post(
                request.path,
                cast_to=httpx2.Response,
                content=request.body,
                options=options,
                stream=True,
                stream_cls=anthropic.Stream[object],
            )
        except anthropic.APIStatusError as error:
            return _failure(error.response)
        except anthropic.APITimeoutError as error:
            raise UpstreamTimeout("the provider did not answer in time") from error
        except anthropic.APIConnectionError as error:
            raise _connection_error(error) from error
        return decoded(_answer(response))

    return call


class _Whole:
    """A body that has been read already."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        return iter((self._content,))

    def close(self) -> None:
        pass


class _Arriving:
    """The SDK's response, read at the level where silent moments are still visible."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        stream = self._response.stream
        assert isinstance(stream, httpx2.SyncByteStream)
        return iter(stream)

    def close(self) -> None:
        self._response.close()


def _answer(response: httpx2.Response) -> UpstreamResponse:
    return UpstreamResponse(response.status_code, _pairs(response.headers), _Arriving(response))


def _failure(response: httpx2.Response) -> UpstreamResponse:
    """An error answer, which the SDK has read (and decoded) already."""
    headers = tuple(pair for pair in _pairs(response.headers) if pair[0] != "content-encoding")
    return UpstreamResponse(response.status_code, headers, _Whole(response.content))


def _pairs(headers: httpx2.Headers) -> Headers:
    return tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers.raw)


def _connection_error(error: anthropic.APIConnectionError) -> Exception:
    cause = error.__cause__
    if isinstance(cause, ClientGone | UpstreamError):
        return cause
    return UpstreamError(f"the provider could not be reached: {cause or error}")


def anthropic_provider(
    provider: settings.Provider, timeouts: settings.UpstreamTimeouts, http_client: httpx2.Client
) -> Provider:
    """A provider of type `anthropic`. Only its settings decide where and with what it is called: everything
    that the SDK would read from the environment is given explicitly."""
    base_url = provider.base_url or BASE_URL
    timeout = settings.timeouts_of(provider, timeouts)
    client = _Client(
        api_key="every request brings its own credential",
        base_url=base_url,
        timeout=httpx2.Timeout(timeout.read_timeout, connect=timeout.connect_timeout),
        max_retries=0,
        http_client=http_client,
        open_telemetry=False,
    )
    return Provider(
        name=provider.name,
        type=provider.type,
        upstream=sdk_upstream(client),
        forward=Passthrough(base_url, timeout.connect_timeout, timeout.read_timeout),
        credentials=CredentialRules(
            accepted=("x-api-key", "authorization"),
            central="x-api-key",
            key=provider.keys[0].get_secret_value() if provider.keys else None,
        ),
        defaults=_defaults(client.default_headers),
        actor_headers=tuple((provider.actor_headers or {}).items()),
    )


def _defaults(sdk: Mapping[str, object]) -> Headers:
    """The SDK's own values of the headers without which the API does not answer."""
    wanted = ("anthropic-version", "content-type", "user-agent")
    given = {name.lower(): value for name, value in sdk.items()}
    return tuple((name, str(given[name])) for name in wanted)
