"""Routes of a provider of type `openai`."""

from flask import Blueprint

from aibridge.interception.gateway import Gateway, Provider
from aibridge.protocols.chat_completions import CHAT_COMPLETIONS
from aibridge.protocols.responses import RESPONSES
from aibridge.web.routes import provider_blueprint

BRIDGED = (("/v1/chat/completions", CHAT_COMPLETIONS), ("/v1/responses", RESPONSES))
PASSED_THROUGH = (
    ("/v1/models", CHAT_COMPLETIONS),
    ("/v1/models/<path:rest>", CHAT_COMPLETIONS),
    ("/v1/conversations", RESPONSES),
    ("/v1/conversations/<path:rest>", RESPONSES),
    ("/v1/responses/<path:rest>", RESPONSES),
)


def openai_blueprint(gateway: Gateway, provider: Provider) -> Blueprint:
    return provider_blueprint(gateway, provider, bridged_routes=BRIDGED, passthrough_routes=PASSED_THROUGH)
