"""An MCP server to try the gateway's tools with. It speaks streamable HTTP, or `--sse`, or `--stdio`.

python examples/mcp_server.py --port 8765

[[mcp_servers]]
name = "example"
url = "http://127.0.0.1:8765/mcp"
"""

import argparse
import asyncio
import datetime

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("example", version="1", log_level="WARNING")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


@server.tool()
def echo(text: str) -> str:
    """Give the text back."""
    return text


@server.tool()
def clock() -> str:
    """The time now, in UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@server.tool()
async def slow(seconds: float) -> str:
    """Answer after so many seconds."""
    await asyncio.sleep(seconds)
    return f"waited {seconds:g} s"


@server.tool()
def fail(reason: str) -> str:
    """Fail for the reason given."""
    raise ToolError(reason)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8765, help="port on 127.0.0.1")
    transport = parser.add_mutually_exclusive_group()
    transport.add_argument("--sse", action="store_true", help="server-sent events at /sse, the older transport")
    transport.add_argument("--stdio", action="store_true", help="standard input and output")
    arguments = parser.parse_args()
    if arguments.stdio:
        server.run("stdio")
    elif arguments.sse:
        server.run("sse", port=arguments.port)
    else:
        server.run("streamable-http", port=arguments.port)
