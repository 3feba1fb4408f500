"""The sandbox's model speaking Anthropic's Messages API."""

from collections.abc import Iterator
from typing import Any

import orjson

from aibridge.protocols.interceptor import Payload
from aibridge.protocols.messages import MESSAGES
from aibridge.protocols.reading import dumped, mapping, parsed_object, sequence, text
from aibridge.protocols.sse import encode
from aibridge.providers.sandbox.script import Turn, new_response_id, perform, pieces, size_in_tokens


def turn_for(payload: Payload) -> Turn:
    messages = sequence(payload.data.get("messages"))
    last = mapping(messages[-1]) if messages else {}
    results = [
        quoted(mapping(part).get("content"))
        for part in sequence(last.get("content"))
        if mapping(part).get("type") == "tool_result"
    ]
    return perform(payload.prompt or "", results)


def whole(payload: Payload, turn: Turn) -> bytes:
    """The answer as one JSON body."""
    return orjson.dumps(_message(payload, turn))


def events(payload: Payload, turn: Turn) -> Iterator[bytes]:
    """The answer as a stream of events, a few words each."""
    message = _message(payload, turn)
    usage, stop_reason = message["usage"], message["stop_reason"]
    start = message | {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}
    yield _event({"type": "message_start", "message": start})
    yield MESSAGES.ping
    for index, block in enumerate(message["content"]):
        yield from _block_events(index, block)
    delta = {"stop_reason": stop_reason, "stop_sequence": None}
    output = {"output_tokens": usage["output_tokens"]}
    yield _event({"type": "message_delta", "delta": delta, "usage": output})
    yield _event({"type": "message_stop"})


def _block_events(index: int, block: dict[str, Any]) -> Iterator[bytes]:
    match block["type"]:
        case "thinking":
            empty: dict[str, Any] = {"type": "thinking", "thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"])]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        case "text":
            empty = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in pieces(block["text"])]
        case _:
            empty = block | {"input": {}}
            arguments = pieces(dumped(block["input"]))
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in arguments]
    yield _event({"type": "content_block_start", "index": index, "content_block": empty})
    for delta in deltas:
        yield _event({"type": "content_block_delta", "index": index, "delta": delta})
    yield _event({"type": "content_block_stop", "index": index})


def _message(payload: Payload, turn: Turn) -> dict[str, Any]:
    content: list[dict[str, Any]] = []
    if turn.thinking:
        content.append({"type": "thinking", "thinking": turn.thinking, "signature": "c2FuZGJveA=="})
    if turn.text:
        content.append({"type": "text", "text": turn.text})
    for call in turn.calls:
        arguments = parsed_object(call.arguments.encode()) or {}
        content.append(
            {"type": "tool_use", "id": new_response_id("toolu_"), "name": call.name, "input": arguments}
        )
    return {
        "id": new_response_id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": payload.model or "sandbox",
        "content": content,
        "stop_reason": "tool_use" if turn.calls else "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": size_in_tokens(payload.body),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens": turn.size_in_tokens,
            "service_tier": "standard",
        },
    }


def quoted(content: Any) -> str:
    """The text of a tool result, which is a text or a list of blocks."""
    if isinstance(content, str):
        return content
    return " ".join(text(mapping(part).get("text")) for part in sequence(content)) or "nothing"


def _event(data: dict[str, Any]) -> bytes:
    return encode(data["type"], orjson.dumps(data))
