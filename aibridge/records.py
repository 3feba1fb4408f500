"""What can be recorded about an interception, and the one thing a recorder must do.

Each record becomes one row of the tables in `storage/tables.py` (InterceptionEnded completes the row that
InterceptionStarted made). Records carry their own ids, so writing one twice, as a replay after a crash may
do, changes nothing.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import getrandbits
from typing import Any, Literal, Protocol

Status = Literal["completed", "failed", "cancelled", "interrupted"]
CredentialKind = Literal["byok", "centralized"]

ERROR_MESSAGE_BYTES = 1024
LONGEST_ID = 512  # characters of an id or name that a provider or client chose


def new_id() -> str:
    """A UUID of version 7 (RFC 9562, section 5.7): milliseconds, then chance. What is recorded at the same time
    has neighbouring ids, so that it changes few pages of an index. It need not be unguessable; Python seeds its
    generator anew after a fork."""
    stamp = time.time_ns() // 1_000_000
    digits = f"{stamp << 80 | 7 << 76 | getrandbits(12) << 64 | 2 << 62 | getrandbits(62):032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def now() -> datetime:
    return datetime.now(UTC)


def shortened(message: str, limit: int = ERROR_MESSAGE_BYTES) -> str:
    """`message` cut to `limit` bytes of UTF-8, never inside a character."""
    return message.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")


@dataclass(frozen=True, slots=True, kw_only=True)
class InterceptionStarted:
    """Who asks whom for what. Thread and session are completed by the store, which knows the earlier ones."""

    id: str
    initiator_id: str
    provider: str
    provider_name: str
    model: str
    route: str
    streaming: bool
    started_at: datetime
    client: str
    client_session_id: str | None
    correlating_tool_call_id: str | None
    credential_kind: CredentialKind
    credential_hint: str
    user_agent: str
    api_key_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class InterceptionEnded:
    """How it ended. Durations are in milliseconds; `gateway_ms` is what passed before the
    provider was called: reading, identifying, the start row. `about` repeats what logs and metrics name an
    interception by (actor, provider, model, client); it is not stored again."""

    interception_id: str
    status: Status
    ended_at: datetime
    duration_ms: float
    gateway_ms: float
    time_to_first_byte_ms: float | None = None
    http_status: int | None = None
    error_type: str | None = None
    error_message: str | None = None
    rounds: int = 1
    attempts: int = 1
    credential_hint: str | None = None
    notes: tuple[str, ...] = ()
    about: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUsage:
    """The tokens of one provider response. `input_tokens` excludes what the cache served or stored."""

    interception_id: str
    provider_response_id: str
    provider_model: str
    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    estimated: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=new_id)
    created_at: datetime = field(default_factory=now)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptUsage:
    interception_id: str
    provider_response_id: str
    prompt: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=new_id)
    created_at: datetime = field(default_factory=now)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUsage:
    """One tool call of the model. `input` is the JSON text of its arguments, as far as it came."""

    interception_id: str
    provider_response_id: str
    provider_tool_call_id: str | None
    tool: str
    input: str
    provider_item_id: str | None = None
    server_url: str | None = None
    injected: bool = False
    invocation_error: str | None = None
    duration_ms: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=new_id)
    created_at: datetime = field(default_factory=now)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelThought:
    interception_id: str
    content: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=new_id)
    created_at: datetime = field(default_factory=now)


Record = InterceptionStarted | InterceptionEnded | TokenUsage | PromptUsage | ToolUsage | ModelThought


class Recorder(Protocol):
    """Where records go. The gateway's own is a database; `create_app(recorder=...)` takes any other."""

    def record(self, records: Sequence[Record]) -> None:
        """Keep all of `records`, in order, or none. They are durable when this returns.

        Raises RecordingError if they could not be kept, RecordRefused if one of them never will be.
        """
