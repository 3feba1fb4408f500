"""What a provider says in the Messages API, round by round, as a stream and as a body."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.fake_provider.conversations import (
    PING,
    block,
    compact,
    message_end,
    message_start,
    text_block,
    thinking_block,
    tool_block,
)

READ = {"name": "Read", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}
QUESTION: list[dict[str, Any]] = [{"role": "user", "content": "What is the weather?"}]

Content = dict[str, Any]


def say(text: str) -> Content:
    return {"type": "text", "text": text}


def think(text: str) -> Content:
    return {"type": "thinking", "thinking": text, "signature": f"signed {text}"}


def call(call_id: str, name: str = "bmcp_weather_forecast", **arguments: Any) -> Content:
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


def read(call_id: str) -> Content:
    return call(call_id, "Read", path="/etc/hosts")


PAGE = {"type": "web_search_result", "url": "u", "title": "t", "encrypted_content": "e", "page_age": "1"}
SEARCH = {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "Zürich"}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": [PAGE]}


@dataclass(frozen=True)
class Said:
    """One round of the provider's: the same content as a stream and as a body."""

    number: int
    content: Sequence[Content]
    stop_reason: str

    @property
    def usage(self) -> dict[str, Any]:
        return {"input_tokens": 10 * self.number, "cache_read_input_tokens": 5, "output_tokens": self.number}

    @property
    def id(self) -> str:
        return f"msg_{self.number}"

    def stream(self) -> bytes:
        parts = [message_start(self.id, self.usage | {"output_tokens": 1}), PING]
        for index, content in enumerate(self.content):
            parts += _events(index, content)
        usage = {"output_tokens": self.number, "server_tool_use": {"web_search_requests": 1}}
        return b"".join([*parts, *message_end(self.stop_reason, usage)])

    def body(self) -> bytes:
        message = {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": "claude-sonnet-5",
            "content": self.content,
            "stop_reason": self.stop_reason,
            "stop_sequence": None,
            "usage": self.usage | {"server_tool_use": {"web_search_requests": 1}},
        }
        return json.dumps(message, ensure_ascii=False).encode()


def _events(index: int, content: Content) -> list[bytes]:
    match content["type"]:
        case "text":
            half = len(content["text"]) // 2
            return text_block(index, content["text"][:half], content["text"][half:])
        case "thinking":
            return thinking_block(index, content["signature"], content["thinking"])
        case "tool_use" | "server_tool_use":
            raw = compact(content["input"])
            return tool_block(index, content["id"], content["name"], raw[:3], raw[3:], kind=content["type"])
    return block(index, content)
