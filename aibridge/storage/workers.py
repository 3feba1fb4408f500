"""Which worker processes live, so that what dead ones left open can be ended.

Every worker has a row here and renews it every few seconds; every interception names the worker that runs it.
A worker is dead if its row has not been renewed for DEAD_AFTER seconds, whichever machine it was on, or as soon
as its process is gone, if it ran where the one runs that looks. What it left open then ends as `interrupted`, at
the last moment at which the worker is known to have lived.

A worker that was only stopped for long, or could not reach the database, may be taken for dead. Nothing is lost by
that: the real end of an interception replaces an `interrupted` one (`storage/recorder.py`), and the worker's next
renewal brings its row back before anything else of it is committed.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    Insert,
    Update,
    and_,
    bindparam,
    case,
    cast,
    delete,
    exists,
    extract,
    func,
    or_,
    select,
    update,
)

from aibridge.records import new_id, now
from aibridge.storage.column_types import UtcDateTime
from aibridge.storage.database import Database, StorageError, insert_into
from aibridge.storage.tables import interceptions, workers

RENEWAL_INTERVAL = 5.0  # seconds
DEAD_AFTER = 120.0  # seconds without a renewal
UNKNOWN_DEAD_AFTER = timedelta(days=1)  # for interceptions of versions that named no worker

MESSAGE = "the process that served it ended before it did"

_log = structlog.get_logger("aibridge.workers")


@dataclass(frozen=True, slots=True)
class Process:
    """A process as another one can recognise it. `place`: where its number means anything; empty: nowhere.
    `born`: when it began, in ticks of that machine, since numbers are used again."""

    place: str
    pid: int
    born: str

    @classmethod
    def this(cls) -> "Process":
        pid = os.getpid()
        return cls(_place(), pid, _born(pid) or "")

    @property
    def is_alive(self) -> bool:
        """Whether it still runs; only asked of one whose place is ours."""
        return _born(self.pid) == self.born


def _place() -> str:
    """This boot of this machine and this namespace of process numbers; empty where the kernel does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except (OSError, ValueError):
        return ""


def _born(pid: int) -> str | None:
    """The start time of a process that has not ended, from proc(5)'s `stat`."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


@dataclass(slots=True)
class _Membership:
    """This process's row. `renewed` is monotonic; None: there is none yet."""

    worker_id: str
    process: Process
    renewed: float | None = None


class Workers:
    """This process among its like. Used by one thread at a time; a forked process becomes a worker of its own."""

    def __init__(
        self,
        database: Database,
        *,
        process: Callable[[], Process] = Process.this,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._process = process
        self._clock = clock
        self._own: _Membership | None = None
        self._pid = 0

    @property
    def own_id(self) -> str:
        return self._membership().worker_id

    @property
    def renewal_is_due(self) -> bool:
        renewed = self._membership().renewed
        return renewed is None or self._clock() - renewed >= RENEWAL_INTERVAL

    def renew(self, connection: Connection) -> None:
        """Say that this worker lives; `renewed` is to follow once that is committed."""
        own = self._membership()
        time_there = _time(connection)
        values = {
            "id": own.worker_id,
            "place": own.process.place,
            "pid": own.process.pid,
            "born": own.process.born,
            "started_at": time_there,
            "seen_at": time_there,
        }
        connection.execute(_upsert(self._database.backend), values)

    def renewed(self) -> None:
        self._membership().renewed = self._clock()

    def tend(self) -> None:
        """Renew our row and end what dead workers left open. A database that is away is told of in the log."""
        try:
            ended = self._tended()
        except StorageError as error:
            _log.warning("the database cannot be told that this worker lives", reason=str(error))
            return
        if ended:
            _log.warning("interceptions of dead workers were ended as interrupted", count=ended)

    def leave(self) -> None:
        """This worker stops: end what it leaves open, and take its row away."""
        own, self._own = self._own, None
        if own is None or own.renewed is None:
            return
        try:
            with self._database.writing() as connection:
                connection.execute(_ends(self._database.backend, _COLUMNS.worker_id == own.worker_id))
                connection.execute(delete(workers).where(workers.c.id == own.worker_id))
        except StorageError as error:
            _log.warning("this worker's row stays in the database until others find it dead", reason=str(error))

    def _tended(self) -> int:
        with self._database.writing() as connection:
            self.renew(connection)
            time_there = _time(connection)
            times = {
                "dead": time_there - timedelta(seconds=DEAD_AFTER),
                "unknown_dead": time_there - UNKNOWN_DEAD_AFTER,
            }
            gone = self._gone(connection)
            ended = connection.execute(_sweep(self._database.backend), {**times, "gone": gone}).rowcount
            connection.execute(_BURY, {**times, "gone": gone})
        self.renewed()
        return ended

    def _gone(self, connection: Connection) -> list[str]:
        """The workers whose processes ran where we do, and do so no more."""
        process = self._membership().process
        if not process.place:
            return []
        columns = workers.c
        found = connection.execute(
            select(columns.id, columns.pid, columns.born).where(columns.place == process.place)
        )
        return [worker for worker, pid, born in found if not Process(process.place, pid, born).is_alive]

    def _membership(self) -> _Membership:
        if self._own is None or self._pid != os.getpid():
            self._pid = os.getpid()
            self._own = _Membership(new_id(), self._process())
        return self._own


def _time(connection: Connection) -> datetime:
    """Of the clock that all workers share: the server's, or that of the one machine that a file is on."""
    if connection.dialect.name == "sqlite":
        return now()
    told = connection.scalar(select(func.now()))
    assert isinstance(told, datetime)
    return told


@cache
def _upsert(backend: str) -> Insert:
    insert = insert_into(workers, backend)
    return insert.on_conflict_do_update(index_elements=["id"], set_={"seen_at": insert.excluded.seen_at})


_COLUMNS = interceptions.c

_IS_DEAD = or_(
    workers.c.seen_at < bindparam("dead", type_=UtcDateTime),
    workers.c.id.in_(bindparam("gone", expanding=True)),
)
_BURY = delete(workers).where(_IS_DEAD)


@cache
def _sweep(backend: str) -> Update:
    living = exists().where(workers.c.id == _COLUMNS.worker_id, ~_IS_DEAD).correlate(interceptions)
    nobodys = and_(
        _COLUMNS.worker_id.is_(None), _COLUMNS.started_at >= bindparam("unknown_dead", type_=UtcDateTime)
    )
    return _ends(backend, and_(~living, ~nobodys))


def _ends(backend: str, condition: ColumnElement[bool]) -> Update:
    """One statement that ends the open interceptions of a condition."""
    seen = select(workers.c.seen_at).where(workers.c.id == _COLUMNS.worker_id).scalar_subquery()
    ended = case((seen > _COLUMNS.started_at, seen), else_=_COLUMNS.started_at)
    return (
        update(interceptions)
        .where(_COLUMNS.ended_at.is_(None), condition)
        .values(
            status="interrupted",
            error_type="unknown",
            error_message=MESSAGE,
            ended_at=ended,
            duration_ms=_milliseconds(backend, ended),
        )
    )


def _milliseconds(backend: str, ended: ColumnElement[Any]) -> ColumnElement[float]:
    if backend == "sqlite":
        days = func.julianday(ended) - func.julianday(_COLUMNS.started_at)
        return func.round(cast(days * 86_400_000.0, Float), type_=Float)
    return cast(extract("epoch", ended - _COLUMNS.started_at) * 1000, Float)
