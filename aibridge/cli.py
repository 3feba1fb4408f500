"""The `aibridge` command: serve, look at the settings, keep the database, hand out tokens, see what was used.

Exit status: 0 done, 1 it failed (the database, say), 2 the command line or a setting is wrong. Results go to
stdout, everything else to stderr. Lists are plain tables, or JSON with --json.
"""

import csv
import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn, get_args

import click
import orjson

from aibridge import __version__
from aibridge.actions.store import Entry, check_folder
from aibridge.hosting import disk_warning
from aibridge.protocols.tools import Tool
from aibridge.records import now
from aibridge.settings import Settings, SettingsError, effective
from aibridge.storage import queries
from aibridge.storage.database import Database, StorageError
from aibridge.storage.purge import purge
from aibridge.storage.queries import Grouping, SessionSummary, Step, TokenSum, Usage
from aibridge.storage.tokens import Token, Tokens
from aibridge.tabular import Cell, indented, one_line, table, toml
from aibridge.telemetry.logging import configure_logging

GUNICORN = ("-m", "gunicorn", "-c", "python:aibridge.serving.gunicorn_conf", "aibridge.serving.wsgi:app")

UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes"}

PROMPT_WIDTH = 48  # of a prompt in a list
DESCRIPTION_WIDTH = 60
SETTLE_SECONDS = 15.0  # that MCP servers get to connect
TEXT_LIMIT = 2000  # characters of a text that `sessions show` prints; --json has all of it

USAGE_FIELDS = (
    "interceptions",
    "failed",
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_write_input_tokens",
    "tool_calls",
)

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class SettingsRefused(click.ClickException):
    exit_code = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="aibridge")
def main() -> None:
    """A gateway between AI clients and AI providers."""


@main.command()
def serve() -> NoReturn:
    """Bring the database up to date and serve, under gunicorn."""
    settings = _settings()
    with _database(settings) as database:
        database.upgrade()
    names = ", ".join(provider.name for provider in settings.providers)
    click.echo(f"aibridge serves {_url(settings)} (providers: {names})", err=True)
    os.execv(sys.executable, (sys.executable, *GUNICORN))


@main.command("check-config")
@as_json
def check_config(as_json: bool) -> None:
    """Validate the settings and print those in effect, secrets masked."""
    settings = _settings()
    for name in settings.without_effect():
        click.echo(f"warning: {name} has no effect in this version", err=True)
    warning = disk_warning(settings.database.url, os.environ)
    if warning:
        click.echo(f"warning: {warning}", err=True)
    values = effective(settings)
    click.echo(_json(values) if as_json else toml(values))


@main.group()
def db() -> None:
    """Keep the database."""


@db.command()
def upgrade() -> None:
    """Create the tables, or bring them up to date."""
    with _database(_settings()) as database:
        database.upgrade()
        click.echo(f"{database} is up to date")


@db.command("purge")
@click.option(
    "--older-than",
    metavar="AGE",
    callback=lambda context, parameter, value: _age(value),
    help="Such as 60d, 2w or 36h; default: recording.retention_days.",
)
def purge_command(older_than: timedelta | None) -> None:
    """Delete the interceptions that started longer ago than AGE, with all that was recorded about them."""
    settings = _settings()
    age = timedelta(days=settings.recording.retention_days) if older_than is None else older_than
    if not age and older_than is None:
        click.echo("recording.retention_days is 0: nothing is deleted")
        return
    cutoff = _before_now(age)
    with _database(settings, ready=True) as database:
        deleted = purge(database, cutoff, progress=_show_progress)
    click.echo(f"deleted {deleted} interceptions that started before {cutoff:%Y-%m-%d %H:%M:%S} UTC")


@main.group()
def tokens() -> None:
    """The gateway's own tokens (auth.mode token)."""


@tokens.command("create")
@click.option(
    "--actor",
    required=True,
    callback=lambda context, parameter, value: _name(value),
    help="Who uses the gateway with it.",
)
@click.option("--description", default="", help="What it is for.")
@as_json
def create_token(actor: str, description: str, as_json: bool) -> None:
    """Make a token and print it, this once. Creates the tables if there are none yet."""
    with _database(_settings()) as database:
        database.upgrade()
        token_id, secret = Tokens(database).create(actor, description)
    if as_json:
        click.echo(_json({"id": token_id, "actor": actor, "description": description, "token": secret}))
        return
    click.echo(f"Token {token_id} of {actor}. Keep it now, it is not shown again:", err=True)
    click.echo(secret)


@tokens.command("list")
@as_json
def list_tokens(as_json: bool) -> None:
    """List the tokens, masked."""
    with _database(_settings(), ready=True) as database:
        found = Tokens(database).list()
    if as_json:
        click.echo(_json(found))
        return
    headers = ("id", "actor", "token", "description", "created (UTC)", "revoked (UTC)")
    _show_table(headers, [_token_cells(token) for token in found], "no tokens")


def _token_cells(token: Token) -> tuple[Cell, ...]:
    return token.id, token.actor, token.hint, token.description, token.created_at, token.revoked_at


@tokens.command("revoke")
@click.argument("token_id", metavar="ID")
def revoke_token(token_id: str) -> None:
    """Make a token invalid from now on."""
    with _database(_settings(), ready=True) as database:
        if not Tokens(database).revoke(token_id):
            raise click.ClickException(f"there is no token {token_id}")
    click.echo(f"revoked {token_id}")


@main.command()
@click.option("--by", type=click.Choice(get_args(Grouping)), default="actor", show_default=True)
@click.option(
    "--since",
    metavar="WHEN",
    default="30d",
    show_default=True,
    callback=lambda context, parameter, value: _since(value),
    help="An age such as 7d or 24h, or an ISO date (UTC).",
)
@as_json
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
def usage(by: Grouping, since: datetime, as_json: bool, as_csv: bool) -> None:
    """Requests, tokens and tool calls, summed up."""
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    with _database(_settings(), ready=True) as database:
        found = queries.usage(database, by, since)
    fields = (by, *USAGE_FIELDS)
    cells = [_usage_cells(row) for row in found]
    if as_json:
        click.echo(_json([dict(zip(fields, row, strict=True)) for row in cells]))
    elif as_csv:
        click.echo(_csv(fields, cells), nl=False)
    else:
        totals = [_usage_cells(_total(found))] if len(found) > 1 else []
        headers = (by, "requests", "failed", "input", "output", "cache read", "cache write", "tool calls")
        _show_table(headers, cells + totals, "nothing was recorded in that time")


def _usage_cells(row: Usage) -> tuple[Cell, ...]:
    """The group's name, then the values of USAGE_FIELDS."""
    tokens = row.tokens
    counts = (row.interceptions, row.failed)
    return (
        row.key,
        *counts,
        tokens.input,
        tokens.output,
        tokens.cache_read,
        tokens.cache_write,
        row.tool_calls,
    )


def _total(rows: Sequence[Usage]) -> Usage:
    return Usage(
        key="total",
        interceptions=sum(row.interceptions for row in rows),
        failed=sum(row.failed for row in rows),
        tokens=TokenSum(
            input=sum(row.tokens.input for row in rows),
            output=sum(row.tokens.output for row in rows),
            cache_read=sum(row.tokens.cache_read for row in rows),
            cache_write=sum(row.tokens.cache_write for row in rows),
        ),
        tool_calls=sum(row.tool_calls for row in rows),
    )


@main.group()
def sessions() -> None:
    """What people did with their agents."""


@sessions.command("list")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@as_json
def list_sessions(limit: int, as_json: bool) -> None:
    """List the sessions used last, the newest first."""
    with _database(_settings(), ready=True) as database:
        found = queries.sessions(database, limit)
    if as_json:
        click.echo(_json(found))
        return
    headers = (
        *("session", "actor", "client", "models", "threads", "requests"),
        *("started (UTC)", "last active (UTC)", "tokens in", "tokens out", "last prompt"),
    )
    _show_table(headers, [_session_cells(session) for session in found], "no sessions")


def _session_cells(session: SessionSummary) -> list[Cell]:
    return [
        session.id,
        session.actor,
        session.client,
        ", ".join(session.models),
        session.threads,
        session.interceptions,
        session.started_at,
        session.last_active_at,
        session.tokens.input + session.tokens.cache_read + session.tokens.cache_write,
        session.tokens.output,
        one_line(session.last_prompt or "", PROMPT_WIDTH),
    ]


@sessions.command("show")
@click.argument("session_id", metavar="ID")
@as_json
def show_session(session_id: str, as_json: bool) -> None:
    """Show a session: its requests in order, with prompts, thoughts and tool calls."""
    with _database(_settings(), ready=True) as database:
        steps = queries.session(database, session_id)
    if not steps:
        raise click.ClickException(f"there is no session {session_id}")
    if as_json:
        click.echo(_json({"id": session_id, "interceptions": [asdict(step) for step in steps]}))
    else:
        click.echo("\n\n".join(_step_text(step) for step in steps))


def _step_text(step: Step) -> str:
    """One request of a session: a headline, where it hangs, what was said, what it cost."""
    lines = [
        f"{step.started_at:%Y-%m-%d %H:%M:%S} "
        + one_line(f"{step.model} {step.status} ({step.actor}, {step.client})"),
        f"  interception {step.id}",
        "  " + one_line(f"{step.provider_name}, {step.credential_kind} key {step.credential_hint or '-'}"),
    ]
    if step.thread_parent_id:
        lines.append(f"  continues {step.thread_parent_id}")
    for label, text in _step_parts(step):
        lines += [f"  {label}:", indented(text, "    ", TEXT_LIMIT)]
    tokens = step.tokens
    lines.append(
        f"  tokens: {tokens.input:,} input, {tokens.output:,} output, "
        f"{tokens.cache_read:,} cache read, {tokens.cache_write:,} cache write"
    )
    return "\n".join(lines)


def _step_parts(step: Step) -> Iterator[tuple[str, str]]:
    for prompt in step.prompts:
        yield "prompt", prompt
    for thought in step.thoughts:
        yield "thought", thought
    for call in step.tool_calls:
        where = f" on {call.server_url}" if call.server_url else ""
        yield one_line(f"tool call {call.tool}{where}"), call.input
        if call.invocation_error:
            yield "tool error", call.invocation_error
    if step.error_type or step.error_message:
        yield one_line(f"error {step.error_type or ''}"), step.error_message or ""


@main.group("tools")
def tools_group() -> None:
    """The tools that the gateway puts into requests."""


@tools_group.command("list")
@as_json
def list_tools(as_json: bool) -> None:
    """Connect to the MCP servers, read the actions, and list the tools that they give.

    Status 1 if a server is down.
    """
    from aibridge.toolboxes import toolboxes_of  # noqa: PLC0415  heavy; the other commands do without

    configure_logging()
    toolboxes = toolboxes_of(_settings())
    for toolbox in toolboxes:
        toolbox.start()
    try:
        settled = [toolbox.wait_until_settled(SETTLE_SECONDS) for toolbox in toolboxes]
        found = sorted((tool for box in toolboxes for tool in box.tools()), key=lambda tool: tool.wire_name)
        status = {name: value for box in toolboxes for name, value in box.status().items()}
    finally:
        for toolbox in toolboxes:
            toolbox.close()
    down = {name: server["error"] for name, server in status.get("mcp_servers", {}).items() if "error" in server}
    if as_json:
        click.echo(_json({"tools": [_tool_values(tool) for tool in found], **status}))
    else:
        rows = [(tool.wire_name, tool.server, one_line(tool.description, DESCRIPTION_WIDTH)) for tool in found]
        _show_table(("tool", "server", "description"), rows, "no tools")
        for name, error in down.items():
            click.echo(f"MCP server {name} is down: {error}", err=True)
    sys.exit(bool(down) or not all(settled))


def _tool_values(tool: Tool) -> dict[str, Any]:
    fields = ("wire_name", "name", "server", "description", "schema")
    return {name: getattr(tool, name) for name in fields}


@main.group()
def actions() -> None:
    """Tools of your own, as Markdown files."""


@actions.command("check")
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(exists=True, file_okay=False))
@as_json
def check_actions(folder: str | None, as_json: bool) -> None:
    """Read the action files of DIR, or of actions.dir, and tell what is wrong with them."""
    configured = _settings().actions
    try:
        found = check_folder(configured, Path(folder or configured.dir))
    except OSError as error:
        raise click.ClickException(f"{folder or configured.dir} cannot be read: {error.strerror}") from None
    if as_json:
        click.echo(_json([_action_values(entry) for entry in found]))
    else:
        click.echo("\n".join(map(_action_line, found)) or "no action files")
    sys.exit(any(entry.problem for entry in found))


def _action_values(entry: Entry) -> dict[str, Any]:
    """What --json tells of a file; `line` and `problem` are null for a good one, the others for a bad one."""
    manifest = entry.action.manifest if entry.action else None
    return {
        "file": entry.file,
        "name": manifest and manifest.name,
        "kind": manifest and manifest.run.kind,
        "enabled": manifest and manifest.enabled,
        "line": entry.problem and entry.problem.line,
        "problem": entry.problem and entry.problem.message,
    }


def _action_line(entry: Entry) -> str:
    if entry.action is None:
        return one_line(str(entry.problem))
    manifest = entry.action.manifest
    return f"{entry.file}: ok, {manifest.name} ({manifest.run.kind}{'' if manifest.enabled else ', disabled'})"


def _settings() -> Settings:
    try:
        return Settings.load()
    except SettingsError as error:
        raise SettingsRefused(str(error)) from None


@contextmanager
def _database(settings: Settings, *, ready: bool = False) -> Iterator[Database]:
    """The database, whose failures end the command with status 1; `ready`: so does an old schema."""
    try:
        database = Database(settings.database.url)
        reasons = database.check() if ready else []
        if reasons:
            raise click.ClickException("\n".join(reasons))
        yield database
        database.dispose()
    except StorageError as error:
        raise click.ClickException(str(error)) from None


def _url(settings: Settings) -> str:
    host = settings.server.host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.server.port}"


def _name(value: str) -> str:
    """An actor's id as given; it must be one that a table can show."""
    if not value.strip() or not value.isprintable():
        raise click.BadParameter("must have visible characters only")
    return value.strip()


def _age(value: str | None) -> timedelta | None:
    if value is None:
        return None
    parsed = re.fullmatch(r"(\d{1,6})([wdhm])", value)
    if not parsed:
        raise click.BadParameter("must be a number and a unit (w, d, h or m), such as 60d")
    number, unit = parsed.groups()
    return timedelta(**{UNITS[unit]: int(number)})


def _since(value: str) -> datetime:
    """The time that an age or an ISO date stands for; without a zone it is UTC."""
    if re.fullmatch(r"\d+[a-z]", value):
        return _before_now(_age(value) or timedelta())
    try:
        given = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter("must be an age such as 7d or 24h, or an ISO date") from None
    return given if given.tzinfo else given.replace(tzinfo=UTC)


def _before_now(age: timedelta) -> datetime:
    """`age` ago; the beginning of time for ages beyond it."""
    try:
        return now() - age
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


def _show_progress(deleted: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"deleted {deleted} interceptions so far", err=True)


def _show_table(headers: Sequence[str], rows: Sequence[Sequence[Cell]], nothing: str) -> None:
    click.echo(table(headers, rows) if rows else nothing)


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def _csv(headers: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(headers)
    writer.writerows(rows)
    return text.getvalue()
