"""Views of the routes that are forwarded without being intercepted."""

from collections.abc import Callable, Iterator
from typing import IO

from flask import Request, Response, request

from aibridge.errors import ClientGone, GatewayError, InvalidRequest, NotFound, Unavailable, UpstreamError
from aibridge.interception.credentials import resolve
from aibridge.interception.drain import Drain, stopping
from aibridge.interception.gateway import ForwardedRequest, Gateway, Provider
from aibridge.interception.headers import upstream_headers
from aibridge.protocols.interceptor import WireProtocol
from aibridge.upstream.call import Headers, UpstreamBody
from aibridge.web.auth import authenticate
from aibridge.web.client_watch import client_watch
from aibridge.web.errors import NOBODY_LISTENS, AsSent, error_response, too_large
from aibridge.web.limits import admit, claim
from aibridge.web.received import climbs, read, received_headers, target_below
from aibridge.web.stream import StreamCut


def passed_through(gateway: Gateway, provider: Provider, shape: WireProtocol) -> Callable[..., Response]:
    """The view of an allow-listed route; our own errors come in the shape of `shape`."""

    def view(**_: str) -> Response:
        try:
            gateway.drain.admit()
            admit(gateway, request.environ)
            return _forwarded(gateway, provider, request)
        except GatewayError as error:
            return error_response(shape, error)
        except ClientGone:
            if gateway.drain.over:  # the wait for the provider was given up because of us
                return error_response(shape, stopping())
            return Response(status=NOBODY_LISTENS)

    return view


def _forwarded(gateway: Gateway, provider: Provider, request: Request) -> Response:
    target = target_below(request, f"/{provider.name}{provider.mount}")
    if climbs(target.partition("?")[0]):
        raise NotFound("the path must not contain dot segments")
    limit = gateway.settings.server.body_limit
    length = _length(request)
    if length is not None and length > limit:
        raise too_large(limit)
    headers, central = _headers(gateway, provider, request)
    gone = client_watch(request.environ)
    answer = provider.forward(
        ForwardedRequest(
            method=request.method,
            path=target,
            headers=headers,
            body=_Limited(request.stream, limit, length or 0),
            length=length,
            central=central,
            abandoned=lambda: gateway.drain.over or gone(),
        )
    )
    return AsSent(_Relayed(answer.body, gateway.drain), answer.status, answer.headers, direct_passthrough=True)


class _Relayed:
    """The answer as the WSGI server iterates it: if the provider dies, or we have to, the connection is cut."""

    def __init__(self, body: UpstreamBody, drain: Drain) -> None:
        self._body = body
        self._drain = drain

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._body:
                self._drain.check()
                yield chunk
        except (UpstreamError, Unavailable, ClientGone):
            raise StreamCut from None

    def close(self) -> None:
        self._body.close()


class _Limited:
    """A body that is read while it is sent on. Raises RequestTooLarge once it turns out to be too long, and
    InvalidRequest if it ends before the `length` that the provider has been told."""

    def __init__(self, stream: IO[bytes], limit: int, length: int) -> None:
        self._stream = stream
        self._limit = limit
        self._length = length
        self._read = 0

    def read(self, size: int = -1) -> bytes:
        piece = read(self._stream, size)
        self._read += len(piece)
        if self._read > self._limit:
            raise too_large(self._limit)
        if not piece and self._read < self._length:
            raise InvalidRequest("the request body broke off")
        return piece


def _headers(gateway: Gateway, provider: Provider, request: Request) -> tuple[Headers, bool]:
    """What is sent, and whether it is the provider's own key that pays."""
    auth = gateway.settings.auth
    everything = received_headers(request.environ)
    actor, received = authenticate(everything, auth, gateway.verify_token)
    claim(request.environ, actor)
    credential = resolve(received, provider.credentials, allow_byok=auth.allow_byok)
    defaults = tuple(pair for pair in provider.defaults if pair[0] != "content-type")
    kept = upstream_headers(
        received,
        credential,
        defaults=defaults,
        actor=actor,
        actor_headers=provider.actor_headers,
    )
    return (*kept, *_forwarding(request, everything)), credential.kind == "centralized"


def _forwarding(request: Request, received: Headers) -> Headers:
    earlier = [value for name, value in received if name == "x-forwarded-for"]
    hops = [*earlier, request.remote_addr] if request.remote_addr else []
    told = (
        ("x-forwarded-for", ", ".join(hops)),
        ("x-forwarded-host", request.host),
        ("x-forwarded-proto", request.scheme),
    )
    return tuple((name, value) for name, value in told if value)


def _length(request: Request) -> int | None:
    """Bytes of the body; None for a chunked one, whose length nobody knows yet."""
    chunked = "chunked" in request.headers.get("Transfer-Encoding", "").lower()
    return None if chunked else request.content_length or 0
