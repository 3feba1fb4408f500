"""OpenAI's Responses API."""

from aibridge.protocols.envelopes import openai_error, responses_error_event
from aibridge.protocols.interceptor import WireProtocol
from aibridge.protocols.relay import relay
from aibridge.protocols.responses.accounting import ResponsesAccount
from aibridge.protocols.responses.payload import parse
from aibridge.protocols.responses.tooling import TOOLING

RESPONSES = WireProtocol(
    name="responses",
    parse=parse,
    intercept=relay(ResponsesAccount, overloaded_status=503),
    error_body=openai_error,
    error_event=responses_error_event,
    ping=b": ping\n\n",
    tooling=TOOLING,
)
