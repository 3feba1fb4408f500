"""Structured logs: one line when an interception starts, one when it ends. Never a secret, never a prompt."""

import logging
import sys
from collections import defaultdict
from collections.abc import Sequence

import orjson
import structlog

from aibridge.records import InterceptionEnded, InterceptionStarted, Record, TokenUsage, ToolUsage

_log = structlog.get_logger("aibridge.interception")


def configure_logging() -> None:
    """Lines for people on a terminal, JSON elsewhere; both to standard error."""
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if sys.stderr.isatty():
        processors.append(structlog.dev.ConsoleRenderer())
    else:
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_dumped)]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # The SDKs' HTTP client logs every request at INFO.
    logging.getLogger("httpx2").setLevel(logging.WARNING)


def _dumped(event: object, **_: object) -> str:
    return orjson.dumps(event, default=repr).decode()


def log_records(records: Sequence[Record]) -> None:
    """An observer of the recorder: the lines of every interception that starts or ends in these records."""
    tokens: dict[str, list[TokenUsage]] = defaultdict(list)
    tools: dict[str, int] = defaultdict(int)
    for record in records:
        match record:
            case InterceptionStarted():
                _log_start(record)
            case TokenUsage():
                tokens[record.interception_id].append(record)
            case ToolUsage():
                tools[record.interception_id] += 1
            case InterceptionEnded():
                _log_end(record, tokens[record.interception_id], tools[record.interception_id])


def _log_start(started: InterceptionStarted) -> None:
    _log.info(
        "interception started",
        interception_id=started.id,
        actor=started.initiator_id,
        provider=started.provider_name,
        route=started.route,
        model=started.model,
        streaming=started.streaming,
        client=started.client,
        session=started.client_session_id,
        credential_kind=started.credential_kind,
        credential_hint=started.credential_hint,
    )


def _log_end(ended: InterceptionEnded, tokens: list[TokenUsage], tools: int) -> None:
    _log.info(
        "interception ended",
        interception_id=ended.interception_id,
        **ended.about,
        status=ended.status,
        http_status=ended.http_status,
        error_type=ended.error_type,
        attempts=ended.attempts,
        credential_hint=ended.credential_hint,
        duration_ms=ended.duration_ms,
        time_to_first_byte_ms=ended.time_to_first_byte_ms,
        input_tokens=sum(usage.input_tokens for usage in tokens),
        output_tokens=sum(usage.output_tokens for usage in tokens),
        cache_read_input_tokens=sum(usage.cache_read_input_tokens for usage in tokens),
        cache_write_input_tokens=sum(usage.cache_write_input_tokens for usage in tokens),
        tools=tools,
    )
