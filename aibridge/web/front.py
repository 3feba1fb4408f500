"""The front door of every bridged route: admit, identify, record the start, call the provider, answer."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import structlog
from flask import Request, Response
from flask.globals import request_ctx

from aibridge.errors import (
    ClientGone,
    GatewayError,
    InternalError,
    InvalidRequest,
    NotSupported,
    RequestTooLarge,
    Unavailable,
    UpstreamError,
)
from aibridge.interception.credentials import resolve
from aibridge.interception.drain import stopping
from aibridge.interception.exchange import Exchange
from aibridge.interception.gateway import Gateway, Provider
from aibridge.interception.headers import returned_headers, upstream_headers
from aibridge.interception.identify import identify_client
from aibridge.interception.loop import Rounds, SingleRound, intercept
from aibridge.interception.model import Actor, Credential
from aibridge.interception.tool_rounds import Question, ToolRounds
from aibridge.protocols.interceptor import Intercept, Payload, WireProtocol
from aibridge.protocols.relay import Opaque
from aibridge.records import LONGEST_ID, InterceptionStarted, new_id, now
from aibridge.settings import MIB
from aibridge.upstream.call import Headers, UpstreamRequest, UpstreamResponse
from aibridge.web.auth import authenticate
from aibridge.web.client_watch import client_watch
from aibridge.web.errors import INTERCEPTION_ID, NOBODY_LISTENS, AsSent, error_response, too_large
from aibridge.web.limits import admit, claim
from aibridge.web.received import inflated, read, received_headers
from aibridge.web.stream import SOURCE, AnswerStream, opening

LARGEST_BODY = 128 * MIB  # of an answer that has to be held until it is whole
LONGEST_NAME = 256  # of what clients call a model or themselves

SSE_HEADERS: Headers = (
    ("Content-Type", "text/event-stream; charset=utf-8"),
    ("Cache-Control", "no-cache"),
    ("X-Accel-Buffering", "no"),
)

_log = structlog.get_logger("aibridge.front")

_UNREADABLE = Payload(b"", {})


def bridged(gateway: Gateway, provider: Provider, protocol: WireProtocol, path: str) -> Callable[[], Response]:
    """The view of one bridged route; `path` is the route below the provider's name."""

    def view() -> Response:
        arrived = time.monotonic()
        request = request_ctx.request  # itself: every use of Flask's proxy looks for it anew
        gateway.start()
        try:
            gateway.drain.admit()
            admit(gateway, request.environ)
            visit = _Visit(gateway, provider, protocol, path, request)
            return visit.answer(arrived)
        except GatewayError as error:
            return error_response(protocol, error)
        except ClientGone:
            return Response(status=NOBODY_LISTENS)

    return view


class _Visit:
    """One request on its way through the house. Raises GatewayError and ClientGone only before its interception
    began."""

    def __init__(
        self, gateway: Gateway, provider: Provider, protocol: WireProtocol, path: str, request: Request
    ) -> None:
        self._gateway = gateway
        self._provider = provider
        self._protocol = protocol
        self._path = path
        self._request = request
        self._gone = client_watch(request.environ)

    def answer(self, arrived: float) -> Response:
        actor, credential, received = self._identified()
        payload, refusal = self._payload()
        exchange = Exchange(
            self._started(actor, credential, received, payload), self._gateway.recorder, arrived=arrived
        )
        try:
            exchange.begin()
        except Unavailable:
            if refusal is None:
                raise
            raise refusal from None
        if refusal is not None:
            return self._failed(exchange, refusal)
        try:
            return self._answered(exchange, payload, self._upstream_request(actor, credential, received, payload))
        except ClientGone:
            if self._gateway.drain.over:  # the wait for the provider was given up because of us
                return self._failed(exchange, stopping())
            exchange.settle(None, cancelled=True)
            return Response(status=NOBODY_LISTENS)
        except GatewayError as error:
            return self._failed(exchange, error)
        except Exception:
            _log.exception("a bug of the gateway", interception_id=exchange.id)
            return self._failed(exchange, InternalError("the gateway failed"))

    def _identified(self) -> tuple[Actor, Credential, Headers]:
        auth = self._gateway.settings.auth
        try:
            actor, received = authenticate(
                received_headers(self._request.environ), auth, self._gateway.verify_token
            )
            claim(self._request.environ, actor)
            return actor, resolve(received, self._provider.credentials, allow_byok=auth.allow_byok), received
        except GatewayError:
            if self._declared_too_large():
                raise self._too_large() from None
            raise

    def _payload(self) -> tuple[Payload, GatewayError | None]:
        """What was asked, or why it cannot be read; both are recorded."""
        try:
            return self._read(self._body()), None
        except (InvalidRequest, RequestTooLarge) as error:
            return _UNREADABLE, error

    def _read(self, body: bytes) -> Payload:
        """What the body says. It goes onward as it came; compressed in a way that we cannot undo, unread."""
        encoding = self._request.headers.get("Content-Encoding", "").strip().lower()
        if encoding in ("", "identity"):
            return self._protocol.parse(body)
        plain = inflated(body, encoding, self._gateway.settings.server.body_limit)
        return replace(self._protocol.parse(b"{}" if plain is None else plain), body=body)

    def _body(self) -> bytes:
        """The whole body. Raises RequestTooLarge and InvalidRequest, and ClientGone if it breaks off."""
        if self._declared_too_large():
            raise self._too_large()
        limit = self._gateway.settings.server.body_limit
        body = read(self._request.stream, limit + 1)
        if len(body) > limit:
            raise self._too_large()
        if len(body) < (self._request.content_length or 0):
            raise ClientGone
        return body

    def _declared_too_large(self) -> bool:
        return (self._request.content_length or 0) > self._gateway.settings.server.body_limit

    def _too_large(self) -> RequestTooLarge:
        return too_large(self._gateway.settings.server.body_limit)

    def _started(
        self, actor: Actor, credential: Credential, received: Headers, payload: Payload
    ) -> InterceptionStarted:
        headers = dict(reversed(received))
        client = identify_client(headers, payload.data)
        return InterceptionStarted(
            id=new_id(),
            initiator_id=actor.id,
            provider=self._provider.type,
            provider_name=self._provider.name,
            model=self._provider.model_for(payload.model)[:LONGEST_NAME],
            route=self._path,
            streaming=payload.streaming,
            started_at=now(),
            client=client.name,
            client_session_id=client.session_id,
            correlating_tool_call_id=(payload.correlating_tool_call_id or "")[:LONGEST_ID] or None,
            credential_kind=credential.kind,
            credential_hint=credential.hint,
            user_agent=headers.get("user-agent", "")[:LONGEST_NAME],
            api_key_id=actor.api_key_id,
            metadata={**actor.metadata, **client.markers},
        )

    def _upstream_request(
        self, actor: Actor, credential: Credential, received: Headers, payload: Payload
    ) -> UpstreamRequest:
        query = self._request.query_string.decode("latin-1")
        path = self._path.removeprefix(self._provider.mount)
        return UpstreamRequest(
            path=f"{path}?{query}" if query else path,
            headers=upstream_headers(
                received,
                credential,
                defaults=self._provider.defaults,
                actor=actor,
                actor_headers=self._provider.actor_headers,
            ),
            body=payload.body,
            model=self._provider.model_for(payload.model),
            streaming=payload.streaming,
            central=credential.kind == "centralized",
            abandoned=lambda: self._gateway.drain.over or self._gone(),
        )

    def _answered(self, exchange: Exchange, payload: Payload, request: UpstreamRequest) -> Response:
        rounds = self._rounds(exchange, payload, request)
        exchange.observer = rounds
        chunks = self._gateway.drain.limited(intercept(rounds))
        answer = self._streamed if rounds.streamed else self._whole
        try:
            return answer(exchange, rounds, chunks)
        except BaseException:
            chunks.close()  # the provider hears of it before anything is recorded
            raise

    def _rounds(self, exchange: Exchange, payload: Payload, request: UpstreamRequest) -> Rounds:
        """The provider's answer, begun: with our tools where the request gets them, else in one round."""
        question = self._question(exchange, payload)
        if question is None:
            response, intercepted = self._asked(exchange, payload, request)
            return self._single(exchange, payload, response, intercepted)

        def ask(body: bytes) -> UpstreamResponse:
            response, _ = self._asked(exchange, replace(payload, body=body), replace(request, body=body))
            return response

        response = ask(question.request.body())
        if response.status >= 400:
            return self._single(exchange, payload, response, self._protocol.intercept)
        return ToolRounds(question, response, ask, self._gateway.toolbelt, self._gateway.memory)

    def _asked(
        self, exchange: Exchange, payload: Payload, request: UpstreamRequest
    ) -> tuple[UpstreamResponse, Intercept]:
        call = partial(exchange.call, self._provider.upstream)
        return self._provider.meter.call(call, request, payload, self._protocol)

    def _single(
        self, exchange: Exchange, payload: Payload, response: UpstreamResponse, intercepted: Intercept
    ) -> SingleRound:
        if response.is_encoded:
            return SingleRound(response, Opaque(response.status), streamed=False)
        interceptor = intercepted(payload, exchange.id, response.status, response.streams)
        return SingleRound(response, interceptor, streamed=response.streams)

    def _question(self, exchange: Exchange, payload: Payload) -> Question | None:
        """The request with the tools that it gets, and with what its client did not see of earlier answers; None
        if there is neither, or if it cannot be edited, so that the provider is to judge it. Raises
        NotSupported."""
        gateway, tooling = self._gateway, self._protocol.tooling
        if not gateway.toolbelt.in_use:
            return None
        catalogue = gateway.toolbelt.catalogue(payload, tooling)
        keys = tooling.keys(payload)
        recalled = gateway.memory.recall(exchange.actor, keys) if keys else {}
        if not catalogue.tools and not recalled:
            return None
        try:
            request = tooling.request(payload, catalogue.tools, recalled, gateway.settings.tools.parallel)
        except ValueError:
            return None
        refusal = tooling.unsupported(payload) if catalogue.tools else None
        if refusal is not None:
            raise NotSupported(refusal)
        return Question(self._protocol, payload, request, catalogue, exchange.actor, exchange.id)

    def _streamed(self, exchange: Exchange, rounds: Rounds, chunks: Iterator[bytes]) -> Response:
        patience = self._gateway.settings.server.ping_interval
        first = opening(chunks, self._gone, patience, lambda: self._protocol.ping if rounds.must_speak else b"")
        exchange.first_byte()
        stream = AnswerStream(exchange, first, chunks, self._protocol, gone=self._gone, ping_interval=patience)
        self._request.environ[SOURCE] = lambda: rounds.response.body.source if stream.relaying else None
        kept = [pair for pair in returned_headers(rounds.response.headers) if pair[0] != "content-type"]
        headers = [*SSE_HEADERS, *kept, (INTERCEPTION_ID, exchange.id)]
        return AsSent(stream, rounds.response.status, headers, direct_passthrough=True)

    def _whole(self, exchange: Exchange, rounds: Rounds, chunks: Iterator[bytes]) -> Response:
        body = b"".join(_bounded(chunks, self._gone))
        response = rounds.response
        exchange.first_byte()
        verdict = exchange.settle(response.status)
        if verdict.failure is not None:
            return error_response(self._protocol, verdict.failure, exchange.id)
        headers = [*returned_headers(response.headers), (INTERCEPTION_ID, exchange.id)]
        return AsSent(body, response.status, headers, direct_passthrough=True)

    def _failed(self, exchange: Exchange, error: GatewayError) -> Response:
        exchange.settle(error.status, failure=error)
        return error_response(self._protocol, error, exchange.id)


def _bounded(chunks: Iterator[bytes], gone: Callable[[], bool]) -> Iterator[bytes]:
    """The chunks of a body that is held until it is whole. Raises ClientGone and UpstreamError."""
    size = 0
    for chunk in chunks:
        if not chunk and gone():
            raise ClientGone
        size += len(chunk)
        if size > LARGEST_BODY:
            raise UpstreamError("the provider's answer is too large")
        yield chunk
