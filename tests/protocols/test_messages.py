"""The Messages protocol, pure: whole conversations in, the same bytes and the right records out."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aibridge.errors import InvalidRequest
from aibridge.protocols.interceptor import Interceptor, Observation, Payload
from aibridge.protocols.messages import MESSAGES
from aibridge.protocols.relay import KEPT_LIMIT, LAST_EVENTS, READ_LIMIT, Opaque
from aibridge.protocols.sse import encode
from aibridge.records import ModelThought, PromptUsage, TokenUsage, ToolUsage
from tests.conversations import Conversation, conversations
from tests.protocols.sdk import anthropic_message

CONVERSATIONS = conversations("messages")
BLOCKING = [conversation for conversation in CONVERSATIONS if conversation.blocking is not None]

TOKEN_FIELDS = (
    "provider_response_id",
    "provider_model",
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_write_input_tokens",
    "estimated",
    "metadata",
)


def start(payload: Payload, status: int = 200, *, event_stream: bool = True) -> Interceptor:
    return MESSAGES.intercept(payload, "interception", status, event_stream)


def request(**fields: Any) -> Payload:
    return MESSAGES.parse(json.dumps(fields).encode())


def ask() -> Payload:
    return request(messages=[{"role": "user", "content": "hi"}])


def relayed(interceptor: Interceptor, chunks: list[bytes]) -> bytes:
    return b"".join(interceptor.feed(chunk) for chunk in chunks)


def summary(observation: Observation) -> dict[str, Any]:
    """The records in the words of records.json."""
    by_type: dict[type, list[Any]] = {PromptUsage: [], TokenUsage: [], ToolUsage: [], ModelThought: []}
    for record in observation.records:
        assert record.interception_id == "interception"
        by_type[type(record)].append(record)
    (tokens,) = by_type[TokenUsage]
    return {
        "prompt": by_type[PromptUsage][0].prompt if by_type[PromptUsage] else None,
        "tokens": {name: getattr(tokens, name) for name in TOKEN_FIELDS},
        "tools": [
            {
                "provider_tool_call_id": tool.provider_tool_call_id,
                "tool": tool.tool,
                "input": json.loads(tool.input),
            }
            for tool in by_type[ToolUsage]
        ],
        "thoughts": [thought.content for thought in by_type[ModelThought]],
    }


def expected(conversation: Conversation) -> dict[str, Any]:
    return {name: conversation.records[name] for name in ("prompt", "tokens", "tools", "thoughts")}


@pytest.mark.parametrize("conversation", CONVERSATIONS, ids=lambda conversation: conversation.name)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1 << 20])
def test_a_stream_passes_unchanged_and_is_accounted_for_in_pieces_of_any_size(
    conversation: Conversation, size: int
) -> None:
    payload = MESSAGES.parse(conversation.request)
    interceptor = start(payload)
    stream = conversation.stream
    pieces = [stream[i : i + size] for i in range(0, len(stream), size)]

    assert relayed(interceptor, pieces) == stream

    observation = interceptor.observe()
    assert observation.finished
    assert observation.error is None
    assert summary(observation) == expected(conversation)
    assert payload.correlating_tool_call_id == conversation.records.get("correlating_tool_call_id")


@pytest.mark.parametrize("conversation", BLOCKING, ids=lambda conversation: conversation.name)
def test_a_body_passes_unchanged_and_leaves_the_same_records_as_the_stream(conversation: Conversation) -> None:
    assert conversation.blocking is not None
    interceptor = start(MESSAGES.parse(conversation.request), event_stream=False)

    assert relayed(interceptor, [conversation.blocking[:10], conversation.blocking[10:]]) == conversation.blocking

    observation = interceptor.observe()
    assert observation.finished
    assert summary(observation) == expected(conversation)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_sdk_rebuilds_the_providers_message_from_what_the_client_gets(data: st.DataObject) -> None:
    conversation = data.draw(st.sampled_from(BLOCKING))
    assert conversation.blocking is not None
    cuts = sorted(data.draw(st.lists(st.integers(0, len(conversation.stream)), max_size=20)))
    borders = [0, *cuts, len(conversation.stream)]
    pieces = [conversation.stream[a:b] for a, b in pairwise(borders)]
    interceptor = start(MESSAGES.parse(conversation.request))
    client_bytes = relayed(interceptor, pieces)

    message = anthropic_message(client_bytes)

    provider = json.loads(conversation.blocking)
    assert [block["type"] for block in message["content"]] == [block["type"] for block in provider["content"]]
    for got, sent in zip(message["content"], provider["content"], strict=True):
        assert {name: got[name] for name in sent} == sent
    assert message["stop_reason"] == provider["stop_reason"]
    assert message["usage"]["output_tokens"] == provider["usage"]["output_tokens"]


MESSAGE_START = {
    "type": "message_start",
    "message": {"id": "msg_1", "model": "m", "usage": {"input_tokens": 9, "output_tokens": 1}},
}


def stream_of(*events: dict[str, Any]) -> bytes:
    return b"".join(encode(event["type"], json.dumps(event).encode()) for event in events)


def observe(*events: dict[str, Any]) -> Observation:
    interceptor = start(ask())
    interceptor.feed(stream_of(*events))
    return interceptor.observe()


def text_block(index: int, *pieces: str) -> list[dict[str, Any]]:
    deltas = [
        {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": piece}}
        for piece in pieces
    ]
    begin = {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}
    return [begin, *deltas]


def test_a_cut_stream_is_unfinished_and_its_output_is_estimated_from_what_came() -> None:
    observation = observe(MESSAGE_START, *text_block(0, "x" * 50, "y" * 51))
    assert not observation.finished
    tokens = next(record for record in observation.records if isinstance(record, TokenUsage))
    assert (tokens.input_tokens, tokens.output_tokens, tokens.estimated) == (9, 26, True)


def test_what_the_provider_said_of_the_output_is_not_estimated_away() -> None:
    observation = observe(
        MESSAGE_START, *text_block(0, "x" * 400), {"type": "message_delta", "usage": {"output_tokens": 7}}
    )
    tokens = next(record for record in observation.records if isinstance(record, TokenUsage))
    assert (tokens.output_tokens, tokens.estimated) == (7, False)


def test_a_tool_call_cut_in_its_arguments_is_recorded_as_far_as_it_came() -> None:
    begin = {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {}},
    }
    delta = {"type": "input_json_delta", "partial_json": '{"path": "/tm'}
    observation = observe(MESSAGE_START, begin, {"type": "content_block_delta", "index": 0, "delta": delta})
    tool = next(record for record in observation.records if isinstance(record, ToolUsage))
    assert (tool.tool, tool.input) == ("Read", '{"path": "/tm')


def test_arguments_keep_integers_of_any_size() -> None:
    interceptor = start(ask(), event_stream=False)
    interceptor.feed(b'{"content":[{"type":"tool_use","name":"f","input":{"n": 12345678901234567890123}}]}')
    (tool,) = [record for record in interceptor.observe().records if isinstance(record, ToolUsage)]
    assert tool.input == '{"n":12345678901234567890123}'


def test_an_error_event_is_the_providers_error() -> None:
    failed = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    observation = observe(MESSAGE_START, failed)
    assert observation.error is not None
    assert (observation.error.type, observation.error.message) == ("overloaded_error", "Overloaded")


def test_event_names_stand_in_for_a_missing_type() -> None:
    interceptor = start(ask())
    interceptor.feed(stream_of(MESSAGE_START) + b"event: message_stop\ndata: {}\n\n")
    assert interceptor.observe().finished


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b'{"id": "msg_1", "content": ['])
def test_a_body_that_is_no_json_object_is_unfinished(body: bytes) -> None:
    interceptor = start(ask(), event_stream=False)
    interceptor.feed(body)
    observation = interceptor.observe()
    assert not observation.finished
    assert observation.records == ()


def test_an_error_object_in_a_successful_body_is_an_error() -> None:
    interceptor = start(ask(), event_stream=False)
    interceptor.feed(b'{"type":"error","error":{"type":"api_error","message":"no"}}')
    observation = interceptor.observe()
    assert observation.error is not None
    assert observation.error.message == "no"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}', "slow down"),
        (b'{"message":"proxy says no"}', "proxy says no"),
        (b'{"detail":5}', '{"detail":5}'),
        (b"upstream connect error", "upstream connect error"),
    ],
)
def test_an_error_answer_tells_why_and_leaves_no_usage(body: bytes, message: str) -> None:
    interceptor = start(ask(), status=429)
    interceptor.feed(body)
    observation = interceptor.observe()
    assert observation.error is not None
    assert (observation.error.message, observation.error.status) == (message, 429)
    assert observation.finished
    assert observation.records == ()


def test_a_long_stream_is_read_on_the_way_and_not_kept() -> None:
    interceptor = start(ask())
    interceptor.feed(stream_of(MESSAGE_START, *text_block(0)))
    piece = "z" * 10_000
    chunk = stream_of({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}})
    for _ in range(3 * KEPT_LIMIT // len(chunk)):
        assert interceptor.feed(chunk) is chunk
    interceptor.feed(stream_of({"type": "message_stop"}))
    assert interceptor.observe().finished


def test_of_an_endless_stream_the_beginning_and_the_end_are_understood() -> None:
    interceptor = start(ask())
    thinking = {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking"}}
    interceptor.feed(stream_of(MESSAGE_START, thinking))
    delta = {"type": "thinking_delta", "thinking": "z" * 1_000_000}
    chunk = stream_of({"type": "content_block_delta", "index": 0, "delta": delta})
    for _ in range(READ_LIMIT // len(chunk) + 9):
        interceptor.feed(chunk)
    interceptor.feed(stream_of({"type": "message_delta", "usage": {"output_tokens": 4711}}))
    interceptor.feed(stream_of({"type": "message_stop"}))
    observation = interceptor.observe()
    assert observation.finished
    assert "the beginning and the end" in observation.notes[0]
    (usage,) = (record for record in observation.records if isinstance(record, TokenUsage))
    assert usage.output_tokens == 4711
    (thought,) = (record for record in observation.records if isinstance(record, ModelThought))
    assert len(thought.content) < READ_LIMIT + LAST_EVENTS * 1_000_000


def test_an_event_too_large_to_be_understood_is_relayed_and_noted() -> None:
    interceptor = start(ask())
    huge = b"data: " + b"x" * (17 * 1024 * 1024) + b"\n\n"
    stream = stream_of(MESSAGE_START) + huge + stream_of({"type": "message_stop"})
    pieces = [stream[i : i + 65536] for i in range(0, len(stream), 65536)]
    assert relayed(interceptor, pieces) == stream
    observation = interceptor.observe()
    assert observation.finished
    assert observation.notes == ("1 events were too large to be understood",)


def test_an_answer_that_cannot_be_read_counts_as_whole_with_a_note() -> None:
    interceptor = Opaque(200)
    assert interceptor.feed(b"\x1b\x00") + interceptor.finish() == b"\x1b\x00"
    observation = interceptor.observe()
    assert observation.finished
    assert observation.error is None
    assert observation.notes
    refused = Opaque(429).observe().error
    assert refused is not None
    assert refused.status == 429


WEIRD: list[dict[str, Any]] = [
    {"type": "message_start", "message": [1]},
    {"type": "message_start", "message": {"id": 5, "usage": {"input_tokens": -3, "output_tokens": True}}},
    {"type": "message_start", "message": {"usage": {"input_tokens": 1e400, "output_tokens": "many"}}},
    {"type": "content_block_delta", "index": 4, "delta": {"type": "text_delta", "text": "no such block"}},
    {"type": "content_block_start", "index": "zero", "content_block": {"type": "tool_use"}},
    {"type": "content_block_delta", "index": "zero", "delta": {"type": "text_delta", "text": 7}},
    {"type": "content_block_start", "index": 1, "content_block": None},
    {"type": "message_delta", "usage": "none"},
    {"type": "error"},
]


@pytest.mark.parametrize("event", WEIRD, ids=lambda event: json.dumps(event)[:40])
def test_nonsense_from_the_provider_never_raises_nor_gives_impossible_counts(event: dict[str, Any]) -> None:
    for record in observe(event, {"type": "message_stop"}).records:
        if isinstance(record, TokenUsage):
            assert 0 <= record.input_tokens < 2**63
            assert 0 <= record.output_tokens < 2**63


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(
        ["message_start", "content_block_start", "content_block_delta", "message_delta", "error"]
    ),
    fields=st.dictionaries(
        st.sampled_from(["message", "index", "content_block", "delta", "usage", "error"]), json_values
    ),
)
def test_no_event_of_any_shape_raises(kind: str, fields: dict[str, Any]) -> None:
    observe(fields | {"type": kind}, MESSAGE_START, fields | {"type": kind})


@pytest.mark.parametrize("body", [b"", b"  ", b"null", b"[]", b'"x"', b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        MESSAGES.parse(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"n": 123456789012345678901234567890}',
        b'{"n": -' + b"9" * 5000 + b', "x": NaN}',
        b'{"s": "\\ud800"}',
        b'{"model": 5}',
        b'{"deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_json_that_only_lenient_parsers_take_is_forwarded_untouched(body: bytes) -> None:
    assert MESSAGES.parse(body).body == body


PROMPTS: list[tuple[Any, str | None]] = [
    ([{"role": "user", "content": "plain"}], "plain"),
    ([{"role": "user", "content": ""}], ""),
    ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}], "b"),
    ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}], "a"),
    ([{"role": "user", "content": [{"type": "text", "text": 4}, {"type": "image"}]}], None),
    ([{"role": "user", "content": "q"}, {"role": "assistant", "content": "prefill"}], None),
    ([{"role": "user", "content": "q"}, {"role": "system", "content": "s"}], "q"),
    ([{"role": "user", "content": 5}], None),
    ([{"role": "system", "content": "only"}], None),
    ([], None),
    ("not a list", None),
]


@pytest.mark.parametrize(("messages", "prompt"), PROMPTS)
def test_the_prompt_is_the_last_text_of_the_users_last_message(messages: Any, prompt: str | None) -> None:
    assert request(messages=messages).prompt == prompt


def test_streaming_is_asked_for_by_true_alone() -> None:
    assert request(stream=True).streaming
    assert not request(stream=1).streaming
    assert not request(stream="true").streaming
