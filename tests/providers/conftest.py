"""A real local provider, and the gateway's way to it."""

from collections.abc import Iterator

import httpx2
import pytest

from aibridge import settings
from aibridge.interception.gateway import Provider
from aibridge.providers.anthropic import anthropic_provider
from aibridge.providers.transport import http_client
from tests.fake_provider.server import FakeProvider


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    with FakeProvider() as provider:
        yield provider


@pytest.fixture
def http() -> Iterator[httpx2.Client]:
    with http_client(moment=0.02) as client:
        yield client


@pytest.fixture
def provider(fake: FakeProvider, http: httpx2.Client) -> Provider:
    configured = settings.Provider(name="anthropic", type="anthropic", base_url=fake.url, keys=("sk-central",))
    return anthropic_provider(configured, settings.UpstreamTimeouts(connect_timeout=2, read_timeout=0.3), http)
