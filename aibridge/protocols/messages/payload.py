"""Questions to an Anthropic Messages request. https://docs.anthropic.com/en/api/messages"""

from typing import Any

from aibridge.protocols.interceptor import Payload
from aibridge.protocols.members import request_object
from aibridge.protocols.reading import last_turn, last_user_text, mapping, sequence, text


def parse(body: bytes) -> Payload:
    """Read the request. Raises InvalidRequest if it is no JSON object."""
    data = request_object(body)
    last = last_turn(data.backwards("messages"))
    return Payload(
        body=body,
        data=data,
        prompt=last_user_text(last),
        correlating_tool_call_id=_correlating_tool_call_id(last),
    )


def _correlating_tool_call_id(turn: dict[str, Any]) -> str | None:
    """The tool call whose result this request brings: it names the interception that made the call."""
    for part in reversed(sequence(turn.get("content"))):
        block = mapping(part)
        if block.get("type") == "tool_result" and text(block.get("tool_use_id")):
            return text(block["tool_use_id"])
    return None
