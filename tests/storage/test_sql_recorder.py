"""What the database holds after records were written: once, twice, in groups, in threads."""

from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from aibridge.errors import RecordingError
from aibridge.records import ERROR_MESSAGE_BYTES, InterceptionEnded, InterceptionStarted, Record
from aibridge.storage.database import Database
from aibridge.storage.recorder import TABLES, SqlRecorder
from aibridge.storage.tables import interceptions
from tests.storage.conftest import Stored
from tests.storage.samples import NOON, after, ended, prompt, started, thought, token_usage, tool_usage


def thread(row: dict[str, Any]) -> tuple[str | None, str | None, str]:
    return row["thread_parent_id"], row["thread_root_id"], row["session_id"]


def test_records_are_named_like_columns() -> None:
    for kind, table in TABLES.items():
        assert {field.name for field in fields(kind)} == set(table.c.keys())
    of_interceptions = {field.name for kind in (InterceptionStarted, InterceptionEnded) for field in fields(kind)}
    completed_here = {"session_id", "thread_parent_id", "thread_root_id", "worker_id"}
    assert of_interceptions - {"interception_id", "notes", "about"} | completed_here == set(interceptions.c.keys())


def test_a_whole_interception(recorder: SqlRecorder, stored: Stored) -> None:
    interception = started(metadata={"agent": "7"}, api_key_id="token-1", client_session_id="s-1")
    recorder.record([interception])
    row = stored.interception(interception.id)
    assert row["status"] == "open"
    assert (row["ended_at"], row["rounds"], row["metadata"]) == (None, None, {"agent": "7"})
    assert (row["initiator_id"], row["api_key_id"], row["client"]) == ("alice", "token-1", "Claude Code")
    assert row["streaming"] is True

    recorder.record(
        [
            token_usage(interception, cache_read_input_tokens=5, metadata={"service_tier": "priority"}),
            prompt(interception, "list the files"),
            tool_usage(
                interception, "toolu_1", server_url="https://tools.example", injected=True, duration_ms=1.5
            ),
            thought(interception, "hm", metadata={"source": "thinking"}),
            ended(interception, rounds=2, attempts=3, time_to_first_byte_ms=7.25),
        ]
    )
    row = stored.interception(interception.id)
    assert (row["status"], row["http_status"], row["ended_at"]) == (
        "completed",
        200,
        NOON + timedelta(seconds=2),
    )
    assert (row["rounds"], row["attempts"]) == (2, 3)
    assert (row["duration_ms"], row["gateway_ms"], row["time_to_first_byte_ms"]) == (2000.0, 0.5, 7.25)
    (tokens,) = stored.rows("token_usages")
    assert (tokens["input_tokens"], tokens["cache_read_input_tokens"], tokens["estimated"]) == (10, 5, False)
    assert tokens["metadata"] == {"service_tier": "priority"}
    (tool,) = stored.rows("tool_usages")
    assert (tool["tool"], tool["injected"], tool["server_url"]) == ("Bash", True, "https://tools.example")
    assert stored.rows("user_prompts")[0]["prompt"] == "list the files"
    assert stored.rows("model_thoughts")[0]["metadata"] == {"source": "thinking"}


def test_a_replay_changes_nothing(recorder: SqlRecorder, stored: Stored) -> None:
    interception = started()
    batch: list[Record] = [
        interception,
        token_usage(interception),
        prompt(interception, "hello"),
        tool_usage(interception),
        thought(interception, "hm"),
        ended(interception, notes=("spooled",)),
    ]
    recorder.record(batch)
    names = ("interceptions", "token_usages", "user_prompts", "tool_usages", "model_thoughts")
    before = [stored.rows(name) for name in names]
    recorder.record(batch)
    recorder.record([*batch, *batch])
    assert [stored.rows(name) for name in names] == before


def test_nothing_to_record_is_fine(recorder: SqlRecorder, stored: Stored) -> None:
    recorder.record([])
    assert stored.rows("interceptions") == []


def test_the_first_end_counts(recorder: SqlRecorder, stored: Stored) -> None:
    interception = started()
    recorder.record([interception, ended(interception, status="cancelled", notes=("first",)), ended(interception)])
    recorder.record([ended(interception, status="completed", notes=("late",))])
    row = stored.interception(interception.id)
    assert (row["status"], row["metadata"]) == ("cancelled", {"notes": ["first"]})


def test_an_end_without_a_start_is_passed_over(recorder: SqlRecorder, stored: Stored) -> None:
    recorder.record([ended(started(), notes=("lost",))])
    assert stored.rows("interceptions") == []


@pytest.mark.parametrize(
    ("kind", "hint", "kept"),
    [
        ("centralized", "sk-b...2222", "sk-b...2222"),
        ("centralized", None, "sk-a...wxyz"),
        ("byok", "sk-b...2222", "sk-a...wxyz"),
    ],
)
def test_the_key_that_was_used_in_the_end_is_the_hint(
    recorder: SqlRecorder, stored: Stored, kind: str, hint: str | None, kept: str
) -> None:
    interception = started(credential_kind=kind)
    recorder.record([interception])
    recorder.record([ended(interception, credential_hint=hint)])
    assert stored.interception(interception.id)["credential_hint"] == kept


def test_notes_join_the_metadata(recorder: SqlRecorder, stored: Stored) -> None:
    plain, noted = started(), started(metadata={"agent": "7", "notes": ["early"]})
    recorder.record([plain, noted])
    recorder.record([ended(plain), ended(noted, notes=("one event was too large", "cut"))])
    assert stored.interception(plain.id)["metadata"] == {}
    assert stored.interception(noted.id)["metadata"] == {
        "agent": "7",
        "notes": ["early", "one event was too large", "cut"],
    }


def test_error_messages_are_cut(recorder: SqlRecorder, stored: Stored) -> None:
    interception = started()
    recorder.record([interception, ended(interception, error_type="server_error", error_message="é" * 5000)])
    row = stored.interception(interception.id)
    assert (row["error_type"], row["error_message"]) == ("server_error", "é" * (ERROR_MESSAGE_BYTES // 2))


def test_many_interceptions_in_one_batch(recorder: SqlRecorder, stored: Stored) -> None:
    batch = [started() for _ in range(30)]
    recorder.record(batch)
    recorder.record([record for one in batch for record in (token_usage(one), ended(one))])
    assert [row["status"] for row in stored.rows("interceptions")] == ["completed"] * 30
    assert {row["interception_id"] for row in stored.rows("token_usages")} == {one.id for one in batch}


def test_all_or_nothing(recorder: SqlRecorder, stored: Stored) -> None:
    with pytest.raises(RecordingError) as failure:
        recorder.record([started(), token_usage(started(), provider_model=None)])
    assert failure.value.__cause__ is not None
    assert stored.rows("interceptions") == []


def test_a_database_without_tables_takes_no_record(empty_database: Database, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir(exist_ok=True)
    with pytest.raises(RecordingError, match="aibridge_workers"):
        SqlRecorder(empty_database).record([started()])


class TestThreads:
    """Who continues whom, and in which session."""

    def test_alone(self, recorder: SqlRecorder, stored: Stored) -> None:
        first, named = started(), started(client_session_id="s-1", correlating_tool_call_id="call_unknown")
        recorder.record([first, named])
        assert thread(stored.interception(first.id)) == (None, None, first.id)
        assert thread(stored.interception(named.id)) == (None, None, "s-1")

    def test_a_tool_result_continues_the_interception_that_made_the_call(
        self, recorder: SqlRecorder, stored: Stored
    ) -> None:
        first = started()
        second = started(correlating_tool_call_id="call_1", started_at=after(1))
        third = started(correlating_tool_call_id="call_2", started_at=after(2))
        recorder.record([first])
        recorder.record([tool_usage(first, "call_1")])
        recorder.record([second])
        recorder.record([tool_usage(second, "call_2")])
        recorder.record([third])
        assert thread(stored.interception(second.id)) == (first.id, first.id, first.id)
        assert thread(stored.interception(third.id)) == (second.id, first.id, first.id)
        assert stored.interception(third.id)["correlating_tool_call_id"] == "call_2"

    def test_the_session_is_the_clients_else_the_roots(self, recorder: SqlRecorder, stored: Stored) -> None:
        first = started(client_session_id="s-root")
        second = started(client_session_id="s-other", correlating_tool_call_id="call_1")
        third = started(correlating_tool_call_id="call_2")
        recorder.record([first, tool_usage(first, "call_1")])
        recorder.record([second, tool_usage(second, "call_2")])
        recorder.record([third])
        assert thread(stored.interception(second.id)) == (first.id, first.id, "s-other")
        assert thread(stored.interception(third.id)) == (second.id, first.id, "s-root")

    def test_a_whole_thread_in_one_batch(self, recorder: SqlRecorder, stored: Stored) -> None:
        first = started(client_session_id="s-root")
        second = started(client_session_id="s-other", correlating_tool_call_id="call_1")
        third = started(correlating_tool_call_id="call_2")
        recorder.record([first, tool_usage(first, "call_1"), second, tool_usage(second, "call_2"), third])
        assert thread(stored.interception(third.id)) == (second.id, first.id, "s-root")

    def test_the_call_is_in_the_batch_and_its_interception_is_stored(
        self, recorder: SqlRecorder, stored: Stored
    ) -> None:
        first, second = started(), started(correlating_tool_call_id="call_1")
        hosted = tool_usage(first, None)
        recorder.record([first])
        recorder.record([hosted, tool_usage(first, "call_1"), ended(first), second])
        assert thread(stored.interception(second.id)) == (first.id, first.id, first.id)

    def test_a_call_that_comes_later_in_the_batch_is_not_answered_yet(
        self, recorder: SqlRecorder, stored: Stored
    ) -> None:
        first, second = started(), started(correlating_tool_call_id="call_1")
        recorder.record([first, second, tool_usage(first, "call_1")])
        assert thread(stored.interception(second.id)) == (None, None, second.id)

    def test_the_newest_call_of_that_id_counts(self, recorder: SqlRecorder, stored: Stored) -> None:
        old, new, older = started(), started(), started()
        recorder.record([old, new, older])
        recorder.record([tool_usage(new, created_at=after(5)), tool_usage(old, created_at=after(1))])
        answer = started(correlating_tool_call_id="call_1")
        recorder.record([tool_usage(older, created_at=after(0)), answer])
        assert thread(stored.interception(answer.id))[0] == new.id

    def test_a_newer_call_in_the_batch_counts_more_than_a_stored_one(
        self, recorder: SqlRecorder, stored: Stored
    ) -> None:
        old, new = started(), started()
        recorder.record([old, new, tool_usage(old, created_at=after(1))])
        answer = started(correlating_tool_call_id="call_1")
        recorder.record([tool_usage(new, created_at=after(2)), answer])
        assert thread(stored.interception(answer.id))[0] == new.id

    def test_a_call_of_an_unknown_interception_is_no_parent(self, recorder: SqlRecorder, stored: Stored) -> None:
        answer = started(correlating_tool_call_id="call_1")
        recorder.record([tool_usage(started(), "call_1")])
        recorder.record([tool_usage(started(), "call_1"), answer])
        assert thread(stored.interception(answer.id)) == (None, None, answer.id)

    def test_nobody_joins_another_actors_thread(self, recorder: SqlRecorder, stored: Stored) -> None:
        first = started(initiator_id="alice")
        recorder.record([first, tool_usage(first, "call_0")])
        answer = started(initiator_id="bob", correlating_tool_call_id="call_0")
        recorder.record([answer])
        assert stored.interception(answer.id)["thread_parent_id"] is None
        assert stored.interception(answer.id)["session_id"] == answer.id

    def test_an_empty_call_id_correlates_nothing(self, recorder: SqlRecorder, stored: Stored) -> None:
        first, second = started(), started(correlating_tool_call_id="")
        recorder.record([first, tool_usage(first, ""), tool_usage(first, None), second])
        assert thread(stored.interception(second.id)) == (None, None, second.id)

    def test_an_id_that_no_database_holds_does_no_harm(self, recorder: SqlRecorder, stored: Stored) -> None:
        first, second = started(), started(correlating_tool_call_id="call\0é")
        recorder.record([first, tool_usage(first, "call\0é")])
        recorder.record([second])
        assert stored.interception(second.id)["correlating_tool_call_id"] == "call\ufffdé"
