"""A fresh, empty database per test: always SQLite, and PostgreSQL as well where there is a server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aibridge.storage.database import Database
from aibridge.storage.recorder import SqlRecorder
from aibridge.storage.tables import metadata
from tests.postgresql import fresh_schema


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/folder/aibridge.db"
        return
    with fresh_schema(request.getfixturevalue("postgresql")) as fresh:
        yield fresh


@pytest.fixture
def empty_database(url: str) -> Iterator[Database]:
    """A database without tables."""
    database = Database(url)
    yield database
    database.dispose()


@pytest.fixture
def database(empty_database: Database) -> Database:
    """A database with the current schema."""
    empty_database.upgrade()
    return empty_database


@pytest.fixture
def recorder(database: Database) -> SqlRecorder:
    return SqlRecorder(database)


class Stored:
    """What is in the tables."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def rows(self, table: str) -> list[dict[str, Any]]:
        """All rows of `aibridge_{table}`."""
        with self._database.reading() as connection:
            found = connection.execute(metadata.tables[f"aibridge_{table}"].select())
            return [dict(row) for row in found.mappings()]

    def interception(self, interception_id: str) -> dict[str, Any]:
        (row,) = (row for row in self.rows("interceptions") if row["id"] == interception_id)
        return row


@pytest.fixture
def stored(database: Database) -> Stored:
    return Stored(database)
