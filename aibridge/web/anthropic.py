"""Routes of a provider of type `anthropic`."""

from aibridge.protocols.messages import MESSAGES
from aibridge.web.routes import Routes

ANTHROPIC_ROUTES = Routes(
    bridged=(("/v1/messages", MESSAGES),),
    passed_through=(
        ("/v1/models", MESSAGES),
        ("/v1/models/<path:rest>", MESSAGES),
        ("/v1/messages/count_tokens", MESSAGES),
        ("/api/event_logging/<path:rest>", MESSAGES),
    ),
)
