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


class Server:
    """A new server on a free port of 127.0.0.1, not started yet. It refuses to run as root, so then as somebody
    else."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._owner = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
        self._data = tempfile.mkdtemp(prefix="aibridge-postgresql-")
        os.chown(self._data, self._owner.pw_uid, self._owner.pw_gid)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"postgresql://postgres@127.0.0.1:{self._port}/postgres"
        self._run("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -c port={self._port} -c unix_socket_directories={self._data}"
        self._run("pg_ctl", "-w", "-l", f"{self._data}/log", "-o", f"{options} -c fsync=off", "start")

    def stop(self) -> None:
        """As a crash would: without saying good-bye to anybody."""
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")

    def remove(self) -> None:
        shutil.rmtree(self._data)

    def _run(self, program: str, *arguments: str) -> None:
        command = (str(self._folder / program), "-D", self._data, *arguments)
        if os.getuid() == 0:
            ids = (f"--reuid={self._owner.pw_uid}", f"--regid={self._owner.pw_gid}")
            command = ("setpriv", *ids, "--clear-groups", *command)
        subprocess.run(command, cwd=self._data, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def running_server(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    try:
        server.start()
        yield server
        server.stop()
    finally:
        server.remove()


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
