"""MCP servers for the tests: the example as a process of its own, others in this one. On 127.0.0.1 only."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any, Self

import uvicorn

from aibridge.interception.toolbox import CallContext
from aibridge.mcp.toolbox import McpToolbox
from aibridge.protocols.tools import Text, Tool, ToolResult
from aibridge.settings import McpServer

EXAMPLE = str(Path(__file__).parents[2] / "examples" / "mcp_server.py")

STDIO = (sys.executable, EXAMPLE, "--stdio")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def eventually(true: Callable[[], Any], seconds: float = 20) -> None:
    """Wait until it is so; fail if it never is."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


class ExampleServer:
    """examples/mcp_server.py on a port of its own; may be killed and started again."""

    def __init__(self, transport: str) -> None:
        self.port = free_port()
        self._options = ["--sse"] if transport == "sse" else []
        self.settings = McpServer.model_validate(
            {
                "name": "example",
                "url": f"http://127.0.0.1:{self.port}/{'sse' if transport == 'sse' else 'mcp'}",
                "transport": transport,
            }
        )
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self, *, wait: bool = True) -> None:
        self._process = subprocess.Popen(
            [sys.executable, EXAMPLE, "--port", str(self.port), *self._options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        if wait:
            eventually(lambda: _answers(self.port))

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """An ASGI application in this process. Gives `http://127.0.0.1:PORT`."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    eventually(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(5)


@contextmanager
def running(*servers: McpServer, settled: bool = True, **timing: Any) -> Iterator[McpToolbox]:
    toolbox = McpToolbox(servers, **timing)
    toolbox.start()
    try:
        assert not settled or toolbox.wait_until_settled(20)
        yield toolbox
    finally:
        toolbox.close()


def tool_named(toolbox: McpToolbox, name: str) -> Tool:
    return next(tool for tool in toolbox.tools() if tool.name == name)


def call(
    toolbox: McpToolbox, tool: Tool | str, seconds: float = 10, cancelled: Event | None = None, **arguments: Any
) -> ToolResult:
    context = CallContext("ann", "i1", deadline=time.monotonic() + seconds, cancelled=cancelled or Event())
    return toolbox.call(tool_named(toolbox, tool) if isinstance(tool, str) else tool, arguments, context)


def text_of(result: ToolResult) -> str:
    return "\n".join(part.text for part in result.parts if isinstance(part, Text))
