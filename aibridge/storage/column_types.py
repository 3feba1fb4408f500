"""How values travel between Python and the two databases, so that both give back the same.

The texts stored here were written by strangers: clients, models, tools. PostgreSQL refuses NUL characters
and no database takes lone surrogates or integers over 64 bits; a value must never make a whole batch of
records unstorable, so such values are repaired on their way in. Lookups pass through the same types, so they
still find what was stored.

The types name their bind processors, functions of one value. `process_bind_param` would be the usual way, but is
called through two more functions, for each of some thirty values of a request.
"""

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Text, TypeDecorator
from sqlalchemy.dialects.postgresql import JSONB

LARGEST_INTEGER = 2**63 - 1

JsonObject = JSON().with_variant(JSONB(), "postgresql")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC. SQLite has no time zones and keeps the naive UTC time."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[datetime | None], Any]:
        return _sqlite_time if dialect.name == "sqlite" else _utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class ForeignText(TypeDecorator[str]):
    """Text of unknown origin; what cannot be stored in it is replaced."""

    impl = Text
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[str | None], str | None]:
        return _text


class Count(TypeDecorator[int]):
    """A number that a provider stated; an absurd one is cut to what 64 bits can hold."""

    impl = BigInteger
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[int | None], int | None]:
        return _count


def _utc(value: datetime | None) -> datetime | None:
    if value is None:
        return None
    if value.tzinfo is None:
        raise ValueError("a timestamp without a time zone")
    return value.astimezone(UTC)


def _sqlite_time(value: datetime | None) -> str | None:
    """In SQLAlchemy's own spelling of times in SQLite, which have no zone."""
    utc = _utc(value)
    return None if utc is None else utc.replace(tzinfo=None).isoformat(" ", "microseconds")


def _text(value: str | None) -> str | None:
    return None if value is None else storable(value)


def _count(value: int | None) -> int | None:
    return None if value is None else max(-LARGEST_INTEGER, min(value, LARGEST_INTEGER))


def storable(text: str) -> str:
    """`text` with NUL and lone surrogates replaced; nearly always `text` itself, at no cost."""
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def json_text(value: object) -> str:
    """`value` as JSON; the engines' serializer for JSON columns."""
    try:
        encoded = orjson.dumps(value)
    except TypeError:  # lone surrogates, integers over 64 bits, keys or values of other types
        return json.dumps(_plain(value))
    return json.dumps(_plain(value)) if b"\\u0000" in encoded else encoded.decode()


def _plain(value: Any) -> Any:
    """`value` reduced to what every JSON column takes."""
    match value:
        case str():
            return storable(value)
        case Mapping():
            return {storable(str(key)): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case float() if not math.isfinite(value):
            return None
        case None | bool() | int() | float():
            return value
        case _:
            return storable(str(value))
