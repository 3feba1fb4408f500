"""The command line as its users meet it: what is printed, and the exit status."""

import csv
import io
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from aibridge.cli import main
from aibridge.records import now
from aibridge.storage.database import Database
from aibridge.storage.recorder import SqlRecorder
from aibridge.storage.tokens import Tokens
from tests.storage.samples import ended, prompt, started, thought, token_usage, tool_usage

Run = Callable[..., Result]

COMMANDS = (
    *("serve", "check-config", "db upgrade", "db purge", "tokens create", "tokens list", "tokens revoke"),
    *("usage", "sessions list", "sessions show"),
)
READING = ("usage", "tokens list", "tokens revoke x", "sessions list", "sessions show x", "db purge")


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A folder of its own, and nothing of ours in the environment but a SQLite file in it."""
    for name in os.environ:
        if name.startswith(("AIBRIDGE_", "ANTHROPIC_", "OPENAI_")) or name in ("HOST", "PORT"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return {"DATABASE_URL": f"sqlite:///{tmp_path}/aibridge.db"}


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    def run(command: str, *more: str, **env: str) -> Result:
        return CliRunner().invoke(main, [*command.split(), *more], env={**environment, **env})

    return run


@pytest.fixture
def database(environment: dict[str, str]) -> Database:
    database = Database(environment["DATABASE_URL"])
    database.upgrade()
    return database


@pytest.fixture
def history(database: Database) -> Database:
    """A day-old thread of alice, and an interception of bob that failed just now."""
    recorder = SqlRecorder(database)
    first = started(client_session_id="s-1", started_at=now() - timedelta(days=1))
    second = started(
        client_session_id="s-1",
        correlating_tool_call_id="call_1",
        started_at=first.started_at + timedelta(minutes=1),
    )
    bob = started(initiator_id="bob", model="claude-haiku-4-5", started_at=now(), credential_hint="")
    recorder.record(
        [
            first,
            prompt(first, "list the \x1b[31mfiles\nplease"),
            thought(first, "I shall use ls."),
            tool_usage(first, "call_1", server_url="https://tools.example", invocation_error="no such folder"),
            token_usage(first, input_tokens=1234, cache_read_input_tokens=10),
            ended(first),
        ]
    )
    recorder.record([second, token_usage(second), ended(second)])
    recorder.record([bob, ended(bob, status="failed", error_type="overloaded", error_message="Overloaded")])
    return database


def listed(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run: Run, command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"{command} [OPTIONS]" in result.stdout


def test_starting_the_command_is_light() -> None:
    script = "import sys, aibridge.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {"anthropic", "openai", "mcp", "flask", "gunicorn", "gevent", "requests"}
    assert heavy & set(done.stdout.split()) == set()


class TestConfiguration:
    @pytest.mark.parametrize("command", ["serve", "check-config", *READING])
    def test_a_wrong_setting_is_named_and_ends_with_2(self, run: Run, command: str) -> None:
        result = run(command, AIBRIDGE_SERVER_PORT="many")
        assert result.exit_code == 2
        assert "server.port" in result.stderr
        assert result.stdout == ""
        assert "Traceback" not in result.output

    def test_the_settings_are_printed_as_toml_without_secrets(self, run: Run) -> None:
        result = run(
            "check-config",
            ANTHROPIC_API_KEY="sk-ant-hush",
            DATABASE_URL="postgres://me:hush@db.example/aibridge",
        )
        assert result.exit_code == 0
        assert "hush" not in result.output
        printed = tomllib.loads(result.stdout)
        assert printed["providers"][0]["name"] == "anthropic"
        assert printed["server"]["port"] == 8080

    def test_the_settings_are_printed_as_json(self, run: Run) -> None:
        assert listed(run("check-config --json", PORT="9000"))["server"]["port"] == 9000

    def test_a_setting_without_effect_is_pointed_out(self, run: Run) -> None:
        provider = {"name": "p", "type": "openai", "dump_dir": "dumps"}
        result = run("check-config", AIBRIDGE_PROVIDERS=json.dumps([provider]))
        assert result.exit_code == 0
        assert "dump_dir" in result.stderr


class TestServe:
    """With a gunicorn of our own that only tells how it was called."""

    def serve(self, environment: dict[str, str], tmp_path: Path, **env: str) -> subprocess.CompletedProcess[str]:
        package = tmp_path / "fake" / "gunicorn"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text("import sys; print(*sys.argv[1:])")
        path = f"{package.parent}:{Path(__file__).parents[1]}"
        return subprocess.run(
            [sys.executable, "-m", "aibridge", "serve"],
            env={**os.environ, **environment, "PYTHONPATH": path, **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    def test_it_upgrades_the_database_and_becomes_gunicorn(
        self, environment: dict[str, str], tmp_path: Path
    ) -> None:
        done = self.serve(environment, tmp_path, PORT="8123")
        assert done.returncode == 0, done.stderr
        assert done.stdout == "-c python:aibridge.serving.gunicorn_conf aibridge.serving.wsgi:app\n"
        assert done.stderr == "aibridge serves http://127.0.0.1:8123 (providers: sandbox)\n"
        assert Database(environment["DATABASE_URL"]).check() == []

    def test_an_ipv6_address_is_shown_as_a_url(self, environment: dict[str, str], tmp_path: Path) -> None:
        done = self.serve(environment, tmp_path, HOST="::1")
        assert "http://[::1]:8080" in done.stderr

    def test_without_a_database_it_does_not_start(self, environment: dict[str, str], tmp_path: Path) -> None:
        done = self.serve(environment, tmp_path, DATABASE_URL="postgres://me:hush@127.0.0.1:1/x")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("Error: ")
        assert len(done.stderr.splitlines()) == 1
        assert "hush" not in done.stderr


class TestDatabase:
    def test_upgrade_makes_the_tables_and_can_be_repeated(self, run: Run, environment: dict[str, str]) -> None:
        for _ in range(2):
            result = run("db upgrade")
            assert (result.exit_code, "up to date" in result.stdout) == (0, True)
        assert Database(environment["DATABASE_URL"]).check() == []

    @pytest.mark.parametrize("command", READING)
    def test_without_tables_the_way_out_is_told(self, run: Run, command: str) -> None:
        result = run(command)
        assert result.exit_code == 1
        assert "aibridge db upgrade" in result.stderr
        assert list(Path.cwd().iterdir()) == []

    @pytest.mark.parametrize("command", ["db upgrade", "tokens create --actor alice", *READING])
    def test_an_unreachable_database_is_one_clear_line(self, run: Run, command: str) -> None:
        result = run(command, DATABASE_URL="postgres://me:hush@127.0.0.1:1/x")
        assert result.exit_code == 1
        assert len(result.stderr.splitlines()) == 1
        assert "hush" not in result.stderr

    @pytest.mark.parametrize(("age", "left"), [("2d", 3), ("20h", 1), ("1200m", 1), ("1w", 3), ("999999w", 3)])
    def test_purge_deletes_what_is_older(self, run: Run, history: Database, age: str, left: int) -> None:
        result = run("db purge --older-than", age)
        assert result.exit_code == 0
        assert f"deleted {3 - left} interceptions" in result.stdout
        rows = listed(run("usage --json --since 9d"))
        assert sum(row["interceptions"] for row in rows) == left

    def test_purge_follows_the_retention_setting(self, run: Run, history: Database) -> None:
        kept = run("db purge", AIBRIDGE_RECORDING_RETENTION_DAYS="0")
        assert (kept.exit_code, "nothing is deleted" in kept.stdout) == (0, True)
        assert "deleted 1" in run("db purge", AIBRIDGE_RECORDING_RETENTION_DAYS="1").stdout

    @pytest.mark.parametrize("age", ["", "60", "d", "-1d", "1y", "1.5d", "9999999d"])
    def test_an_age_that_is_none_is_refused(self, run: Run, age: str) -> None:
        assert run("db purge", "--older-than", age).exit_code == 2


class TestTokens:
    def test_a_token_works_and_is_shown_once(self, run: Run, environment: dict[str, str]) -> None:
        created = run("tokens create --actor alice --description laptop")
        assert created.exit_code == 0
        secret = created.stdout.strip()
        actor = Tokens(Database(environment["DATABASE_URL"])).verify(secret)
        assert actor is not None
        assert actor.id == "alice"
        table = run("tokens list")
        assert "alice" in table.stdout
        assert "laptop" in table.stdout
        assert secret not in table.stdout

    def test_tokens_as_json(self, run: Run, environment: dict[str, str]) -> None:
        created = listed(run("tokens create --json --actor alice"))
        database = Database(environment["DATABASE_URL"])
        assert Tokens(database).verify(created["token"])
        (token,) = listed(run("tokens list --json"))
        assert (token["id"], token["actor"], token["revoked_at"]) == (created["id"], "alice", None)

        assert run("tokens revoke", created["id"]).exit_code == 0
        assert Tokens(database).verify(created["token"]) is None  # who has just seen it believes it for a moment
        assert listed(run("tokens list --json"))[0]["revoked_at"]

    def test_revoking_what_is_not_there_fails(self, run: Run, database: Database) -> None:
        result = run("tokens revoke 123")
        assert (result.exit_code, "no token 123" in result.stderr) == (1, True)

    @pytest.mark.parametrize("actor", ["", "  ", "a\nb", "a\x1b[0m"])
    def test_an_actor_needs_a_name(self, run: Run, actor: str) -> None:
        assert run("tokens create", "--actor", actor).exit_code == 2
        assert run("tokens create").exit_code == 2

    def test_no_tokens(self, run: Run, database: Database) -> None:
        assert run("tokens list").stdout == "no tokens\n"
        assert listed(run("tokens list --json")) == []


class TestUsage:
    def test_a_table_by_actor_with_a_total(self, run: Run, history: Database) -> None:
        result = run("usage")
        assert result.exit_code == 0
        header, alice, bob, total = result.stdout.splitlines()
        assert header.split()[:5] == ["actor", "requests", "failed", "input", "output"]
        assert alice.split() == ["alice", "2", "0", "1,244", "40", "10", "0", "1"]
        assert bob.split() == ["bob", "1", "1", "0", "0", "0", "0", "0"]
        assert total.split() == ["total", "3", "1", "1,244", "40", "10", "0", "1"]
        assert len({len(line) for line in (header, alice, bob, total)}) == 1

    def test_json_and_csv_hold_the_same(self, run: Run, history: Database) -> None:
        as_json = listed(run("usage --by model --json"))
        as_csv = list(csv.DictReader(io.StringIO(run("usage --by model --csv").stdout)))
        assert as_csv == [{name: str(value) for name, value in row.items()} for row in as_json]
        assert as_json[0] == {
            "model": "claude-sonnet-4-5",
            "interceptions": 2,
            "failed": 0,
            "input_tokens": 1244,
            "output_tokens": 40,
            "cache_read_input_tokens": 10,
            "cache_write_input_tokens": 0,
            "tool_calls": 1,
        }

    @pytest.mark.parametrize(("since", "actors"), [("2d", 2), ("60m", 1), ("1h", 1), ("2020-01-01", 2)])
    def test_since(self, run: Run, history: Database, since: str, actors: int) -> None:
        assert len(listed(run("usage --json --since", since))) == actors

    def test_since_takes_a_time_with_a_zone(self, run: Run, history: Database) -> None:
        assert listed(run("usage --json --since", "2999-01-01T00:00:00+02:00")) == []

    def test_nothing_recorded(self, run: Run, database: Database) -> None:
        assert run("usage --by day").stdout == "nothing was recorded in that time\n"
        assert listed(run("usage --by client --json")) == []
        assert run("usage --csv").stdout.startswith("actor,interceptions,failed,")

    @pytest.mark.parametrize("arguments", ["--by colour", "--since yesterday", "--since 7x", "--json --csv"])
    def test_a_wrong_command_line_ends_with_2(self, run: Run, database: Database, arguments: str) -> None:
        result = run(f"usage {arguments}")
        assert (result.exit_code, result.stdout) == (2, "")


class TestSessions:
    def test_the_list_fits_one_line_per_session(self, run: Run, history: Database) -> None:
        header, bob, alice = run("sessions list").stdout.splitlines()
        assert header.startswith("session ")
        assert "bob" in bob
        assert alice.startswith("s-1 ")
        assert "list the [31mfiles please" in alice
        assert "\x1b" not in alice
        assert len(run("sessions list --limit 1").stdout.splitlines()) == 2

    def test_the_list_as_json(self, run: Run, history: Database) -> None:
        _, alice = listed(run("sessions list --json"))
        assert (alice["id"], alice["threads"], alice["interceptions"]) == ("s-1", 1, 2)
        assert alice["tokens"] == {"input": 1244, "output": 40, "cache_read": 10, "cache_write": 0}
        assert alice["last_prompt"] == "list the \x1b[31mfiles\nplease"

    def test_one_session_tells_what_happened(self, run: Run, history: Database) -> None:
        first, second = run("sessions show s-1").stdout.split("\n\n")
        for expected in (
            *("claude-sonnet-4-5 completed (alice, Claude Code)", "I shall use ls.", '{"command":"ls"}'),
            *("tool call Bash on https://tools.example", "no such folder", "1,234 input", "    please"),
        ):
            assert expected in first
        assert "\x1b" not in first
        assert "continues " in second

    def test_a_failed_request_shows_why(self, run: Run, history: Database) -> None:
        bob, _ = listed(run("sessions list --json"))
        shown = run("sessions show", bob["id"]).stdout
        assert "error overloaded" in shown
        assert "Overloaded" in shown

    def test_one_session_as_json(self, run: Run, history: Database) -> None:
        shown = listed(run("sessions show s-1 --json"))
        assert shown["id"] == "s-1"
        assert shown["interceptions"][0]["tool_calls"][0]["tool"] == "Bash"

    def test_no_such_session(self, run: Run, history: Database) -> None:
        result = run("sessions show s-9")
        assert (result.exit_code, "no session s-9" in result.stderr) == (1, True)

    def test_no_sessions(self, run: Run, database: Database) -> None:
        assert run("sessions list").stdout == "no sessions\n"
