"""OpenAI's APIs, and every server that speaks them, through the official SDK."""

from typing import Any

import httpx2
import openai

from aibridge import settings
from aibridge.interception.credentials import CredentialRules
from aibridge.interception.gateway import Provider
from aibridge.providers.sdk import client_options, default_headers, exact_request, sdk_provider, sdk_upstream

BASE_URL = "https://api.openai.com/v1"
DEFAULTS = ("content-type", "user-agent")


class OpenAIClient(openai.OpenAI):
    """The SDK's client, sending exactly what it is given."""

    def _build_request(self, options: Any, *, retries_taken: int = 0) -> httpx2.Request:
        return exact_request(self, options) or super()._build_request(options, retries_taken=retries_taken)


def openai_client(base_url: str, timeouts: settings.UpstreamTimeouts, http_client: httpx2.Client) -> OpenAIClient:
    return OpenAIClient(**client_options(base_url, timeouts, http_client))


def openai_provider(
    provider: settings.Provider, general: settings.UpstreamTimeouts, http_client: httpx2.Client
) -> Provider:
    base_url = provider.base_url or BASE_URL
    timeouts = settings.timeouts_of(provider, general)
    client = openai_client(base_url, timeouts, http_client)
    return sdk_provider(
        provider,
        timeouts,
        base_url=base_url,
        upstream=sdk_upstream(client, openai),
        credentials=CredentialRules(
            accepted=("authorization",), central="authorization", keys=settings.keys_of(provider)
        ),
        defaults=default_headers(client, DEFAULTS),
        mount="/v1",
    )
