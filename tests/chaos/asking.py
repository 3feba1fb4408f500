"""What the clients ask, each question under a name of its own, and what became of it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.mcp.servers import ExampleServer
from tests.system.client import Exchange
from tests.system.gateway import ROOT, ROUTES, Gateway, two_vendors

# Without this at its end a stream is half an answer.
LAST = {"messages": b"message_stop", "chat_completions": b"[DONE]", "responses": b"response.completed"}
NOBODY = "nobody listened"  # so nobody can have heard the question
ACTION, MCP = "bact_shout", "bmcp_example_echo"
TOOLS: Sequence[Sequence[str]] = ((), (ACTION,), (MCP,), (ACTION, MCP))


def configuration(mcp: ExampleServer, provider: str = "") -> str:
    """A gateway for these questions, its tools on that MCP server; `provider` is added to both providers."""
    return f"""{two_vendors(provider)}
[actions]
dir = "{ROOT / "tests/system/actions"}"

[[mcp_servers]]
name = "example"
url = "{mcp.settings.url}"
"""


@dataclass(frozen=True)
class Question:
    """The `number`-th: each protocol, blocking and streaming, with and without tools comes up in turn."""

    number: int
    model: str = "m"
    more: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """Also its actor."""
        return f"chaos-{self.number}"

    @property
    def protocol(self) -> str:
        return list(ROUTES)[self.number % 3]

    @property
    def stream(self) -> bool:
        return self.number // 3 % 3 > 0

    @property
    def tools(self) -> Sequence[str]:
        return TOOLS[self.number // 9 % 4]

    def ask(self, gateway: Gateway) -> Exchange:
        """Raises OSError if there is nobody."""
        headers = [("X-User-ID", self.name), *self.headers]
        return gateway.post(json.dumps(self._body()).encode(), headers, ROUTES[self.protocol])

    def outcome(self, gateway: Gateway) -> str:
        try:
            with self.ask(gateway) as answer:
                return self._judged(answer.read())
        except ConnectionRefusedError:
            return NOBODY
        except OSError:
            return "unreachable"

    def _body(self) -> dict[str, Any]:
        prompt = " ".join((self.name, *(f"calls {tool}" for tool in self.tools), self.more))
        turns = [{"role": "user", "content": prompt}]
        body = {"model": self.model, "stream": self.stream}
        match self.protocol:
            case "messages":
                return body | {"max_tokens": 99, "messages": turns}
            case "chat_completions":
                return body | {"messages": turns}
        return body | {"input": turns}

    def _judged(self, answer: Exchange) -> str:
        if answer.status != 200:
            return f"refused with {answer.status}"
        if answer.ended != "clean":
            return "cut"
        if self.stream and LAST[self.protocol] not in answer.body:
            return "ended cleanly without its end" if b"error" not in answer.body else "cut"
        return "finished"
