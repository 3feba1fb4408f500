"""Servers that are children of ours, over standard input and output."""

import os
import sys
import time
from pathlib import Path

import pytest

from aibridge.mcp.toolbox import McpToolbox
from aibridge.settings import McpServer
from tests.mcp.servers import STDIO, call, eventually, running, text_of

STDIO_SERVER = McpServer(name="example", command=STDIO)


def test_a_program_that_does_not_exist_or_ends_at_once() -> None:
    servers = [
        McpServer(name="missing", command=("/nonexistent/program",)),
        McpServer(name="short", command=("true",)),
    ]
    with running(*servers) as toolbox:
        status = toolbox.status()["mcp_servers"]
        assert "No such file" in status["missing"]["error"]
        assert status["short"]["error"] == "Connection closed"


def test_a_killed_child_is_started_again() -> None:
    with running(STDIO_SERVER) as toolbox:
        (child,) = _children()
        os.kill(child, 9)
        eventually(lambda: toolbox.tools() and set(_children()) - {child})
        assert text_of(call(toolbox, "echo", text="again")) == "again"
    assert not _children()


def _children() -> list[int]:
    """Processes of ours that run the example over stdio."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            line = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == os.getpid() and b"--stdio" in line:
            found.append(int(process.name))
    return found


def test_a_child_gets_its_environment_and_little_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OUR_SECRET", "x")
    told = tmp_path / "environment"
    program = f"import os; open({str(told)!r}, 'w').write(repr(dict(os.environ)))"
    server = McpServer.model_validate(
        {"name": "example", "command": [sys.executable, "-c", program], "env": {"ITS_SECRET": "y"}}
    )
    with running(server):
        environment = told.read_text()
    assert "ITS_SECRET" in environment
    assert "PATH" in environment
    assert "OUR_SECRET" not in environment


def test_a_child_is_not_kept_to_the_workers_core(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cores = os.sched_getaffinity(0)
    monkeypatch.setattr("aibridge.cores._process.kept_to", min(cores))
    told = tmp_path / "cores"
    program = f"import os; open({str(told)!r}, 'w').write(str(len(os.sched_getaffinity(0))))"
    os.sched_setaffinity(0, {min(cores)})  # threads start where their maker is
    try:
        with running(McpServer(name="example", command=(sys.executable, "-c", program))):
            assert told.read_text() == str(len(cores))
    finally:
        os.sched_setaffinity(0, cores)


def test_a_stubborn_child_does_not_hold_up_the_end() -> None:
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    toolbox = McpToolbox([McpServer(name="example", command=(sys.executable, "-c", program, "--stdio"))])
    toolbox.start()
    eventually(_children)
    before = time.monotonic()
    toolbox.close()
    toolbox.close()
    assert time.monotonic() - before < 6
    eventually(lambda: not _children())
