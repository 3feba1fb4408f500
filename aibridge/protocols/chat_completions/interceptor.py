"""The machine that hides the usage chunk which the gateway asked for and the client did not.

Whole events go on at once, except the one that has usage and no choices. What has come of an event is held until
it is whole, or longer than any usage chunk.
"""

import re
from typing import Any

from aibridge.protocols.interceptor import Interceptor, Observation
from aibridge.protocols.reading import parsed_object
from aibridge.protocols.sse import Splitter, event_in

LONGEST_USAGE_EVENT = 16 * 1024

_MEMBERS = {"id", "object", "created", "model", "service_tier", "system_fingerprint", "obfuscation"}
_MEMBERS |= {"choices", "usage"}
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')


class UsageHidden:
    """Wraps the machine that sees everything; returns what the client may see."""

    def __init__(self, seeing: Interceptor) -> None:
        self._seeing = seeing
        self._splitter = Splitter(LONGEST_USAGE_EVENT)

    def feed(self, chunk: bytes) -> bytes:
        self._seeing.feed(chunk)
        return b"".join([event for event in self._splitter.feed(chunk) if not _is_usage(event)])

    def finish(self) -> bytes:
        return self._splitter.rest()

    def observe(self) -> Observation:
        return self._seeing.observe()


def only_usage(chunk: dict[str, Any]) -> bool:
    """Whether this is the extra chunk: a usage, no choices, and nothing else that a client might want."""
    return chunk.get("choices") == [] and isinstance(chunk.get("usage"), dict) and chunk.keys() <= _MEMBERS


def _is_usage(written: bytes) -> bool:
    event = event_in(written) if _NO_CHOICES.search(written) else None
    return event is not None and only_usage(parsed_object(event.data) or {})
