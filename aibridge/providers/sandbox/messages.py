"""The sandbox's model speaking Anthropic's Messages API."""

import re
from collections.abc import Iterator
from typing import Any

import orjson

from aibridge.protocols.envelopes import anthropic_error
from aibridge.protocols.interceptor import Payload
from aibridge.protocols.messages import MESSAGES
from aibridge.protocols.reading import dumped, mapping, parsed_object, sequence, text
from aibridge.protocols.sse import encode
from aibridge.providers.sandbox.script import Turn, perform
from aibridge.records import new_id

# HTTP status -> error type, as https://docs.anthropic.com/en/api/errors lists them.
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def read(body: bytes) -> Payload:
    """The request. Raises InvalidRequest."""
    return MESSAGES.parse(body)


def turn_for(payload: Payload) -> Turn:
    messages = sequence(payload.data.get("messages"))
    last = mapping(messages[-1]) if messages else {}
    results = [
        _quoted(mapping(part).get("content"))
        for part in sequence(last.get("content"))
        if mapping(part).get("type") == "tool_result"
    ]
    return perform(payload.prompt or "", results)


def failure(status: int) -> bytes:
    body = mapping(parsed_object(anthropic_error("upstream_error", f"the sandbox fails with {status}", None)))
    body["error"]["type"] = _ERROR_TYPES.get(status, "api_error")
    return orjson.dumps(body)


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


def count_tokens(payload: Payload) -> int:
    return len(payload.body) // 4 + 1


def _block_events(index: int, block: dict[str, Any]) -> Iterator[bytes]:
    match block["type"]:
        case "thinking":
            empty: dict[str, Any] = {"type": "thinking", "thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in _pieces(block["thinking"])]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        case "text":
            empty = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in _pieces(block["text"])]
        case _:
            empty = block | {"input": {}}
            pieces = _pieces(dumped(block["input"]))
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
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
        content.append({"type": "tool_use", "id": _id("toolu"), "name": call.name, "input": arguments})
    return {
        "id": _id("msg"),
        "type": "message",
        "role": "assistant",
        "model": payload.model or "sandbox",
        "content": content,
        "stop_reason": "tool_use" if turn.calls else "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": count_tokens(payload),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens": len(dumped(content)) // 4 + 1,
            "service_tier": "standard",
        },
    }


def _quoted(content: Any) -> str:
    if isinstance(content, str):
        return content
    return " ".join(text(mapping(part).get("text")) for part in sequence(content)) or "nothing"


def _pieces(whole_text: str) -> list[str]:
    """About three words each, so that a stream has something to stream."""
    return re.findall(r"\s*(?:\S+\s+){0,2}\S+\s*|\s+", whole_text)


def _event(data: dict[str, Any]) -> bytes:
    return encode(data["type"], orjson.dumps(data))


def _id(prefix: str) -> str:
    return f"{prefix}_sandbox{new_id().replace('-', '')[:16]}"
