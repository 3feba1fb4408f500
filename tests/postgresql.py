"""A PostgreSQL server of the tests' own, where its programs are installed."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from sqlalchemy import create_engine, make_url, text

from aibridge.settings import Database as DatabaseSettings


def programs() -> Path | None:
    """The folder of initdb and pg_ctl, which distributions keep off the PATH; None if there is none."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")]
    on_path = shutil.which("pg_ctl")
    if on_path:
        found.insert(0, Path(on_path).resolve().parent)
    return found[0] if found else None


@contextmanager
def running_server(folder: Path) -> Iterator[str]:
    """The URL of a new server on a free port of 127.0.0.1. It refuses to run as root, so then as somebody else."""
    owner = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    data = tempfile.mkdtemp(prefix="aibridge-postgresql-")
    os.chown(data, owner.pw_uid, owner.pw_gid)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def run(program: str, *arguments: str) -> None:
        command = (str(folder / program), "-D", data, *arguments)
        if os.getuid() == 0:
            command = ("setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups", *command)
        subprocess.run(command, cwd=data, check=True, stdout=subprocess.DEVNULL)

    try:
        run("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={data} -c fsync=off"
        run("pg_ctl", "-w", "-l", f"{data}/log", "-o", options, "start")
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "-w", "-m", "immediate", "stop")
        shutil.rmtree(data)


@contextmanager
def fresh_schema(server: str) -> Iterator[str]:
    """A database URL, in SQLAlchemy's spelling, that leads into an empty schema of its own."""
    url = make_url(DatabaseSettings(url=server).url)
    schema = f"test_{uuid4().hex}"
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    yield url.update_query_dict({"options": f"-csearch_path={schema}"}).render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    engine.dispose()
