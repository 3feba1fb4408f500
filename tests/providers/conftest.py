"""A real local provider, and the gateway's way to it."""

from collections.abc import Iterator

import httpx2
import pytest

from aibridge import settings
from aibridge.interception.gateway import Provider
from aibridge.providers.anthropic import anthropic_provider
from aibridge.providers.stock_transport import StockTransport
from aibridge.providers.transport import Transport, http_client
from tests.fake_provider.server import FakeProvider

# Both transports keep the same contract; these are for what only one of them does.
only_our_own = pytest.mark.parametrize("transport", [Transport], ids=["own"])
only_the_stock_one = pytest.mark.parametrize("transport", [StockTransport], ids=["httpx2"])


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    with FakeProvider() as provider:
        yield provider


@pytest.fixture(params=[Transport, StockTransport], ids=["own", "httpx2"])
def transport(request: pytest.FixtureRequest) -> type[Transport | StockTransport]:
    kind: type[Transport | StockTransport] = request.param
    return kind


@pytest.fixture
def http(transport: type[Transport | StockTransport]) -> Iterator[httpx2.Client]:
    with http_client(transport(moment=0.02)) as client:
        yield client


@pytest.fixture
def provider(fake: FakeProvider, http: httpx2.Client) -> Provider:
    configured = settings.Provider(name="anthropic", type="anthropic", base_url=fake.url, keys=("sk-central",))
    return anthropic_provider(configured, settings.UpstreamTimeouts(connect_timeout=2, read_timeout=0.3), http)
