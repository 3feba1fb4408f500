"""The sandbox's model speaking OpenAI's Chat Completions API."""

from collections.abc import Iterator
from typing import Any

import orjson

from aibridge.protocols.chat_completions.payload import asks_for_usage
from aibridge.protocols.interceptor import Payload
from aibridge.protocols.reading import mapping, sequence
from aibridge.protocols.sse import encode
from aibridge.providers.sandbox.messages import quoted
from aibridge.providers.sandbox.script import Turn, new_response_id, perform, pieces, size_in_tokens

CREATED = 1_767_225_600  # seconds since 1970: the sandbox's models are from 2026


def turn_for(payload: Payload) -> Turn:
    messages = [mapping(message) for message in sequence(payload.data.get("messages"))]
    results: list[str] = []
    for message in reversed(messages):
        if message.get("role") != "tool":
            break
        results.insert(0, quoted(message.get("content")))
    return perform(payload.prompt or "", results)


def whole(payload: Payload, turn: Turn) -> bytes:
    message: dict[str, Any] = {"role": "assistant", "content": turn.text or None, "refusal": None}
    if turn.thinking:
        message["reasoning_content"] = turn.thinking
    if turn.calls:
        message["tool_calls"] = [_call(call.name, call.arguments) for call in turn.calls]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(turn)}
    return orjson.dumps(
        {**_frame(payload, "chat.completion"), "choices": [choice], "usage": _usage(payload, turn)}
    )


def events(payload: Payload, turn: Turn) -> Iterator[bytes]:
    frame = _frame(payload, "chat.completion.chunk")
    asked = asks_for_usage(payload)

    def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _event({**frame, "choices": [choice]} | ({"usage": None} if asked else {}))

    yield chunk({"role": "assistant", "content": ""})
    for piece in pieces(turn.thinking):
        yield chunk({"reasoning_content": piece})
    for piece in pieces(turn.text):
        yield chunk({"content": piece})
    for index, call in enumerate(turn.calls):
        yield chunk({"tool_calls": [{"index": index, **_call(call.name, "")}]})
        for piece in pieces(call.arguments):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield chunk({}, _finish_reason(turn))
    if asked:
        yield _event({**frame, "choices": [], "usage": _usage(payload, turn)})
    yield encode("", b"[DONE]")


def _frame(payload: Payload, kind: str) -> dict[str, Any]:
    return {
        "id": new_response_id("chatcmpl-"),
        "object": kind,
        "created": CREATED,
        "model": payload.model or "sandbox",
        "service_tier": "default",
    }


def _usage(payload: Payload, turn: Turn) -> dict[str, Any]:
    prompt, completion = size_in_tokens(payload.body), turn.size_in_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": size_in_tokens(turn.thinking)},
    }


def _finish_reason(turn: Turn) -> str:
    return "tool_calls" if turn.calls else "stop"


def _call(name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": new_response_id("call_"), "type": "function", "function": function}


def _event(data: dict[str, Any]) -> bytes:
    return encode("", orjson.dumps(data))
