"""What a source of tools must offer: MCP servers and actions are toolboxes, and so may be any object."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any, Protocol

from aibridge.protocols.tools import Tool, ToolResult

LONGEST_WIRE_NAME = 64  # characters; Anthropic and OpenAI alike

_ILLEGAL = re.compile(r"[^A-Za-z0-9_-]")


class ToolFailed(Exception):
    """A call gave no result. The message is for the model: it holds no secret."""


@dataclass(frozen=True, slots=True)
class CallContext:
    """For whom a call runs and until when. `deadline` is on `time.monotonic`'s clock, in seconds; `cancelled` is
    set when nobody waits for the result any more; `response_id` is the provider's response that asked for it."""

    actor: str
    interception_id: str
    deadline: float
    response_id: str = ""
    cancelled: Event = field(default_factory=Event)


class Toolbox(Protocol):
    """`start` runs after the fork, `close` at the worker's exit; in between the others, from any thread."""

    def start(self) -> None: ...

    def close(self) -> None: ...

    def wait_until_settled(self, seconds: float) -> bool:
        """Wait until `tools` is as complete as it can be, for so many seconds at most; whether it is."""

    def tools(self) -> Sequence[Tool]:
        """The tools as they are now. Asked once per request, so it must be cheap and never wait."""

    def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        """Run the tool and wait for it, no longer than `context.deadline`. Raises ToolFailed."""

    def status(self) -> Mapping[str, Any]:
        """What /readyz shows of it: plain JSON values under names of its own."""


def wire_name(prefix: str, *names: str) -> str:
    """A name that every provider takes, the same for the same names: illegal characters become `_`, and what is
    too long is cut and told apart by six hexadecimal digits of a hash."""
    joined = "_".join((prefix, *names))
    legal = _ILLEGAL.sub("_", joined)
    if len(legal) <= LONGEST_WIRE_NAME:
        return legal
    return f"{legal[: LONGEST_WIRE_NAME - 7]}_{hashlib.sha256(joined.encode()).hexdigest()[:6]}"
