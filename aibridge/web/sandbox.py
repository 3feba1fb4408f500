"""Routes of a provider of type `sandbox`."""

from flask import Blueprint

from aibridge.interception.gateway import Gateway, Provider
from aibridge.protocols.messages import MESSAGES
from aibridge.web.routes import provider_blueprint

BRIDGED = (("/v1/messages", MESSAGES),)
PASSED_THROUGH = (
    ("/v1/models", MESSAGES),
    ("/v1/models/<path:rest>", MESSAGES),
    ("/v1/messages/count_tokens", MESSAGES),
)


def sandbox_blueprint(gateway: Gateway, provider: Provider) -> Blueprint:
    return provider_blueprint(gateway, provider, bridged_routes=BRIDGED, passthrough_routes=PASSED_THROUGH)
