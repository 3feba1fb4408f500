"""OpenAI's two protocols, pure: whole conversations in, the same bytes and the right records out."""

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aibridge.errors import InvalidRequest
from aibridge.interception.metering import Meter
from aibridge.interception.outcome import category
from aibridge.protocols.chat_completions import CHAT_COMPLETIONS
from aibridge.protocols.chat_completions.interceptor import LONGEST_USAGE_EVENT
from aibridge.protocols.interceptor import Interceptor, Observation, Payload, WireProtocol
from aibridge.protocols.responses import RESPONSES
from aibridge.protocols.sse import encode
from aibridge.records import ModelThought, PromptUsage, TokenUsage, ToolUsage
from aibridge.upstream.call import Upstream, UpstreamRequest, UpstreamResponse
from tests.conversations import Conversation, conversations
from tests.fakes import FakeUpstream
from tests.protocols.sdk import chat_completion, response
from tests.protocols.test_messages import TOKEN_FIELDS, json_values

PROTOCOLS = {"chat_completions": CHAT_COMPLETIONS, "responses": RESPONSES}
ALL = [(PROTOCOLS[name], conversation) for name in PROTOCOLS for conversation in conversations(name)]
BLOCKING = [(protocol, conversation) for protocol, conversation in ALL if conversation.blocking is not None]


def named(value: Any) -> str:
    return str(value.name)


def start(
    protocol: WireProtocol, payload: Payload, status: int = 200, *, event_stream: bool = True
) -> Interceptor:
    return protocol.intercept(payload, "interception", status, event_stream)


def relayed(interceptor: Interceptor, chunks: list[bytes]) -> bytes:
    return b"".join(interceptor.feed(chunk) for chunk in chunks) + interceptor.finish()


def in_pieces(stream: bytes, size: int) -> list[bytes]:
    return [stream[i : i + size] for i in range(0, len(stream), size)]


def summary(observation: Observation) -> dict[str, Any]:
    records = observation.records
    (tokens,) = [record for record in records if isinstance(record, TokenUsage)]
    prompts = [record.prompt for record in records if isinstance(record, PromptUsage)]
    return {
        "prompt": prompts[0] if prompts else None,
        "tokens": {name: getattr(tokens, name) for name in TOKEN_FIELDS},
        "tools": [
            [tool.provider_tool_call_id, tool.provider_item_id, tool.tool, tool.input]
            for tool in records
            if isinstance(tool, ToolUsage)
        ],
        "thoughts": [record.content for record in records if isinstance(record, ModelThought)],
    }


def expected(conversation: Conversation) -> dict[str, Any]:
    return {name: conversation.records[name] for name in ("prompt", "tokens", "tools", "thoughts")}


@pytest.mark.parametrize(("protocol", "conversation"), ALL, ids=named)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1 << 20])
def test_a_stream_passes_unchanged_and_is_accounted_for_in_pieces_of_any_size(
    protocol: WireProtocol, conversation: Conversation, size: int
) -> None:
    payload = protocol.parse(conversation.request)
    interceptor = start(protocol, payload)

    assert relayed(interceptor, in_pieces(conversation.stream, size)) == conversation.stream

    observation = interceptor.observe()
    assert observation.finished
    assert observation.error is None
    assert list(observation.notes) == conversation.records.get("notes", [])
    assert summary(observation) == expected(conversation)
    assert payload.correlating_tool_call_id == conversation.records.get("correlating_tool_call_id")


@pytest.mark.parametrize(("protocol", "conversation"), BLOCKING, ids=named)
def test_a_body_passes_unchanged_and_leaves_the_same_records(
    protocol: WireProtocol, conversation: Conversation
) -> None:
    assert conversation.blocking is not None
    interceptor = start(protocol, protocol.parse(conversation.request), event_stream=False)
    assert relayed(interceptor, in_pieces(conversation.blocking, 50)) == conversation.blocking
    observation = interceptor.observe()
    assert observation.finished
    assert summary(observation) == expected(conversation)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_sdks_rebuild_the_providers_answer_from_what_the_client_gets(data: st.DataObject) -> None:
    protocol, conversation = data.draw(st.sampled_from(BLOCKING))
    assert conversation.blocking is not None
    cuts = sorted(data.draw(st.lists(st.integers(0, len(conversation.stream)), max_size=20)))
    pieces = [conversation.stream[a:b] for a, b in pairwise([0, *cuts, len(conversation.stream)])]
    payload = protocol.parse(conversation.request)
    hide = bool(protocol.metering) and data.draw(st.booleans())
    seeing = start(protocol, payload)
    assert protocol.metering or not hide
    interceptor = protocol.metering.hide(seeing) if hide and protocol.metering else seeing
    client_bytes = relayed(interceptor, pieces)
    provider = json.loads(conversation.blocking)

    if protocol is RESPONSES:
        assert response(client_bytes)["output"] == provider["output"]
        return
    if any("custom" in call for call in provider["choices"][0]["message"].get("tool_calls", [])):
        return  # the SDK's accumulator does not know custom tool calls
    completion = chat_completion(client_bytes)
    got, sent = completion["choices"][0]["message"], provider["choices"][0]["message"]
    assert got["content"] == sent["content"]
    assert completion["choices"][0]["finish_reason"] == provider["choices"][0]["finish_reason"]


def test_the_sdk_rebuilds_parallel_calls() -> None:
    conversation = next(c for c in conversations("chat_completions") if c.name == "parallel_tools")
    functions = conversation.stream.partition(b'data: {"id":"chatcmpl-2"')[0]
    kept = [event for event in conversation.stream.split(b"\r\n\r\n") if b'"custom"' not in event]
    got = chat_completion(functions + b"\r\n\r\n".join(kept))["choices"][0]["message"]["tool_calls"]
    assert [(call["id"], call["function"]["arguments"]) for call in got] == [
        ("call_A", '{"path": "/tmp/ä", "n": 12345678901234567890123}'),
        ("call_B", "{}"),
    ]


# --- the usage that the gateway asks for itself


def chunk(**fields: Any) -> bytes:
    return encode("", json.dumps({"id": "c", "model": "m", **fields}, separators=(",", ":")).encode())


USAGE = {"prompt_tokens": 5, "completion_tokens": 7}
TEXT = chunk(choices=[{"index": 0, "delta": {"content": "héllo"}}], usage=None)
EXTRA = chunk(choices=[], usage=USAGE)
LAST = chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}], usage=USAGE)
NO_USAGE = chunk(choices=[], prompt_filter_results=[{"index": 0}])
LONG = chunk(choices=[{"index": 0, "delta": {"content": "x" * 2 * LONGEST_USAGE_EVENT}}])
DONE = b"data: [DONE]\n\n"


def hiding() -> tuple[Interceptor, Callable[[], Observation]]:
    payload = CHAT_COMPLETIONS.parse(b'{"stream":true}')
    assert CHAT_COMPLETIONS.metering is not None
    interceptor = CHAT_COMPLETIONS.metering.hide(start(CHAT_COMPLETIONS, payload))
    return interceptor, interceptor.observe


def crlf(stream: bytes) -> bytes:
    return stream.replace(b"\n", b"\r\n")


STREAMS = [
    [TEXT, TEXT, EXTRA, DONE],
    [b": keep-alive\n\n", NO_USAGE, TEXT, LAST, DONE],
    [LONG, EXTRA, TEXT, DONE],
    [LONG, LONG, EXTRA, DONE, b"data: trailing without an end"],
    [b'data: {"choices": [ ], "usage": not json}\n\n', DONE],
    [TEXT, chunk(choices=[], usage=USAGE, citations=["what only this server tells"]), DONE],
]


@pytest.mark.parametrize("events", STREAMS)
@pytest.mark.parametrize("spelled", [lambda stream: stream, crlf], ids=["LF", "CRLF"])
@pytest.mark.parametrize("size", [1, 5, 100, 1 << 20])
def test_only_the_extra_usage_chunk_is_hidden(
    events: list[bytes], spelled: Callable[[bytes], bytes], size: int
) -> None:
    interceptor, observe = hiding()
    shown = relayed(interceptor, in_pieces(spelled(b"".join(events)), size))
    assert shown == spelled(b"".join(event for event in events if event is not EXTRA))
    if EXTRA in events:
        tokens = next(record for record in observe().records if isinstance(record, TokenUsage))
        assert (tokens.input_tokens, tokens.output_tokens, tokens.estimated) == (5, 7, False)


def test_whole_events_go_on_at_once_as_they_are() -> None:
    interceptor, _ = hiding()
    assert interceptor.feed(TEXT) is TEXT
    assert interceptor.feed(TEXT[:9]) == b""
    assert interceptor.feed(TEXT[9:]) == TEXT


ASKING = [
    (b'{"stream": true, "n":1}', b'{"stream": true, "n":1,"stream_options":{"include_usage":true}}'),
    (b'{"stream":true,"stream_options":null}', b'{"stream":true,"stream_options":{"include_usage":true}}'),
    (
        b'{"stream_options": {"x": 1e2},"stream":true}',
        b'{"stream_options": {"x": 1e2,"include_usage":true},"stream":true}',
    ),
    (
        b'{"stream_options":{"include_usage": false}, "stream":true}',
        b'{"stream_options":{"include_usage": true}, "stream":true}',
    ),
    (b'{"stream":true,"stream_options":{"include_usage":true}}', None),
    (b'{"stream":false}', None),
    (b'{"stream":true,"usage":{"include":true}}', None),
    (b'{"stream":true,"stream_options":"yes"}', None),
    (b'{"stream":true,"x":' + b"[" * 1000 + b"]" * 1000 + b"}", None),
]


@pytest.mark.parametrize(("body", "asking"), ASKING)
def test_asking_touches_nothing_else(body: bytes, asking: bytes | None) -> None:
    assert CHAT_COMPLETIONS.metering is not None
    assert CHAT_COMPLETIONS.metering.ask(CHAT_COMPLETIONS.parse(body)) == asking


def metered(meter: Meter, upstream: Upstream, protocol: WireProtocol = CHAT_COMPLETIONS) -> tuple[int, bytes]:
    payload = protocol.parse(b'{"stream":true}')
    request = UpstreamRequest("/chat/completions", (), payload.body)
    answer, intercept = meter.call(upstream, request, payload, protocol)
    return answer.status, relayed(intercept(payload, "i", answer.status, answer.status == 200), list(answer.body))


def test_a_provider_is_asked_and_the_answer_hidden() -> None:
    upstream = FakeUpstream(TEXT, EXTRA, DONE)
    assert metered(Meter(), upstream) == (200, TEXT + DONE)
    assert b"include_usage" in upstream.requests[0].body


@pytest.mark.parametrize(("meter", "protocol"), [(Meter(wanted=False), CHAT_COMPLETIONS), (Meter(), RESPONSES)])
def test_nobody_is_asked_who_must_not_or_need_not_be(meter: Meter, protocol: WireProtocol) -> None:
    upstream = FakeUpstream(TEXT, DONE)
    assert metered(meter, upstream, protocol) == (200, TEXT + DONE)
    assert upstream.requests[0].body == b'{"stream":true}'


def test_a_provider_that_refuses_the_question_is_not_asked_again() -> None:
    refusing = FakeUpstream(b'{"error":{"message":"Unknown parameter: stream_options"}}', status=400)
    plain = FakeUpstream(TEXT, DONE)
    asked: list[bool] = []

    def upstream(request: UpstreamRequest) -> UpstreamResponse:
        asked.append(b"include_usage" in request.body)
        return refusing(request) if asked[-1] else plain(request)

    meter = Meter()
    assert metered(meter, upstream) == (200, TEXT + DONE)
    assert metered(meter, upstream) == (200, TEXT + DONE)
    assert asked == [True, False, False]


def test_a_client_that_is_refused_itself_does_not_stop_the_asking_for_others() -> None:
    refusing = FakeUpstream(b'{"error":{"message":"Unknown parameter: stream_options.bogus"}}', status=400)
    meter = Meter()
    assert metered(meter, refusing)[0] == 400
    assert metered(meter, FakeUpstream(TEXT, EXTRA, DONE)) == (200, TEXT + DONE)


def test_other_refusals_are_relayed() -> None:
    upstream = FakeUpstream(b'{"error":', b'{"message":"no"}}', status=400)
    assert metered(Meter(), upstream) == (400, b'{"error":{"message":"no"}}')
    assert len(upstream.requests) == 1
    assert metered(Meter(), FakeUpstream(b"x", status=500)) == (500, b"x")


# --- odd and broken answers


def observed(protocol: WireProtocol, *events: bytes, body: bytes = b'{"input":"hi"}') -> Observation:
    interceptor = start(protocol, protocol.parse(body))
    interceptor.feed(b"".join(events))
    return interceptor.observe()


def event(kind: str, **fields: Any) -> bytes:
    return encode(kind, json.dumps({"type": kind, **fields}).encode())


CREATED = event("response.created", response={"id": "r", "model": "m", "status": "in_progress"})
FAILED = {"id": "r", "model": "m", "error": {"code": "server_error", "message": "boom"}, "usage": None}


def the_tokens(observation: Observation) -> TokenUsage:
    (tokens,) = [record for record in observation.records if isinstance(record, TokenUsage)]
    return tokens


def test_a_cut_stream_is_unfinished_and_estimated() -> None:
    delta = event("response.output_text.delta", delta="x" * 40)
    for observation in (
        observed(CHAT_COMPLETIONS, chunk(choices=[{"index": 0, "delta": {"content": "x" * 40}}]), body=b'{"a":1}'),
        observed(RESPONSES, CREATED, delta, body=b'{"a":1}'),
    ):
        assert not observation.finished
        assert (the_tokens(observation).input_tokens, the_tokens(observation).output_tokens) == (2, 10)
        assert the_tokens(observation).estimated


def test_a_whole_chat_without_a_usage_is_estimated_unless_it_is_empty() -> None:
    assert the_tokens(observed(CHAT_COMPLETIONS, TEXT, DONE)).estimated
    empty = observed(CHAT_COMPLETIONS, NO_USAGE, DONE)
    assert not [record for record in empty.records if isinstance(record, TokenUsage)]


def test_a_stream_that_never_began_leaves_nothing() -> None:
    assert observed(CHAT_COMPLETIONS, b"data: nonsense\n\n").records == ()
    assert observed(RESPONSES, b"data: nonsense\n\n").records == ()


@pytest.mark.parametrize(
    ("protocol", "stream", "kind", "message"),
    [
        (
            CHAT_COMPLETIONS,
            chunk(error={"message": "no", "code": "rate_limit_exceeded"}),
            "rate_limit_exceeded",
            "no",
        ),
        (CHAT_COMPLETIONS, encode("", b'{"error":"plain"}'), "", "plain"),
        (RESPONSES, event("error", code="server_error", message="flat"), "server_error", "flat"),
        (RESPONSES, event("error", error={"type": "t", "message": "nested"}), "t", "nested"),
        (RESPONSES, CREATED + event("response.failed", response=FAILED), "server_error", "boom"),
    ],
)
def test_errors_inside_a_stream(protocol: WireProtocol, stream: bytes, kind: str, message: str) -> None:
    error = observed(protocol, stream).error
    assert error is not None
    assert (error.type or error.code, error.message) == (kind, message)


@pytest.mark.parametrize(
    ("protocol", "stream", "stored"),
    [
        (
            CHAT_COMPLETIONS,
            chunk(error={"type": "tokens", "code": "rate_limit_exceeded", "message": "m"}),
            "rate_limited",
        ),
        (CHAT_COMPLETIONS, chunk(error={"code": 429, "message": "m"}), "rate_limited"),
        (
            RESPONSES,
            event("error", status=429, error={"type": "usage_limit_reached", "message": "m"}),
            "rate_limited",
        ),
        (RESPONSES, event("response.failed", response={"status": "failed", "error": None}), "unknown"),
    ],
)
def test_errors_inside_a_stream_are_sorted(protocol: WireProtocol, stream: bytes, stored: str) -> None:
    error = observed(protocol, stream).error
    assert error is not None
    assert category(error) == stored


def test_calls_that_come_whole_with_one_index_stay_apart() -> None:
    def call(call_id: str, name: str) -> bytes:
        function = {"name": name, "arguments": "{}"}
        return chunk(
            choices=[{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": call_id, "function": function}]}}]
        )

    observation = observed(CHAT_COMPLETIONS, call("a", "f"), call("b", "g"), DONE)
    tools = [record for record in observation.records if isinstance(record, ToolUsage)]
    assert [(tool.provider_tool_call_id, tool.tool, tool.input) for tool in tools] == [
        ("a", "f", "{}"),
        ("b", "g", "{}"),
    ]


def test_older_and_other_spellings_of_calls_and_reasoning() -> None:
    deltas = [
        {"reasoning_text": "hm"},
        {"refusal": "no"},
        {"function_call": {"name": "f", "arguments": '{"a"'}},
        {"function_call": {"arguments": ":1}"}},
    ]
    observation = observed(CHAT_COMPLETIONS, *(chunk(choices=[{"index": 0, "delta": delta}]) for delta in deltas))
    (tool,) = [record for record in observation.records if isinstance(record, ToolUsage)]
    assert (tool.provider_tool_call_id, tool.tool, tool.input) == (None, "f", '{"a":1}')
    assert [record.content for record in observation.records if isinstance(record, ModelThought)] == ["hm"]
    assert the_tokens(observation).output_tokens == 3


def test_a_tool_search_is_a_call_whatever_its_arguments_are() -> None:
    item = {"type": "tool_search_call", "call_id": "c", "arguments": {"query": "x"}}
    observation = observed(RESPONSES, event("response.completed", response={"id": "r", "output": [item]}))
    (tool,) = [record for record in observation.records if isinstance(record, ToolUsage)]
    assert (tool.tool, tool.provider_tool_call_id, tool.input) == ("tool_search_call", "c", '{"query":"x"}')


def test_of_two_terminal_events_the_first_counts() -> None:
    first = event("response.completed", response={"id": "r", "usage": {"input_tokens": 1, "output_tokens": 2}})
    second = event("response.completed", response={"id": "q", "usage": {"input_tokens": 3, "output_tokens": 4}})
    tokens = the_tokens(observed(RESPONSES, first, second))
    assert (tokens.provider_response_id, tokens.output_tokens) == ("r", 2)


@pytest.mark.parametrize("protocol", [CHAT_COMPLETIONS, RESPONSES], ids=named)
@pytest.mark.parametrize("body", [b"", b"[]", b'{"id":'])
def test_a_body_that_is_no_json_object_is_unfinished(protocol: WireProtocol, body: bytes) -> None:
    interceptor = start(protocol, protocol.parse(b"{}"), event_stream=False)
    interceptor.feed(body)
    assert not interceptor.observe().finished


def test_an_error_in_a_successful_body_is_an_error() -> None:
    for protocol in (CHAT_COMPLETIONS, RESPONSES):
        interceptor = start(protocol, protocol.parse(b"{}"), event_stream=False)
        interceptor.feed(b'{"error":{"message":"no","type":"api_error"}}')
        observation = interceptor.observe()
        assert observation.finished
        assert observation.error is not None


def test_being_overloaded_is_told_by_503() -> None:
    interceptor = start(RESPONSES, RESPONSES.parse(b"{}"), status=503)
    interceptor.feed(b'{"error":{"message":"later"}}')
    error = interceptor.observe().error
    assert error is not None
    assert error.overloaded


FIELDS = ["id", "model", "choices", "usage", "error", "response", "item", "delta", "output", "type", "index"]
KINDS = [
    "response.created",
    "response.completed",
    "response.output_item.done",
    "response.output_text.delta",
    "error",
]


@settings(max_examples=300, deadline=None)
@given(
    protocol=st.sampled_from([CHAT_COMPLETIONS, RESPONSES]),
    kind=st.sampled_from(KINDS),
    fields=st.dictionaries(st.sampled_from(FIELDS), json_values),
    nested=st.dictionaries(
        st.sampled_from(["usage", "output", "delta", "message", "tool_calls", "summary", "content", "type"]),
        json_values,
    ),
)
def test_no_event_of_any_shape_raises(
    protocol: WireProtocol, kind: str, fields: dict[str, Any], nested: dict[str, Any]
) -> None:
    shapes = [
        fields,
        {**fields, "response": nested},
        {**fields, "item": nested},
        {"choices": [nested, {"delta": nested}]},
    ]
    observation = observed(protocol, *(event(kind, **{**shape, "type": kind}) for shape in shapes))
    for record in observation.records:
        if isinstance(record, TokenUsage):
            assert record.input_tokens >= 0


# --- questions to requests

CHAT_PROMPTS: list[tuple[Any, str | None]] = [
    ([{"role": "user", "content": "plain"}], "plain"),
    ([{"role": "user", "content": ""}], None),
    ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}], "a"),
    ([{"role": "user", "content": "q"}, {"role": "developer", "content": "d"}], "q"),
    ([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], None),
    ([], None),
    (7, None),
]


@pytest.mark.parametrize(("messages", "prompt"), CHAT_PROMPTS)
def test_the_prompt_of_a_chat(messages: Any, prompt: str | None) -> None:
    assert CHAT_COMPLETIONS.parse(json.dumps({"messages": messages}).encode()).prompt == prompt


RESPONSES_PROMPTS: list[tuple[Any, str | None]] = [
    ("plain", "plain"),
    ("", ""),
    ([{"role": "user", "content": "plain"}], "plain"),
    ([{"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_image"}]}], "a"),
    ([{"role": "user", "content": [{"type": "input_text", "text": 4}, {"type": "input_image"}]}], None),
    ([{"role": "user", "content": "q"}, {"type": "function_call_output", "call_id": "c"}], None),
    (7, None),
    (None, None),
]


@pytest.mark.parametrize(("given_input", "prompt"), RESPONSES_PROMPTS)
def test_the_prompt_of_a_response(given_input: Any, prompt: str | None) -> None:
    assert RESPONSES.parse(json.dumps({"input": given_input}).encode()).prompt == prompt


def test_models_are_texts() -> None:
    assert RESPONSES.parse(b'{"model": true}').model == ""
    assert RESPONSES.parse(b'{"model": "gpt-5"}').model == "gpt-5"
    assert RESPONSES.parse(b'{"model": []}').model == ""
    with pytest.raises(InvalidRequest):
        RESPONSES.parse(b"[]")


def test_only_a_tools_answer_correlates() -> None:
    def correlating(protocol: WireProtocol, **fields: Any) -> str | None:
        return protocol.parse(json.dumps(fields).encode()).correlating_tool_call_id

    assert correlating(CHAT_COMPLETIONS, messages=[{"role": "tool", "tool_call_id": "a"}]) == "a"
    assert correlating(CHAT_COMPLETIONS, messages=[{"role": "user", "tool_call_id": "a"}]) is None
    assert correlating(RESPONSES, input=[{"type": "custom_tool_call_output", "call_id": "b"}]) == "b"
    assert correlating(RESPONSES, input=[{"type": "function_call", "call_id": "b"}]) is None
