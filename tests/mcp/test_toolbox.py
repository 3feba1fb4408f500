"""The toolbox over each transport, with the example server; see test_gevent.py for the same under gevent."""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event

import pytest

from aibridge.interception.toolbox import CallContext, ToolFailed
from aibridge.mcp.toolbox import McpToolbox
from aibridge.protocols.tools import Tool
from aibridge.settings import McpServer
from tests.mcp.servers import (
    STDIO,
    ExampleServer,
    call,
    eventually,
    free_port,
    running,
    text_of,
    tool_named,
)

STDIO_SERVER = McpServer(name="example", command=STDIO)
TOOLS = ["bmcp_example_add", "bmcp_example_clock", "bmcp_example_echo", "bmcp_example_fail", "bmcp_example_slow"]


@pytest.fixture(scope="module", params=["streamable-http", "sse", "stdio"])
def toolbox(request: pytest.FixtureRequest) -> Iterator[McpToolbox]:
    if request.param == "stdio":
        with running(STDIO_SERVER) as toolbox:
            yield toolbox
        return
    server = ExampleServer(request.param)
    server.start()
    try:
        with running(server.settings) as toolbox:
            yield toolbox
    finally:
        server.kill()


@pytest.fixture
def http_server() -> Iterator[ExampleServer]:
    server = ExampleServer("streamable-http")
    yield server
    server.kill()


def connected(toolbox: McpToolbox) -> bool:
    return bool(toolbox.status()["mcp_servers"]["example"]["connected"])


def test_its_tools_are_listed_and_run(toolbox: McpToolbox) -> None:
    assert [tool.wire_name for tool in toolbox.tools()] == TOOLS
    assert tool_named(toolbox, "add").schema["required"] == ["a", "b"]
    assert text_of(call(toolbox, "add", a=2, b=3)) == "5"
    assert toolbox.status() == {"mcp_servers": {"example": {"connected": True, "tools": 5}}}


def test_a_tool_may_say_that_it_failed(toolbox: McpToolbox) -> None:
    result = call(toolbox, "fail", reason="no wood")
    assert result.is_error
    assert "no wood" in text_of(result)
    assert call(toolbox, "add", a="x", b=1).is_error


def test_an_unknown_tool(toolbox: McpToolbox) -> None:
    gone = Tool("bmcp_example_gone", "gone", "", {}, "")
    with suppress(ToolFailed):  # some versions of the SDK's server say it this way
        assert call(toolbox, gone).is_error
    with pytest.raises(ToolFailed, match="no MCP server has a tool gone"):
        call(toolbox, Tool("bmcp_other_gone", "gone", "", {}, ""))


def test_slow_calls_hold_up_nobody(toolbox: McpToolbox) -> None:
    slow, echo = tool_named(toolbox, "slow"), tool_named(toolbox, "echo")
    with ThreadPoolExecutor(50) as pool:
        waiting = [pool.submit(call, toolbox, slow, seconds=10) for _ in range(0)]
        context = CallContext("ann", "i1", deadline=time.monotonic() + 10)
        waiting = [pool.submit(toolbox.call, slow, {"seconds": 1.5}, context) for _ in range(25)]
        quick = [pool.submit(toolbox.call, echo, {"text": str(number)}, context) for number in range(25)]
        assert [text_of(result.result()) for result in quick] == [str(number) for number in range(25)]
        assert not any(result.done() for result in waiting)
        assert {text_of(result.result()) for result in waiting} == {"waited 1.5 s"}


def test_a_call_ends_at_its_deadline_or_when_cancelled(toolbox: McpToolbox) -> None:
    slow, cancelled = tool_named(toolbox, "slow"), Event()
    before = time.monotonic()
    with pytest.raises(ToolFailed, match=r"tool slow on server example timed out after 0.2 s"):
        toolbox.call(slow, {"seconds": 20}, CallContext("ann", "i1", deadline=time.monotonic() + 0.2))
    threading.Timer(0.1, cancelled.set).start()
    with pytest.raises(ToolFailed, match="tool slow on server example was cancelled"):
        toolbox.call(
            slow, {"seconds": 20}, CallContext("ann", "i1", deadline=time.monotonic() + 9, cancelled=cancelled)
        )
    assert time.monotonic() - before < 8
    assert text_of(call(toolbox, "echo", text="still there")) == "still there"


def test_a_server_that_comes_late_is_found(http_server: ExampleServer) -> None:
    with running(http_server.settings, delays=lambda: iter([0.1] * 100)) as toolbox:
        assert toolbox.status()["mcp_servers"]["example"] == {
            "connected": False,
            "tools": 0,
            "error": "ConnectError: All connection attempts failed",
        }
        assert not toolbox.tools()
        with pytest.raises(ToolFailed, match="server example is not connected"):
            call(toolbox, Tool("bmcp_example_add", "add", "", {}, ""), a=1, b=2)
        http_server.start()
        eventually(lambda: connected(toolbox))
        assert text_of(call(toolbox, "add", a=1, b=2)) == "3"


@pytest.mark.parametrize("transport", ["streamable-http", "sse"])
def test_a_call_fails_at_once_when_its_server_dies(transport: str) -> None:
    server = ExampleServer(transport)
    server.start()
    try:
        with running(server.settings) as toolbox:
            context = CallContext("ann", "i1", deadline=time.monotonic() + 30)
            threading.Timer(0.2, server.kill).start()
            with pytest.raises(ToolFailed, match="the connection to server example was lost"):
                toolbox.call(tool_named(toolbox, "slow"), {"seconds": 20}, context)
            assert context.deadline - time.monotonic() > 28
            eventually(lambda: not connected(toolbox))
    finally:
        server.kill()


def test_killed_and_restarted_under_load(http_server: ExampleServer) -> None:
    """Every call ends soon, with a result or ToolFailed, and afterwards there are results again."""
    http_server.start()
    outcomes: list[str] = []
    slowest = [0.0]
    over = Event()

    def keep_calling(toolbox: McpToolbox, tool: Tool) -> None:
        while not over.is_set():
            before = time.monotonic()
            try:
                outcomes.append(text_of(call(toolbox, tool, text="fine")))
            except ToolFailed:
                outcomes.append("failed")
                over.wait(0.02)
            slowest[0] = max(slowest[0], time.monotonic() - before)

    with running(http_server.settings) as toolbox, ThreadPoolExecutor(10) as pool:
        try:
            echo = tool_named(toolbox, "echo")
            for _ in range(10):
                pool.submit(keep_calling, toolbox, echo)
            eventually(lambda: outcomes.count("fine") > 20)
            http_server.kill()
            eventually(lambda: "failed" in outcomes and not connected(toolbox))
            assert not toolbox.tools()
            http_server.start()
            eventually(lambda: connected(toolbox))
            before = outcomes.count("fine")
            eventually(lambda: outcomes.count("fine") > before + 20)
        finally:
            over.set()
    assert set(outcomes) == {"fine", "failed"}
    assert slowest[0] < 5


def test_without_servers_nothing_starts() -> None:
    before = threading.active_count()
    with running() as toolbox:
        assert threading.active_count() == before
        assert toolbox.status() == {"mcp_servers": {}}
        assert not toolbox.tools()


def test_it_may_be_built_before_a_fork_and_started_after_it(http_server: ExampleServer) -> None:
    http_server.start()
    toolbox = McpToolbox([http_server.settings])
    child = os.fork()
    if child == 0:
        code = 1
        try:
            toolbox.start()
            assert toolbox.wait_until_settled(5)
            assert text_of(call(toolbox, "add", a=1, b=1)) == "2"
            toolbox.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert not toolbox.tools()


def test_waiting_has_an_end() -> None:
    toolbox = McpToolbox([McpServer(name="example", url=f"http://127.0.0.1:{free_port()}/mcp")])
    assert not toolbox.wait_until_settled(0.01)
