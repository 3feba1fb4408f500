"""Questions to an OpenAI Responses request. https://platform.openai.com/docs/api-reference/responses/create"""

from typing import Any

from aibridge.protocols.interceptor import Payload
from aibridge.protocols.reading import last_turn, mapping, request_object, sequence, text


def parse(body: bytes) -> Payload:
    """Read the request. Raises InvalidRequest if it is no JSON object."""
    data = request_object(body)
    given = data.get("input")
    last = last_turn(sequence(given))
    return Payload(
        body=body,
        data=data,
        prompt=given if isinstance(given, str) else _prompt(last),
        correlating_tool_call_id=_correlating_tool_call_id(last),
    )


def _prompt(item: dict[str, Any]) -> str | None:
    """All of what the user typed: here the parts of a message belong together."""
    if item.get("role") != "user":
        return None
    content = item.get("content")
    if isinstance(content, str):
        return content
    parts = [
        text(mapping(part)["text"])
        for part in sequence(content)
        if mapping(part).get("type") == "input_text" and isinstance(mapping(part).get("text"), str)
    ]
    return "\n".join(parts) if parts else None


def _correlating_tool_call_id(item: dict[str, Any]) -> str | None:
    """`function_call_output`, `custom_tool_call_output` and their like bring a tool's result."""
    return text(item.get("call_id")) or None if text(item.get("type")).endswith("_output") else None
