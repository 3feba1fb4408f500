"""Questions to an OpenAI Responses request. https://platform.openai.com/docs/api-reference/responses/create"""

from typing import Any

from aibridge.protocols.interceptor import Payload
from aibridge.protocols.members import request_object
from aibridge.protocols.reading import last_turn, mapping, sequence, text


def parse(body: bytes) -> Payload:
    """Read the request. Raises InvalidRequest if it is no JSON object."""
    data = request_object(body)
    last = last_turn(data.backwards("input"))
    return Payload(
        body=body,
        data=data,
        prompt=_prompt(last) if last else _typed(data.get("input")),
        correlating_tool_call_id=_correlating_tool_call_id(last),
    )


def _typed(given: Any) -> str | None:
    return given if isinstance(given, str) else None


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
