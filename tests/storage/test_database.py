"""Starting, forking and failing: what an operator meets before the first request."""

import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from aibridge.settings import Database as Settings
from aibridge.storage.database import Database, StorageError
from aibridge.storage.recorder import SqlRecorder
from tests.storage.conftest import Stored
from tests.storage.samples import started

UPGRADE = """
import sys
from aibridge.storage.database import Database
sys.stdin.readline()
Database(sys.argv[1]).upgrade()
"""

RECORD = """
import sys
from aibridge.storage.database import Database
from aibridge.storage.recorder import SqlRecorder
from tests.storage.samples import ended, started
recorder = SqlRecorder(Database(sys.argv[1]))
sys.stdin.readline()
for _ in range(25):
    interception = started(correlating_tool_call_id="call_1")
    recorder.record([interception])
    recorder.record([ended(interception)])
"""

GEVENT = """
from gevent import monkey
monkey.patch_all()
import sys
import gevent
from aibridge.storage.database import Database
from aibridge.storage.recorder import SqlRecorder
from aibridge.storage.tokens import Tokens
from tests.storage.samples import started
database = Database(sys.argv[1])
database.upgrade()
recorder, tokens = SqlRecorder(database), Tokens(database)
_, secret = tokens.create("alice")
jobs = [gevent.spawn(recorder.record, [started()]) for _ in range(20)]
jobs += [gevent.spawn(tokens.verify, secret) for _ in range(20)]
gevent.joinall(jobs, raise_error=True)
assert database.check() == []
"""


def run_at_once(script: str, url: str, processes: int) -> None:
    """Start `script` several times, let all begin at the same moment, and expect every one to succeed."""
    command = [sys.executable, "-c", script, url]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_environment())
        for _ in range(processes)
    ]
    for process in running:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def test_a_new_database_is_not_ready_and_is_after_the_upgrade(empty_database: Database) -> None:
    assert any("aibridge db upgrade" in reason for reason in empty_database.check())
    empty_database.upgrade()
    assert empty_database.check() == []
    empty_database.upgrade()
    assert empty_database.check() == []


def test_checking_creates_no_file(tmp_path: Path) -> None:
    Database(f"sqlite:///{tmp_path}/new/aibridge.db").check()
    assert list(tmp_path.iterdir()) == []


def test_construction_does_not_connect() -> None:
    assert str(Database("postgresql+psycopg://user:hush@127.0.0.1:1/db")) == (
        "postgresql+psycopg://user:***@127.0.0.1:1/db"
    )


def test_an_unreachable_server_is_one_clear_line_without_the_password() -> None:
    database = Database("postgresql+psycopg://user:hush@127.0.0.1:1/db?password=hush")
    (reason,) = database.check()
    assert "127.0.0.1" in reason
    assert "\n" not in reason
    assert "hush" not in reason
    with pytest.raises(StorageError):
        database.upgrade()


def test_a_server_that_goes_without_a_word_is_given_up_soon(postgresql: str) -> None:
    database = Database(Settings(url=postgresql).url)
    with database.reading() as connection:
        descriptor = os.dup(connection.connection.cursor().connection.fileno())
        with socket.socket(fileno=descriptor) as sock:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            idle, interval, count, unsent = (
                sock.getsockopt(socket.IPPROTO_TCP, option)
                for option in (
                    socket.TCP_KEEPIDLE,
                    socket.TCP_KEEPINTVL,
                    socket.TCP_KEEPCNT,
                    socket.TCP_USER_TIMEOUT,
                )
            )
    database.dispose()
    assert idle + interval * count <= 30
    assert 0 < unsent <= 30_000


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "letter.txt"
    file.write_text("Dear Sir or Madam, this is no database. " * 50)
    database = Database(f"sqlite:///{file}")
    assert database.check()
    with pytest.raises(StorageError, match="not a database"):
        database.upgrade()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="Not a directory"):
        Database(f"sqlite:///{tmp_path}/file/folder/aibridge.db").upgrade()


def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="unable to open"):
        Database(f"sqlite:///{tmp_path}").upgrade()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?uri=true", "nonsense"])
def test_what_is_no_file_or_server_is_refused_at_once(url: str) -> None:
    with pytest.raises(StorageError):
        Database(url)


def test_a_schema_of_a_later_version_is_left_alone(database: Database) -> None:
    with database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert "9999" in database.check()[0]
    with pytest.raises(StorageError, match="9999"):
        database.upgrade()


def test_a_failed_transaction_leaves_nothing(database: Database, stored: Stored) -> None:
    def fail_half_way() -> None:
        with database.writing() as connection:
            connection.execute(text("INSERT INTO alembic_version VALUES ('never')"))
            connection.execute(text("INSERT INTO nowhere VALUES (:secret)"), {"secret": "hush"})

    with pytest.raises(StorageError) as failure:
        fail_half_way()
    assert "nowhere" in str(failure.value)
    assert "hush" not in str(failure.value)
    assert database.check() == []


def test_a_later_use_reconnects_after_dispose(database: Database) -> None:
    database.dispose()
    database.dispose()
    assert database.check() == []


def test_sqlite_readers_do_not_wait_for_a_writer(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/aibridge.db")
    database.upgrade()
    with database.writing():
        assert database.check() == []


def test_several_processes_may_upgrade_at_once(url: str, empty_database: Database) -> None:
    run_at_once(UPGRADE, url, processes=4)
    assert empty_database.check() == []


def test_several_processes_may_record_at_once(url: str, database: Database, stored: Stored) -> None:
    run_at_once(RECORD, url, processes=4)
    assert [row["status"] for row in stored.rows("interceptions")] == ["completed"] * 100


def test_it_works_under_gevent(url: str, empty_database: Database) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GEVENT, url], env=_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(Stored(empty_database).rows("interceptions")) == 20


def test_a_forked_process_does_not_share_its_parents_connections(
    database: Database, recorder: SqlRecorder, stored: Stored
) -> None:
    recorder.record([started(initiator_id="parent")])
    child = os.fork()
    if child == 0:  # pragma: no cover - coverage does not follow a fork that ends with _exit
        status = 1
        try:
            recorder.record([started(initiator_id="child")])
            database.dispose()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    recorder.record([started(initiator_id="parent")])
    assert status == 0
    assert sorted(row["initiator_id"] for row in stored.rows("interceptions")) == [
        "child",
        "parent",
        "parent",
    ]


def test_a_file_that_others_hold_is_waited_for_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aibridge.storage.database.LOCK_TIMEOUT", 0.1)
    other = sqlite3.connect(tmp_path / "aibridge.db", isolation_level=None)
    other.execute("CREATE TABLE theirs (id)")
    other.execute("BEGIN EXCLUSIVE")
    database = Database(f"sqlite:///{tmp_path}/aibridge.db")
    with pytest.raises(StorageError, match="other processes"):
        database.upgrade()
    other.execute("ROLLBACK")
    database.upgrade()
    assert database.check() == []
    other.close()
