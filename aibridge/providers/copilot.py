"""GitHub Copilot: OpenAI's two APIs and Anthropic's at one base URL, always on the user's own token."""

import anthropic
import httpx2
import openai

from aibridge import settings
from aibridge.interception.credentials import CredentialRules
from aibridge.interception.gateway import Provider
from aibridge.interception.metering import Meter
from aibridge.providers.anthropic import anthropic_client
from aibridge.providers.openai import DEFAULTS, openai_client
from aibridge.providers.passthrough import Passthrough
from aibridge.providers.sdk import default_headers, sdk_upstream
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
    messages = sdk_upstream(anthropic_client(base_url, timeouts, http_client), anthropic)

    def upstream(request: UpstreamRequest) -> UpstreamResponse:
        return messages(request) if request.path.startswith(MESSAGES_PATH) else chat(request)

    return Provider(
        name=provider.name,
        type=provider.type,
        upstream=upstream,
        forward=Passthrough(base_url, timeouts.connect_timeout, timeouts.read_timeout),
        credentials=CredentialRules(accepted=("authorization",), central="authorization"),
        defaults=default_headers(client, DEFAULTS),
        actor_headers=tuple((provider.actor_headers or {}).items()),
        meter=Meter(wanted=provider.request_usage),
    )
