"""One database, SQLite or PostgreSQL: connections, transactions, schema.

Nothing connects at construction, and a process forked from one that had connected opens its own connections.

- SQLite: WAL, so that readers never wait; a writing transaction takes the write lock at its first statement
  (BEGIN IMMEDIATE), because two processes that both read first and then write can only fail each other.
  https://www.sqlite.org/lang_transaction.html
- PostgreSQL: psycopg 3. Reads run in autocommit: one round trip instead of three.
- Every failure leaves as a StorageError without the statement or its parameters, which may hold what users
  wrote.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import orjson
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    SQLAlchemyError,
    StatementError,
)

from aibridge.storage.column_types import json_text

MIGRATIONS = Path(__file__).with_name("migrations")

# Seconds that a SQLite writer waits for another one, and how long it sleeps between two attempts. It waits here
# and not inside SQLite, where a gevent worker would stand still with it.
LOCK_TIMEOUT = 5.0
LOCK_RETRY = 0.005
# libpq's parameters, which a URL's query may set otherwise. A server that cannot be reached, or whose machine
# goes without a word, is given up within half a minute: Linux by itself would wait for 15 minutes if we had
# something to send, for two hours if an answer is what is missing, and the one thread that commits with it.
POSTGRESQL = {
    "application_name": "aibridge",
    "connect_timeout": 5,  # seconds
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,  # milliseconds
}
# "aibridge" in ASCII: the advisory lock that stands for "somebody migrates this database".
MIGRATION_LOCK = 0x6169_6272_6964_6765

# alembic keeps the migration at work in module globals.
_MIGRATING = threading.Lock()


class StorageError(Exception):
    """The database could not be reached, or refused. The message is one line and holds no secret."""


class StorageRefusal(StorageError):
    """The database is there; it is these values that it does not take."""


@dataclass(frozen=True, slots=True)
class _Engines:
    """The connections of one process. Both engines share a pool."""

    pid: int
    reading: Engine
    writing: Engine


class Database:
    """The database at `url` (SQLAlchemy's spelling). Several threads may use it at once.

    `backend` is "sqlite" or "postgresql".
    """

    def __init__(self, url: str) -> None:
        try:
            self._url = make_url(url)
        except ArgumentError:
            raise StorageError("the database URL makes no sense") from None
        self.backend = self._url.get_backend_name()
        self._is_sqlite = self.backend == "sqlite"
        if self._is_sqlite and _file(self._url) is None:
            raise StorageError(f"{self} is not a file; every thread would see another database")
        self._engines: _Engines | None = None
        self._lock = threading.Lock()

    def __str__(self) -> str:
        """The URL without what may be secret."""
        return self._url.set(query={}).render_as_string(hide_password=True)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection whose statements each see what is committed when they run. Raises StorageError."""
        with self._failures(), self._connected().reading.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction, committed at the end of the block or not at all. Raises StorageError."""
        with self._failures(), self._connected().writing.begin() as connection:
            if self._is_sqlite:
                _take_write_lock(connection)
            yield connection

    def check(self) -> list[str]:
        """Why the database cannot be used now; empty when it can. Creates nothing."""
        file = _file(self._url)
        if file and not file.is_file():
            return [f"{self}: there is no such file yet; `aibridge db upgrade` makes it"]
        try:
            with self.reading() as connection:
                found = MigrationContext.configure(connection).get_current_revision()
        except StorageError as error:
            return [str(error)]
        wanted = newest_revision()
        if found == wanted:
            return []
        return [f"{self}: the schema is at revision {found}, not {wanted}; run `aibridge db upgrade`"]

    def upgrade(self) -> None:
        """Bring the schema up to date, wholly or not at all. Several processes may do so at once.

        Raises StorageError, also when the schema is of a later version than this one knows.
        """
        with _MIGRATING, self._failures():
            file = _file(self._url)
            if file:
                _prepare_file(file)
            with self.writing() as connection:
                if not self._is_sqlite:
                    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
                command.upgrade(_alembic_config(connection), "head")

    def dispose(self) -> None:
        """Close the idle connections; a later use opens new ones."""
        engines, self._engines = self._engines, None
        if engines:
            engines.writing.dispose(close=engines.pid == os.getpid())

    def _connected(self) -> _Engines:
        engines = self._engines
        if engines and engines.pid == os.getpid():
            return engines
        with self._lock:
            if self._engines is None or self._engines.pid != os.getpid():
                self.dispose()  # a parent's connections must be forgotten, not closed: it still uses them
                self._engines = _sqlite(self._url) if self._is_sqlite else _postgresql(self._url)
            return self._engines

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except StatementError as error:
            if _is_refusal(error):
                raise StorageRefusal(f"{self}: {_first_line(error.orig)}") from error
            raise StorageError(f"{self}: {_first_line(error.orig)}") from error
        except (SQLAlchemyError, sqlite3.Error, CommandError, OSError) as error:
            raise StorageError(f"{self}: {_first_line(error)}") from error


def insert_into(table: Table, backend: str) -> sqlite.Insert | postgresql.Insert:
    """An insert that may say what happens on a conflict; the two databases spell that alike."""
    return sqlite.insert(table) if backend == "sqlite" else postgresql.insert(table)


def _take_write_lock(connection: Connection) -> None:
    deadline = time.monotonic() + LOCK_TIMEOUT
    driver = connection.connection.driver_connection  # SQLAlchemy would take longer than SQLite
    assert isinstance(driver, sqlite3.Connection)
    while True:
        try:
            driver.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(LOCK_RETRY)


def _is_refusal(error: StatementError) -> bool:
    """Values of a wrong kind, or over a limit of PostgreSQL's (SQLSTATE class 54), or that could not be bound."""
    sqlstate = str(getattr(error.orig, "sqlstate", None) or "")
    bound = isinstance(error, DBAPIError)
    return isinstance(error, DataError | IntegrityError) or sqlstate.startswith("54") or not bound


def _first_line(error: BaseException | None) -> str:
    """What went wrong, without the details: PostgreSQL quotes the values of the row there."""
    return str(error).partition("\n")[0]


def _file(url: URL) -> Path | None:
    """The file of a SQLite database; None for one in memory, and for PostgreSQL."""
    if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith((":", "file:")):
        return None
    return Path(url.database)


def _sqlite(url: URL) -> _Engines:
    # AUTOCOMMIT is the driver's mode without transactions of its own making; `writing` opens ours.
    engine = create_engine(
        url,
        isolation_level="AUTOCOMMIT",
        connect_args={"timeout": LOCK_RETRY},
        pool_use_lifo=True,  # a connection's cache is good as long as no other one writes
        json_serializer=json_text,
        json_deserializer=orjson.loads,
        hide_parameters=True,
    )
    event.listen(engine, "connect", _set_up_sqlite)
    return _Engines(os.getpid(), reading=engine, writing=engine)


def _set_up_sqlite(connection: sqlite3.Connection, _: Any) -> None:
    """With WAL, NORMAL survives a killed process; only a power cut may take the last transactions along."""
    connection.execute("PRAGMA synchronous=NORMAL")


def _postgresql(url: URL) -> _Engines:
    engine = create_engine(
        url,
        pool_size=5,
        max_overflow=5,
        pool_pre_ping=True,
        connect_args={name: url.query.get(name, value) for name, value in POSTGRESQL.items()},
        json_serializer=json_text,
        json_deserializer=orjson.loads,
        hide_parameters=True,
    )
    reading = engine.execution_options(isolation_level="AUTOCOMMIT")
    return _Engines(os.getpid(), reading=reading, writing=engine)


def _prepare_file(file: Path) -> None:
    """Make the file's folder and switch the file to WAL, which it then remembers.

    SQLite's own waiting does not cover this switch: of two processes that start at once both may be told
    that the database is locked. https://www.sqlite.org/c3ref/busy_handler.html
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + LOCK_TIMEOUT
    while not _switched_to_wal(file):
        if time.monotonic() > deadline:
            raise StorageError(f"{file} cannot be switched to WAL: other processes use it")
        time.sleep(0.02)


def _switched_to_wal(file: Path) -> bool:
    connection = sqlite3.connect(file, timeout=LOCK_TIMEOUT)
    try:
        (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        return bool(mode == "wal")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            return False
        raise
    finally:
        connection.close()


def _alembic_config(connection: Connection) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


@cache
def newest_revision() -> str | None:
    """The schema that this version of the code is written for."""
    return ScriptDirectory(str(MIGRATIONS)).get_current_head()
