"""Routes of a provider of type `bedrock`."""

from aibridge.protocols.messages import MESSAGES
from aibridge.web.routes import Routes

BEDROCK_ROUTES = Routes(bridged=(("/v1/messages", MESSAGES),))
