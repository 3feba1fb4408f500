"""OpenAI's Chat Completions API, which many other servers speak too."""

from aibridge.protocols.chat_completions.accounting import ChatAccount
from aibridge.protocols.chat_completions.interceptor import UsageHidden
from aibridge.protocols.chat_completions.payload import asking_for_usage, parse
from aibridge.protocols.chat_completions.tooling import TOOLING
from aibridge.protocols.envelopes import openai_error
from aibridge.protocols.interceptor import Metering, WireProtocol
from aibridge.protocols.relay import relay
from aibridge.protocols.sse import encode


def _error_event(kind: str, message: str, request_id: str | None) -> bytes:
    return encode("", openai_error(kind, message, request_id))


CHAT_COMPLETIONS = WireProtocol(
    name="chat_completions",
    parse=parse,
    intercept=relay(ChatAccount, overloaded_status=503),
    error_body=openai_error,
    error_event=_error_event,
    ping=b": ping\n\n",
    tooling=TOOLING,
    metering=Metering(ask=asking_for_usage, hide=UsageHidden),
)
