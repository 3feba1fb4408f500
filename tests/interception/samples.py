"""Records to be recorded."""

from datetime import UTC, datetime

from aibridge.records import (
    InterceptionEnded,
    InterceptionStarted,
    ModelThought,
    PromptUsage,
    Record,
    TokenUsage,
    ToolUsage,
)

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def started(id_: str = "i1") -> InterceptionStarted:
    return InterceptionStarted(
        id=id_,
        initiator_id="alice",
        provider="anthropic",
        provider_name="anthropic",
        model="claude",
        route="/v1/messages",
        streaming=True,
        started_at=NOON,
        client="Claude Code",
        client_session_id="s",
        correlating_tool_call_id=None,
        credential_kind="byok",
        credential_hint="sk...ab",
        user_agent="claude-cli/2",
        metadata={"a": 1},
    )


def ended(id_: str = "i1") -> InterceptionEnded:
    return InterceptionEnded(
        interception_id=id_,
        status="completed",
        ended_at=NOON,
        duration_ms=5.0,
        gateway_ms=1.0,
        http_status=200,
        notes=("n",),
        about={"actor": "alice"},
    )


def everything(id_: str = "i1") -> list[Record]:
    return [
        PromptUsage(interception_id=id_, provider_response_id="m", prompt="what?", created_at=NOON),
        TokenUsage(
            interception_id=id_,
            provider_response_id="m",
            provider_model="claude",
            input_tokens=1,
            output_tokens=2,
            created_at=NOON,
        ),
        ToolUsage(
            interception_id=id_,
            provider_response_id="m",
            provider_tool_call_id="t",
            tool="Read",
            input='{"path": "secret"}',
            invocation_error="no such file: secret",
            created_at=NOON,
        ),
        ModelThought(interception_id=id_, content="hmm", created_at=NOON),
        ended(id_),
    ]
