"""The recorder that keeps records in the database: one transaction and a handful of statements per batch.

A batch may hold records of many interceptions (the group commit makes them) and, when a spool is replayed,
records that are stored already: a row is inserted only if its id is new, and an interception ends only once. The
one end that is replaced is `interrupted`, which is not its worker's word but the sweeper's guess
(`storage/workers.py`).

The store completes what only it knows: which interception asked for the tool call that this one answers.

- parent: the interception that owns the newest tool usage with the correlating call id, if it is the same
  actor's: some models number their calls from 0 in every conversation, and sessions of two people must not mix
- root: the parent's root, or the parent itself
- session: the client's own, else the root's, else the interception's id
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    ScalarSelect,
    Select,
    Table,
    Text,
    bindparam,
    case,
    cast,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.selectable import TableValuedAlias

from aibridge.errors import RecordingError, RecordRefused
from aibridge.records import (
    InterceptionEnded,
    InterceptionStarted,
    ModelThought,
    PromptUsage,
    Record,
    TokenUsage,
    ToolUsage,
    shortened,
)
from aibridge.storage.column_types import json_text
from aibridge.storage.database import Database, StorageError, StorageRefusal, insert_into
from aibridge.storage.prepared import Prepared
from aibridge.storage.tables import (
    interceptions,
    model_thoughts,
    token_usages,
    tool_usages,
    user_prompts,
)
from aibridge.storage.workers import Workers

Row = dict[str, Any]

# The fields of these records are named like the columns of their tables; a test checks it.
TABLES: dict[type[Record], Table] = {
    TokenUsage: token_usages,
    PromptUsage: user_prompts,
    ToolUsage: tool_usages,
    ModelThought: model_thoughts,
}
FIELDS: dict[type[Record], tuple[str, ...]] = {
    kind: tuple(field.name for field in fields(kind)) for kind in (InterceptionStarted, *TABLES)
}
_VALUES = {kind: attrgetter(*names) for kind, names in FIELDS.items()}
# What the store adds to an InterceptionStarted.
STARTED_COLUMNS = (
    *FIELDS[InterceptionStarted],
    "status",
    "thread_parent_id",
    "thread_root_id",
    "session_id",
    "worker_id",
)
ENDED_FIELDS = tuple(
    field.name
    for field in fields(InterceptionEnded)
    if field.name not in ("interception_id", "credential_hint", "notes", "about")
)


@dataclass(frozen=True, slots=True)
class Thread:
    """What a follow-up to `interception_id` inherits: the thread's root and the root's session."""

    interception_id: str
    initiator_id: str
    root_id: str
    root_session_id: str


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call that an interception may answer: when it was made, and by which interception."""

    created_at: datetime
    interception_id: str


class SqlRecorder:
    """A `records.Recorder` over a database whose schema is current."""

    def __init__(self, database: Database, workers: Workers | None = None) -> None:
        self._database = database
        self._workers = workers or Workers(database)
        self._insert_started = _insert_new(interceptions, database.backend, STARTED_COLUMNS)
        self._inserts = {
            kind: _insert_new(table, database.backend, FIELDS[kind]) for kind, table in TABLES.items()
        }
        self._select_calls = _newest_calls(database.backend)

    def record(self, records: Sequence[Record]) -> None:
        """Keep all of `records`, in order, or none. Raises RecordingError; RecordRefused if one of them is at
        fault."""
        renewal = self._workers.renewal_is_due  # our row is there before an interception names it
        try:
            with self._database.writing() as connection:
                if renewal:
                    self._workers.renew(connection)
                self._write(connection, records)
        except StorageRefusal as error:
            raise RecordRefused(str(error)) from error
        except StorageError as error:
            raise RecordingError(str(error)) from error
        if renewal:
            self._workers.renewed()

    def _write(self, connection: Connection, records: Sequence[Record]) -> None:
        started = self._started_rows(connection, records)
        if started:
            worker_id = self._workers.own_id
            self._insert_started.execute(connection, [{**row, "worker_id": worker_id} for row in started])
        for kind, insert in self._inserts.items():
            rows = [_row(record) for record in records if type(record) is kind]
            if rows:
                insert.execute(connection, rows)
        ended = _first_ends(records)
        if ended:
            _end(connection, ended)

    def _started_rows(self, connection: Connection, records: Sequence[Record]) -> list[Row]:
        """The rows of the interceptions that start in this batch, with thread and session."""
        starts = [record for record in records if isinstance(record, InterceptionStarted)]
        answered = {start.correlating_tool_call_id for start in starts if start.correlating_tool_call_id}
        if not answered:
            return [_started_row(start, None) for start in starts]
        calls = self._stored_calls(connection, answered)
        callers = {call.interception_id for call in calls.values()}
        made = (record for record in records if isinstance(record, ToolUsage))
        callers |= {usage.interception_id for usage in made if usage.provider_tool_call_id in answered}
        return _threaded(records, calls, _stored_threads(connection, callers))

    def _stored_calls(self, connection: Connection, call_ids: set[str]) -> dict[str, Call]:
        found = connection.execute(self._select_calls, {"call_ids": json_text(list(call_ids))})
        return {call_id: Call(*call) for call_id, *call in found if all(call)}


def _threaded(records: Sequence[Record], calls: dict[str, Call], threads: dict[str, Thread]) -> list[Row]:
    """Walk the batch in its order: an interception may answer a tool call that comes before it."""
    rows = []
    for record in records:
        if isinstance(record, InterceptionStarted):
            call = calls.get(record.correlating_tool_call_id or "")
            parent = threads.get(call.interception_id) if call else None
            if parent is not None and parent.initiator_id != record.initiator_id:
                parent = None
            rows.append(_started_row(record, parent))
            threads[record.id] = _thread(record, parent)
        elif isinstance(record, ToolUsage) and record.provider_tool_call_id:
            known = calls.get(record.provider_tool_call_id)
            if known is None or known.created_at <= record.created_at:
                calls[record.provider_tool_call_id] = Call(record.created_at, record.interception_id)
    return rows


def _thread(record: InterceptionStarted, parent: Thread | None) -> Thread:
    if parent:
        return Thread(record.id, record.initiator_id, parent.root_id, parent.root_session_id)
    return Thread(record.id, record.initiator_id, record.id, record.client_session_id or record.id)


def _started_row(record: InterceptionStarted, parent: Thread | None) -> Row:
    return {
        **_row(record),
        "status": "open",
        "thread_parent_id": parent.interception_id if parent else None,
        "thread_root_id": parent.root_id if parent else None,
        "session_id": record.client_session_id or (parent.root_session_id if parent else record.id),
    }


def _row(record: Record) -> Row:
    kind = type(record)
    return dict(zip(FIELDS[kind], _VALUES[kind](record), strict=True))


def _insert_new(table: Table, backend: str, columns: Sequence[str]) -> Prepared:
    """An insert that passes over rows whose id exists: a replayed record changes nothing."""
    return Prepared(insert_into(table, backend).on_conflict_do_nothing(index_elements=["id"]), columns)


def _newest_calls(backend: str) -> Select[Any]:
    """For each id in the JSON array :call_ids, the time of its newest call and the interception that made it.

    One step down the index per id, and no join that a planner could turn into a scan: some models number
    their calls from 0 in every conversation, so that there may be very many calls of one id, and clients
    wait for this.
    """
    wanted = _elements("call_ids", backend)
    calls = tool_usages.c

    def of_the_newest(column: Column[Any]) -> ScalarSelect[Any]:
        chosen = select(column).where(calls.provider_tool_call_id == wanted.c.value)
        return chosen.order_by(calls.created_at.desc()).limit(1).correlate(wanted).scalar_subquery()

    return select(wanted.c.value, of_the_newest(calls.created_at), of_the_newest(calls.interception_id))


def _elements(parameter: str, backend: str) -> TableValuedAlias:
    """The strings of a JSON array parameter as rows with one column, `value`."""
    if backend == "sqlite":
        return func.json_each(bindparam(parameter, type_=Text)).table_valued("value", name="wanted")
    array = cast(bindparam(parameter, type_=Text), postgresql.JSONB)
    return func.jsonb_array_elements_text(array).table_valued("value", name="wanted").render_derived()


_ROOTS = interceptions.alias("roots")
# The fields of Thread. A root may have been purged while its thread goes on.
_SELECT_THREADS = (
    select(
        interceptions.c.id,
        interceptions.c.initiator_id,
        func.coalesce(interceptions.c.thread_root_id, interceptions.c.id),
        func.coalesce(_ROOTS.c.session_id, interceptions.c.thread_root_id, interceptions.c.session_id),
    )
    .select_from(interceptions.outerjoin(_ROOTS, _ROOTS.c.id == interceptions.c.thread_root_id))
    .where(interceptions.c.id.in_(bindparam("interception_ids", expanding=True)))
)


def _stored_threads(connection: Connection, interception_ids: set[str]) -> dict[str, Thread]:
    if not interception_ids:
        return {}
    found = connection.execute(_SELECT_THREADS, {"interception_ids": list(interception_ids)})
    return {interception_id: Thread(interception_id, *rest) for interception_id, *rest in found}


_STILL_OPEN = or_(interceptions.c.ended_at.is_(None), interceptions.c.status == "interrupted")

_UPDATE_ENDED = Prepared(
    update(interceptions)
    .where(interceptions.c.id == bindparam("ended_id"), _STILL_OPEN)
    .values(
        {
            "credential_hint": case(
                (
                    interceptions.c.credential_kind == "centralized",
                    func.coalesce(bindparam("hint", type_=Text), interceptions.c.credential_hint),
                ),
                else_=interceptions.c.credential_hint,
            ),
            **{name: bindparam(f"new_{name}") for name in ENDED_FIELDS},
        }
    )
)
_UPDATE_METADATA = (
    update(interceptions)
    .where(interceptions.c.id == bindparam("noted_id"))
    .values(metadata=bindparam("new_metadata"))
)


def _first_ends(records: Sequence[Record]) -> list[InterceptionEnded]:
    """The first end of each interception in the batch: a later one has no effect."""
    ends: dict[str, InterceptionEnded] = {}
    for record in records:
        if isinstance(record, InterceptionEnded):
            ends.setdefault(record.interception_id, record)
    return list(ends.values())


def _end(connection: Connection, ended: Sequence[InterceptionEnded]) -> None:
    _note(connection, {record.interception_id: record.notes for record in ended if record.notes})
    _UPDATE_ENDED.execute(connection, [_ended_row(record) for record in ended])


def _ended_row(record: InterceptionEnded) -> Row:
    row = {f"new_{name}": getattr(record, name) for name in ENDED_FIELDS}
    if record.error_message is not None:
        row["new_error_message"] = shortened(record.error_message)
    return {"ended_id": record.interception_id, "hint": record.credential_hint, **row}


def _note(connection: Connection, notes: dict[str, tuple[str, ...]]) -> None:
    """Add notes to the metadata of interceptions that are still open. Most have none, and pay nothing."""
    if not notes:
        return
    columns = interceptions.c
    found = connection.execute(
        select(columns.id, columns.metadata).where(columns.id.in_(notes), _STILL_OPEN)
    ).all()
    if found:
        rows = [{"noted_id": row.id, "new_metadata": _with_notes(row.metadata, notes[row.id])} for row in found]
        connection.execute(_UPDATE_METADATA, rows)


def _with_notes(metadata: dict[str, Any], notes: tuple[str, ...]) -> dict[str, Any]:
    return {**metadata, "notes": [*metadata.get("notes", []), *notes]}
