"""Rows are right, and there when the client has read to the end (behaviour.md 2.6 and 6, product.md 7)."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fake_provider import Reply
from tests.fake_provider.conversations import (
    MODEL,
    Conversation,
    body,
    every_conversation,
    message_end,
    message_start,
    request_bytes,
    text,
    text_block,
    thinking_block,
    tool_block,
    user,
)
from tests.system.conftest import Gateways
from tests.system.gateway import Gateway, Recorded, Setup, metadata

pytestmark = pytest.mark.system

conversations = pytest.mark.parametrize("conversation", every_conversation(), ids=str)
streaming = pytest.mark.parametrize("stream", [False, True], ids=["blocking", "streaming"])


def has_the_tokens(recorded: Recorded, conversation: Conversation) -> None:
    expected = conversation.tokens
    (row,) = recorded.tokens
    assert (row["provider_response_id"], row["provider_model"]) == (conversation.message_id, MODEL)
    assert (row["input_tokens"], row["output_tokens"]) == (expected.input, expected.output)
    assert row["cache_read_input_tokens"] == expected.cache_read
    assert row["cache_write_input_tokens"] == expected.cache_write
    assert not row["estimated"]
    assert expected.metadata.items() <= metadata(row).items()


def has_the_texts(recorded: Recorded, conversation: Conversation) -> None:
    prompts = [] if conversation.prompt is None else [(conversation.message_id, conversation.prompt)]
    assert [(row["provider_response_id"], row["prompt"]) for row in recorded.prompts] == prompts
    thoughts = [(row["content"], metadata(row).get("source")) for row in recorded.thoughts]
    assert thoughts == [(thought, "thinking") for thought in conversation.thoughts]


def has_the_tools(recorded: Recorded, conversation: Conversation) -> None:
    if conversation.calls is None:
        return
    found = sorted(recorded.tools, key=lambda row: str(row["provider_tool_call_id"]))
    assert [(row["tool"], json.loads(row["input"])) for row in found] == [
        (call.tool, call.arguments) for call in conversation.calls
    ]
    for row, call in zip(found, conversation.calls, strict=True):
        assert row["provider_response_id"] == conversation.message_id
        assert call.id in (row["provider_tool_call_id"], None)
        assert (row["injected"], row["server_url"], row["invocation_error"]) == (0, None, None)


@conversations
@streaming
def test_everything_is_recorded_when_the_answer_ends(
    gateway: Gateway, conversation: Conversation, stream: bool
) -> None:
    gateway.provider.reply(conversation.reply(stream=stream))

    with gateway.post(conversation.request(stream=stream)) as answer:
        answer.read()
    recorded = gateway.recorded(answer.interception_id)

    assert recorded.interception["status"] == "completed"
    assert recorded.interception["ended_at"]
    assert (recorded.interception["error_type"], recorded.interception["error_message"]) in [
        (None, None),
        ("", ""),
    ]
    has_the_tokens(recorded, conversation)
    has_the_texts(recorded, conversation)
    has_the_tools(recorded, conversation)


@conversations
def test_chunking_changes_no_record(gateway: Gateway, conversation: Conversation) -> None:
    gateway.provider.reply(conversation.reply(stream=True).in_single_bytes())

    with gateway.post(conversation.request(stream=True)) as answer:
        answer.read()
    recorded = gateway.recorded(answer.interception_id)

    has_the_tokens(recorded, conversation)
    has_the_texts(recorded, conversation)
    has_the_tools(recorded, conversation)


@streaming
def test_the_interception(gateway: Gateway, actor: str, stream: bool) -> None:
    conversation = text()
    gateway.provider.reply(conversation.reply(stream=stream))

    with gateway.post(
        conversation.request(stream=stream), [("X-User-ID", actor), ("User-Agent", "zed/1.2 é")]
    ) as answer:
        answer.read()
    row = gateway.recorded(answer.interception_id).interception

    assert row["initiator_id"] == actor
    assert (row["provider"], row["provider_name"]) == ("anthropic", "anthropic")
    assert row["model"] == MODEL
    assert row["route"].endswith("/v1/messages")
    assert bool(row["streaming"]) is stream
    assert row["http_status"] == 200
    assert (row["rounds"], row["attempts"]) == (1, 1)
    assert row["user_agent"].startswith("zed/1.2")
    assert row["client"] == "Zed"
    assert row["started_at"] <= row["ended_at"]
    assert row["duration_ms"] >= row["time_to_first_byte_ms"] >= 0
    assert 0 <= row["gateway_ms"] <= row["duration_ms"]


def test_the_row_is_there_before_the_provider_is_asked(gateway: Gateway, actor: str) -> None:
    conversation = text()
    hold = gateway.provider.hold()
    gateway.provider.reply(conversation.reply(stream=False).but(before=hold))

    with gateway.post(conversation.request(stream=False), [("X-User-ID", actor)]) as answer:
        gateway.provider.whole_request()
        (row,) = gateway.rows("interceptions", initiator_id=actor)
        hold.set()
        answer.read()

    assert (row["status"], row["ended_at"]) == ("open", None)
    assert row["id"] == answer.interception_id


def test_a_failed_request_has_no_usage(gateway: Gateway) -> None:
    gateway.provider.reply(Reply.json(b'{"type":"error","error":{"type":"api_error","message":"x"}}', status=500))

    with gateway.post(request_bytes(user("lost?"), stream=True)) as answer:
        answer.read()

    assert gateway.recorded(answer.interception_id).tokens == []


def test_many_at_once_each_with_its_own_rows(gateway: Gateway, actor: str) -> None:
    """Concurrent requests share commits; none loses or doubles a row."""

    def one(number: int) -> str:
        with gateway.post(request_bytes(user(f"{actor} {number}"), stream=True), [("X-User-ID", actor)]) as answer:
            assert answer.read().ended == "clean"
            return answer.interception_id

    gateway.provider.always(lambda received: Reply.sse(numbered(received.json()["messages"][0]["content"])))
    with ThreadPoolExecutor(24) as pool:
        ids = list(pool.map(one, range(96)))

    for number, interception_id in enumerate(ids):
        recorded = gateway.recorded(interception_id)
        assert [row["output_tokens"] for row in recorded.tokens] == [number]
        assert [row["prompt"] for row in recorded.prompts] == [f"{actor} {number}"]
        assert recorded.interception["status"] == "completed"
    assert len(gateway.rows("interceptions", initiator_id=actor)) == 96


def numbered(prompt: str) -> list[bytes]:
    number = int(prompt.rsplit(" ", 1)[1])
    return [
        message_start(f"msg_{number}", {"input_tokens": 1, "output_tokens": 0}),
        *text_block(0, *("word " for _ in range(number % 7))),
        *message_end("end_turn", {"output_tokens": number}),
    ]


SECRET_TEXTS = ("my secret prompt", "my secret thought", "my secret argument")


@pytest.mark.parametrize("content", ["redacted", "none"])
@streaming
def test_contents_that_may_not_be_kept_are_not(gateways: Gateways, content: str, stream: bool) -> None:
    gateway = gateways(Setup(environment=(("AIBRIDGE_RECORDING_CONTENT", content),)))
    prompt, thought, argument = SECRET_TEXTS
    usage = {"input_tokens": 3, "output_tokens": 4}
    events = [
        message_start("msg_secret", usage),
        *thinking_block(0, "sig", thought),
        *tool_block(1, "toolu_s", "Read", json.dumps({"path": argument})),
        *message_end("tool_use", usage),
    ]
    blocks: list[dict[str, object]] = [
        {"type": "thinking", "thinking": thought, "signature": "sig"},
        {"type": "tool_use", "id": "toolu_s", "name": "Read", "input": {"path": argument}},
    ]
    whole = body("msg_secret", blocks, "tool_use", usage)
    gateway.provider.reply(Reply.sse(events) if stream else Reply.json(whole))

    with gateway.post(request_bytes(user(prompt), stream=stream)) as answer:
        answer.read()

    assert gateway.recorded(answer.interception_id).tokens[0]["output_tokens"] == 4
    kept = b"".join(path.read_bytes() for path in gateway.folder.rglob("*") if path.is_file())
    assert [secret for secret in SECRET_TEXTS if secret.encode() in kept] == []
