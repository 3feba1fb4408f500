"""Routes of a provider of type `copilot`."""

from aibridge.protocols.chat_completions import CHAT_COMPLETIONS
from aibridge.protocols.messages import MESSAGES
from aibridge.protocols.responses import RESPONSES
from aibridge.web.routes import Routes

COPILOT_ROUTES = Routes(
    bridged=(("/chat/completions", CHAT_COMPLETIONS), ("/responses", RESPONSES), ("/v1/messages", MESSAGES)),
    passed_through=(
        ("/models", CHAT_COMPLETIONS),
        ("/models/<path:rest>", CHAT_COMPLETIONS),
        ("/agents/<path:rest>", CHAT_COMPLETIONS),
        ("/mcp/<path:rest>", CHAT_COMPLETIONS),
        ("/.well-known/<path:rest>", CHAT_COMPLETIONS),
    ),
)
