"""What the records say: usage by actor, model, client or day, and sessions with what happened in them.

Lists and sums leave out interceptions that have not ended, as their tokens are not known yet; a single
session shows them. Lists find their rows first, by an index, and add up only what belongs to those.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar

from sqlalchemy import Column, ColumnElement, Connection, Select, and_, case, exists, func, select, tuple_
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction
from sqlalchemy.types import Text

from aibridge.storage.database import Database
from aibridge.storage.tables import (
    interceptions,
    model_thoughts,
    token_usages,
    tool_usages,
    user_prompts,
)

Grouping = Literal["actor", "model", "client", "day"]
Value = TypeVar("Value")

_I = interceptions.c
_ENDED = _I.ended_at.is_not(None)


@dataclass(frozen=True, slots=True)
class TokenSum:
    """Tokens by class. `input` excludes what the cache served or stored."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What one actor, model, client or day amounts to; `key` says which (a day is UTC, as YYYY-MM-DD)."""

    key: str
    interceptions: int
    failed: int
    tokens: TokenSum
    tool_calls: int


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """A session as a line of a list. Actor and client are those of its newest interception."""

    id: str
    actor: str
    client: str
    models: tuple[str, ...]
    threads: int
    interceptions: int
    started_at: datetime
    last_active_at: datetime
    tokens: TokenSum
    last_prompt: str | None


@dataclass(frozen=True, slots=True)
class ToolCall:
    tool: str
    input: str
    server_url: str | None
    injected: bool
    invocation_error: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Step:
    """One interception of a session and everything recorded about it, in the order it was recorded."""

    id: str
    actor: str
    provider_name: str
    model: str
    client: str
    status: str
    error_type: str | None
    error_message: str | None
    thread_parent_id: str | None
    thread_root_id: str | None
    credential_kind: str
    credential_hint: str
    started_at: datetime
    ended_at: datetime | None
    tokens: TokenSum
    prompts: tuple[str, ...]
    thoughts: tuple[str, ...]
    tool_calls: tuple[ToolCall, ...]


class _UtcDay(GenericFunction[str]):
    """The UTC day of a timestamp, as YYYY-MM-DD."""

    type = Text()
    inherit_cache = True


@compiles(_UtcDay, "sqlite")
def _sqlite_day(element: _UtcDay, compiler: Any, **kwargs: Any) -> str:
    return f"date({compiler.process(element.clauses, **kwargs)})"


@compiles(_UtcDay, "postgresql")
def _postgresql_day(element: _UtcDay, compiler: Any, **kwargs: Any) -> str:
    return f"to_char(timezone('UTC', {compiler.process(element.clauses, **kwargs)}), 'YYYY-MM-DD')"


_KEYS: dict[Grouping, ColumnElement[str]] = {
    "actor": _I.initiator_id,
    "model": _I.model,
    "client": _I.client,
    "day": _UtcDay(_I.started_at),
}

_T = token_usages.c
_TOKEN_SUMS = tuple(
    func.coalesce(func.sum(column), 0)
    for column in (_T.input_tokens, _T.output_tokens, _T.cache_read_input_tokens, _T.cache_write_input_tokens)
)


def usage(database: Database, by: Grouping, since: datetime) -> list[Usage]:
    """Sums over the ended interceptions that started since `since`: days in order, else the largest first."""
    chosen = and_(_I.started_at >= since, _ENDED)
    key = _KEYS[by]
    failures = func.sum(case((_I.status == "failed", 1), else_=0))
    counts = select(key, func.count(), failures).where(chosen).group_by(key)
    with database.reading() as connection:
        totals = connection.execute(counts).all()
        tokens = _token_sums(connection, key, chosen)
        calls = _tool_counts(connection, key, chosen)
    rows = [
        Usage(name, count, failed, tokens.get(name, TokenSum()), calls.get(name, 0))
        for name, count, failed in totals
    ]
    return sorted(rows, key=lambda row: row.key) if by == "day" else sorted(rows, key=_largest_first)


def _largest_first(row: Usage) -> tuple[int, str]:
    tokens = row.tokens
    return -(tokens.input + tokens.output + tokens.cache_read + tokens.cache_write), row.key


def _token_sums(
    connection: Connection, key: ColumnElement[str], chosen: ColumnElement[bool]
) -> dict[str, TokenSum]:
    source = token_usages.join(interceptions, _I.id == _T.interception_id)
    found = connection.execute(select(key, *_TOKEN_SUMS).select_from(source).where(chosen).group_by(key))
    return {name: TokenSum(*(int(number) for number in sums)) for name, *sums in found}


def _tool_counts(connection: Connection, key: ColumnElement[str], chosen: ColumnElement[bool]) -> dict[str, int]:
    source = tool_usages.join(interceptions, _I.id == tool_usages.c.interception_id)
    found = connection.execute(select(key, func.count()).select_from(source).where(chosen).group_by(key))
    return dict(found.all())


def sessions(database: Database, limit: int = 20) -> list[SessionSummary]:
    """The sessions used last, the newest first."""
    with database.reading() as connection:
        newest = connection.execute(_newest_of_each_session().limit(limit)).all()
        chosen = and_(_I.session_id.in_([row.session_id for row in newest]), _ENDED)
        spans = {row.session_id: row for row in connection.execute(_spans(chosen))}
        tokens = _token_sums(connection, _I.session_id, chosen)
        models = _models(connection, chosen)
        prompts = _last_prompts(connection, chosen)
    return [
        SessionSummary(
            id=row.session_id,
            actor=row.initiator_id,
            client=row.client,
            models=models[row.session_id],
            threads=spans[row.session_id].threads,
            interceptions=spans[row.session_id].interceptions,
            started_at=spans[row.session_id].started_at,
            last_active_at=spans[row.session_id].last_active_at,
            tokens=tokens.get(row.session_id, TokenSum()),
            last_prompt=prompts.get(row.session_id),
        )
        for row in newest
    ]


def _newest_of_each_session() -> Select[Any]:
    """Walks the interceptions backwards in time and passes over those that are not their session's newest.

    So a page of sessions costs what it shows, not what the table holds.
    """
    newer = interceptions.alias("newer")
    superseded = exists().where(
        newer.c.session_id == _I.session_id,
        newer.c.ended_at.is_not(None),
        tuple_(newer.c.started_at, newer.c.id) > tuple_(_I.started_at, _I.id),
    )
    return (
        select(_I.session_id, _I.initiator_id, _I.client)
        .where(_ENDED, ~superseded)
        .order_by(_I.started_at.desc(), _I.id.desc())
    )


def _spans(chosen: ColumnElement[bool]) -> Select[Any]:
    return (
        select(
            _I.session_id,
            func.min(_I.started_at).label("started_at"),
            func.max(_I.ended_at).label("last_active_at"),
            func.count().label("interceptions"),
            func.count(func.coalesce(_I.thread_root_id, _I.id).distinct()).label("threads"),
        )
        .where(chosen)
        .group_by(_I.session_id)
    )


def _models(connection: Connection, chosen: ColumnElement[bool]) -> dict[str, tuple[str, ...]]:
    """The models of each session, the one it used first in front."""
    found = connection.execute(
        select(_I.session_id, _I.model)
        .where(chosen)
        .group_by(_I.session_id, _I.model)
        .order_by(func.min(_I.started_at), _I.model)
    )
    return _grouped((session_id, model) for session_id, model in found)


def _last_prompts(connection: Connection, chosen: ColumnElement[bool]) -> dict[str, str]:
    prompts = user_prompts.c
    order = (prompts.created_at.desc(), prompts.id.desc())
    ranked = (
        select(
            _I.session_id,
            prompts.prompt,
            func.row_number().over(partition_by=_I.session_id, order_by=order).label("rank"),
        )
        .select_from(user_prompts.join(interceptions, _I.id == prompts.interception_id))
        .where(chosen)
        .subquery()
    )
    found = connection.execute(select(ranked.c.session_id, ranked.c.prompt).where(ranked.c.rank == 1))
    return dict(found.all())


def session(database: Database, session_id: str) -> list[Step]:
    """The interceptions of a session in order, those still open too; none if there is no such session."""
    chosen = _I.session_id == session_id
    with database.reading() as connection:
        found = connection.execute(select(interceptions).where(chosen).order_by(_I.started_at, _I.id)).all()
        tokens = _token_sums(connection, _I.id, chosen)
        prompts = _texts(connection, user_prompts.c.prompt, chosen)
        thoughts = _texts(connection, model_thoughts.c.content, chosen)
        calls = _tool_calls(connection, chosen)
    return [
        Step(
            id=row.id,
            actor=row.initiator_id,
            provider_name=row.provider_name,
            model=row.model,
            client=row.client,
            status=row.status,
            error_type=row.error_type,
            error_message=row.error_message,
            thread_parent_id=row.thread_parent_id,
            thread_root_id=row.thread_root_id,
            credential_kind=row.credential_kind,
            credential_hint=row.credential_hint,
            started_at=row.started_at,
            ended_at=row.ended_at,
            tokens=tokens.get(row.id, TokenSum()),
            prompts=prompts.get(row.id, ()),
            thoughts=thoughts.get(row.id, ()),
            tool_calls=calls.get(row.id, ()),
        )
        for row in found
    ]


def _texts(connection: Connection, text: Column[str], chosen: ColumnElement[bool]) -> dict[str, tuple[str, ...]]:
    """The texts in a column of a child table, by interception, in the order they were recorded."""
    child = text.table.c
    found = connection.execute(
        select(child.interception_id, text)
        .join(interceptions, _I.id == child.interception_id)
        .where(chosen)
        .order_by(child.created_at, child.id)
    )
    return _grouped((interception_id, content) for interception_id, content in found)


def _tool_calls(connection: Connection, chosen: ColumnElement[bool]) -> dict[str, tuple[ToolCall, ...]]:
    calls = tool_usages.c
    found = connection.execute(
        select(
            calls.interception_id,
            calls.tool,
            calls.input,
            calls.server_url,
            calls.injected,
            calls.invocation_error,
            calls.created_at,
        )
        .join(interceptions, _I.id == calls.interception_id)
        .where(chosen)
        .order_by(calls.created_at, calls.id)
    )
    return _grouped((interception_id, ToolCall(*call)) for interception_id, *call in found)


def _grouped(pairs: Iterable[tuple[str, Value]]) -> dict[str, tuple[Value, ...]]:
    """The second of each pair under the first, in order."""
    groups = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return {key: tuple(values) for key, values in groups.items()}
