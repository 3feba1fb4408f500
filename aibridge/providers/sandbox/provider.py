"""The sandbox as a Provider: an Upstream and the passed-through routes, without a socket."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import orjson

from aibridge import settings
from aibridge.errors import InvalidRequest, UpstreamError
from aibridge.interception.credentials import CredentialRules
from aibridge.interception.gateway import ForwardedRequest, ForwardedResponse, Provider
from aibridge.protocols.chat_completions import CHAT_COMPLETIONS
from aibridge.protocols.interceptor import Payload, WireProtocol
from aibridge.protocols.messages import MESSAGES
from aibridge.protocols.responses import RESPONSES
from aibridge.providers.sandbox import chat_completions, messages, responses
from aibridge.providers.sandbox.models import listed
from aibridge.providers.sandbox.script import Failure, Turn, size_in_tokens
from aibridge.providers.transport import HttpClient
from aibridge.upstream.call import IDLE, Headers, UpstreamBody, UpstreamRequest, UpstreamResponse, WholeBody

PACE = 0.01  # seconds between two events
MOMENT = 0.05  # seconds between two signs of life of a stalling answer

Sleep = Callable[[float], None]

_JSON: Headers = (("content-type", "application/json"), ("request-id", "req_sandbox"))
_SSE: Headers = (("content-type", "text/event-stream; charset=utf-8"), ("request-id", "req_sandbox"))

# HTTP status -> error type, in words that the APIs share.
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


@dataclass(frozen=True, slots=True)
class _Voice:
    """How the model speaks one API: the turn a request asks for, and the turn as a body or as events."""

    protocol: WireProtocol
    turn_for: Callable[[Payload], Turn]
    whole: Callable[[Payload, Turn], bytes]
    events: Callable[[Payload, Turn], Iterator[bytes]]


# The end of a route's path -> the voice it is answered in.
_VOICES = {
    "/messages": _Voice(MESSAGES, messages.turn_for, messages.whole, messages.events),
    "/chat/completions": _Voice(
        CHAT_COMPLETIONS, chat_completions.turn_for, chat_completions.whole, chat_completions.events
    ),
    "/responses": _Voice(RESPONSES, responses.turn_for, responses.whole, responses.events),
}


class _Performed(UpstreamBody):
    """A turn's chunks at the model's pace: the first, then the stall, then the rest, or half of it."""

    def __init__(self, chunks: list[bytes], turn: Turn, sleep: Sleep) -> None:
        self._chunks = chunks
        self._turn = turn
        self._sleep = sleep

    def __iter__(self) -> Iterator[bytes]:
        chunks = self._chunks
        shown = len(chunks) // 2 if self._turn.cut else len(chunks)
        yield from islice(chunks, min(1, shown))
        yield from self._stalled()
        for chunk in islice(chunks, 1, shown):
            self._sleep(PACE)
            yield chunk
        if self._turn.cut:
            raise UpstreamError("the sandbox was told to die half-way")

    def close(self) -> None:
        """There is nothing to release."""

    def _stalled(self) -> Iterator[bytes]:
        left = self._turn.stall
        while left > 0:
            self._sleep(min(left, MOMENT))
            left -= MOMENT
            yield IDLE


def sandbox_upstream(sleep: Sleep = time.sleep) -> Callable[[UpstreamRequest], UpstreamResponse]:
    """The model as an Upstream; `sleep` is how time passes for it."""

    def call(request: UpstreamRequest) -> UpstreamResponse:
        path = request.path.partition("?")[0]
        voice = next(voice for end, voice in _VOICES.items() if path.endswith(end))
        payload = voice.protocol.parse(request.body)
        turn = voice.turn_for(payload)
        if turn.failure is not None:
            return _failed(turn.failure)
        if payload.streaming:
            chunks, headers = list(voice.events(payload, turn)), _SSE
        else:
            body = voice.whole(payload, turn)
            chunks, headers = [body[: len(body) // 2], body[len(body) // 2 :]], _JSON
        return UpstreamResponse(200, headers, _Performed(chunks, turn, sleep))

    return call


def _failed(failure: Failure) -> UpstreamResponse:
    told: Headers = () if failure.retry_after is None else (("retry-after", str(failure.retry_after)),)
    return UpstreamResponse(failure.status, (*_JSON, *told), WholeBody(_error(failure.status)))


def _error(status: int, message: str = "") -> bytes:
    """An error body that clients of all three APIs understand."""
    kind = _ERROR_TYPES.get(status, "api_error")
    error = {"type": kind, "message": message or f"the sandbox fails with {status}", "code": None, "param": None}
    return orjson.dumps({"type": "error", "error": error, "request_id": "req_sandbox"})


def forward(request: ForwardedRequest) -> ForwardedResponse:
    """The passed-through routes: models, and counting tokens."""
    path = request.path.partition("?")[0]
    if path.endswith("/count_tokens"):
        return _counted(request)
    for_anthropic = any(name == "anthropic-version" for name, _ in request.headers)
    found = listed(path.rpartition("/models")[2].strip("/"), for_anthropic=for_anthropic)
    return _answer(404, _error(404, "no such model")) if found is None else _answer(200, orjson.dumps(found))


def _counted(request: ForwardedRequest) -> ForwardedResponse:
    try:
        payload = MESSAGES.parse(request.body.read())
    except InvalidRequest as error:
        return _answer(400, _error(400, error.message))
    return _answer(200, orjson.dumps({"input_tokens": size_in_tokens(payload.body)}))


def _answer(status: int, body: bytes) -> ForwardedResponse:
    return ForwardedResponse(status, (*_JSON, ("content-length", str(len(body)))), WholeBody(body))


def sandbox_provider(
    provider: settings.Provider,
    general: settings.UpstreamTimeouts,
    http_client: HttpClient,
) -> Provider:
    """It takes any credential, and needs none."""
    return Provider(
        name=provider.name,
        type=provider.type,
        upstream=sandbox_upstream(),
        forward=forward,
        credentials=CredentialRules(("x-api-key", "authorization"), "x-api-key", ("sandbox",)),
        remote=False,
    )
