"""The first tables.

Plain types only: a migration stays as it was when it ran, whatever becomes of the classes in `tables.py`.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    _interceptions()
    _token_usages()
    _user_prompts()
    _tool_usages()
    _model_thoughts()
    _tokens()


def _interceptions() -> None:
    table = "aibridge_interceptions"
    op.create_table(
        table,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("initiator_id", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("provider_name", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("ended_at", TIME),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("api_key_id", sa.Text),
        sa.Column("client", sa.Text, nullable=False),
        sa.Column("client_session_id", sa.Text),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("thread_parent_id", sa.Text),
        sa.Column("thread_root_id", sa.Text),
        sa.Column("correlating_tool_call_id", sa.Text),
        sa.Column("credential_kind", sa.Text, nullable=False),
        sa.Column("credential_hint", sa.Text, nullable=False),
        sa.Column("user_agent", sa.Text, nullable=False),
        sa.Column("route", sa.Text, nullable=False),
        sa.Column("streaming", sa.Boolean, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("http_status", sa.Integer),
        sa.Column("error_type", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.Column("rounds", sa.Integer),
        sa.Column("attempts", sa.Integer),
        sa.Column("time_to_first_byte_ms", sa.Float),
        sa.Column("duration_ms", sa.Float),
        sa.Column("gateway_ms", sa.Float),
    )
    op.create_index("ix_aibridge_interceptions_started", table, ["started_at", "id"])
    op.create_index("ix_aibridge_interceptions_initiator", table, ["initiator_id", "started_at"])
    op.create_index("ix_aibridge_interceptions_thread", table, ["thread_root_id"])
    op.create_index("ix_aibridge_interceptions_session", table, ["session_id", "started_at", "id"])
    still_open = sa.text("ended_at IS NULL")
    op.create_index(
        "ix_aibridge_interceptions_open",
        table,
        ["started_at"],
        sqlite_where=still_open,
        postgresql_where=still_open,
    )


def _token_usages() -> None:
    table = "aibridge_token_usages"
    op.create_table(
        table,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("interception_id", sa.Text, nullable=False),
        sa.Column("provider_response_id", sa.Text, nullable=False),
        sa.Column("provider_model", sa.Text, nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("cache_read_input_tokens", sa.BigInteger, nullable=False),
        sa.Column("cache_write_input_tokens", sa.BigInteger, nullable=False),
        sa.Column("estimated", sa.Boolean, nullable=False),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
    )
    op.create_index("ix_aibridge_token_usages_interception", table, ["interception_id"])


def _user_prompts() -> None:
    table = "aibridge_user_prompts"
    op.create_table(
        table,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("interception_id", sa.Text, nullable=False),
        sa.Column("provider_response_id", sa.Text, nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
    )
    op.create_index("ix_aibridge_user_prompts_interception", table, ["interception_id"])


def _tool_usages() -> None:
    table = "aibridge_tool_usages"
    op.create_table(
        table,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("interception_id", sa.Text, nullable=False),
        sa.Column("provider_response_id", sa.Text, nullable=False),
        sa.Column("provider_tool_call_id", sa.Text),
        sa.Column("provider_item_id", sa.Text),
        sa.Column("server_url", sa.Text),
        sa.Column("tool", sa.Text, nullable=False),
        sa.Column("input", sa.Text, nullable=False),
        sa.Column("injected", sa.Boolean, nullable=False),
        sa.Column("invocation_error", sa.Text),
        sa.Column("duration_ms", sa.Float),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
    )
    op.create_index("ix_aibridge_tool_usages_interception", table, ["interception_id"])
    op.create_index("ix_aibridge_tool_usages_call", table, ["provider_tool_call_id", "created_at"])


def _model_thoughts() -> None:
    table = "aibridge_model_thoughts"
    op.create_table(
        table,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("interception_id", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
    )
    op.create_index("ix_aibridge_model_thoughts_interception", table, ["interception_id"])


def _tokens() -> None:
    table = "aibridge_tokens"
    op.create_table(
        table,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("token_sha256", sa.Text, nullable=False),
        sa.Column("hint", sa.Text, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("revoked_at", TIME),
    )
    op.create_index("ix_aibridge_tokens_sha256", table, ["token_sha256"], unique=True)
