"""The sandbox as a Provider: an Upstream and the passed-through routes, without a socket."""

import time
from collections.abc import Callable, Iterator
from itertools import islice

import orjson

from aibridge import settings
from aibridge.errors import InvalidRequest, UpstreamError
from aibridge.interception.credentials import CredentialRules
from aibridge.interception.gateway import ForwardedRequest, ForwardedResponse, Provider
from aibridge.protocols.envelopes import anthropic_error
from aibridge.providers.sandbox import messages
from aibridge.providers.sandbox.script import Turn
from aibridge.upstream.call import IDLE, Headers, UpstreamRequest, UpstreamResponse

PACE = 0.01  # seconds between two events
MODELS = ("sandbox-large", "sandbox-small")

Sleep = Callable[[float], None]

_JSON: Headers = (("content-type", "application/json"), ("request-id", "req_sandbox"))
_SSE: Headers = (("content-type", "text/event-stream; charset=utf-8"), ("request-id", "req_sandbox"))


class _Performed:
    """A turn's chunks at the model's pace: the first, then the stall, then the rest, or half of it."""

    def __init__(self, chunks: list[bytes], turn: Turn, moment: float, sleep: Sleep) -> None:
        self._chunks = chunks
        self._turn = turn
        self._moment = moment
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
        pass

    def _stalled(self) -> Iterator[bytes]:
        left = self._turn.stall
        while left > 0:
            self._sleep(min(left, self._moment))
            left -= self._moment
            yield IDLE


def sandbox_upstream(moment: float, sleep: Sleep = time.sleep) -> Callable[[UpstreamRequest], UpstreamResponse]:
    """`moment` is how often, in seconds, a stalling answer gives a sign of life."""

    def call(request: UpstreamRequest) -> UpstreamResponse:
        payload = messages.read(request.body)
        turn = messages.turn_for(payload)
        if turn.failure is not None:
            return _failed(turn)
        if payload.streaming:
            chunks, headers = list(messages.events(payload, turn)), _SSE
        else:
            chunks, headers = _halves(messages.whole(payload, turn)), _JSON
        return UpstreamResponse(200, headers, _Performed(chunks, turn, moment, sleep))

    return call


def _failed(turn: Turn) -> UpstreamResponse:
    assert turn.failure is not None
    retry_after = turn.failure.retry_after
    told: Headers = () if retry_after is None else (("retry-after", str(retry_after)),)
    body = _Performed([messages.failure(turn.failure.status)], Turn(), 1.0, time.sleep)
    return UpstreamResponse(turn.failure.status, (*_JSON, *told), body)


def _halves(body: bytes) -> list[bytes]:
    return [body[: len(body) // 2], body[len(body) // 2 :]]


def forward(request: ForwardedRequest) -> ForwardedResponse:
    """The passed-through routes: models, and counting tokens."""
    path = request.path.partition("?")[0]
    if path.endswith("/count_tokens"):
        return _counted(request)
    name = path.rpartition("/models")[2].strip("/")
    if not name:
        models = [_model(model) for model in MODELS]
        listing = {"data": models, "has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]}
        return _answer(200, orjson.dumps(listing))
    if name in MODELS:
        return _answer(200, orjson.dumps(_model(name)))
    return _answer(404, anthropic_error("not_found", f"the sandbox has no model {name}", None))


def _counted(request: ForwardedRequest) -> ForwardedResponse:
    try:
        payload = messages.read(request.body.read())
    except InvalidRequest as error:
        return _answer(400, anthropic_error(error.kind, error.message, None))
    return _answer(200, orjson.dumps({"input_tokens": messages.count_tokens(payload)}))


def _model(name: str) -> dict[str, str]:
    return {"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"}


def _answer(status: int, body: bytes) -> ForwardedResponse:
    headers = (*_JSON, ("content-length", str(len(body))))
    return ForwardedResponse(status, headers, _Performed([body], Turn(), 1.0, time.sleep))


def sandbox_provider(provider: settings.Provider, moment: float) -> Provider:
    """It takes any credential, and needs none."""
    return Provider(
        name=provider.name,
        type=provider.type,
        upstream=sandbox_upstream(moment),
        forward=forward,
        credentials=CredentialRules(("x-api-key", "authorization"), "x-api-key", "sandbox"),
    )
