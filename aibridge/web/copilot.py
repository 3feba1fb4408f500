"""Routes of a provider of type `copilot`."""

from flask import Blueprint

from aibridge.interception.gateway import Gateway, Provider
from aibridge.protocols.chat_completions import CHAT_COMPLETIONS
from aibridge.protocols.messages import MESSAGES
from aibridge.protocols.responses import RESPONSES
from aibridge.web.routes import provider_blueprint

BRIDGED = (("/chat/completions", CHAT_COMPLETIONS), ("/responses", RESPONSES), ("/v1/messages", MESSAGES))
PASSED_THROUGH = (
    ("/models", CHAT_COMPLETIONS),
    ("/models/<path:rest>", CHAT_COMPLETIONS),
    ("/agents/<path:rest>", CHAT_COMPLETIONS),
    ("/mcp/<path:rest>", CHAT_COMPLETIONS),
    ("/.well-known/<path:rest>", CHAT_COMPLETIONS),
)


def copilot_blueprint(gateway: Gateway, provider: Provider) -> Blueprint:
    return provider_blueprint(gateway, provider, bridged_routes=BRIDGED, passthrough_routes=PASSED_THROUGH)
