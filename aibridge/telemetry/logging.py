"""Structured logs: one line for each interception, when it has ended. Never a secret, never a prompt."""

import logging
import sys
from collections import defaultdict
from collections.abc import Sequence

import orjson
import structlog

from aibridge.records import InterceptionEnded, Record, TokenUsage, ToolUsage

_log = structlog.get_logger("aibridge.interception")


def configure_logging() -> None:
    """Lines for people on a terminal, JSON elsewhere; both to standard error."""
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    factory: structlog.WriteLoggerFactory | structlog.BytesLoggerFactory
    if sys.stderr.isatty():
        processors.append(structlog.dev.ConsoleRenderer())
        factory = structlog.WriteLoggerFactory(sys.stderr)
    else:
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_dumped)]
        factory = structlog.BytesLoggerFactory(sys.stderr.buffer)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    # The SDKs' HTTP client logs every request at INFO.
    logging.getLogger("httpx2").setLevel(logging.WARNING)


def _dumped(event: object, **_: object) -> bytes:
    return orjson.dumps(event, default=repr)


def log_records(records: Sequence[Record]) -> None:
    """An observer of the recorder: the line of every interception that ends in these records."""
    tokens: dict[str, list[TokenUsage]] = defaultdict(list)
    tools: dict[str, int] = defaultdict(int)
    for record in records:
        match record:
            case TokenUsage():
                tokens[record.interception_id].append(record)
            case ToolUsage():
                tools[record.interception_id] += 1
            case InterceptionEnded():
                _log_end(record, tokens[record.interception_id], tools[record.interception_id])


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
