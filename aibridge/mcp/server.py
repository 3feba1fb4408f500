"""One configured MCP server: kept connected, its tools known, its calls made. Runs on the portal's loop only.

A connection is good as long as `tools/list` answers: it is asked when the server tells of a change, when a call
failed in a way that makes one wonder, and otherwise every `interval` seconds. Any failure of it ends the
connection, which fails the calls that wait on it; then a new one is tried, again and again, ever more seldom.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from threading import Event
from typing import Any

import httpx2
import structlog
from mcp import Client, MCPError
from mcp_types import CONNECTION_CLOSED, INVALID_PARAMS, METHOD_NOT_FOUND, CallToolResult
from mcp_types import Tool as ListedTool
from pydantic import ValidationError

from aibridge.interception.toolbox import ToolFailed
from aibridge.mcp.catalogue import Catalogue
from aibridge.mcp.connection import Watch, connection
from aibridge.protocols.tools import Tool
from aibridge.settings import McpServer

INTERVAL = 30.0  # seconds between two listings when nothing happens
CONNECT_LIMIT = 30.0  # seconds for the connection, the handshake and the first listing
LIST_LIMIT = 10.0  # seconds for a later listing
MOST_TOOLS = 1000
MOST_PAGES = 100

# After these errors of a call nobody wonders whether the connection is still good.
_ABOUT_THE_CALL = frozenset({INVALID_PARAMS, METHOD_NOT_FOUND})

_log = structlog.get_logger("aibridge.mcp")


class ConnectionLost(Exception):
    """The server's side of the connection ended."""


def backoff(chance: Callable[[], float] = random.random) -> Iterator[float]:
    """Seconds to wait before each new attempt: 0.5, 1, 2 ... 30, each shortened by chance by up to a half."""
    delay = 0.5
    while True:
        yield delay * (0.5 + chance() / 2)
        delay = min(delay * 2, 30.0)


class Server:
    """`tools`, `error` and `settled` may be read from any thread; `changed` is called on the loop's.

    `error` says why it is not connected. `settled` is set once the first attempt to connect has ended, somehow.
    """

    def __init__(
        self,
        settings: McpServer,
        changed: Callable[[], None] = lambda: None,
        *,
        interval: float = INTERVAL,
        list_limit: float = LIST_LIMIT,
        delays: Callable[[], Iterator[float]] = backoff,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.name = settings.name
        self.tools: tuple[Tool, ...] = ()
        self.error = "not connected yet"
        self.settled = Event()
        self._settings = settings
        self._changed = changed
        self._interval = interval
        self._list_limit = list_limit
        self._delays = delays
        self._sleep = sleep
        self._catalogue = Catalogue(settings)
        self._left_out: dict[str, str] = {}
        self._client: Client | None = None
        self._watch = Watch()
        self._stopping = False
        self._lasted = False  # this attempt to connect led to a connection
        self._calls = 0
        self._log = _log.bind(server=settings.name)

    @property
    def connected(self) -> bool:
        return self._client is not None

    def offers(self, tool: Tool) -> bool:
        """Whether it is this server's. Where two servers give one wire name, the tools' own names differ."""
        return self._catalogue.wire_name(tool.name) == tool.wire_name

    def stop(self) -> None:
        """`run` shall end when it is cancelled next."""
        self._stopping = True

    async def run(self) -> None:
        """Until it is stopped and cancelled."""
        self._stopping = False
        delays = self._delays()
        while True:
            self._watch, self._lasted = Watch(), False
            try:
                await self._session(self._watch)
            except asyncio.CancelledError as cancelled:  # ours, or the SDK's own; it blurs which
                error = _reason(cancelled, self._watch)
            except Exception as failure:
                error = _reason(failure, self._watch)
            if self._stopping:
                return
            if self._lasted:
                delays = self._delays()
            self._disconnected(error)
            await self._sleep(next(delays))

    async def call(self, name: str, arguments: Mapping[str, Any]) -> CallToolResult:
        """Raises ToolFailed."""
        client, watch = self._client, self._watch
        if client is None:
            raise ToolFailed(f"server {self.name} is not connected")
        self._calls += 1
        try:
            return await client.call_tool(name, dict(arguments))
        except MCPError as error:
            if error.code not in _ABOUT_THE_CALL:
                watch.stir()
            lost = error.code == CONNECTION_CLOSED
            message = f"the connection to server {self.name} was lost" if lost else error.message
            raise ToolFailed(message) from error
        except ValidationError as error:
            raise ToolFailed(f"server {self.name} gave a result that cannot be read") from error
        except Exception as error:  # whatever the SDK raises when the session ends under a call
            watch.stir()
            raise ToolFailed(f"tool {name} on server {self.name} failed: {_reason(error, watch)}") from error
        finally:
            self._calls -= 1

    async def _session(self, watch: Watch) -> None:
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(CONNECT_LIMIT):
                client = await stack.enter_async_context(connection(self._settings, watch, self._catalogue.admit))
                tools = await self._listed(client)
            try:
                self._connected(client, tools)
                await self._keep(client, watch)
            finally:  # before the connection is closed, which may take seconds
                self._client = None
                self.error = "the connection ended"
                self._take(())

    async def _keep(self, client: Client, watch: Watch) -> None:
        while not watch.ended:
            await watch.wait(self._interval)
            if not watch.ended:
                await self._refresh(client)
        raise ConnectionLost("the connection ended")

    async def _refresh(self, client: Client) -> None:
        try:
            async with asyncio.timeout(self._list_limit):
                tools = await self._listed(client)
        except TimeoutError:
            if self._calls:  # a server that does one thing at a time is busy, not dead; the call has its own limit
                return
            raise
        if tools != self.tools:
            before, after = ({tool.name for tool in some} for some in (self.tools, tools))
            self._log.info("MCP tools changed", added=sorted(after - before), removed=sorted(before - after))
            self._take(tools)

    async def _listed(self, client: Client) -> tuple[Tool, ...]:
        listed: list[ListedTool] = []
        cursor = None
        for _ in range(MOST_PAGES):
            page = await client.list_tools(cursor=cursor)
            listed += page.tools
            cursor = page.next_cursor
            if not cursor or len(listed) > MOST_TOOLS:
                break
        tools = self._catalogue.tools(listed[:MOST_TOOLS])
        left_out = dict(self._catalogue.left_out)
        if cursor or len(listed) > MOST_TOOLS:
            left_out["..."] = f"only {MOST_TOOLS} tools or {MOST_PAGES} pages are read"
        if left_out and left_out != self._left_out:
            self._log.warning("MCP tools left out", tools=left_out)
        self._left_out = left_out
        return tools

    def _connected(self, client: Client, tools: tuple[Tool, ...]) -> None:
        self._client = client
        self._lasted = True
        self.error = ""
        self._take(tools)
        self._log.info("MCP server connected", tools=len(tools), protocol=client.protocol_version)
        self.settled.set()

    def _disconnected(self, error: str) -> None:
        if self._lasted:
            self._log.warning("MCP server lost", error=error)
        elif not self.settled.is_set():
            self._log.warning("MCP server cannot be reached", error=error)
        else:
            self._log.debug("MCP server cannot be reached", error=error)
        self.error = error
        self.settled.set()

    def _take(self, tools: tuple[Tool, ...]) -> None:
        self.tools = tools
        self._changed()


def _reason(error: BaseException, watch: Watch) -> str:
    """In one line, without what may be secret: URLs of HTTP errors may hold a key in their query."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    match error:
        case httpx2.HTTPStatusError():
            return f"HTTP {error.response.status_code}"
        case MCPError() if watch.http_error:
            return f"{error.message} (HTTP {watch.http_error})"
        case asyncio.CancelledError():
            return "the connection was cancelled"
        case TimeoutError():
            return "it did not answer in time"
        case MCPError() | ConnectionLost() | OSError():
            return str(error)
    return f"{type(error).__name__}: {error}"
