"""Routes of a provider of type `sandbox`."""

from flask import Blueprint

from aibridge.interception.gateway import Gateway, Provider
from aibridge.protocols.chat_completions import CHAT_COMPLETIONS
from aibridge.protocols.messages import MESSAGES
from aibridge.protocols.responses import RESPONSES
from aibridge.web.routes import provider_blueprint

BRIDGED = (
    ("/v1/messages", MESSAGES),
    ("/v1/chat/completions", CHAT_COMPLETIONS),
    ("/v1/responses", RESPONSES),
)
PASSED_THROUGH = (
    ("/v1/models", MESSAGES),
    ("/v1/models/<path:rest>", MESSAGES),
    ("/v1/messages/count_tokens", MESSAGES),
)


def sandbox_blueprint(gateway: Gateway, provider: Provider) -> Blueprint:
    return provider_blueprint(gateway, provider, bridged_routes=BRIDGED, passthrough_routes=PASSED_THROUGH)
