"""Anthropic's Messages API."""

from aibridge.protocols.envelopes import anthropic_error
from aibridge.protocols.interceptor import WireProtocol
from aibridge.protocols.messages.accounting import MessagesAccount
from aibridge.protocols.messages.payload import parse
from aibridge.protocols.messages.tooling import TOOLING
from aibridge.protocols.relay import relay
from aibridge.protocols.sse import encode


def _error_event(kind: str, message: str, request_id: str | None) -> bytes:
    return encode("error", anthropic_error(kind, message, request_id))


MESSAGES = WireProtocol(
    name="messages",
    parse=parse,
    intercept=relay(lambda _: MessagesAccount(), overloaded_status=529),
    error_body=anthropic_error,
    error_event=_error_event,
    ping=encode("ping", b'{"type": "ping"}'),
    tooling=TOOLING,
)
