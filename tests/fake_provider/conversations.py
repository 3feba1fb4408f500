"""Conversations in the shapes that Anthropic's Messages API has, with what must be recorded of each.

Every conversation is bytes: the client's request, the provider's stream and the provider's blocking body. They are
made by hand on purpose: odd key order, padding inside events, big integers and text outside ASCII are all legal.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.fake_provider.server import Headers, Reply

MODEL = "claude-sonnet-5"
BIG = 123456789012345678901234567890


@dataclass(frozen=True)
class Tokens:
    """The one token row of an answer. `metadata` lists what must be in it at least."""

    input: int
    output: int
    cache_read: int = 0
    cache_write: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """A tool call as it must be recorded. `id` is None where the specification leaves it open."""

    tool: str
    arguments: Any
    id: str | None


@dataclass(frozen=True)
class Conversation:
    """`calls` is None where the specification leaves open what is recorded of them."""

    name: str
    message_id: str
    events: tuple[bytes, ...]
    body: bytes
    tokens: Tokens
    prompt: str | None = "What is the weather in Zürich?\n\n☂?"
    messages: str = ""
    calls: tuple[Call, ...] | None = ()
    thoughts: tuple[str, ...] = ()
    model: str = MODEL

    def __str__(self) -> str:
        return self.name

    def request(self, *, stream: bool) -> bytes:
        return request_bytes(self.messages or user(self.prompt or ""), stream=stream, model=self.model)

    @property
    def stream(self) -> bytes:
        return b"".join(self.events)

    def reply(self, *, stream: bool, headers: Headers = ()) -> Reply:
        return Reply.sse(self.events, headers) if stream else Reply.json(self.body, headers=headers)

    def answer(self, *, stream: bool) -> bytes:
        return self.stream if stream else self.body


def compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def user(text: str) -> str:
    """The messages array of a first turn, as JSON, in a spelling that no encoder would choose."""
    return f'[ {{"content": {json.dumps(text)},  "role":"user"}} ]'


def request_bytes(messages: str, *, stream: bool | None = None, model: str = MODEL, extra: str = "") -> bytes:
    """A Messages request with keys in odd order, doubled spaces, unknown fields and numbers of odd spelling."""
    streaming = "" if stream is None else f',\n  "stream" :{json.dumps(stream)}'
    return (
        f'{{ "max_tokens":  1024,\n\t"x_future": {{"z": 1.0e0, "a":{BIG}, "n": -0.0 }},'
        f'"messages":{messages},  "model": "{model}"{extra},'
        f'"metadata": {{"note": "caf\\u00e9 / caf\u00e9 \\/"}}{streaming} }}'
    ).encode()


def event(name: str, data: Mapping[str, Any], padding: int = 0) -> bytes:
    """One event; `padding` blanks before the last brace, as the provider sends them."""
    text = compact({"type": name, **data})
    return f"event: {name}\ndata: {text[:-1]}{' ' * padding}}}\n\n".encode()


def message_start(message_id: str, usage: Mapping[str, Any], model: str = MODEL) -> bytes:
    message = {"id": message_id, "type": "message", "role": "assistant", "model": model, "content": []}
    return event(
        "message_start", {"message": message | {"stop_reason": None, "stop_sequence": None, "usage": usage}}, 7
    )


def block(index: int, start: Mapping[str, Any], *deltas: Mapping[str, Any], stop: bool = True) -> list[bytes]:
    parts = [event("content_block_start", {"index": index, "content_block": start}, index)]
    parts += [event("content_block_delta", {"index": index, "delta": delta}, n) for n, delta in enumerate(deltas)]
    return [*parts, event("content_block_stop", {"index": index}, 3)] if stop else parts


def text_block(index: int, *pieces: str) -> list[bytes]:
    return block(index, {"type": "text", "text": ""}, *({"type": "text_delta", "text": piece} for piece in pieces))


def thinking_block(index: int, signature: str, *pieces: str) -> list[bytes]:
    deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
    start = {"type": "thinking", "thinking": "", "signature": ""}
    return block(index, start, *deltas, {"type": "signature_delta", "signature": signature})


def tool_block(index: int, call_id: str, name: str, *pieces: str, kind: str = "tool_use") -> list[bytes]:
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *pieces)]
    return block(index, {"type": kind, "id": call_id, "name": name, "input": {}}, *deltas)


def message_end(stop_reason: str, usage: Mapping[str, Any]) -> list[bytes]:
    delta = {"delta": {"stop_reason": stop_reason, "stop_sequence": None}, "usage": usage}
    return [event("message_delta", delta, 11), event("message_stop", {}, 9)]


PING = b'event: ping\ndata: {"type": "ping"}\n\n'


def body(
    message_id: str, content: Sequence[Mapping[str, Any]] | str, stop_reason: str, usage: Mapping[str, Any]
) -> bytes:
    """A whole message; key order and spelling are ours alone, so that no encoder gives the same bytes."""
    blocks = content if isinstance(content, str) else compact(content)
    return (
        f'{{"stop_reason": "{stop_reason}", "x_unknown": [1.50, {BIG}],  "id":"{message_id}","type":"message",\n'
        f'"role":"assistant", "model":"{MODEL}","content": {blocks}, "usage":{compact(usage)}}}\n'
    ).encode()


def text() -> Conversation:
    pieces = ("Grüezi! ", 'Es\nregnet "sehr" ', "\\ 🌧️ 雨 \u2028 Ende.")
    usage = {"input_tokens": 21, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    return Conversation(
        "text",
        "msg_text",
        (
            message_start("msg_text", usage | {"output_tokens": 3}),
            *text_block(0, *pieces)[:2],
            PING,
            *text_block(0, *pieces)[2:],
            *message_end("end_turn", {"output_tokens": 17}),
        ),
        body("msg_text", [{"type": "text", "text": "".join(pieces)}], "end_turn", usage | {"output_tokens": 17}),
        Tokens(21, 17),
    )


def thinking() -> Conversation:
    """The last usage wins: message_delta repeats and corrects what message_start said."""
    thought = ("The user asks\nabout “rain”. ", "I look out 🪟.")
    first = {"input_tokens": 5, "cache_creation_input_tokens": 7, "cache_read_input_tokens": 9, "output_tokens": 1}
    last = {
        "input_tokens": 50,
        "cache_creation_input_tokens": 70,
        "cache_read_input_tokens": 90,
        "output_tokens": 33,
    }
    return Conversation(
        "thinking",
        "msg_think",
        (
            message_start("msg_think", first),
            *thinking_block(0, "EqQB+sig/==", *thought),
            *thinking_block(1, "EqQB+second", ""),
            *block(2, {"type": "redacted_thinking", "data": "EmwKAhgB"}),
            *text_block(3, "Bring an umbrella."),
            *message_end("end_turn", last),
        ),
        body(
            "msg_think",
            [
                {"type": "thinking", "thinking": "".join(thought), "signature": "EqQB+sig/=="},
                {"type": "thinking", "thinking": "", "signature": "EqQB+second"},
                {"type": "redacted_thinking", "data": "EmwKAhgB"},
                {"type": "text", "text": "Bring an umbrella."},
            ],
            "end_turn",
            last,
        ),
        Tokens(50, 33, 90, 70),
        thoughts=("".join(thought),),
    )


def cache() -> Conversation:
    """Every class of tokens at once."""
    usage = {
        "input_tokens": 11,
        "cache_creation_input_tokens": 700,
        "cache_read_input_tokens": 13993,
        "cache_creation": {"ephemeral_5m_input_tokens": 500, "ephemeral_1h_input_tokens": 200},
        "service_tier": "priority",
        "inference_geo": "not_available",
    }
    metadata = {"cache_ephemeral_5m_input": 500, "cache_ephemeral_1h_input": 200, "service_tier": "priority"}
    return Conversation(
        "cache",
        "msg_cache",
        (
            message_start("msg_cache", usage | {"output_tokens": 2}),
            *text_block(0, "Cached."),
            *message_end("end_turn", {"output_tokens": 40}),
        ),
        body("msg_cache", [{"type": "text", "text": "Cached."}], "end_turn", usage | {"output_tokens": 40}),
        Tokens(11, 40, 13993, 700, metadata),
    )


def tool() -> Conversation:
    """One client tool; the arguments hold what only raw bytes keep."""
    arguments = {"path": '/tmp/naïve "file"\n', "offset": BIG, "deep": {"list": [1, None, True], "π": 3.5}}
    raw = compact(arguments)
    usage = {"input_tokens": 400, "output_tokens": 60}
    return Conversation(
        "tool",
        "msg_tool",
        (
            message_start("msg_tool", {"input_tokens": 400, "output_tokens": 1}),
            *text_block(0, "I read the file."),
            *tool_block(1, "toolu_read", "Read", raw[:9], raw[9:24], raw[24:31], raw[31:]),
            *message_end("tool_use", {"output_tokens": 60}),
        ),
        body(
            "msg_tool",
            '[{"type":"text","text":"I read the file."},'
            f'{{"type":"tool_use","id":"toolu_read","name":"Read","input":{raw}}}]',
            "tool_use",
            usage,
        ),
        Tokens(400, 60),
        calls=(Call("Read", arguments, "toolu_read"),),
    )


def parallel_tools() -> Conversation:
    """Two calls of one tool, interleaved with a call without arguments."""
    calls = (
        Call("get_weather", {"city": "Zürich"}, "toolu_a"),
        Call("now", {}, "toolu_b"),
        Call("get_weather", {"city": "Genève", "unit": "°C"}, "toolu_c"),
    )
    content = [{"type": "tool_use", "id": c.id, "name": c.tool, "input": c.arguments} for c in calls]
    return Conversation(
        "parallel_tools",
        "msg_parallel",
        (
            message_start("msg_parallel", {"input_tokens": 77, "output_tokens": 1}),
            *tool_block(0, "toolu_a", "get_weather", '{"city"', ': "Zürich"}'),
            *tool_block(1, "toolu_b", "now"),
            *tool_block(2, "toolu_c", "get_weather", '{"city": "Genève", "unit": "\\u00b0', 'C"}'),
            *message_end("tool_use", {"output_tokens": 88}),
        ),
        body("msg_parallel", content, "tool_use", {"input_tokens": 77, "output_tokens": 88}),
        Tokens(77, 88),
        calls=calls,
    )


def web_search() -> Conversation:
    """A tool that the provider runs itself, with its result block and a citation."""
    query = {"query": "weather Zürich today"}
    page = {"url": "https://example.org/w?x=1&y=2", "title": "Wetter · heute", "encrypted_content": "Eo8D=="}
    results = [{"type": "web_search_result", "page_age": None, **page}]
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": results}
    citation = {"type": "web_search_result_location", "cited_text": "Regen", "url": "https://example.org/"}
    usage = {"input_tokens": 105, "output_tokens": 64, "server_tool_use": {"web_search_requests": 2}}
    return Conversation(
        "web_search",
        "msg_search",
        (
            message_start("msg_search", {"input_tokens": 100, "output_tokens": 1}),
            *tool_block(0, "srvtoolu_1", "web_search", compact(query), kind="server_tool_use"),
            *block(1, found),
            *block(
                2,
                {"citations": [], "type": "text", "text": ""},
                {"type": "citations_delta", "citation": citation},
                {"type": "text_delta", "text": "Regen."},
            ),
            *message_end("end_turn", usage),
        ),
        body(
            "msg_search",
            [
                {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": query},
                found,
                {"type": "text", "text": "Regen.", "citations": [citation]},
            ],
            "end_turn",
            usage,
        ),
        Tokens(105, 64, metadata={"web_search_requests": 2}),
        calls=(Call("web_search", query, None),),
    )


def unknowns() -> Conversation:
    """Blocks, deltas and events that nobody has heard of yet; a null where a number is usual."""
    hologram = {"type": "hologram", "data": {"x": [BIG]}, "tool_use": None}
    usage = {"input_tokens": 8, "output_tokens": 9, "cache_read_input_tokens": None, "dreams": {"rem": 3}}
    return Conversation(
        "unknowns",
        "msg_unknown",
        (
            b'event: weather_report\ndata: {"type":"weather_report","message":{"id":"not_this"}}\n\n',
            message_start("msg_unknown", usage | {"output_tokens": 1}),
            *block(0, hologram, {"type": "hologram_delta", "usage": 12}),
            b"event: heartbeat\ndata: not json at all\n\n",
            *text_block(1, '"type":"message_stop" is only text, and so is "output_tokens":999'),
            *message_end("pondered", {"output_tokens": 9, "dreams": {"rem": 3}}),
        ),
        body("msg_unknown", [hologram, {"type": "text", "text": '"output_tokens":999'}], "pondered", usage),
        Tokens(8, 9),
    )


def tool_result_turn() -> Conversation:
    """A turn that carries a tool's result is not a prompt of the user's."""
    messages = compact(
        [
            {"role": "user", "content": "read it"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_x", "name": "Read", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_x", "content": "foo"}]},
        ]
    )
    usage = {"input_tokens": 30, "output_tokens": 4}
    return Conversation(
        "tool_result_turn",
        "msg_result",
        (
            message_start("msg_result", {"input_tokens": 30, "output_tokens": 1}),
            *text_block(0, "It says foo."),
            *message_end("end_turn", {"output_tokens": 4}),
        ),
        body("msg_result", [{"type": "text", "text": "It says foo."}], "end_turn", usage),
        Tokens(30, 4),
        prompt=None,
        messages=messages,
    )


def last_text_part() -> Conversation:
    """Claude Code's shape: context parts first, the prompt last, and a `system` entry behind it."""
    parts = [{"type": "text", "text": "<system-reminder>context</system-reminder>"}]
    parts += [{"type": "text", "text": "the real prompt ✓", "cache_control": {"type": "ephemeral"}}]  # type: ignore[dict-item]
    messages = compact([{"role": "user", "content": parts}, {"role": "system", "content": "Available agents: …"}])
    usage = {"input_tokens": 31, "output_tokens": 5}
    return Conversation(
        "last_text_part",
        "msg_last",
        (
            message_start("msg_last", {"input_tokens": 31, "output_tokens": 1}),
            *text_block(0, "ok"),
            *message_end("end_turn", {"output_tokens": 5}),
        ),
        body("msg_last", [{"type": "text", "text": "ok"}], "end_turn", usage),
        Tokens(31, 5),
        prompt="the real prompt ✓",
        messages=messages,
    )


def truncated_tool() -> Conversation:
    """max_tokens fell inside a tool's arguments, and the block was never closed. Blocking has no such shape."""
    usage = {"input_tokens": 12, "output_tokens": 32}
    return Conversation(
        "truncated_tool",
        "msg_cut",
        (
            message_start("msg_cut", {"input_tokens": 12, "output_tokens": 1}),
            *tool_block(0, "toolu_cut", "Read", '{"file_path": "/tmp/caf')[:-1],
            *message_end("max_tokens", {"output_tokens": 32}),
        ),
        body("msg_cut", [{"type": "text", "text": "cut"}], "max_tokens", usage),
        Tokens(12, 32),
        calls=None,
    )


def _in_other_spelling(original: Conversation) -> tuple[bytes, ...]:
    """The same events in every form that the SSE specification allows."""
    whole = original.stream.decode().replace("event: ping\ndata: ", "event:ping\ndata:").replace("\n", "\r\n")
    first, rest = whole.split("\r\n\r\n", 1)
    split_data = first.replace(',"message":', ',\r\ndata: "message":', 1)
    hello = ": hello from a proxy\r\n\r\nretry: 3000\r\nid: 7\r\n\r\n"
    return (f"{hello}{split_data}\r\n\r\n:\r\n\r\n{rest}: bye\r\n\r\n".encode(),)


def odd_sse() -> Conversation:
    """CRLF, comments, empty events, `data:` without a blank, one event's JSON over two data lines."""
    plain = text()
    return Conversation("odd_sse", plain.message_id, _in_other_spelling(plain), plain.body, plain.tokens)


def every_conversation() -> tuple[Conversation, ...]:
    return (
        text(),
        thinking(),
        cache(),
        tool(),
        parallel_tools(),
        web_search(),
        unknowns(),
        tool_result_turn(),
        last_text_part(),
        truncated_tool(),
        odd_sse(),
    )
