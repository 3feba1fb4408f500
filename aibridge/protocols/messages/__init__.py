"""Anthropic's Messages API."""

from aibridge.protocols.envelopes import anthropic_error
from aibridge.protocols.interceptor import Interceptor, Payload, WireProtocol
from aibridge.protocols.messages.accounting import MessagesAccount
from aibridge.protocols.messages.payload import parse
from aibridge.protocols.relay import Relay
from aibridge.protocols.sse import encode


def _intercept(payload: Payload, interception_id: str, status: int, event_stream: bool) -> Interceptor:
    return Relay(MessagesAccount(interception_id, payload.prompt), status, event_stream)


def _error_event(kind: str, message: str, request_id: str | None) -> bytes:
    return encode("error", anthropic_error(kind, message, request_id))


MESSAGES = WireProtocol(
    name="messages",
    parse=parse,
    intercept=_intercept,
    error_body=anthropic_error,
    error_event=_error_event,
    ping=encode("ping", b'{"type": "ping"}'),
)
