"""The tables: what an interception leaves behind, hidden turns, the living workers, and the gateway's own tokens.

Names and meaning follow the published dashboards of the Go gateway, which read these tables directly. Rows
have no foreign keys: parent and child are written in one transaction, and retention deletes children first.
The migrations in `migrations/versions` must produce exactly this; a test compares them.
"""

from sqlalchemy import Boolean, Column, Float, Index, Integer, LargeBinary, MetaData, Table, Text

from aibridge.storage.column_types import Count, ForeignText, JsonObject, UtcDateTime

metadata = MetaData()

interceptions = Table(
    "aibridge_interceptions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("initiator_id", ForeignText, nullable=False),
    Column("provider", Text, nullable=False),
    Column("provider_name", Text, nullable=False),
    Column("model", ForeignText, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("metadata", JsonObject, nullable=False),
    Column("api_key_id", Text),
    Column("client", ForeignText, nullable=False),
    Column("client_session_id", ForeignText),
    Column("session_id", ForeignText, nullable=False),
    Column("thread_parent_id", Text),
    Column("thread_root_id", Text),
    Column("correlating_tool_call_id", ForeignText),
    Column("credential_kind", Text, nullable=False),
    Column("credential_hint", ForeignText, nullable=False),
    Column("user_agent", ForeignText, nullable=False),
    Column("route", ForeignText, nullable=False),
    Column("streaming", Boolean, nullable=False),
    Column("status", Text, nullable=False),
    Column("http_status", Integer),
    Column("error_type", ForeignText),
    Column("error_message", ForeignText),
    Column("rounds", Integer),
    Column("attempts", Integer),
    Column("time_to_first_byte_ms", Float),
    Column("duration_ms", Float),
    Column("gateway_ms", Float),
    Column("worker_id", Text),
)
Index("ix_aibridge_interceptions_started", interceptions.c.started_at, interceptions.c.id)
Index("ix_aibridge_interceptions_initiator", interceptions.c.initiator_id, interceptions.c.started_at)
Index("ix_aibridge_interceptions_thread", interceptions.c.thread_root_id)
# The newest interception of each session is found by walking these three columns backwards.
Index(
    "ix_aibridge_interceptions_session",
    interceptions.c.session_id,
    interceptions.c.started_at,
    interceptions.c.id,
)
# What the sweeper looks for; nearly empty at any time, so it is nearly free.
Index(
    "ix_aibridge_interceptions_open",
    interceptions.c.started_at,
    sqlite_where=interceptions.c.ended_at.is_(None),
    postgresql_where=interceptions.c.ended_at.is_(None),
)

token_usages = Table(
    "aibridge_token_usages",
    metadata,
    Column("id", Text, primary_key=True),
    Column("interception_id", Text, nullable=False),
    Column("provider_response_id", ForeignText, nullable=False),
    Column("provider_model", ForeignText, nullable=False),
    Column("input_tokens", Count, nullable=False),
    Column("output_tokens", Count, nullable=False),
    Column("cache_read_input_tokens", Count, nullable=False),
    Column("cache_write_input_tokens", Count, nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("metadata", JsonObject, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)
Index("ix_aibridge_token_usages_interception", token_usages.c.interception_id)

user_prompts = Table(
    "aibridge_user_prompts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("interception_id", Text, nullable=False),
    Column("provider_response_id", ForeignText, nullable=False),
    Column("prompt", ForeignText, nullable=False),
    Column("metadata", JsonObject, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)
Index("ix_aibridge_user_prompts_interception", user_prompts.c.interception_id)

tool_usages = Table(
    "aibridge_tool_usages",
    metadata,
    Column("id", Text, primary_key=True),
    Column("interception_id", Text, nullable=False),
    Column("provider_response_id", ForeignText, nullable=False),
    Column("provider_tool_call_id", ForeignText),
    Column("provider_item_id", ForeignText),
    Column("server_url", ForeignText),
    Column("tool", ForeignText, nullable=False),
    Column("input", ForeignText, nullable=False),
    Column("injected", Boolean, nullable=False),
    Column("invocation_error", ForeignText),
    Column("duration_ms", Float),
    Column("metadata", JsonObject, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)
Index("ix_aibridge_tool_usages_interception", tool_usages.c.interception_id)
Index("ix_aibridge_tool_usages_call", tool_usages.c.provider_tool_call_id, tool_usages.c.created_at)

model_thoughts = Table(
    "aibridge_model_thoughts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("interception_id", Text, nullable=False),
    Column("content", ForeignText, nullable=False),
    Column("metadata", JsonObject, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)
Index("ix_aibridge_model_thoughts_interception", model_thoughts.c.interception_id)

# Everything that belongs to an interception and goes with it.
children = (token_usages, user_prompts, tool_usages, model_thoughts)

# What clients did not see of their answers, to be put back into their next requests.
hidden_turns = Table(
    "aibridge_hidden_turns",
    metadata,
    Column("initiator_id", ForeignText, primary_key=True),
    Column("key", ForeignText, primary_key=True),
    Column("turn", LargeBinary, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
)
Index("ix_aibridge_hidden_turns_expires", hidden_turns.c.expires_at)

# The processes that serve, as long as they say that they live: `storage/workers.py`.
workers = Table(
    "aibridge_workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("place", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("born", Text, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
)

# The gateway's own tokens. A token itself is never here: only its SHA-256 and a hint to tell it by.
tokens = Table(
    "aibridge_tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("actor", ForeignText, nullable=False),
    Column("description", ForeignText, nullable=False),
    Column("token_sha256", Text, nullable=False),
    Column("hint", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime),
)
Index("ix_aibridge_tokens_sha256", tokens.c.token_sha256, unique=True)
