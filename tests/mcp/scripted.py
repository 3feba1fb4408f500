"""An MCP server of the handshake era over streamable HTTP, written out so that it may also misbehave."""

import asyncio
from typing import Any
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send


def listed(name: str, **others: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object"}, **others}


class ScriptedServer:
    """`pages` are what tools/list gives; methods in `silent` are never answered; `status` answers everything."""

    def __init__(self, *pages: list[Any]) -> None:
        self.pages = list(pages)
        self.silent: set[str] = set()
        self.status = 0
        self.endless = False
        self.sessions: set[str] = set()
        self.deleted: list[str] = []
        self.methods: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.clients: list[Any] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        request = Request(scope, receive)
        self.headers.append(dict(request.headers))
        response = await self._answer(request)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if self.status:
            return Response(status_code=self.status)
        if request.method == "DELETE":
            self.deleted.append(request.headers["mcp-session-id"])
            return Response()
        if request.method != "POST":
            return Response(status_code=405)
        message = await request.json()
        self.methods.append(message["method"])
        if "id" not in message:
            return Response(status_code=202)
        return await self._reply(message, request.headers.get("mcp-session-id", ""))

    async def _reply(self, message: dict[str, Any], session: str) -> Response:
        method, parameters = message["method"], message.get("params", {})
        if method in self.silent:
            await asyncio.Event().wait()
        if method == "initialize":
            self.clients.append(parameters["clientInfo"])
            session = uuid4().hex
            self.sessions.add(session)
            about = {"name": "scripted", "version": "1"}
            hello = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": about}
            return _result(message, hello, {"mcp-session-id": session})
        if method == "server/discover":
            return _error(message, -32601, "Method not found")
        if session not in self.sessions:
            return Response(status_code=404)
        if method == "tools/list":
            return _result(message, self._page(int(parameters.get("cursor", 0))))
        return _called(message, parameters["name"], parameters["arguments"])

    def _page(self, number: int) -> dict[str, Any]:
        page: dict[str, Any] = {"tools": [] if self.endless else self.pages[number]}
        if self.endless or number + 1 < len(self.pages):
            page["nextCursor"] = str(number + 1)
        return page


def _called(message: dict[str, Any], name: str, arguments: Any) -> Response:
    if name == "mistaken":
        return _error(message, -32602, "Unknown tool: mistaken")
    if name == "strange":
        return _result(message, {"content": "not a list"})
    return _result(message, {"content": [{"type": "text", "text": str(arguments)}]})


def _result(message: dict[str, Any], result: Any, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"jsonrpc": "2.0", "id": message["id"], "result": result}, headers=headers)


def _error(message: dict[str, Any], code: int, text: str) -> Response:
    error = {"code": code, "message": text}
    return JSONResponse({"jsonrpc": "2.0", "id": message["id"], "error": error})
