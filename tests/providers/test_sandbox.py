"""The sandbox's model: directives in, conversations of the real API's shapes out."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from aibridge import settings
from aibridge.errors import UpstreamError
from aibridge.interception.gateway import ForwardedRequest, Provider
from aibridge.providers.sandbox import provider as provider_module
from aibridge.providers.sandbox import sandbox_provider
from aibridge.providers.transport import Transport, http_client
from aibridge.upstream.call import IDLE, UpstreamRequest
from tests.protocols.sdk import anthropic_message, chat_completion, response


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Provider:
    monkeypatch.setattr(provider_module, "PACE", 0.0)
    with http_client(Transport(1)) as client:
        return sandbox_provider(
            settings.Provider(name="sandbox", type="sandbox"), settings.UpstreamTimeouts(), client
        )


def ask(
    sandbox: Provider, content: Any, *, stream: bool = False, path: str = "/v1/messages"
) -> tuple[int, list[bytes]]:
    question = {"role": "user", "content": content}
    about = {"input": [question]} if path.endswith("/responses") else {"messages": [question]}
    asking = {"stream_options": {"include_usage": True}} if path.endswith("/completions") else {}
    body = json.dumps({"model": "m", **about, "stream": stream} | (asking if stream else {})).encode()
    response = sandbox.upstream(UpstreamRequest(path, (), body))
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


def bare_message(message: dict[str, Any]) -> list[Any]:
    fields = ("type", "text", "thinking", "name", "input")
    content = [{name: block[name] for name in fields if name in block} for block in message["content"]]
    return [content, message["stop_reason"], message["usage"]["output_tokens"]]


def bare_completion(completion: dict[str, Any]) -> list[Any]:
    choice = completion["choices"][0]
    calls = [call["function"]["arguments"] for call in choice["message"].get("tool_calls") or []]
    usage = completion["usage"]["completion_tokens"]
    return [choice["message"]["content"] or None, calls, choice["finish_reason"], usage]


def bare_response(response: dict[str, Any]) -> list[Any]:
    output = [{name: value for name, value in item.items() if "id" not in name} for item in response["output"]]
    return [output, response["status"], response["usage"]["output_tokens"]]


VOICES = [
    ("/v1/messages", anthropic_message, bare_message),
    ("/v1/chat/completions", chat_completion, bare_completion),
    ("/v1/responses", response, bare_response),
]


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize(("path", "rebuilt", "bare"), VOICES, ids=[voice[0] for voice in VOICES])
def test_stream_and_body_are_the_same_answer(
    sandbox: Provider,
    prompt: str,
    path: str,
    rebuilt: Callable[[bytes], dict[str, Any]],
    bare: Callable[[dict[str, Any]], list[Any]],
) -> None:
    whole = json.loads(b"".join(ask(sandbox, prompt, path=path)[1]))
    streamed = rebuilt(b"".join(ask(sandbox, prompt, stream=True, path=path)[1]))
    assert bare(streamed) == bare(whole)


def test_all_voices_quote_what_the_tools_answered(sandbox: Provider) -> None:
    chat = {"messages": [{"role": "assistant"}, *({"role": "tool", "content": text} for text in ("a", "b"))]}
    outputs = [{"type": "function_call", "call_id": "1"}]
    outputs += [{"type": "function_call_output", "output": output} for output in ("a", ["b"])]  # type: ignore[dict-item]
    for path, body, quoted in (
        ("/v1/chat/completions", chat, b"The tools answered: a; b"),
        ("/v1/responses", {"input": outputs}, b'The tools answered: a; [\\"b\\"]'),
    ):
        answer = sandbox.upstream(UpstreamRequest(path, (), json.dumps(body).encode()))
        assert quoted in b"".join(answer.body)


def test_usage_is_told_in_a_stream_only_when_asked_for(sandbox: Provider) -> None:
    body = b'{"messages":[{"role":"user","content":"hi"}],"stream":true}'
    answer = sandbox.upstream(UpstreamRequest("/v1/chat/completions", (), body))
    assert b"usage" not in b"".join(answer.body)


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
        ("/v1/models", b"", 200, b'"object":"list"'),
        ("/v1/messages/count_tokens", b'{"messages":[]}', 200, b"input_tokens"),
        ("/v1/messages/count_tokens", b"[]", 400, b"invalid_request_error"),
    ],
)
def test_the_passed_through_routes(sandbox: Provider, path: str, body: bytes, status: int, has: bytes) -> None:
    version = () if b"list" in has else (("anthropic-version", "2023-06-01"),)
    answer = sandbox.forward(ForwardedRequest("GET", path, version, io.BytesIO(body), len(body)))
    got = b"".join(answer.body)
    assert answer.status == status
    assert has in got
    assert dict(answer.headers)["content-length"] == str(len(got))
