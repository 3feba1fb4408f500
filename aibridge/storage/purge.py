"""Retention: interceptions that started before a cutoff go, with everything recorded about them; hidden turns that
nobody may ask for any more go, too, as they do when others are written."""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import delete, select

from aibridge.records import now
from aibridge.storage.database import Database
from aibridge.storage.tables import children, hidden_turns, interceptions

# Interceptions per transaction: small enough that writers wait for milliseconds only.
CHUNK = 500


def purge(
    database: Database,
    before: datetime,
    chunk: int = CHUNK,
    progress: Callable[[int], None] = lambda deleted: None,
) -> int:
    """Delete what started before `before`; how many interceptions that were.

    `progress` is told the number so far after each chunk. What is deleted stays deleted if a later chunk
    fails with StorageError.
    """
    with database.writing() as connection:
        connection.execute(delete(hidden_turns).where(hidden_turns.c.expires_at < now()))
    total = 0
    while deleted := _purge_chunk(database, before, chunk):
        total += deleted
        progress(total)
    return total


def _purge_chunk(database: Database, before: datetime, chunk: int) -> int:
    """Children first: an interrupted purge never leaves a child without its interception."""
    columns = interceptions.c
    oldest = select(columns.id).where(columns.started_at < before).order_by(columns.started_at).limit(chunk)
    with database.writing() as connection:
        ids = list(connection.scalars(oldest))
        if ids:
            for table in children:
                connection.execute(delete(table).where(table.c.interception_id.in_(ids)))
            connection.execute(delete(interceptions).where(columns.id.in_(ids)))
    return len(ids)
