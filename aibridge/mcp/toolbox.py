"""The tools of all configured MCP servers as one Toolbox."""

import time
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import structlog

from aibridge import settings as configuration
from aibridge.interception.toolbox import CallContext, ToolFailed
from aibridge.mcp.connection import quiet_sdk
from aibridge.mcp.content import tool_result
from aibridge.mcp.portal import Abandoned, Portal, PortalClosed
from aibridge.mcp.server import Server
from aibridge.protocols.tools import Tool, ToolResult

_log = structlog.get_logger("aibridge.mcp")


class McpToolbox:
    """Connects in the background. May be built before a fork and started after it."""

    def __init__(self, servers: Sequence[configuration.McpServer], **timing: Any) -> None:
        """`timing`: see Server."""
        ordered = sorted(servers, key=lambda server: server.name)
        self._servers = [Server(server, self._merge, **timing) for server in ordered]
        self._portal = Portal()
        self._tools: tuple[Tool, ...] = ()
        self._collisions: set[tuple[str, str]] = set()

    def start(self) -> None:
        """Does not wait. Without servers it does nothing. Idempotent."""
        if self._servers and self._portal.start():
            quiet_sdk()
            for server in self._servers:
                self._portal.spawn(server.run)

    def close(self) -> None:
        """End the sessions and the children, within some 5 seconds. Idempotent."""
        for server in self._servers:
            server.stop()
        self._portal.close()

    def wait_until_settled(self, seconds: float) -> bool:
        """Whether every server has connected, or failed to once, within so many seconds."""
        deadline = time.monotonic() + seconds
        return all(server.settled.wait(max(0.0, deadline - time.monotonic())) for server in self._servers)

    def tools(self) -> Sequence[Tool]:
        return self._tools

    def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        server = next((server for server in self._servers if server.offers(tool)), None)
        if server is None:
            raise ToolFailed(f"no MCP server has a tool {tool.name}")
        what = f"tool {tool.name} on server {server.name}"
        seconds = max(0.0, context.deadline - time.monotonic())
        try:
            result = self._portal.run(
                server.call, tool.name, arguments, deadline=context.deadline, cancelled=context.cancelled
            )
        except TimeoutError:
            raise ToolFailed(f"{what} timed out after {seconds:.3g} s") from None
        except Abandoned:
            raise ToolFailed(f"{what} was cancelled") from None
        except PortalClosed:
            raise ToolFailed(f"server {server.name} is not connected") from None
        return tool_result(result)

    def status(self) -> Mapping[str, Any]:
        return {"mcp_servers": {server.name: _status(server) for server in self._servers}}

    def _merge(self) -> None:
        """On the loop's thread, whenever a server's tools change: `tools` then has nothing to do."""
        tools: dict[str, Tool] = {}
        collisions: set[tuple[str, str]] = set()
        for tool in chain.from_iterable(server.tools for server in self._servers):
            if tool.wire_name not in tools:
                tools[tool.wire_name] = tool
                continue
            collisions.add((tool.wire_name, tool.name))
            if (tool.wire_name, tool.name) not in self._collisions:
                _log.warning("MCP tool left out: its name is taken", tool=tool.name, wire_name=tool.wire_name)
        self._collisions = collisions
        self._tools = tuple(tools[name] for name in sorted(tools))


def _status(server: Server) -> dict[str, Any]:
    status: dict[str, Any] = {"connected": server.connected, "tools": len(server.tools)}
    return status if server.connected else status | {"error": server.error}
