"""GitHub Copilot: OpenAI's two APIs and Anthropic's at one base URL, always on the user's own token."""

from dataclasses import replace

import anthropic
import httpx2
import openai

from aibridge import settings
from aibridge.interception.credentials import CredentialRules
from aibridge.interception.gateway import Provider
from aibridge.providers.anthropic import anthropic_client
from aibridge.providers.openai import DEFAULTS, openai_client
from aibridge.providers.sdk import default_headers, sdk_provider, sdk_upstream
from aibridge.upstream.call import UpstreamRequest, UpstreamResponse

BASE_URL = "https://api.individual.githubcopilot.com"
MESSAGES_PATH = "/v1/messages"


def copilot_provider(
    provider: settings.Provider, general: settings.UpstreamTimeouts, http_client: httpx2.Client
) -> Provider:
    base_url = provider.base_url or BASE_URL
    timeouts = settings.timeouts_of(provider, general)
    client = openai_client(base_url, timeouts, http_client)
    chat = sdk_upstream(client, openai)
    messages_client = anthropic_client(base_url, timeouts, http_client)
    messages = sdk_upstream(messages_client, anthropic)
    version = default_headers(messages_client, ("anthropic-version",))

    def upstream(request: UpstreamRequest) -> UpstreamResponse:
        if not request.path.startswith(MESSAGES_PATH):
            return chat(request)
        sent = {name for name, _ in request.headers}
        missing = tuple(pair for pair in version if pair[0] not in sent)
        return messages(replace(request, headers=(*request.headers, *missing)))

    return sdk_provider(
        provider,
        timeouts,
        base_url=base_url,
        upstream=upstream,
        credentials=CredentialRules(accepted=("authorization",), central="authorization"),
        defaults=default_headers(client, DEFAULTS),
    )
