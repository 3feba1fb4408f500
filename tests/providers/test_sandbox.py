"""The sandbox's model: directives in, conversations of the real API's shapes out."""

import io
import json
from typing import Any

import pytest

from aibridge import settings
from aibridge.errors import UpstreamError
from aibridge.interception.gateway import ForwardedRequest, Provider
from aibridge.providers.sandbox import provider as provider_module
from aibridge.providers.sandbox import sandbox_provider
from aibridge.upstream.call import IDLE, UpstreamRequest
from tests.protocols.test_messages import sdk_message


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Provider:
    monkeypatch.setattr(provider_module, "PACE", 0.0)
    return sandbox_provider(settings.Provider(name="sandbox", type="sandbox"), moment=0.01)


def ask(sandbox: Provider, content: Any, *, stream: bool = False) -> tuple[int, list[bytes]]:
    body = {"model": "m", "messages": [{"role": "user", "content": content}], "stream": stream}
    response = sandbox.upstream(UpstreamRequest("/v1/messages", (), json.dumps(body).encode()))
    chunks = list(response.body)
    response.body.close()
    return response.status, chunks


PROMPTS = [
    "hello",
    "say 12 words",
    'think deeply about it\ncall Read {"path": "a b c d e f"}\ncall Now',
    "think hm\nsay 3 words",
    "",
]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_stream_and_body_are_the_same_message(sandbox: Provider, prompt: str) -> None:
    _, chunks = ask(sandbox, prompt)
    whole = json.loads(b"".join(chunks))
    _, events = ask(sandbox, prompt, stream=True)
    streamed = sdk_message(b"".join(events))

    def bare(message: dict[str, Any]) -> list[Any]:
        return [
            {name: value for name, value in block.items() if name in ("type", "text", "thinking", "name", "input")}
            for block in message["content"]
        ]

    assert bare(streamed) == bare(whole)
    assert streamed["stop_reason"] == whole["stop_reason"]
    assert streamed["usage"]["output_tokens"] == whole["usage"]["output_tokens"] > 0


def content(sandbox: Provider, prompt: Any) -> list[Any]:
    found = json.loads(b"".join(ask(sandbox, prompt)[1]))["content"]
    assert isinstance(found, list)
    return found


def test_it_echoes_calls_thinks_and_quotes(sandbox: Provider) -> None:
    assert content(sandbox, "hello")[0]["text"] == "You said: hello"
    assert len(content(sandbox, "say 5 words")[0]["text"].split()) == 5
    thought, first, second = content(sandbox, 'think hm\ncall a {"x": 1}\ncall b')
    assert thought["thinking"] == "hm"
    assert [(call["name"], call["input"]) for call in (first, second)] == [("a", {"x": 1}), ("b", {})]
    results = [
        {"type": "tool_result", "tool_use_id": "1", "content": "plain"},
        {"type": "tool_result", "tool_use_id": "2", "content": [{"type": "text", "text": "blocks"}]},
        {"type": "tool_result", "tool_use_id": "3"},
    ]
    assert content(sandbox, results)[0]["text"] == "The tools answered: plain; blocks; nothing"


def test_it_fails_as_told(sandbox: Provider) -> None:
    status, chunks = ask(sandbox, "fail 529")
    assert (status, json.loads(chunks[0])["error"]["type"]) == (529, "overloaded_error")
    body = json.dumps({"messages": [{"role": "user", "content": "fail 429 7"}]}).encode()
    response = sandbox.upstream(UpstreamRequest("/v1/messages", (), body))
    assert (response.status, response.header("retry-after")) == (429, "7")


def test_it_stalls_after_the_first_event_and_dies_half_way(sandbox: Provider) -> None:
    _, chunks = ask(sandbox, "stall 0.05", stream=True)
    assert chunks[0].startswith(b"event: message_start")
    assert chunks[1] is IDLE
    with pytest.raises(UpstreamError):
        ask(sandbox, "cut", stream=True)


@pytest.mark.parametrize(
    ("path", "body", "status", "has"),
    [
        ("/v1/models", b"", 200, b"sandbox-large"),
        ("/v1/models/sandbox-small?x=1", b"", 200, b'"id":"sandbox-small"'),
        ("/v1/models/gpt", b"", 404, b"not_found_error"),
        ("/v1/messages/count_tokens", b'{"messages":[]}', 200, b"input_tokens"),
        ("/v1/messages/count_tokens", b"[]", 400, b"invalid_request_error"),
    ],
)
def test_the_passed_through_routes(sandbox: Provider, path: str, body: bytes, status: int, has: bytes) -> None:
    answer = sandbox.forward(ForwardedRequest("GET", path, (), io.BytesIO(body), len(body)))
    got = b"".join(answer.body)
    assert answer.status == status
    assert has in got
    assert dict(answer.headers)["content-length"] == str(len(got))
