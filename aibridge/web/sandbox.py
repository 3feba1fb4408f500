"""Routes of a provider of type `sandbox`."""

from aibridge.protocols.chat_completions import CHAT_COMPLETIONS
from aibridge.protocols.messages import MESSAGES
from aibridge.protocols.responses import RESPONSES
from aibridge.web.routes import Routes

SANDBOX_ROUTES = Routes(
    bridged=(
        ("/v1/messages", MESSAGES),
        ("/v1/chat/completions", CHAT_COMPLETIONS),
        ("/v1/responses", RESPONSES),
    ),
    passed_through=(
        ("/v1/models", MESSAGES),
        ("/v1/models/<path:rest>", MESSAGES),
        ("/v1/messages/count_tokens", MESSAGES),
    ),
)
