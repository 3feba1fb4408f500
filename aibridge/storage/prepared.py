"""Statements that are compiled once.

What SQLAlchemy does for every execution (the key of its cache, the parameters, for each row the types' functions)
costs more than the statement itself. The recorder's statements never change, and every request waits for them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Dialect, Insert, Update
from sqlalchemy.sql.compiler import SQLCompiler

from aibridge.storage.database import StorageRefusal

Row = Mapping[str, Any]
Convert = Callable[[Any], Any]


class Prepared:
    """An INSERT or UPDATE. `names`: the columns that every row has a value for, if the statement does not say."""

    def __init__(self, statement: Insert | Update, names: Sequence[str] | None = None) -> None:
        self._statement = statement
        self._names = names
        self._compiled: dict[str, _Compiled] = {}  # by the dialect's name

    def execute(self, connection: Connection, rows: Sequence[Row]) -> None:
        """For each of the rows. Raises StorageRefusal for a value that its column does not take."""
        dialect = connection.dialect
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            compiled = self._compiled[dialect.name] = _Compiled(self._statement, self._names, dialect)
        connection.exec_driver_sql(compiled.sql, [compiled.values(row) for row in rows])


class _Compiled:
    def __init__(self, statement: Insert | Update, names: Sequence[str] | None, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=names)
        assert isinstance(compiled, SQLCompiler)
        self.sql = str(compiled)
        self._positional = compiled.positional
        types = {name: bind.type.dialect_impl(dialect) for bind, name in compiled.bind_names.items()}
        constants = compiled.params
        # In the order of the SQL text: the parameter, what it is if the row does not say, how the driver takes it.
        self._parameters: list[tuple[str, Any, Convert | None]] = [
            (name, constants[name], types[name].bind_processor(dialect))
            for name in (compiled.positiontup or types)
        ]

    def values(self, row: Row) -> Any:
        try:
            values = [
                row.get(name, constant) if convert is None else convert(row.get(name, constant))
                for name, constant, convert in self._parameters
            ]
        except (TypeError, ValueError, OverflowError) as error:
            raise StorageRefusal(f"a value cannot be stored: {error}") from error
        if self._positional:
            return tuple(values)
        return dict(zip((name for name, _, _ in self._parameters), values, strict=True))
