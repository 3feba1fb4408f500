"""Retention takes the old, wholly, and leaves the rest alone."""

from datetime import timedelta

import pytest

from aibridge.interception.memory import REMEMBERED_FOR
from aibridge.protocols.rounds import HiddenTurn
from aibridge.records import Record, now
from aibridge.storage.database import Database
from aibridge.storage.memory import SqlMemory
from aibridge.storage.purge import purge
from aibridge.storage.recorder import SqlRecorder
from tests.storage.conftest import Stored
from tests.storage.samples import after, ended, prompt, started, thought, token_usage, tool_usage

TABLES = ("interceptions", "token_usages", "user_prompts", "tool_usages", "model_thoughts")


def record(recorder: SqlRecorder, minutes: float) -> str:
    one = started(started_at=after(minutes))
    children: list[Record] = [
        token_usage(one),
        token_usage(one),
        prompt(one, "hi"),
        tool_usage(one),
        thought(one, "hm"),
    ]
    recorder.record([one, *children, ended(one)])
    return one.id


@pytest.mark.parametrize("chunk", [1, 2, 500])
def test_old_interceptions_go_with_all_their_rows(
    database: Database, recorder: SqlRecorder, stored: Stored, chunk: int
) -> None:
    for minutes in (-3, -2, -1):
        record(recorder, minutes)
    recorder.record([started(started_at=after(-10))])
    kept = {record(recorder, 0), record(recorder, 1)}
    assert purge(database, before=after(0), chunk=chunk) == 4
    assert {row["id"] for row in stored.rows("interceptions")} == kept
    for table in TABLES[1:]:
        assert {row["interception_id"] for row in stored.rows(table)} == kept


def test_hidden_turns_go_when_they_have_expired(database: Database) -> None:
    """Also where nobody writes others any more."""
    long_ago = now() - timedelta(seconds=REMEMBERED_FOR + 1)
    old = SqlMemory(database, lambda: long_ago)
    old.remember("alice", ["old"], HiddenTurn(()))
    SqlMemory(database, lambda: long_ago + timedelta(hours=1)).remember("bob", ["new"], HiddenTurn(()))
    purge(database, before=after(0))
    assert old.recall("alice", ["old"]) == {}
    assert SqlMemory(database).recall("bob", ["new"])


def test_progress_is_told(database: Database, recorder: SqlRecorder) -> None:
    for _ in range(5):
        record(recorder, -1)
    told: list[int] = []
    purge(database, before=after(0), chunk=2, progress=told.append)
    assert told == [2, 4, 5]


def test_nothing_to_delete(database: Database, recorder: SqlRecorder) -> None:
    record(recorder, 0)
    assert purge(database, before=after(0)) == 0


def test_a_thread_goes_on_without_its_purged_root(
    database: Database, recorder: SqlRecorder, stored: Stored
) -> None:
    root = started(started_at=after(-60))
    second = started(correlating_tool_call_id="call_1", started_at=after(0))
    third = started(correlating_tool_call_id="call_2", started_at=after(1))
    recorder.record([root, tool_usage(root, "call_1")])
    recorder.record([second, tool_usage(second, "call_2")])
    purge(database, before=after(-30))
    recorder.record([third])
    row = stored.interception(third.id)
    assert (row["thread_parent_id"], row["thread_root_id"], row["session_id"]) == (
        second.id,
        root.id,
        root.id,
    )
