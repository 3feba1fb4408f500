"""Routes of a provider of type `openai`."""

from aibridge.protocols.chat_completions import CHAT_COMPLETIONS
from aibridge.protocols.responses import RESPONSES
from aibridge.web.routes import Routes

OPENAI_ROUTES = Routes(
    bridged=(("/v1/chat/completions", CHAT_COMPLETIONS), ("/v1/responses", RESPONSES)),
    passed_through=(
        ("/v1/models", CHAT_COMPLETIONS),
        ("/v1/models/<path:rest>", CHAT_COMPLETIONS),
        ("/v1/conversations", RESPONSES),
        ("/v1/conversations/<path:rest>", RESPONSES),
        ("/v1/responses/<path:rest>", RESPONSES),
    ),
)
