"""A model that says what a test tells it to, in any of the three APIs, to requests that keep the API's rules.

It checks what the providers check about tools: every call in the conversation has its result, in its place, and no
result is without its call. A request that breaks a rule gets the provider's 400 with the reason.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.fake_provider import conversations as messages
from tests.fake_provider.server import Received, Reply, Step


@dataclass(frozen=True)
class Say:
    text: str


@dataclass(frozen=True)
class Think:
    text: str


@dataclass(frozen=True)
class Call:
    id: str
    name: str
    arguments: str = "{}"


@dataclass(frozen=True)
class Wait:
    """The answer is held here until the test goes on. Only in streams."""

    step: Step


Part = Say | Think | Call | Wait
Json = dict[str, Any]

# What every round uses: input, from the cache, output.
USAGE = (100, 20, 7)


@dataclass
class Model:
    """`rounds` are its turns, in order; the last one is repeated. `requests` are the bodies it was asked."""

    protocol: str
    rounds: Sequence[Sequence[Part]]
    stop: str = ""
    requests: list[Json] = field(default_factory=list)

    def __call__(self, received: Received) -> Reply:
        assert received.arrived.wait(10)
        body = received.json()
        problem = _RULES[self.protocol](body)
        if problem:
            error = {"type": "invalid_request_error", "message": problem}
            return Reply.json({"type": "error", "error": error}, status=400)
        self.requests.append(body)
        number = len(self.requests)
        parts = self.rounds[min(number, len(self.rounds)) - 1]
        if body.get("stream"):
            return Reply.sse(list(_STREAMS[self.protocol](number, parts, self.stop, body)))
        said = [part for part in parts if not isinstance(part, Wait)]
        return Reply.json(_BODIES[self.protocol](number, said, self.stop))


def whole(protocol: str, number: int, parts: Sequence[Part]) -> Json:
    """The `number`-th answer as a body, whatever the request."""
    return _BODIES[protocol](number, parts, "")


def streamed(protocol: str, number: int, parts: Sequence[Part], body: Json) -> list[Step]:
    """The `number`-th answer as a stream, to a request's body."""
    return list(_STREAMS[protocol](number, parts, "", body))


def _calls(parts: Sequence[Part]) -> list[Call]:
    return [part for part in parts if isinstance(part, Call)]


# --- Messages ----------------------------------------------------------------------------------------------------


def _messages_usage() -> Json:
    given, cached, made = USAGE
    return {"input_tokens": given, "cache_read_input_tokens": cached, "output_tokens": made}


def _messages_stream(number: int, parts: Sequence[Part], stop: str, _: Json) -> Iterator[Step]:
    yield messages.message_start(f"msg_{number}", _messages_usage() | {"output_tokens": 1})
    index = 0
    for part in parts:
        match part:
            case Say(text):
                yield from messages.text_block(index, *_halves(text))
            case Think(text):
                yield from messages.thinking_block(index, f"signed {text}", text)
            case Call(id, name, arguments):
                yield from messages.tool_block(index, id, name, *_halves(arguments))
            case Wait(step):
                yield step
                continue
        index += 1
    reason = stop or ("tool_use" if _calls(parts) else "end_turn")
    yield from messages.message_end(reason, {"output_tokens": USAGE[2]})


def _messages_body(number: int, parts: Sequence[Part], stop: str) -> Json:
    content: list[Json] = []
    for part in parts:
        match part:
            case Say(text):
                content.append({"type": "text", "text": text})
            case Think(text):
                content.append({"type": "thinking", "thinking": text, "signature": f"signed {text}"})
            case Call(id, name, arguments):
                content.append({"type": "tool_use", "id": id, "name": name, "input": json.loads(arguments)})
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": content,
        "stop_reason": stop or ("tool_use" if _calls(parts) else "end_turn"),
        "stop_sequence": None,
        "usage": _messages_usage(),
    }


def _messages_rules(body: Json) -> str:
    waiting: list[str] = []
    for message in body["messages"]:
        blocks = message["content"] if isinstance(message["content"], list) else []
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if sorted(results) != sorted(waiting) or any(b["type"] != "tool_result" for b in blocks[: len(results)]):
            return f"`tool_use` ids {waiting} must be answered at once by `tool_result` blocks, not {results}"
        if any(block["type"] == "text" and not block["text"] for block in blocks):
            return "text content blocks must be non-empty"
        waiting = [block["id"] for block in blocks if block["type"] == "tool_use"]
    return f"no `tool_result` for {waiting}" if waiting else ""


# --- Chat Completions --------------------------------------------------------------------------------------------


def _chat_usage() -> Json:
    given, cached, made = USAGE
    details = {"cached_tokens": cached}
    return {
        "prompt_tokens": given + cached,
        "completion_tokens": made,
        "total_tokens": given + cached + made,
        "prompt_tokens_details": details,
    }


def _chat_stream(number: int, parts: Sequence[Part], stop: str, body: Json) -> Iterator[Step]:
    frame = {"id": f"chatcmpl-{number}", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    asked = (body.get("stream_options") or {}).get("include_usage")

    def chunk(delta: Json, finish: str | None = None) -> bytes:
        choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
        return _event({**frame, "choices": choices} | ({"usage": None} if asked else {}))

    yield chunk({"role": "assistant", "content": None})
    index = 0
    for part in parts:
        match part:
            case Say(text):
                for piece in _halves(text):
                    yield chunk({"content": piece})
            case Think(text):
                yield chunk({"reasoning_content": text})
            case Call(id, name, arguments):
                function = {"name": name, "arguments": ""}
                yield chunk({"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]})
                for piece in _halves(arguments):
                    yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
                index += 1
            case Wait(step):
                yield step
    yield chunk({}, stop or ("tool_calls" if _calls(parts) else "stop"))
    if asked:
        yield _event({**frame, "choices": [], "usage": _chat_usage()})
    yield b"data: [DONE]\n\n"


def _chat_body(number: int, parts: Sequence[Part], stop: str) -> Json:
    text = "".join(part.text for part in parts if isinstance(part, Say))
    thoughts = "".join(part.text for part in parts if isinstance(part, Think))
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in _calls(parts)
    ]
    message: Json = {"role": "assistant", "content": text or None, "refusal": None}
    message |= {"reasoning_content": thoughts} if thoughts else {}
    message |= {"tool_calls": calls} if calls else {}
    finish = stop or ("tool_calls" if calls else "stop")
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": _chat_usage(),
    }


def _chat_rules(body: Json) -> str:
    waiting: list[str] = []
    for message in body["messages"]:
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                return f"the result of {message['tool_call_id']} answers no call before it"
            waiting.remove(message["tool_call_id"])
            continue
        if waiting:
            return f"`tool_calls` must be followed by tool messages for {waiting}"
        waiting = [call["id"] for call in message.get("tool_calls") or []]
    return f"no tool message for {waiting}" if waiting else ""


# --- Responses ---------------------------------------------------------------------------------------------------


def _response(number: int, items: Sequence[Json], status: str, body: Json) -> Json:
    given, cached, made = USAGE
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": 1,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": None,
        "metadata": {},
        "model": "m",
        "output": items,
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": body.get("tools", []),
        "top_p": 1.0,
        "usage": {
            "input_tokens": given + cached,
            "input_tokens_details": {"cached_tokens": cached},
            "output_tokens": made,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": given + cached + made,
        },
    }


def _items(number: int, parts: Sequence[Part]) -> list[Json]:
    items: list[Json] = []
    for at, part in enumerate(parts):
        item_id = f"item_{number}_{at}"
        match part:
            case Say(text):
                content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
                said = {"type": "message", "role": "assistant", "status": "completed", "content": content}
                items.append({"id": item_id, **said})
            case Think(text):
                summary = [{"type": "summary_text", "text": text}]
                items.append({"id": item_id, "type": "reasoning", "summary": summary, "encrypted_content": "x"})
            case Call(call_id, name, arguments):
                called = {"call_id": call_id, "name": name, "arguments": arguments, "status": "completed"}
                items.append({"id": item_id, "type": "function_call", **called})
    return items


def _responses_stream(number: int, parts: Sequence[Part], stop: str, body: Json) -> Iterator[Step]:
    status = stop or "completed"
    items = _items(number, [part for part in parts if not isinstance(part, Wait)])
    sequence = iter(range(10_000))

    def event(kind: str, **fields: Any) -> bytes:
        return _event({"type": kind, **fields, "sequence_number": next(sequence)}, kind)

    begun = _response(number, [], "in_progress", body) | {"usage": None}
    yield event("response.created", response=begun)
    yield event("response.in_progress", response=begun)
    index = 0
    for part in parts:
        if isinstance(part, Wait):
            yield part.step
            continue
        for kind, fields in _item_events(items[index]):
            yield event(kind, output_index=index, **fields)
        index += 1
    yield event(f"response.{status}", response=_response(number, items, status, body))


def _item_events(item: Json) -> Iterator[tuple[str, Json]]:
    at = {"item_id": item["id"]}
    match item["type"]:
        case "message":
            (part,) = item["content"]
            place = {**at, "content_index": 0}
            yield "response.output_item.added", {"item": item | {"content": [], "status": "in_progress"}}
            yield "response.content_part.added", {**place, "part": part | {"text": ""}}
            for piece in _halves(part["text"]):
                yield "response.output_text.delta", {**place, "delta": piece, "logprobs": []}
            yield "response.output_text.done", {**place, "text": part["text"], "logprobs": []}
            yield "response.content_part.done", {**place, "part": part}
        case "function_call":
            yield "response.output_item.added", {"item": item | {"arguments": "", "status": "in_progress"}}
            for piece in _halves(item["arguments"]):
                yield "response.function_call_arguments.delta", {**at, "delta": piece}
            yield "response.function_call_arguments.done", {**at, "arguments": item["arguments"]}
        case _:
            yield "response.output_item.added", {"item": item | {"summary": []}}
    yield "response.output_item.done", {"item": item}


def _responses_body(number: int, parts: Sequence[Part], stop: str) -> Json:
    return _response(number, _items(number, parts), stop or "completed", {})


def _responses_rules(body: Json) -> str:
    given = body["input"] if isinstance(body["input"], list) else []
    calls = [item["call_id"] for item in given if item.get("type") == "function_call"]
    outputs = [item["call_id"] for item in given if item.get("type") == "function_call_output"]
    if sorted(calls) != sorted(outputs):
        return f"calls {calls} and outputs {outputs} do not match"
    for item_id in set(outputs):
        kinds = [item["type"] for item in given if item.get("call_id") == item_id]
        if kinds != ["function_call", "function_call_output"] * (len(kinds) // 2):
            return f"the output of {item_id} stands before its call"
    return ""


def _halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


def _event(data: Json, name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


_STREAMS: dict[str, Callable[[int, Sequence[Part], str, Json], Iterator[Step]]] = {
    "messages": _messages_stream,
    "chat_completions": _chat_stream,
    "responses": _responses_stream,
}
_BODIES: dict[str, Callable[[int, Sequence[Part], str], Json]] = {
    "messages": _messages_body,
    "chat_completions": _chat_body,
    "responses": _responses_body,
}
_RULES: dict[str, Callable[[Json], str]] = {
    "messages": _messages_rules,
    "chat_completions": _chat_rules,
    "responses": _responses_rules,
}
