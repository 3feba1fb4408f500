"""Who used what, and what happened in a session."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from aibridge.records import InterceptionStarted
from aibridge.storage.database import Database
from aibridge.storage.queries import TokenSum, Usage, session, sessions, usage
from aibridge.storage.recorder import SqlRecorder
from tests.storage.samples import NOON, after, ended, prompt, started, thought, token_usage, tool_usage


def use(recorder: SqlRecorder, input_tokens: int = 0, calls: int = 0, **given: Any) -> InterceptionStarted:
    """An interception that ended well, with two upstream responses."""
    one = started(**given)
    tokens = [token_usage(one, input_tokens=input_tokens, output_tokens=1, cache_read_input_tokens=2)]
    tokens.append(token_usage(one, input_tokens=0, output_tokens=0, cache_write_input_tokens=3))
    tools = [tool_usage(one, f"call_{number}") for number in range(calls)]
    recorder.record([one, *tokens, *tools, ended(one)])
    return one


def test_usage_by_actor_counts_each_token_once(database: Database, recorder: SqlRecorder) -> None:
    use(recorder, 10, calls=3)
    use(recorder, 20, calls=2)
    use(recorder, 100, initiator_id="bob")
    failed = started(initiator_id="carol")
    recorder.record([failed, ended(failed, status="failed")])
    assert usage(database, "actor", since=NOON) == [
        Usage("bob", 1, 0, TokenSum(100, 1, 2, 3), 0),
        Usage("alice", 2, 0, TokenSum(30, 2, 4, 6), 5),
        Usage("carol", 1, 1, TokenSum(), 0),
    ]


def test_usage_leaves_out_the_earlier_and_the_open(database: Database, recorder: SqlRecorder) -> None:
    use(recorder, 10, started_at=after(-1))
    recorder.record([started()])
    assert usage(database, "actor", since=NOON) == []
    east = timezone(timedelta(hours=5))
    assert len(usage(database, "actor", since=after(-2).astimezone(east))) == 1


@pytest.mark.parametrize(
    ("by", "keys"), [("model", ["opus", "haiku"]), ("client", ["Codex", "Claude Code"]), ("actor", ["alice"])]
)
def test_usage_by_other_things(database: Database, recorder: SqlRecorder, by: Any, keys: list[str]) -> None:
    use(recorder, 10, model="haiku")
    use(recorder, 20, model="opus", client="Codex")
    assert [row.key for row in usage(database, by, since=NOON)] == keys


def test_days_are_utc_and_in_order(database: Database, recorder: SqlRecorder) -> None:
    west = timezone(timedelta(hours=-8))
    use(recorder, 1, started_at=datetime(2026, 3, 1, 20, tzinfo=west))
    use(recorder, 500, started_at=datetime(2026, 3, 1, 23, 59, 59, 999999, UTC))
    use(recorder, 2, started_at=datetime(2026, 3, 2, tzinfo=UTC))
    days = [(row.key, row.interceptions, row.tokens.input) for row in usage(database, "day", since=NOON)]
    assert days == [("2026-03-01", 1, 500), ("2026-03-02", 2, 3)]


def test_sessions_are_listed_newest_first(database: Database, recorder: SqlRecorder) -> None:
    first = use(recorder, 10, client_session_id="s-1", calls=1, model="opus")
    use(recorder, 5, client_session_id="s-2", started_at=after(1), initiator_id="bob", client="Codex")
    answer = use(
        recorder,
        7,
        client_session_id="s-1",
        correlating_tool_call_id="call_0",
        model="haiku",
        started_at=after(2),
    )
    recorder.record([prompt(first, "list the files"), prompt(answer, "and now?", created_at=after(2))])
    recorder.record([started(client_session_id="s-1", started_at=after(3)), started(started_at=after(9))])

    newest, older = sessions(database)
    assert (newest.id, newest.actor, newest.client) == ("s-1", "alice", "Claude Code")
    assert (newest.models, newest.threads, newest.interceptions) == (("opus", "haiku"), 1, 2)
    assert (newest.started_at, newest.last_active_at) == (NOON, after(2) + timedelta(seconds=2))
    assert newest.tokens == TokenSum(17, 2, 4, 6)
    assert newest.last_prompt == "and now?"
    assert (older.id, older.actor, older.client, older.last_prompt) == ("s-2", "bob", "Codex", None)
    assert sessions(database, limit=1) == [newest]


def test_two_interceptions_of_one_moment_are_one_session(database: Database, recorder: SqlRecorder) -> None:
    for _ in range(3):
        use(recorder, client_session_id="s-1")
    (found,) = sessions(database)
    assert (found.interceptions, found.threads) == (3, 3)


def test_a_session_without_tokens_is_listed_too(database: Database, recorder: SqlRecorder) -> None:
    one = started()
    recorder.record([one, ended(one, status="failed")])
    assert sessions(database)[0].tokens == TokenSum()


def test_no_sessions(database: Database) -> None:
    assert sessions(database) == []
    assert session(database, "s-1") == []


def test_a_session_in_the_order_it_happened(database: Database, recorder: SqlRecorder) -> None:
    first = use(recorder, 10, client_session_id="s-1")
    recorder.record(
        [
            thought(first, "second thought", created_at=after(0.2)),
            thought(first, "first thought", created_at=after(0.1)),
            prompt(first, "list the files"),
            tool_usage(first, "call_1", created_at=after(0.2), tool="Grep"),
            tool_usage(first, "call_0", created_at=after(0.1), invocation_error="no such file", injected=True),
        ]
    )
    still_open = started(client_session_id="s-1", correlating_tool_call_id="call_1", started_at=after(1))
    recorder.record([still_open])
    use(recorder, 10, client_session_id="s-2")

    done, running = session(database, "s-1")
    assert (done.id, done.status, done.tokens) == (first.id, "completed", TokenSum(10, 1, 2, 3))
    assert done.prompts == ("list the files",)
    assert done.thoughts == ("first thought", "second thought")
    assert [(call.tool, call.injected, call.invocation_error) for call in done.tool_calls] == [
        ("Bash", True, "no such file"),
        ("Grep", False, None),
    ]
    assert (running.status, running.ended_at, running.thread_parent_id) == ("open", None, first.id)
    assert (running.prompts, running.thoughts, running.tool_calls) == ((), (), ())
