"""The machine that hides the usage chunk which the gateway asked for and the client did not.

States: between events, or inside one. Whole events go on at once, except the one that has usage and no choices.
What has come of an event is held until it is whole; once it is longer than any usage chunk, it goes on as it
comes, up to its end.
"""

import re

from aibridge.protocols.interceptor import Interceptor, Observation
from aibridge.protocols.reading import parsed_object
from aibridge.protocols.sse import Decoder

LONGEST_USAGE_EVENT = 16 * 1024

_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n")
_MEMBERS = {"id", "object", "created", "model", "service_tier", "system_fingerprint", "obfuscation"}
_MEMBERS |= {"choices", "usage"}
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')


class UsageHidden:
    """Wraps the machine that sees everything; returns what the client may see."""

    def __init__(self, seeing: Interceptor) -> None:
        self._seeing = seeing
        self._held = b""
        self._passing = False  # inside an event that is too long to be the one

    def feed(self, chunk: bytes) -> bytes:
        self._seeing.feed(chunk)
        if not self._held and not self._passing and _ends_event(chunk) and not _NO_CHOICES.search(chunk):
            return chunk  # whole events, and none of them is the one: nearly always so
        return self._shown(self._held + chunk)

    def finish(self) -> bytes:
        held, self._held = self._held, b""
        return held

    def observe(self) -> Observation:
        return self._seeing.observe()

    def _shown(self, data: bytes) -> bytes:
        shown, start = [], 0
        for end in _EVENT_END.finditer(data):
            event = data[start : end.end()]
            if self._passing or not _is_usage(event):
                shown.append(event)
            self._passing, start = False, end.end()
        self._held = data[start:]
        if self._passing or len(self._held) > LONGEST_USAGE_EVENT:
            # All but line ends, which may be the first half of the event's end.
            size = len(self._held.rstrip(b"\r\n"))
            shown.append(self._held[:size])
            self._held, self._passing = self._held[size:], True
        return b"".join(shown)


def _ends_event(chunk: bytes) -> bool:
    return chunk.endswith((b"\n\n", b"\r\n\r\n", b"\r\r"))


def _is_usage(event: bytes) -> bool:
    """Whether this is the extra chunk: a usage, no choices, and nothing else that a client might want."""
    if not _NO_CHOICES.search(event):
        return False
    for decoded in Decoder().feed(event):
        data = parsed_object(decoded.data)
        if data is not None and data.get("choices") == [] and isinstance(data.get("usage"), dict):
            return data.keys() <= _MEMBERS
    return False
