"""Hidden turns in both databases."""

from datetime import timedelta

from aibridge.interception.memory import REMEMBERED_FOR
from aibridge.protocols.rounds import HiddenTurn, Round
from aibridge.records import now
from aibridge.storage.database import Database
from aibridge.storage.memory import SqlMemory

TURN = HiddenTurn(
    (Round(b'[{"n":12345678901234567890,"x":"\\ud800\\u0000"}]', (b"{}", "é".encode(), b"\xed\xa0\x80")),),
    mixed=True,
    response_id="resp_1",
)
OTHER = HiddenTurn((Round(b"[]", ()),))


def test_a_turn_comes_back_byte_for_byte(database: Database) -> None:
    memory = SqlMemory(database)
    memory.remember("alice", ["a", "b"], TURN)
    assert memory.recall("alice", ["a", "b", "c"]) == {"a": TURN, "b": TURN}
    assert memory.recall("bob", ["a"]) == {}
    assert memory.recall("alice", []) == {}


def test_of_two_turns_with_one_key_the_last_counts(database: Database) -> None:
    memory = SqlMemory(database)
    memory.remember("alice", ["a"], TURN)
    memory.remember("alice", ["a"], OTHER)
    assert memory.recall("alice", ["a"]) == {"a": OTHER}


def test_more_keys_than_a_statement_takes(database: Database) -> None:
    memory = SqlMemory(database)
    memory.remember("alice", ["key 1499"], TURN)
    assert memory.recall("alice", [f"key {number}" for number in range(1500)]) == {"key 1499": TURN}


def test_a_turn_expires_and_makes_room(database: Database) -> None:
    today = now()
    SqlMemory(database, lambda: today).remember("alice", ["a"], TURN)
    tomorrow = SqlMemory(database, lambda: today + timedelta(seconds=REMEMBERED_FOR + 1))
    assert tomorrow.recall("alice", ["a"]) == {}
    tomorrow.remember("alice", [], TURN)
    assert SqlMemory(database, lambda: today).recall("alice", ["a"]) == {}


def test_a_database_that_is_away_costs_the_memory_only(empty_database: Database) -> None:
    memory = SqlMemory(empty_database)
    memory.remember("alice", ["a"], TURN)
    assert memory.recall("alice", ["a"]) == {}
