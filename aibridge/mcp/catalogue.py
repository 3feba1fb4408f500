"""Which of the tools that an MCP server lists are offered, and how they look. Pure, but for what it remembers.

A provider refuses the whole request when one tool's schema is wrong, and the SDK refuses the whole listing when
one tool is malformed. So a raw listing first goes through `admit`, before the SDK sees it; `tools` makes ours of
what is left.
"""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import mcp_types
from jsonschema import Draft202012Validator, SchemaError
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from aibridge.interception.toolbox import wire_name
from aibridge.protocols.tools import Tool
from aibridge.settings import McpServer

WIRE_PREFIX = "bmcp"

LONGEST_PAGE = 2000  # tools of one page that are looked at; `server.py` takes fewer and says so
LONGEST_NAME = 256  # characters
LARGEST_TOOL = 128 * 1024  # bytes of what is used of one, as JSON: a context window is not much larger
LONGEST_REASON = 200  # characters

# What of a listed tool is used. The rest (titles, icons, output schemas ...) need not be right then.
_USED = ("name", "description", "inputSchema")


def place(server: McpServer) -> str:
    """Where its tools run, as it is recorded: a URL without anything that may be secret, or `stdio:NAME`."""
    if server.url is None:
        return f"stdio:{server.name}"
    url = urlsplit(server.url)
    return url._replace(netloc=url.netloc.rpartition("@")[2], query="", fragment="").geturl()


class Catalogue:
    """The tools of one server. `left_out`: raw name -> why it is not offered, as of the last listing.

    Schemas are checked once: a check takes some 2 ms, and listings come again and again.
    """

    def __init__(self, server: McpServer) -> None:
        self._server = server
        self._place = place(server)
        self._verdicts: dict[str, tuple[Any, str]] = {}
        self._listed: dict[str, tuple[Any, str]] = {}
        self.left_out: dict[str, str] = {}

    def admit(self, page: Iterable[Any]) -> list[dict[str, Any]]:
        """The tools of a raw page that are wanted and sound, with what is used of them only."""
        return [used for tool in islice(page, LONGEST_PAGE) if (used := self._admitted(tool)) is not None]

    def tools(self, listed: Iterable[mcp_types.Tool]) -> tuple[Tool, ...]:
        """Ours, by name, of the pages since the last time. Of two with one wire name the first is kept."""
        self._verdicts, self._listed = self._listed, {}
        self.left_out = {name: reason for name, (_, reason) in self._verdicts.items() if reason}
        tools: dict[str, Tool] = {}
        for tool in sorted(listed, key=lambda tool: tool.name):
            ours = self._tool(tool)
            if ours.wire_name not in tools:
                tools[ours.wire_name] = ours
            elif tools[ours.wire_name].name != ours.name:
                self.left_out[tool.name] = f"another tool is called {ours.wire_name}, too"
        return tuple(tools.values())

    def wire_name(self, tool_name: str) -> str:
        return wire_name(WIRE_PREFIX, self._server.name, tool_name)

    def _admitted(self, tool: Any) -> dict[str, Any] | None:
        if not isinstance(tool, dict) or not isinstance(tool.get("name"), str) or not self._wanted(tool["name"]):
            return None
        used = {key: tool[key] for key in _USED if key in tool}
        name, schema = tool["name"][:LONGEST_NAME], tool.get("inputSchema")
        if len(tool["name"]) > LONGEST_NAME or len(json.dumps(used)) > LARGEST_TOOL:
            self._listed[name] = (object(), f"it is larger than {LARGEST_TOOL} bytes, or its name too long")
            return None
        known = self._verdicts.get(name)
        reason = known[1] if known is not None and known[0] == schema else what_is_wrong(schema)[:LONGEST_REASON]
        self._listed[name] = (schema, reason)
        if reason:
            return None
        if not isinstance(used.get("description"), str):
            used.pop("description", None)
        return used | {"inputSchema": {"type": "object", **tool["inputSchema"]}}

    def _wanted(self, name: str) -> bool:
        if self._server.deny and re.search(self._server.deny, name):
            return False
        return not self._server.allow or re.search(self._server.allow, name) is not None

    def _tool(self, tool: mcp_types.Tool) -> Tool:
        return Tool(
            wire_name=self.wire_name(tool.name),
            name=tool.name,
            description=tool.description or "",
            schema=tool.input_schema,
            server=self._place,
        )


def what_is_wrong(schema: Any) -> str:
    """Why this cannot be the schema of a tool's arguments; empty if it can. A missing type means an object."""
    if not isinstance(schema, dict):
        return "its input schema is missing"
    if schema.get("type", "object") != "object":
        return "its input schema is not of an object"
    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
    except SchemaError as error:
        return f"its input schema is invalid: {error.message}"
    if not isinstance(schema.get("$schema", ""), str):
        return "its $schema is not text"
    try:
        resolver = Registry().resolver_with_root(DRAFT202012.create_resource(schema))
        for reference in _references(schema):
            resolver.lookup(reference)
    except Unresolvable as error:
        return f"its input schema refers to {error.ref}, which is not in it"
    return ""


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        schema = list(schema.values())
    if isinstance(schema, list):
        for value in schema:
            yield from _references(value)
