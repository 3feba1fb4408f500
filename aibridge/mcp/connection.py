"""One connection to an MCP server through the official SDK: which transport, what is watched on it, its end."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Any, Self

import httpx2
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp.client import IncomingMessage, Transport
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from mcp.shared.message import SessionMessage
from mcp_types import Implementation, JSONRPCResponse, ToolListChangedNotification

from aibridge import __version__
from aibridge.cores import all_cores
from aibridge.settings import McpServer

DELETE_LIMIT = 2.0  # seconds that the server gets to answer the end of a session
LISTEN_AGAIN = 1.0  # seconds until a lost subscription is opened again

# Calls are bounded by their own deadlines, and a dead server is found by asking it: a silent or a busy connection
# is no error here. A timeout of the pool would end the session of all calls.
_TIMEOUT = httpx2.Timeout(30.0, read=None, pool=None)
_LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=20)

Admit = Callable[[list[Any]], list[Any]]


def quiet_sdk() -> None:
    """What the SDK logs with tracebacks also reaches us as an exception, and is told once, in one line."""
    logging.getLogger("mcp").setLevel(logging.CRITICAL)
    logging.getLogger("client").setLevel(logging.CRITICAL)  # its sessions' logger has this name
    logging.getLogger("httpx2").setLevel(logging.WARNING)


class Watch:
    """What happens on a connection, for whoever keeps it: `stir` when it should be looked at, `ended` when it is
    certainly over, `http_error` the last HTTP status of 400 or more, which the SDK does not tell."""

    def __init__(self) -> None:
        self._stirred = asyncio.Event()
        self.ended = False
        self.http_error: int | None = None

    def stir(self) -> None:
        self._stirred.set()

    def end(self) -> None:
        self.ended = True
        self._stirred.set()

    async def wait(self, seconds: float) -> None:
        """Until something happens, or so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stirred.wait()
        self._stirred.clear()


@asynccontextmanager
async def connection(server: McpServer, watch: Watch, admit: Admit) -> AsyncIterator[Client]:
    """An initialized session. `admit` sees the raw tools of each listing first and gives those that count."""

    async def notice(message: IncomingMessage) -> None:
        if isinstance(message, ToolListChangedNotification):
            watch.stir()

    client = Client(
        _watched(_transport(server, watch), watch, admit),
        client_info=Implementation(name="aibridge", version=__version__),
        message_handler=notice,
        cache=None,
    )
    async with client, _listening(client, watch):
        yield client


@asynccontextmanager
async def _listening(client: Client, watch: Watch) -> AsyncIterator[None]:
    task = asyncio.create_task(_listen(client, watch))
    try:
        yield
    finally:
        task.cancel()


async def _listen(client: Client, watch: Watch) -> None:
    """Servers of 2026-07-28 tell of changes only to those who subscribe; others refuse, and that is that."""
    with suppress(ListenNotSupportedError, MCPError):
        while True:
            with suppress(SubscriptionLost):
                async with client.listen(tools_list_changed=True) as events:
                    async for _ in events:
                        watch.stir()
            watch.stir()
            await asyncio.sleep(LISTEN_AGAIN)


def _transport(server: McpServer, watch: Watch) -> Transport:
    if server.url is None:
        return _stdio(server)
    if server.transport == "sse":
        return sse_client(server.url, httpx_client_factory=partial(_http_client, server, watch))
    return _streamable_http(server.url, _http_client(server, watch))


@asynccontextmanager
async def _stdio(server: McpServer) -> AsyncIterator[Any]:
    parameters = StdioServerParameters(
        command=server.command[0],
        args=list(server.command[1:]),
        env={name: value.get_secret_value() for name, value in server.env.items()},
    )
    async with AsyncExitStack() as stack:
        with all_cores():
            streams = await stack.enter_async_context(stdio_client(parameters, errlog=sys.stderr))
        yield streams


def _http_client(
    server: McpServer,
    watch: Watch,
    headers: object = None,
    timeout: object = None,
    auth: object = None,
) -> httpx2.AsyncClient:
    """The last three are what the SDK would ask for; it gets ours."""

    async def notice(response: httpx2.Response) -> None:
        watch.http_error = response.status_code if response.status_code >= 400 else None

    return httpx2.AsyncClient(
        headers={name: value.get_secret_value() for name, value in server.headers.items()},
        timeout=_TIMEOUT,
        limits=_LIMITS,
        event_hooks={"response": [notice]},
    )


@asynccontextmanager
async def _streamable_http(url: str, http_client: httpx2.AsyncClient) -> AsyncIterator[Any]:
    async with http_client, streamable_http_client(url, http_client=http_client) as streams:
        try:
            yield streams
        finally:
            http_client.timeout = httpx2.Timeout(DELETE_LIMIT)


@asynccontextmanager
async def _watched(transport: AbstractAsyncContextManager[Any], watch: Watch, admit: Admit) -> AsyncIterator[Any]:
    async with transport as (incoming, outgoing):
        yield _WatchedStream(incoming, watch, admit), outgoing


class _WatchedStream:
    """The server's messages on their way to the SDK: tells when they end, and lets `admit` at the listings."""

    def __init__(self, stream: Any, watch: Watch, admit: Admit) -> None:
        self._stream = stream
        self._watch = watch
        self._admit = admit

    @property
    def last_context(self) -> Any:
        """The SDK asks for the sender's context variables under this name."""
        return getattr(self._stream, "last_context", None)

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            message: SessionMessage | Exception = await anext(self._stream)
        except StopAsyncIteration:
            self._watch.end()
            raise
        if isinstance(message, SessionMessage) and isinstance(message.message, JSONRPCResponse):
            result = message.message.result
            if isinstance(result.get("tools"), list):
                result["tools"] = self._admit(result["tools"])
        return message

    async def receive(self) -> SessionMessage | Exception:
        return await anext(self)

    async def aclose(self) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
