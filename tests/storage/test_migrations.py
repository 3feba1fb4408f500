"""The migrations and the tables in the code describe the same database."""

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect

from aibridge.storage.database import Database
from aibridge.storage.tables import metadata


def test_migrations_make_exactly_the_tables_of_the_code(database: Database) -> None:
    with database.reading() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []


def test_only_open_interceptions_are_in_the_index_of_open_ones(database: Database) -> None:
    """alembic does not compare the condition of an index."""
    with database.reading() as connection:
        indexes = inspect(connection).get_indexes("aibridge_interceptions")
    (found,) = (index for index in indexes if index["name"] == "ix_aibridge_interceptions_open")
    condition = found["dialect_options"][f"{database.backend}_where"]
    assert "ended_at IS NULL" in str(condition)
