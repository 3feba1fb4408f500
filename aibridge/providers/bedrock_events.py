"""From Amazon's binary event stream back to Anthropic's server-sent events.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModelWithResponseStream.html: every
frame of type `chunk` holds one event of Anthropic's as base64; an exception frame ends the stream. botocore
reads the frames; it is imported when the first stream comes, because it is installed only where Bedrock is used.
"""

import base64
import binascii
import struct
from collections.abc import Iterator
from socket import socket
from typing import Any

import orjson

from aibridge.errors import UpstreamError
from aibridge.protocols.reading import mapping, parsed_object, text
from aibridge.protocols.sse import encode
from aibridge.upstream.call import UpstreamBody

CONTENT_TYPE = "application/vnd.amazon.eventstream"

# Bedrock's exception -> Anthropic's error type; any other is an api_error.
ERROR_TYPES = {
    "throttlingException": "rate_limit_error",
    "serviceUnavailableException": "overloaded_error",
    "modelTimeoutException": "timeout_error",
    "validationException": "invalid_request_error",
    "accessDeniedException": "permission_error",
}

_LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")  # between JSON's tokens only: inside strings they are escaped


class EventStream(UpstreamBody):
    """A body in Amazon's framing, read as server-sent events, as they arrive. What brings no whole event yields
    IDLE. Raises UpstreamError for what is no such stream, or ends inside a frame."""

    def __init__(self, body: UpstreamBody) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        from botocore.eventstream import EventStreamBuffer, ParserError  # noqa: PLC0415  optional: only here

        frames = EventStreamBuffer()
        unread = 0  # bytes of the frame that is still coming
        for chunk in self._body:
            frames.add_data(chunk)
            unread += len(chunk)
            events = []
            try:
                for frame in frames:
                    unread -= frame.prelude.total_length
                    events.append(_event(frame.headers, frame.payload))
            except (ParserError, ValueError, KeyError, struct.error) as error:
                yield b"".join(events)
                raise UpstreamError("the provider's answer is not the event stream it claims to be") from error
            yield b"".join(events)
        if unread:
            raise UpstreamError("the provider's event stream ended inside a frame")

    def close(self) -> None:
        self._body.close()

    @property
    def source(self) -> socket | None:
        return self._body.source


def _event(headers: dict[str, Any], payload: bytes) -> bytes:
    """One frame as an event; nothing for a frame that holds none."""
    match headers.get(":message-type"):
        case "event" if headers.get(":event-type") == "chunk":
            return _chunk(payload)
        case "exception":
            said = mapping(parsed_object(payload))
            return _error(text(headers.get(":exception-type")), text(said.get("message")))
        case "error":
            return _error(text(headers.get(":error-code")), text(headers.get(":error-message")))
        case _:
            return b""


def _chunk(payload: bytes) -> bytes:
    written = mapping(parsed_object(payload)).get("bytes")
    try:
        data = base64.b64decode(written, validate=True) if isinstance(written, str) else payload
    except binascii.Error:
        return b""
    name = text(mapping(parsed_object(data)).get("type"))
    return encode(name, data.translate(_LINE_ENDS)) if name else b""


def _error(kind: str, message: str) -> bytes:
    error = {"type": ERROR_TYPES.get(kind, "api_error"), "message": message or kind or "the stream failed"}
    return encode("error", orjson.dumps({"type": "error", "error": error}))
