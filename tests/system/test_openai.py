"""OpenAI's two APIs and Copilot through the running gateway: bytes, records, errors and the official SDK."""

import json
from typing import Any

import anthropic
import openai
import pydantic
import pytest

from tests.conversations import Conversation, conversations
from tests.fake_provider import Reply
from tests.fake_provider.conversations import text as messages_text
from tests.system.conftest import Gateways
from tests.system.gateway import Gateway, Setup

pytestmark = pytest.mark.system

SETUP = Setup(
    """
[[providers]]
name = "openai"
type = "openai"
base_url = "{url}/v1"
keys = ["sk-central-openai"]

[[providers]]
name = "plain"
type = "openai"
base_url = "{url}/v1"
request_usage = false

[[providers]]
name = "copilot"
type = "copilot"
base_url = "{url}"

[[providers]]
name = "sandbox"
type = "sandbox"
""",
    environment=(("AIBRIDGE_SERVER_PING_INTERVAL", "0.3"),),
)
ROUTES = {"chat_completions": "/chat/completions", "responses": "/responses"}
CASES = [(name, conversation) for name in ROUTES for conversation in conversations(name)]
BEARER = [("Authorization", "Bearer sk-own-key-of-a-user")]

CHAT = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}'
RESPONSE = b'{"model":"m","stream":true,"input":"hi"}'
TEXT = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"hello"}}],"usage":null}\n\n'
USAGE = b'data: {"id":"c","model":"m","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}\n\n'
DONE = b"data: [DONE]\n\n"


@pytest.fixture
def gateway(gateways: Gateways) -> Gateway:
    return gateways(SETUP)


def the_tokens(gateway: Gateway, interception_id: str) -> dict[str, Any]:
    (row,) = gateway.recorded(interception_id).tokens
    return row


@pytest.mark.parametrize(("protocol", "conversation"), CASES, ids=lambda value: getattr(value, "name", value))
@pytest.mark.parametrize("provider", ["openai/v1", "copilot"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
def test_conversations_pass_byte_for_byte_and_are_recorded(
    gateway: Gateway, protocol: str, conversation: Conversation, provider: str, stream: bool
) -> None:
    answer = conversation.stream if stream else conversation.blocking
    if answer is None:
        return
    gateway.provider.reply(Reply.sse(answer).in_single_bytes() if stream else Reply.json(answer))

    with gateway.post(conversation.request, BEARER, f"/{provider}{ROUTES[protocol]}") as got:
        assert bytes(got.read().body) == answer
    sent = gateway.provider.whole_request()
    assert sent.path == f"{'' if provider == 'copilot' else '/v1'}{ROUTES[protocol]}"
    if protocol == "responses" or b"include_usage" in conversation.request:
        assert bytes(sent.body) == conversation.request

    recorded = gateway.recorded(got.interception_id)
    expected = conversation.records
    assert recorded.interception["status"] == "completed"
    assert [row["prompt"] for row in recorded.prompts] == [expected["prompt"]] * (expected["prompt"] is not None)
    assert [row["output_tokens"] for row in recorded.tokens] == [expected["tokens"]["output_tokens"]]
    calls = [[row["provider_tool_call_id"], row["provider_item_id"], row["tool"]] for row in recorded.tools]
    assert calls == [call[:3] for call in expected["tools"]]
    assert [row["content"] for row in recorded.thoughts] == expected["thoughts"]


def test_the_usage_is_asked_for_and_hidden(gateway: Gateway) -> None:
    gateway.provider.reply(Reply.sse([TEXT, USAGE, DONE]))
    with gateway.post(CHAT, target="/openai/v1/chat/completions") as answer:
        assert bytes(answer.read().body) == TEXT + DONE
        assert answer.ended == "clean"
    sent = gateway.provider.whole_request()
    assert bytes(sent.body) == CHAT[:-1] + b',"stream_options":{"include_usage":true}}'
    assert sent.header("authorization") == "Bearer sk-central-openai"
    tokens = the_tokens(gateway, answer.interception_id)
    assert (tokens["input_tokens"], tokens["output_tokens"], tokens["estimated"]) == (5, 7, 0)


def test_a_provider_that_must_not_be_asked_is_not(gateway: Gateway) -> None:
    gateway.provider.reply(Reply.sse([TEXT, DONE]))
    with gateway.post(CHAT, BEARER, "/plain/v1/chat/completions") as answer:
        answer.read()
    assert bytes(gateway.provider.whole_request().body) == CHAT
    assert the_tokens(gateway, answer.interception_id)["estimated"] == 1


@pytest.mark.parametrize(
    ("route", "body", "opening", "error"),
    [
        ("/chat/completions", CHAT, TEXT, b'data: {"error":{"message":'),
        ("/responses", RESPONSE, b'event: response.created\ndata: {"type":"x"}\n\n', b"event: error\ndata: {"),
    ],
)
def test_a_stream_that_dies_gets_an_error_event_and_is_cut(
    gateway: Gateway, route: str, body: bytes, opening: bytes, error: bytes
) -> None:
    for ending in ("clean", "cut"):
        gateway.provider.reply(Reply.sse(opening).but(ending=ending))
        with gateway.post(body, BEARER, f"/openai/v1{route}") as answer:
            got = bytes(answer.read().body)
        assert got.startswith(opening + error)
        assert b"[DONE]" not in got
        assert answer.ended == "cut"
        assert gateway.recorded(answer.interception_id).interception["status"] == "failed"


def test_pings_are_comments(gateway: Gateway) -> None:
    hold = gateway.provider.hold()
    gateway.provider.reply(Reply.sse([TEXT, hold, USAGE, DONE]))
    with gateway.post(CHAT, target="/openai/v1/chat/completions") as answer:
        answer.read_until(b": ping\n\n", 2)
        hold.set()
        answer.read()
    assert bytes(answer.body).replace(b": ping\n\n", b"") == TEXT + DONE


@pytest.mark.parametrize("route", ["/chat/completions", "/responses"])
def test_errors_are_openais(gateway: Gateway, route: str) -> None:
    def error(**request: Any) -> tuple[int, str, str]:
        with gateway.request(request.pop("method", "POST"), **request) as answer:
            said = answer.read().json()["error"]
            return answer.status, said["type"], said["code"]

    target = f"/openai/v1{route}"
    assert error(target=target, body=b"[]") == (400, "invalid_request_error", "invalid_json")
    assert error(target=target, method="PUT") == (405, "invalid_request_error", "method_not_allowed")
    assert error(target="/openai/v1/embeddings", body=b"{}") == (404, "invalid_request_error", "not_found")
    assert error(target=f"/copilot{route}", body=b"{}") == (401, "authentication_error", "invalid_api_key")
    gateway.provider.reply(Reply.garbage())
    assert error(target=target, body=b"{}") == (502, "api_error", "upstream_error")


def test_a_websocket_is_turned_to_http_at_once(gateway: Gateway) -> None:
    upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket")]
    for target in ("/openai/v1/responses", "/copilot/responses"):
        with gateway.get(target, upgrade) as answer:
            assert answer.read().status == 426
    assert gateway.provider.received == []


@pytest.mark.parametrize(
    ("target", "upstream"),
    [
        ("/openai/v1/models?limit=2", "/v1/models?limit=2"),
        ("/openai/v1/models/gpt%2F5", "/v1/models/gpt%2F5"),
        ("/openai/v1/conversations", "/v1/conversations"),
        ("/openai/v1/responses/resp_1/input_items", "/v1/responses/resp_1/input_items"),
        ("/copilot/models", "/models"),
        ("/copilot/agents/x/y", "/agents/x/y"),
        ("/copilot/mcp/readonly", "/mcp/readonly"),
        ("/copilot/.well-known/oauth", "/.well-known/oauth"),
    ],
)
def test_what_is_passed_through(gateway: Gateway, target: str, upstream: str) -> None:
    gateway.provider.reply(Reply.json(b'{ "ok": 1 }', 207))
    with gateway.get(target, BEARER) as answer:
        assert (answer.read().status, bytes(answer.body)) == (207, b'{ "ok": 1 }')
    sent = gateway.provider.whole_request()
    assert (sent.target, sent.header("authorization")) == (upstream, "Bearer sk-own-key-of-a-user")
    assert answer.header("x-aibridge-interception-id") is None


def test_the_official_sdk(gateway: Gateway) -> None:
    sdk = openai.OpenAI(base_url=f"{gateway.url}/openai/v1", api_key="sk-own-key-of-a-user", max_retries=0)
    gateway.provider.reply(Reply.sse([TEXT, USAGE, DONE]))
    chunks = list(
        sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], stream=True)
    )
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["hello"]

    gateway.provider.reply(Reply.sse([TEXT, USAGE]).but(ending="cut"))
    with pytest.raises(openai.APIError):
        list(sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], stream=True))

    tools = next(case for case in conversations("responses") if case.name == "tools")
    gateway.provider.reply(Reply.sse(tools.stream))
    with sdk.responses.stream(model="m", input="hi") as stream:
        final: dict[str, Any] = stream.get_final_response().to_dict(mode="json")
    assert tools.blocking is not None
    assert [item["id"] for item in final["output"]] == [
        item["id"] for item in json.loads(tools.blocking)["output"]
    ]


class Add(pydantic.BaseModel):
    """What the sandbox is told to call."""

    a: int
    b: int


def test_the_official_sdk_with_the_sandbox(gateway: Gateway) -> None:
    sdk = openai.OpenAI(base_url=f"{gateway.url}/sandbox/v1", api_key="anything", max_retries=0)
    question: Any = [{"role": "user", "content": 'call Add {"a": 3, "b": 5}'}]
    functions: Any = [openai.pydantic_function_tool(Add)]

    completion = sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
    assert completion.choices[0].message.content == "You said: hi"
    parsed = sdk.chat.completions.parse(model="m", messages=question, tools=functions)
    with sdk.chat.completions.stream(model="m", messages=question, tools=functions) as chat:
        streamed = chat.get_final_completion()
    for made in (parsed, streamed):
        calls = made.choices[0].message.tool_calls or []
        assert [call.function.parsed_arguments for call in calls] == [Add(a=3, b=5)]

    function: Any = functions[0]["function"]
    tools: Any = [{"type": "function", **function}]
    assert sdk.responses.create(model="m", input="hi").output_text == "You said: hi"
    with sdk.responses.stream(model="m", input=question, tools=tools) as events:
        final = events.get_final_response()
    arguments = [item.parsed_arguments for item in final.output if item.type == "function_call"]
    assert arguments == [{"a": 3, "b": 5}]
    assert "sandbox-large" in [model.id for model in sdk.models.list()]


def test_what_concerns_openai_alone_is_left_alone(gateway: Gateway) -> None:
    """A response in the background ends with the answer that it is queued; all its words stay as they are."""
    body = (
        b'{"background": true, "store" :true, "previous_response_id":"resp_0", "conversation":"conv_1",'
        b'"include":["reasoning.encrypted_content"],"context_management":[{"type":"compaction"}],"model":"m",'
        b'"input":[{"type":"reasoning","id":"rs_1","encrypted_content":"gAAA==","summary":[]},'
        b'{"type":"compaction","encrypted_content":"x"}]}'
    )
    queued = b'{"id":"resp_1","object":"response","status":"queued","background":true,"model":"m","output":[]}'
    gateway.provider.reply(Reply.json(queued))
    with gateway.post(body, target="/openai/v1/responses") as answer:
        assert bytes(answer.read().body) == queued
    assert bytes(gateway.provider.whole_request().body) == body
    recorded = gateway.recorded(answer.interception_id)
    assert (recorded.interception["status"], recorded.tokens) == ("completed", [])


def test_anthropics_sdk_over_copilot(gateway: Gateway) -> None:
    gateway.provider.reply(messages_text().reply(stream=True))
    sdk = anthropic.Anthropic(base_url=f"{gateway.url}/copilot", auth_token="gho_of_the_user", max_retries=0)
    with sdk.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}]) as stream:
        assert stream.get_final_message().id == "msg_text"
    sent = gateway.provider.whole_request()
    assert (sent.path, sent.header("authorization")) == ("/v1/messages", "Bearer gho_of_the_user")
