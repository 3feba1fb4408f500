"""Routes of a provider of type `bedrock`."""

from flask import Blueprint

from aibridge.interception.gateway import Gateway, Provider
from aibridge.protocols.messages import MESSAGES
from aibridge.web.routes import provider_blueprint

BRIDGED = (("/v1/messages", MESSAGES),)


def bedrock_blueprint(gateway: Gateway, provider: Provider) -> Blueprint:
    return provider_blueprint(gateway, provider, bridged_routes=BRIDGED, passthrough_routes=())
