"""The gateway as a user starts it: a process of its own, set up by file and environment, rows read from SQLite."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.fake_provider import FakeProvider
from tests.system.client import DEADLINE, Exchange, HeaderList, eventually

ROOT = Path(__file__).resolve().parents[2]

PING_INTERVAL = 0.3
CENTRAL_KEY = "sk-ant-central-0123456789abcdef"
MESSAGES = "/anthropic/v1/messages"
ROUTES = {  # where there are `two_vendors`
    "messages": MESSAGES,
    "chat_completions": "/openai/v1/chat/completions",
    "responses": "/openai/v1/responses",
}

# Other variables that the SDKs and HTTP libraries read by themselves: none may change a request to the provider.
LEAK = "leaked-from-the-environment"
STRAY = {
    "ANTHROPIC_AUTH_TOKEN": LEAK,
    "ANTHROPIC_CUSTOM_HEADERS": f"X-Stray: {LEAK}",
    "OPENAI_ORG_ID": LEAK,
}

Row = dict[str, Any]


@dataclass(frozen=True)
class Setup:
    """How a gateway is configured. `toml` may hold {url} for its fake provider's address.

    Without a provider in it there is an Anthropic one that never asks twice, with a key if `central`. If
    `conventional`, it comes from the conventional variables: ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY.
    """

    toml: str = ""
    central: bool = True
    conventional: bool = False
    environment: tuple[tuple[str, str], ...] = ()
    command: tuple[str, ...] = (sys.executable, "-m", "aibridge", "serve")
    # wsgi.py and gunicorn.conf.py are found in the working directory, as on a PaaS
    in_root: bool = False


OWN_KEYS = """
[[providers]]
name = "anthropic"
type = "anthropic"
base_url = "{url}"
retry = { max_retries = 0 }
"""
CENTRAL = f'{OWN_KEYS}keys = ["env:ANTHROPIC_API_KEY"]\n'

DEFAULT = Setup()
# for tests of silence; elsewhere a ping on a slow machine would only disturb
QUICK_PINGS = Setup(environment=(("AIBRIDGE_SERVER_PING_INTERVAL", str(PING_INTERVAL)),))
# For tests that need streams without threads, whatever the suite is run with.
RELAYED = (("AIBRIDGE_SERVER_RELAY", "true"), ("AIBRIDGE_UPSTREAM_TRANSPORT", "own"))

# Providers of several kinds behind one gateway.
SEVERAL = Setup(
    """
[[providers]]
name = "acme"
type = "anthropic"
base_url = "{url}/tenant/a"
keys = ["sk-ant-acme"]
actor_headers = { id = "X-Acme-User" }

[[providers]]
name = "down"
type = "anthropic"
base_url = "http://127.0.0.1:1"
keys = ["sk-ant-down"]
retry = { max_retries = 0 }

[[providers]]
name = "impatient"
type = "anthropic"
base_url = "{url}"
keys = ["sk-ant-impatient"]
read_timeout = 0.7
"""
)
# Little is allowed here.
STRICT = Setup(environment=(("AIBRIDGE_SERVER_BODY_LIMIT", "2000"), ("AIBRIDGE_AUTH_ALLOW_BYOK", "false")))


def two_vendors(more: str = "") -> str:
    """The providers of a gateway that is asked in every protocol; `more` is added to both."""
    return f"""
[[providers]]
name = "anthropic"
type = "anthropic"
base_url = "{{url}}"
keys = ["sk-ant-central"]
{more}

[[providers]]
name = "openai"
type = "openai"
base_url = "{{url}}/v1"
keys = ["sk-central-openai"]
{more}
"""


@dataclass
class Recorded:
    """All rows of one interception."""

    interception: Row
    tokens: list[Row] = field(default_factory=list)
    prompts: list[Row] = field(default_factory=list)
    tools: list[Row] = field(default_factory=list)
    thoughts: list[Row] = field(default_factory=list)

    @property
    def metadata(self) -> dict[str, Any]:
        return json.loads(self.interception["metadata"] or "{}") or {}


class Gateway:
    """A running gateway with its own fake provider, database and log."""

    def __init__(self, setup: Setup, worker_class: str, folder: Path) -> None:
        self.setup = setup
        self.folder = folder
        self.database = folder / "aibridge.db"
        self.log = folder / "gateway.log"
        self.provider = FakeProvider()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = self._variables(worker_class)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.provider.close()

    def _variables(self, worker_class: str) -> dict[str, str]:
        # AIBRIDGE_SERVER_RELAY=false or AIBRIDGE_UPSTREAM_TRANSPORT=httpx2: the whole suite can be run with other
        # settings than the defaults.
        others = ("AIBRIDGE_SERVER_RELAY", "AIBRIDGE_UPSTREAM_TRANSPORT")
        known = ("PATH", "LANG", "LC_ALL", "TMPDIR", *others)
        kept = {name: value for name, value in os.environ.items() if name in known}
        netrc = self.folder / "netrc"
        netrc.write_text(f"machine 127.0.0.1 login stray password {LEAK}\n")
        netrc.chmod(0o600)
        config = self.folder / "aibridge.toml"
        named = "[[providers]]" in self.setup.toml or self.setup.conventional
        toml = self.setup.toml if named else self.setup.toml + (CENTRAL if self.setup.central else OWN_KEYS)
        config.write_text(toml.replace("{url}", self.provider.url))
        conventional = {"ANTHROPIC_BASE_URL": self.provider.url} if self.setup.conventional else {}
        if self.setup.central and "[[providers]]" not in self.setup.toml:
            conventional["ANTHROPIC_API_KEY"] = CENTRAL_KEY
        return {
            **kept,
            **STRAY,
            **conventional,
            "HOME": str(self.folder),
            "NETRC": str(netrc),
            "PYTHONPATH": str(ROOT),
            "AIBRIDGE_CONFIG": str(config),
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "DATABASE_URL": f"sqlite:///{self.database}",
            "AIBRIDGE_SERVER_WORKER_CLASS": worker_class,
            "AIBRIDGE_RECORDING_SPOOL_DIR": str(self.folder / "spool"),
            **dict(self.setup.environment),
        }

    # --- the process ---------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        self.launch()
        self.wait_until_ready()
        return self

    def launch(self) -> "subprocess.Popen[bytes]":
        """Start the process without waiting for it."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.setup.command,
                cwd=ROOT if self.setup.in_root else self.folder,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self._process

    def wait_until_ready(self, within: float = 30.0) -> None:
        end = time.monotonic() + within
        while not self.is_ready():
            assert self._process
            if self._process.poll() is not None:
                raise AssertionError(
                    f"the gateway ended with status {self._process.returncode}\n{self.log_text()}"
                )
            if time.monotonic() > end:
                raise AssertionError(f"the gateway is not ready after {within} s\n{self.log_text()}")
            time.sleep(0.05)

    def is_ready(self) -> bool:
        try:
            with self.get("/readyz") as answer:
                return answer.read().status == 200
        except OSError:
            return False

    def signal(self, number: int) -> None:
        """Send a signal to the gateway's first process."""
        os.kill(self.pid, number)

    def wait(self, within: float = DEADLINE) -> int:
        """Wait for the process to end by itself; its exit status."""
        assert self._process
        return self._process.wait(within)

    def stop(self) -> int:
        """Stop as an operator would; the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """kill -9 of every process of the gateway."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """A command of the gateway's own (`aibridge tokens create ...`) with the same settings."""
        return subprocess.run(
            (sys.executable, "-m", "aibridge", *arguments),
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def worker_pids(self) -> list[int]:
        """The worker processes, as gunicorn has them now."""
        return children(self.pid)

    def memory(self) -> int:
        """The largest peak of resident memory, in bytes, among the gateway's processes."""
        return max(_peak_memory(pid) for pid in _family(self.pid))

    # --- requests ------------------------------------------------------------------------------------------------

    def get(self, target: str, headers: HeaderList = ()) -> Exchange:
        return Exchange.open(self.url, "GET", target, headers)

    def request(self, method: str, target: str, headers: HeaderList = (), body: bytes | None = None) -> Exchange:
        return Exchange.open(self.url, method, target, headers, body)

    def post(self, body: bytes, headers: HeaderList = (), target: str = MESSAGES) -> Exchange:
        """A Messages request; the answer is read by the caller."""
        return Exchange.open(self.url, "POST", target, [("Content-Type", "application/json"), *headers], body)

    # --- rows ----------------------------------------------------------------------------------------------------

    def rows(self, table: str, **where: Any) -> list[Row]:
        """The rows of `aibridge_{table}` as they are committed now."""
        condition = " AND ".join(f"{name} = ?" for name in where) or "1"
        with closing(self.connect(read_only=True)) as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute(f"SELECT * FROM aibridge_{table} WHERE {condition}", tuple(where.values()))
            return [dict(row) for row in found]

    def connect(self, *, read_only: bool = False) -> sqlite3.Connection:
        mode = "ro" if read_only else "rw"
        return sqlite3.connect(f"file:{self.database}?mode={mode}", uri=True, timeout=10, isolation_level=None)

    @contextmanager
    def without_table(self, name: str) -> Iterator[None]:
        """Every write to that table fails at once while this lasts."""
        with closing(self.connect()) as connection:
            connection.execute(f"ALTER TABLE aibridge_{name} RENAME TO set_aside")
            try:
                yield
            finally:
                connection.execute(f"ALTER TABLE set_aside RENAME TO aibridge_{name}")

    @contextmanager
    def locked_database(self) -> Iterator[None]:
        """Nobody else can write to the database while this lasts."""
        with closing(self.connect()) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            try:
                yield
            finally:
                connection.execute("ROLLBACK")

    def recorded(self, interception_id: str) -> Recorded:
        """Everything recorded of one interception, without waiting."""
        (interception,) = self.rows("interceptions", id=interception_id)
        tables = ("token_usages", "user_prompts", "tool_usages", "model_thoughts")
        return Recorded(interception, *(self.rows(table, interception_id=interception_id) for table in tables))

    def recorded_for(self, actor: str, within: float = DEADLINE) -> Recorded:
        """Everything recorded of the one interception of `actor`, once it has ended."""

        def ended() -> list[Row]:
            return [row for row in self.rows("interceptions", initiator_id=actor) if row["ended_at"]]

        (row,) = eventually(ended, within)
        return self.recorded(row["id"])


def metadata(row: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(row["metadata"] or "{}") or {}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _family(pid: int) -> list[int]:
    return [pid, *(member for child in children(pid) for member in _family(child))]


def _peak_memory(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found.group(1)) * 1024 if found else 0
