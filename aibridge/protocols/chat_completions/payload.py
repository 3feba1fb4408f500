"""Questions to, and the one edit of, an OpenAI Chat Completions request.

https://platform.openai.com/docs/api-reference/chat/create
"""

from typing import Any

from aibridge.protocols.editing import ObjectText
from aibridge.protocols.interceptor import Payload
from aibridge.protocols.members import request_object
from aibridge.protocols.reading import last_turn, last_user_text, mapping, text

_ASK = b'{"include_usage":true}'
_ASK_TOO = {"include_usage": b"true"}


def parse(body: bytes) -> Payload:
    """Read the request. Raises InvalidRequest if it is no JSON object."""
    data = request_object(body)
    last = last_turn(data.backwards("messages"))
    return Payload(
        body=body,
        data=data,
        prompt=last_user_text(last) or None,
        correlating_tool_call_id=_correlating_tool_call_id(last),
    )


def asks_for_usage(payload: Payload) -> bool:
    """Also in OpenRouter's way, `"usage": {"include": true}`."""
    asked = mapping(payload.data.get("stream_options")).get("include_usage") is True
    return asked or mapping(payload.data.get("usage")).get("include") is True


def asking_for_usage(payload: Payload) -> bytes | None:
    """The body that also asks for a stream's usage; None if there is nothing to ask or the client asked itself.

    https://platform.openai.com/docs/api-reference/chat/create#chat-create-stream_options
    """
    if not payload.streaming or asks_for_usage(payload):
        return None
    if not isinstance(payload.data.get("stream_options", {}), dict | None):
        return None  # nonsense, which the provider will refuse as it is
    try:
        request = ObjectText(payload.body)
        options = request.value("stream_options")
        asking = ObjectText(options).edited(put=_ASK_TOO) if options and options != b"null" else _ASK
        return request.edited(put={"stream_options": asking})
    except ValueError:
        return None  # only a lenient parser takes this body


def _correlating_tool_call_id(turn: dict[str, Any]) -> str | None:
    return text(turn.get("tool_call_id")) or None if turn.get("role") == "tool" else None
