"""Anthropic's API through its official SDK."""

from typing import Any

import anthropic
import httpx2

from aibridge import settings
from aibridge.interception.credentials import CredentialRules
from aibridge.interception.gateway import Provider
from aibridge.providers.sdk import client_options, default_headers, exact_request, sdk_provider, sdk_upstream

BASE_URL = "https://api.anthropic.com"
DEFAULTS = ("anthropic-version", "content-type", "user-agent")


class AnthropicClient(anthropic.Anthropic):
    """The SDK's client, sending exactly what it is given."""

    def _build_request(self, options: Any, *, retries_taken: int = 0) -> httpx2.Request:
        return exact_request(self, options) or super()._build_request(options, retries_taken=retries_taken)


def anthropic_client(
    base_url: str, timeouts: settings.UpstreamTimeouts, http_client: httpx2.Client
) -> AnthropicClient:
    return AnthropicClient(**client_options(base_url, timeouts, http_client), open_telemetry=False)


def anthropic_provider(
    provider: settings.Provider, general: settings.UpstreamTimeouts, http_client: httpx2.Client
) -> Provider:
    base_url = provider.base_url or BASE_URL
    timeouts = settings.timeouts_of(provider, general)
    client = anthropic_client(base_url, timeouts, http_client)
    return sdk_provider(
        provider,
        timeouts,
        base_url=base_url,
        upstream=sdk_upstream(client, anthropic),
        credentials=CredentialRules(
            accepted=("x-api-key", "authorization"), central="x-api-key", keys=settings.keys_of(provider)
        ),
        defaults=default_headers(client, DEFAULTS),
    )
