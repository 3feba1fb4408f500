"""Hidden turns in the database, so that every worker and machine finds them.

They are written in transactions of their own: there is one only for answers whose clients did not see all of them.
Expired ones are deleted when others are written.
"""

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Insert, bindparam, delete, select

from aibridge.interception.memory import REMEMBERED_FOR
from aibridge.protocols.rounds import HiddenTurn, Round
from aibridge.records import now
from aibridge.storage.database import Database, StorageError, insert_into
from aibridge.storage.tables import hidden_turns

_KEYS = 500  # per statement; SQLite takes no endless lists

_COLUMNS = hidden_turns.c
_SELECT = select(_COLUMNS.key, _COLUMNS.turn).where(
    _COLUMNS.initiator_id == bindparam("actor"),
    _COLUMNS.key.in_(bindparam("keys", expanding=True)),
    _COLUMNS.expires_at > bindparam("now"),
)

_log = structlog.get_logger("aibridge.memory")


class SqlMemory:
    """An `interception.memory.Memory` over a database whose schema is current."""

    def __init__(self, database: Database, clock: Callable[[], datetime] = now) -> None:
        self._database = database
        self._clock = clock
        self._upsert = _upsert(database.backend)

    def remember(self, actor: str, keys: Sequence[str], turn: HiddenTurn) -> None:
        written = packed(turn)
        time = self._clock()
        expires = time + timedelta(seconds=REMEMBERED_FOR)
        rows = [{"initiator_id": actor, "key": key, "turn": written, "expires_at": expires} for key in keys]
        try:
            with self._database.writing() as connection:
                connection.execute(delete(hidden_turns).where(_COLUMNS.expires_at < time))
                if rows:
                    connection.execute(self._upsert, rows)
        except StorageError as error:
            _log.warning("a hidden turn is not remembered", reason=str(error))

    def recall(self, actor: str, keys: Sequence[str]) -> Mapping[str, HiddenTurn]:
        found: dict[str, HiddenTurn] = {}
        try:
            with self._database.reading() as connection:
                for start in range(0, len(keys), _KEYS):
                    asked = {"actor": actor, "keys": list(keys[start : start + _KEYS]), "now": self._clock()}
                    found |= {key: unpacked(turn) for key, turn in connection.execute(_SELECT, asked)}
        except StorageError as error:
            _log.warning("hidden turns cannot be recalled", reason=str(error))
        return found


def _upsert(backend: str) -> Insert:
    insert = insert_into(hidden_turns, backend)
    new = {"turn": insert.excluded.turn, "expires_at": insert.excluded.expires_at}
    return insert.on_conflict_do_update(index_elements=["initiator_id", "key"], set_=new)


def packed(turn: HiddenTurn) -> bytes:
    rounds = [{"said": _text(each.said), "results": [*map(_text, each.results)]} for each in turn.rounds]
    whole = {"rounds": rounds, "mixed": turn.mixed, "response_id": turn.response_id}
    return zlib.compress(json.dumps(whole).encode())


def unpacked(written: bytes) -> HiddenTurn:
    whole: dict[str, Any] = json.loads(zlib.decompress(written))
    rounds = (Round(_bytes(each["said"]), tuple(map(_bytes, each["results"]))) for each in whole["rounds"])
    return HiddenTurn(tuple(rounds), whole["mixed"], whole["response_id"])


def _text(json_text: bytes) -> str:
    """JSON texts may hold lone surrogates as they came."""
    return json_text.decode("utf-8", "surrogatepass")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
