"""The sandbox's model speaking OpenAI's Responses API."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import orjson

from aibridge.protocols.interceptor import Payload
from aibridge.protocols.reading import dumped, mapping, sequence, text
from aibridge.protocols.sse import encode
from aibridge.providers.sandbox.chat_completions import CREATED
from aibridge.providers.sandbox.script import Turn, new_response_id, perform, pieces, size_in_tokens

Item = dict[str, Any]


def turn_for(payload: Payload) -> Turn:
    items = [mapping(item) for item in sequence(payload.data.get("input"))]
    results: list[str] = []
    for item in reversed(items):
        if not text(item.get("type")).endswith("_output"):
            break
        output = item.get("output")
        results.insert(0, output if isinstance(output, str) else dumped(output))
    return perform(payload.prompt or "", results)


def whole(payload: Payload, turn: Turn) -> bytes:
    return orjson.dumps(_response(payload, turn, _items(turn), "completed"))


def events(payload: Payload, turn: Turn) -> Iterator[bytes]:
    items = _items(turn)
    final = _response(payload, turn, items, "completed")
    begun = final | {"status": "in_progress", "output": [], "usage": None}
    numbers = count()

    def event(kind: str, **fields: Any) -> bytes:
        return encode(kind, orjson.dumps({"type": kind, **fields, "sequence_number": next(numbers)}))

    yield event("response.created", response=begun)
    yield event("response.in_progress", response=begun)
    for index, item in enumerate(items):
        for kind, fields in _item_events(item):
            yield event(kind, output_index=index, **fields)
    yield event("response.completed", response=final)


def _item_events(item: Item) -> Iterator[tuple[str, dict[str, Any]]]:
    at = {"item_id": item["id"]}
    yield "response.output_item.added", {"item": item | _EMPTY[item["type"]] | {"status": "in_progress"}}
    match item["type"]:
        case "reasoning":
            part = item["summary"][0]
            at["summary_index"] = 0
            yield "response.reasoning_summary_part.added", {**at, "part": part | {"text": ""}}
            for piece in pieces(part["text"]):
                yield "response.reasoning_summary_text.delta", {**at, "delta": piece}
            yield "response.reasoning_summary_text.done", {**at, "text": part["text"]}
            yield "response.reasoning_summary_part.done", {**at, "part": part}
        case "message":
            part = item["content"][0]
            at["content_index"] = 0
            yield "response.content_part.added", {**at, "part": part | {"text": ""}}
            for piece in pieces(part["text"]):
                yield "response.output_text.delta", {**at, "delta": piece, "logprobs": []}
            yield "response.output_text.done", {**at, "text": part["text"], "logprobs": []}
            yield "response.content_part.done", {**at, "part": part}
        case "function_call":
            for piece in pieces(item["arguments"]):
                yield "response.function_call_arguments.delta", {**at, "delta": piece}
            done = {"arguments": item["arguments"], "name": item["name"]}
            yield "response.function_call_arguments.done", {**at, **done}
    yield "response.output_item.done", {"item": item}


# What an item has not got yet when it is announced.
_EMPTY: dict[str, dict[str, Any]] = {
    "reasoning": {"summary": []},
    "message": {"content": []},
    "function_call": {"arguments": ""},
}


def _items(turn: Turn) -> list[Item]:
    items: list[Item] = []
    if turn.thinking:
        summary = [{"type": "summary_text", "text": turn.thinking}]
        items.append(
            {"type": "reasoning", "id": new_response_id("rs_"), "summary": summary, "status": "completed"}
        )
    if turn.text:
        part = {"type": "output_text", "text": turn.text, "annotations": [], "logprobs": []}
        items.append(
            {
                "type": "message",
                "id": new_response_id("msg_"),
                "status": "completed",
                "role": "assistant",
                "content": [part],
            }
        )
    for call in turn.calls:
        items.append(
            {
                "type": "function_call",
                "id": new_response_id("fc_"),
                "call_id": new_response_id("call_"),
                "name": call.name,
                "arguments": call.arguments,
                "status": "completed",
            }
        )
    return items


def _response(payload: Payload, turn: Turn, items: list[Item], status: str) -> dict[str, Any]:
    given, made = size_in_tokens(payload.body), turn.size_in_tokens
    return {
        "id": new_response_id("resp_"),
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": payload.model or "sandbox",
        "output": items,
        "parallel_tool_calls": True,
        "previous_response_id": payload.data.get("previous_response_id"),
        "service_tier": "default",
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": {
            "input_tokens": given,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": made,
            "output_tokens_details": {"reasoning_tokens": size_in_tokens(turn.thinking)},
            "total_tokens": given + made,
        },
    }
