"""What the fake provider answers, in bytes made beforehand: it must cost next to nothing to send.

Every content event of a stream carries `T` and 19 digits, the monotonic time in nanoseconds at which it was sent;
the load driver, on the same machine, finds it in whatever arrives.
"""

import json
from dataclasses import dataclass
from typing import Any

from bench.apis import MODELS, Api

TEXT = (
    "Here is a plan: read the file, find the failing assertion, change the smallest thing that makes it pass and "
    "run the tests again. "
) * 16
PIECE = " some@@ text"  # @@: where the time goes
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
    b"request-id: req_fake\r\nTransfer-Encoding: chunked\r\n\r\n"
)
END = b"0\r\n\r\n"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """One API's answer, blocking and streamed."""

    blocking: bytes  # with its head
    opening: bytes  # the events before the text
    before: bytes  # of a piece of text, up to the time
    after: bytes
    closing: bytes  # the events after the text

    def event(self, time: int) -> bytes:
        return chunk(b"%bT%019d%b" % (self.before, time, self.after))


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(payload: object) -> bytes:
    """A JSON answer with its head."""
    body = _encoded(payload)
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nrequest-id: req_fake\r\nContent-Length: %d\r\n\r\n"
    )
    return head % len(body) + body


def _encoded(payload: object) -> bytes:
    return json.dumps(payload, separators=(",", ":")).encode()


def _answer(blocking: Json, opening: list[bytes], piece: bytes, closing: list[bytes]) -> Answer:
    before, after = piece.split(b"@@")
    return Answer(whole(blocking), chunk(b"".join(opening)), before, after, chunk(b"".join(closing)))


def _named(event: Json) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), _encoded(event))


def _messages() -> Answer:
    usage = {
        "input_tokens": 5120,
        "cache_creation_input_tokens": 128,
        "cache_read_input_tokens": 4096,
        "output_tokens": 420,
        "service_tier": "standard",
    }
    message: Json = {
        "id": "msg_01FakeFakeFakeFakeFakeFake",
        "type": "message",
        "role": "assistant",
        "model": MODELS["messages"],
        "content": [{"type": "text", "text": TEXT}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": usage,
    }
    begun = message | {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    return _answer(
        message,
        [
            _named({"type": "message_start", "message": begun}),
            _named({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
            _named({"type": "ping"}),
        ],
        _named({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": PIECE}}),
        [
            _named({"type": "content_block_stop", "index": 0}),
            _named({"type": "message_delta", "delta": end, "usage": usage}),
            _named({"type": "message_stop"}),
        ],
    )


def _chat() -> Answer:
    usage = {
        "prompt_tokens": 5120,
        "completion_tokens": 420,
        "total_tokens": 5540,
        "prompt_tokens_details": {"cached_tokens": 4096, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }
    common: Json = {
        "id": "chatcmpl-FakeFakeFakeFakeFakeFake",
        "created": 1790000000,
        "model": MODELS["chat"],
        "service_tier": "default",
        "system_fingerprint": "fp_fake",
    }

    def piece(delta: Json, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        event = common | {"object": "chat.completion.chunk", "choices": [choice], "usage": None}
        return b"data: %b\n\n" % _encoded(event)

    message: Json = {"role": "assistant", "content": TEXT, "refusal": None, "annotations": []}
    choice = {"index": 0, "finish_reason": "stop", "logprobs": None, "message": message}
    bill = common | {"object": "chat.completion.chunk", "choices": [], "usage": usage}
    return _answer(
        common | {"object": "chat.completion", "choices": [choice], "usage": usage},
        [piece({"role": "assistant", "content": "", "refusal": None})],
        piece({"content": PIECE}),
        [piece({}, "stop"), b"data: %b\n\ndata: [DONE]\n\n" % _encoded(bill)],
    )


def _responses() -> Answer:
    usage = {
        "input_tokens": 5120,
        "input_tokens_details": {"cached_tokens": 4096},
        "output_tokens": 420,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 5540,
    }
    text = {"type": "output_text", "text": TEXT, "annotations": [], "logprobs": []}
    item = {"id": "msg_fake", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
    response: Json = {
        "id": "resp_FakeFakeFakeFakeFakeFake",
        "object": "response",
        "created_at": 1790000000,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": MODELS["responses"],
        "output": [item],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": usage,
    }
    begun = response | {"status": "in_progress", "output": [], "usage": None}
    place = {"item_id": "msg_fake", "output_index": 0, "content_index": 0}
    empty = text | {"text": ""}
    started = item | {"status": "in_progress", "content": []}

    def event(kind: str, number: int, **fields: Any) -> bytes:
        return _named({"type": f"response.{kind}", "sequence_number": number, **fields})

    return _answer(
        response,
        [
            event("created", 0, response=begun),
            event("in_progress", 1, response=begun),
            event("output_item.added", 2, output_index=0, item=started),
            event("content_part.added", 3, **place, part=empty),
        ],
        event("output_text.delta", 4, **place, delta=PIECE, logprobs=[]),
        [
            event("output_text.done", 5, **place, text=TEXT, logprobs=[]),
            event("content_part.done", 6, **place, part=text),
            event("output_item.done", 7, output_index=0, item=item),
            event("completed", 8, response=response),
        ],
    )


ANSWERS: dict[Api, Answer] = {"messages": _messages(), "chat": _chat(), "responses": _responses()}
