"""Questions to an Anthropic Messages request. https://docs.anthropic.com/en/api/messages"""

from typing import Any

from aibridge.errors import InvalidRequest
from aibridge.protocols.interceptor import Payload
from aibridge.protocols.reading import mapping, parsed_object, sequence, text


def parse(body: bytes) -> Payload:
    """Read the request; only what is no JSON object is refused (InvalidRequest), the rest is the provider's
    to judge."""
    data = parsed_object(body)
    if data is None:
        raise InvalidRequest("the request body is not a JSON object")
    last = _last_turn(data)
    return Payload(
        body=body,
        data=data,
        model=text(data.get("model")),
        streaming=data.get("stream") is True,
        prompt=_prompt(last),
        correlating_tool_call_id=_correlating_tool_call_id(last),
    )


def _last_turn(data: dict[str, Any]) -> dict[str, Any]:
    """The last message that is not an instruction: Claude Code appends `system` messages to the user's."""
    for message in reversed(sequence(data.get("messages"))):
        if text(mapping(message).get("role")) not in ("system", "developer"):
            return mapping(message)
    return {}


def _prompt(turn: dict[str, Any]) -> str | None:
    """What the user typed. Clients put context before it in the same message, so the last text counts."""
    if turn.get("role") != "user":
        return None
    content = turn.get("content")
    if isinstance(content, str):
        return content
    for part in reversed(sequence(content)):
        block = mapping(part)
        if block.get("type") == "text" and isinstance(block.get("text"), str):
            return text(block["text"])
    return None


def _correlating_tool_call_id(turn: dict[str, Any]) -> str | None:
    """The tool call whose result this request brings: it names the interception that made the call."""
    for part in reversed(sequence(turn.get("content"))):
        block = mapping(part)
        if block.get("type") == "tool_result" and text(block.get("tool_use_id")):
            return text(block["tool_use_id"])
    return None
