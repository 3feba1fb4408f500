"""Records with sensible values, of which a test names only those it is about."""

from datetime import UTC, datetime, timedelta
from typing import Any

from aibridge.records import (
    InterceptionEnded,
    InterceptionStarted,
    ModelThought,
    PromptUsage,
    TokenUsage,
    ToolUsage,
    new_id,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def after(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def started(**given: Any) -> InterceptionStarted:
    values: dict[str, Any] = {
        "id": new_id(),
        "initiator_id": "alice",
        "provider": "anthropic",
        "provider_name": "anthropic",
        "model": "claude-sonnet-4-5",
        "route": "/v1/messages",
        "streaming": True,
        "started_at": NOON,
        "client": "Claude Code",
        "client_session_id": None,
        "correlating_tool_call_id": None,
        "credential_kind": "centralized",
        "credential_hint": "sk-a...wxyz",
        "user_agent": "claude-cli/2.0",
    }
    return InterceptionStarted(**{**values, **given})


def ended(interception: InterceptionStarted, **given: Any) -> InterceptionEnded:
    values: dict[str, Any] = {
        "interception_id": interception.id,
        "status": "completed",
        "ended_at": interception.started_at + timedelta(seconds=2),
        "duration_ms": 2000.0,
        "gateway_ms": 0.5,
        "http_status": 200,
    }
    return InterceptionEnded(**{**values, **given})


def _of(interception: InterceptionStarted, given: dict[str, Any], **defaults: Any) -> dict[str, Any]:
    shared = {"interception_id": interception.id, "created_at": interception.started_at}
    return {**shared, **defaults, **given}


def token_usage(interception: InterceptionStarted, **given: Any) -> TokenUsage:
    defaults = {
        "provider_response_id": "msg_1",
        "provider_model": interception.model,
        "input_tokens": 10,
        "output_tokens": 20,
    }
    return TokenUsage(**_of(interception, given, **defaults))


def prompt(interception: InterceptionStarted, text: str, **given: Any) -> PromptUsage:
    return PromptUsage(**_of(interception, given, provider_response_id="msg_1", prompt=text))


def tool_usage(interception: InterceptionStarted, call_id: str | None = "call_1", **given: Any) -> ToolUsage:
    defaults = {
        "provider_response_id": "msg_1",
        "provider_tool_call_id": call_id,
        "tool": "Bash",
        "input": '{"command":"ls"}',
    }
    return ToolUsage(**_of(interception, given, **defaults))


def thought(interception: InterceptionStarted, content: str, **given: Any) -> ModelThought:
    return ModelThought(**_of(interception, given, content=content))
