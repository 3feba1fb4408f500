"""One server: how it is connected, asked, watched and found again."""

import asyncio
from collections.abc import Iterator
from itertools import islice
from threading import Event
from typing import Any

import pytest
import structlog
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from aibridge import __version__
from aibridge.interception.toolbox import ToolFailed
from aibridge.mcp.server import backoff
from aibridge.mcp.toolbox import McpToolbox
from aibridge.settings import McpServer
from tests.mcp.scripted import ScriptedServer, listed
from tests.mcp.servers import call, eventually, running, serving, text_of, tool_named


def settings(url: str, **others: Any) -> McpServer:
    return McpServer.model_validate({"name": "s", "url": f"{url}/mcp", **others})


def names(toolbox: McpToolbox) -> list[str]:
    return [tool.name for tool in toolbox.tools()]


def status(toolbox: McpToolbox) -> dict[str, Any]:
    found: dict[str, Any] = toolbox.status()["mcp_servers"]["s"]
    return found


def connected(toolbox: McpToolbox) -> bool:
    return bool(status(toolbox)["connected"])


@pytest.fixture
def scripted() -> ScriptedServer:
    return ScriptedServer([listed("one"), listed("mistaken"), listed("strange")])


@pytest.fixture
def url(scripted: ScriptedServer) -> Iterator[str]:
    with serving(scripted) as url:
        yield url


def test_the_delays_double_up_to_half_a_minute() -> None:
    assert list(islice(backoff(lambda: 1.0), 8)) == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert list(islice(backoff(lambda: 0.0), 3)) == [0.25, 0.5, 1]


def test_who_we_are_and_the_configured_headers_are_sent(scripted: ScriptedServer, url: str) -> None:
    with running(settings(url, headers={"Authorization": "Bearer secret"})) as toolbox:
        call(toolbox, "one")
    assert {headers.get("authorization") for headers in scripted.headers} == {"Bearer secret"}
    assert scripted.clients == [{"name": "aibridge", "version": __version__}]


def test_a_session_is_ended_with_the_toolbox(scripted: ScriptedServer, url: str) -> None:
    with running(settings(url)) as toolbox:
        assert not scripted.deleted
        toolbox.close()
        assert set(scripted.deleted) == scripted.sessions
        assert status(toolbox) == {"connected": False, "tools": 0, "error": "the connection ended"}


def test_all_pages_are_read(scripted: ScriptedServer, url: str) -> None:
    scripted.pages = [[listed("b")], [], [listed("a"), listed("c")]]
    with running(settings(url)) as toolbox:
        assert names(toolbox) == ["a", "b", "c"]


def test_a_listing_without_an_end_is_cut(scripted: ScriptedServer, url: str) -> None:
    scripted.endless = True
    with structlog.testing.capture_logs() as logs, running(settings(url)) as toolbox:
        assert connected(toolbox)
        assert scripted.methods.count("tools/list") == 100
    assert any("only 1000 tools" in str(line) for line in logs)


def test_more_tools_than_a_thousand_are_cut(scripted: ScriptedServer, url: str) -> None:
    scripted.pages = [[listed(f"{letter}{number}") for number in range(600)] for letter in "tu"]
    with running(settings(url)) as toolbox:
        assert len(names(toolbox)) == 1000


def test_bad_tools_are_left_out_and_told_once(scripted: ScriptedServer, url: str) -> None:
    scripted.pages = [[listed("good"), {"name": "bad", "inputSchema": {"type": "array"}}, 7]]
    with structlog.testing.capture_logs() as logs, running(settings(url), interval=0.05) as toolbox:
        assert names(toolbox) == ["good"]
        eventually(lambda: scripted.methods.count("tools/list") > 3)
    assert [line["tools"] for line in logs if line["event"] == "MCP tools left out"] == [
        {"bad": "its input schema is not of an object"}
    ]


def test_errors_of_the_protocol_fail_the_call(scripted: ScriptedServer, url: str) -> None:
    with running(settings(url)) as toolbox:
        with pytest.raises(ToolFailed, match="Unknown tool: mistaken"):
            call(toolbox, "mistaken")
        with pytest.raises(ToolFailed, match="cannot be read"):
            call(toolbox, "strange")
        assert text_of(call(toolbox, "one", a=1)) == "{'a': 1}"


def test_a_forgotten_session_is_replaced(scripted: ScriptedServer, url: str) -> None:
    with running(settings(url), interval=60) as toolbox:
        tool = tool_named(toolbox, "one")
        scripted.sessions.clear()
        with pytest.raises(ToolFailed, match="Session terminated"):
            call(toolbox, tool)
        eventually(lambda: scripted.methods.count("initialize") == 2 and connected(toolbox))
        assert text_of(call(toolbox, tool, a=1)) == "{'a': 1}"


def test_a_server_that_stops_answering_is_noticed_while_idle(scripted: ScriptedServer, url: str) -> None:
    with running(settings(url), interval=0.05, list_limit=0.2) as toolbox:
        scripted.silent = {"tools/list", "initialize"}
        eventually(lambda: not connected(toolbox))
        assert not toolbox.tools()
        scripted.silent = set()
        scripted.status = 503
        eventually(lambda: status(toolbox).get("error") == "Server returned an error response (HTTP 503)")
        scripted.status = 0
        eventually(lambda: connected(toolbox))


def test_a_server_that_is_busy_with_a_call_is_not_dead(scripted: ScriptedServer, url: str) -> None:
    with running(settings(url), interval=0.02, list_limit=0.05) as toolbox:
        scripted.silent = {"tools/list", "tools/call"}
        before = scripted.methods.count("tools/list")
        with pytest.raises(ToolFailed, match=r"tool one on server s timed out after 0\.[45]\d* s"):
            call(toolbox, "one", seconds=0.5)
        assert scripted.methods.count("tools/list") > before + 1
        assert scripted.methods.count("initialize") == 1


def test_what_is_wrong_is_told_once_and_without_secrets(scripted: ScriptedServer, url: str) -> None:
    scripted.status = 401
    tries = Event()

    async def sleep(_: float) -> None:
        if len(scripted.headers) > 6:
            tries.set()
            await asyncio.Event().wait()

    with structlog.testing.capture_logs() as logs:
        server = settings(url, headers={"X-Key": "hidden"}).model_copy(update={"url": f"{url}/mcp?key=hidden"})
        with running(server, sleep=sleep) as toolbox:
            assert tries.wait(5)
            assert status(toolbox)["error"] == "Server returned an error response (HTTP 401)"
    assert [line["log_level"] for line in logs][:3] == ["warning", "debug", "debug"]
    assert "hidden" not in str(logs)


def growing() -> MCPServer:
    """A server with a tool that adds another tool and tells everybody."""
    server = MCPServer("growing", log_level="CRITICAL")

    @server.tool()
    async def grow(ctx: Context) -> str:
        server.add_tool(lambda: "here", name="grown", description="")
        await ctx.notify_tools_changed()
        await ctx.session.send_tool_list_changed()
        return "done"

    return server


def legacy(app: ASGIApp) -> ASGIApp:
    """Without the protocol of 2026: the client then shakes hands as before."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if (b"mcp-method", b"server/discover") in scope.get("headers", ()):
            await Response(status_code=404)(scope, receive, send)
        else:
            await app(scope, receive, send)

    return answer


@pytest.mark.parametrize("old", [False, True])
def test_changed_tools_are_noticed_when_the_server_tells(old: bool) -> None:
    app = growing().streamable_http_app()
    with serving(legacy(app) if old else app) as url, running(settings(url), interval=60) as toolbox:
        assert names(toolbox) == ["grow"]
        # Again and again: nothing tells when the stream for notifications is open.
        eventually(lambda: text_of(call(toolbox, "grow")) == "done" and names(toolbox) == ["grow", "grown"])
        assert text_of(call(toolbox, "grown")) == "here"


def test_two_servers_with_one_wire_name() -> None:
    first, second = ScriptedServer([listed("b_c")]), ScriptedServer([listed("c"), listed("d")])
    with serving(first) as first_url, serving(second) as second_url:
        servers = [settings(second_url, name="a_b"), settings(first_url, name="a")]
        with structlog.testing.capture_logs() as logs, running(*servers) as toolbox:
            assert [(tool.wire_name, tool.name) for tool in toolbox.tools()] == [
                ("bmcp_a_b_c", "b_c"),
                ("bmcp_a_b_d", "d"),
            ]
            call(toolbox, "b_c")
            call(toolbox, "d")
    assert (first.methods.count("tools/call"), second.methods.count("tools/call")) == (1, 1)
    assert sum("its name is taken" in line["event"] for line in logs) == 1
