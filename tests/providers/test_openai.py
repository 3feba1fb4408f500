"""The OpenAI and Copilot providers through the real SDKs over real sockets."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from aibridge import settings
from aibridge.errors import Unauthorized
from aibridge.interception.credentials import resolve
from aibridge.interception.gateway import Provider
from aibridge.providers.copilot import copilot_provider
from aibridge.providers.openai import OpenAIClient, openai_provider
from aibridge.upstream.call import UpstreamRequest
from tests.fake_provider.server import FakeProvider, Reply

BODY = b'{ "model":"gpt-5",  "seed": 123456789012345678901234567890 }'
HEADERS = (("x-repeated", "one"), ("x-repeated", "two"), ("authorization", "Bearer sk-mine"))

Build = Callable[[settings.Provider, settings.UpstreamTimeouts, httpx2.Client], Provider]


def built(build: Build, fake: FakeProvider, http: httpx2.Client, kind: Any, **fields: Any) -> Provider:
    configured = settings.Provider(name="p", type=kind, base_url=f"{fake.url}/base", **fields)
    return build(configured, settings.UpstreamTimeouts(connect_timeout=2, read_timeout=2), http)


ROUTES = [
    (openai_provider, "openai", "/chat/completions"),
    (openai_provider, "openai", "/responses?x=%2F"),
    (copilot_provider, "copilot", "/chat/completions"),
    (copilot_provider, "copilot", "/responses"),
    (copilot_provider, "copilot", "/v1/messages?beta=true"),
]


@pytest.mark.parametrize(("build", "kind", "path"), ROUTES)
def test_exactly_the_given_bytes_and_headers_go_out(
    build: Build, kind: str, path: str, fake: FakeProvider, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_CUSTOM_HEADERS"):
        monkeypatch.setenv(name, "x-env: from-the-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9")
    provider = built(build, fake, http, kind)
    fake.reply(Reply.json(b'{ "ok":1}'), Reply.json(b'{"error":{"message":"no"}}', 429, (("retry-after", "9"),)))

    answer = provider.upstream(UpstreamRequest(path, HEADERS, BODY))
    assert b"".join(answer.body) == b'{ "ok":1}'
    sent = fake.whole_request()
    assert (sent.method, sent.target, bytes(sent.body)) == ("POST", f"/base{path}", BODY)
    ours = [(name, value) for name, value in sent.headers if name.lower() not in ("host", "content-length")]
    assert tuple(ours)[: len(HEADERS)] == HEADERS
    added = {name for name, _ in ours[len(HEADERS) :]}
    assert added == ({"anthropic-version"} if "messages" in path else set())
    assert "from-the-environment" not in repr(provider.defaults)

    refused = provider.upstream(UpstreamRequest(path, HEADERS, BODY))
    assert (refused.status, refused.header("retry-after")) == (429, "9")
    assert b"".join(refused.body) == b'{"error":{"message":"no"}}'


def test_what_the_sdk_adds_where_the_client_sent_nothing(fake: FakeProvider, http: httpx2.Client) -> None:
    defaults = dict(built(openai_provider, fake, http, "openai").defaults)
    assert defaults["content-type"] == "application/json"
    assert defaults["user-agent"].startswith("OpenAI")


def test_openai_takes_a_bearer_or_its_own_key(fake: FakeProvider, http: httpx2.Client) -> None:
    rules = built(openai_provider, fake, http, "openai", keys=("sk-central-key",)).credentials
    assert resolve(HEADERS, rules, allow_byok=True).header == ("authorization", "Bearer sk-mine")
    ignored = (("x-api-key", "sk-not-looked-at"),)
    assert resolve(ignored, rules, allow_byok=True).header == ("authorization", "Bearer sk-central-key")


def test_copilot_takes_the_users_token_only(fake: FakeProvider, http: httpx2.Client) -> None:
    rules = built(copilot_provider, fake, http, "copilot", keys=("sk-central-key",)).credentials
    assert resolve(HEADERS, rules, allow_byok=True).kind == "byok"
    with pytest.raises(Unauthorized):
        resolve((), rules, allow_byok=True)


def test_the_client_still_makes_its_own_requests(fake: FakeProvider, http: httpx2.Client) -> None:
    fake.reply(Reply.json({"object": "list", "data": [{"id": "m", "object": "model"}]}))
    client = OpenAIClient(api_key="k", base_url=fake.url, http_client=http, max_retries=0)
    assert [model.id for model in client.models.list()] == ["m"]
