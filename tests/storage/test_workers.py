"""What dead workers left open is ended; what living ones are at is left alone. On both databases."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from aibridge.errors import RecordingError
from aibridge.records import InterceptionStarted, now
from aibridge.storage.database import Database
from aibridge.storage.recorder import SqlRecorder
from aibridge.storage.tables import interceptions, workers
from aibridge.storage.workers import DEAD_AFTER, MESSAGE, RENEWAL_INTERVAL, Process, Workers
from tests.fakes import FakeClock
from tests.storage.conftest import Stored
from tests.storage.samples import ended, started, token_usage

ELSEWHERE = Process("another machine", 4711, "1")


def elsewhere() -> Process:
    return ELSEWHERE


def begun(database: Database, worker: Workers, seconds_ago: float = 0) -> InterceptionStarted:
    interception = started(started_at=now() - timedelta(seconds=seconds_ago))
    SqlRecorder(database, worker).record([interception])
    return interception


def silent_for(database: Database, worker: Workers, seconds: float) -> None:
    """As if the worker had last been heard of so long ago."""
    with database.writing() as connection:
        seen = now() - timedelta(seconds=seconds)
        connection.execute(update(workers).where(workers.c.id == worker.own_id).values(seen_at=seen))


def row(stored: Stored, interception: InterceptionStarted) -> dict[str, Any]:
    return stored.interception(interception.id)


@contextmanager
def another_process() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_an_interception_names_its_worker(database: Database, stored: Stored) -> None:
    worker = Workers(database)
    interception = begun(database, worker)
    (found,) = stored.rows("workers")
    assert row(stored, interception)["worker_id"] == found["id"] == worker.own_id
    assert (found["pid"], found["born"]) == (os.getpid(), Process.this().born)
    assert found["place"]


def test_what_a_silent_worker_left_ends_at_its_last_sign_of_life(database: Database, stored: Stored) -> None:
    dead = Workers(database, process=elsewhere)
    interception = begun(database, dead, seconds_ago=DEAD_AFTER + 100)
    silent_for(database, dead, DEAD_AFTER + 60)
    finished = begun(database, dead)
    SqlRecorder(database, dead).record([ended(finished)])

    Workers(database).tend()

    found = row(stored, interception)
    assert (found["status"], found["error_type"], found["error_message"]) == ("interrupted", "unknown", MESSAGE)
    assert found["duration_ms"] == pytest.approx(40_000, abs=5000)
    assert (found["ended_at"] - found["started_at"]).total_seconds() == pytest.approx(40, abs=5)
    assert row(stored, finished)["status"] == "completed"
    assert dead.own_id not in [worker["id"] for worker in stored.rows("workers")]


def test_an_end_is_never_before_the_start(database: Database, stored: Stored) -> None:
    dead = Workers(database, process=elsewhere)
    interception = begun(database, dead)
    silent_for(database, dead, DEAD_AFTER + 60)

    Workers(database).tend()

    found = row(stored, interception)
    assert (found["status"], found["duration_ms"]) == ("interrupted", 0)
    assert found["ended_at"] == found["started_at"]


def test_living_workers_are_left_alone_wherever_they_are(database: Database, stored: Stored) -> None:
    here, there = Workers(database), Workers(database, process=elsewhere)
    ours, theirs = begun(database, here, DEAD_AFTER * 9), begun(database, there, DEAD_AFTER * 9)
    silent_for(database, there, DEAD_AFTER - 30)

    Workers(database).tend()
    here.tend()

    assert row(stored, ours)["ended_at"] is None
    assert row(stored, theirs)["ended_at"] is None


def test_a_process_that_is_gone_from_this_machine_is_dead_at_once(database: Database, stored: Stored) -> None:
    with another_process() as process:
        other = Process(Process.this().place, process.pid, _born(process.pid))
        worker = Workers(database, process=lambda: other)
        interception = begun(database, worker)
        Workers(database).tend()
        assert row(stored, interception)["status"] == "open"
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie is dead, too

        Workers(database).tend()

        assert row(stored, interception)["status"] == "interrupted"


def _born(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[19]


def test_a_number_that_is_used_again_is_another_process(database: Database, stored: Stored) -> None:
    this = Process.this()
    interception = begun(database, Workers(database, process=lambda: Process(this.place, this.pid, "1")))

    Workers(database).tend()

    assert row(stored, interception)["status"] == "interrupted"


def test_where_the_kernel_tells_nothing_only_silence_counts(database: Database, stored: Stored) -> None:
    def unknown() -> Process:
        return Process("", 4711, "")

    interception = begun(database, Workers(database, process=unknown))
    Workers(database, process=unknown).tend()
    assert row(stored, interception)["ended_at"] is None


def test_a_worker_that_was_only_stopped_has_the_last_word(database: Database, stored: Stored) -> None:
    clock = FakeClock()
    stopped = Workers(database, process=elsewhere, clock=clock)
    interception = begun(database, stopped)
    silent_for(database, stopped, DEAD_AFTER + 1)
    Workers(database).tend()
    assert row(stored, interception)["status"] == "interrupted"

    clock.advance(DEAD_AFTER + 1)  # it goes on, and the next thing that it commits brings its row back
    recorder = SqlRecorder(database, stopped)
    later = started(started_at=now())
    recorder.record([later])
    recorder.record([token_usage(interception), ended(interception, notes=("late",)), ended(interception)])
    recorder.record([ended(interception, status="failed", error_type="unknown")])
    Workers(database).tend()

    found = row(stored, interception)
    assert (found["status"], found["error_message"], found["duration_ms"]) == ("completed", None, 2000.0)
    assert found["metadata"] == {"notes": ["late"]}
    assert row(stored, later)["status"] == "open"
    assert len(stored.rows("token_usages")) == 1


def test_a_renewal_that_was_not_committed_is_made_again(database: Database, stored: Stored) -> None:
    worker = Workers(database, clock=FakeClock())
    with pytest.raises(RecordingError):
        SqlRecorder(database, worker).record([started(model=None)])
    assert stored.rows("workers") == []
    begun(database, worker)
    assert len(stored.rows("workers")) == 1


def test_a_row_is_renewed_every_few_seconds_and_not_with_every_commit(database: Database, stored: Stored) -> None:
    clock = FakeClock()
    worker = Workers(database, clock=clock)
    begun(database, worker)
    silent_for(database, worker, 60)
    (before,) = stored.rows("workers")
    clock.advance(RENEWAL_INTERVAL - 1)
    begun(database, worker)
    assert stored.rows("workers") == [before]
    clock.advance(1)
    begun(database, worker)
    (after,) = stored.rows("workers")
    assert after["seen_at"] > before["seen_at"]
    assert after["started_at"] == before["started_at"]


def test_a_worker_that_stops_ends_what_it_leaves_and_nothing_else(database: Database, stored: Stored) -> None:
    leaving, staying = Workers(database), Workers(database)
    left, running, finished = begun(database, leaving), begun(database, staying), begun(database, leaving)
    SqlRecorder(database, leaving).record([ended(finished)])

    leaving.leave()
    leaving.leave()

    statuses = [row(stored, one)["status"] for one in (left, running, finished)]
    assert statuses == ["interrupted", "open", "completed"]
    assert [worker["id"] for worker in stored.rows("workers")] == [staying.own_id]


def test_interceptions_of_versions_that_named_no_worker_get_a_day(database: Database, stored: Stored) -> None:
    worker = Workers(database)
    old, recent = begun(database, worker, seconds_ago=25 * 3600), begun(database, worker, seconds_ago=23 * 3600)
    with database.writing() as connection:
        connection.execute(update(interceptions).values(worker_id=None))

    worker.tend()

    assert row(stored, old)["status"] == "interrupted"
    assert row(stored, recent)["status"] == "open"


def test_a_forked_process_is_a_worker_of_its_own(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Workers(database)
    parent = worker.own_id
    assert worker.own_id == parent
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert worker.own_id != parent


def test_a_database_that_is_away_stops_nothing(empty_database: Database) -> None:
    worker = Workers(empty_database)
    worker.leave()
    worker.tend()
    worker.renewed()
    worker.leave()
