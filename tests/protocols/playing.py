"""Plays a request with tools through a protocol's machines, as the loop does, without a provider or a tool."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aibridge.protocols.interceptor import WireProtocol
from aibridge.protocols.rounds import Composer, HiddenTurn, Round, Turn
from aibridge.protocols.tools import Text, Tool, ToolCall, ToolResult

SCHEMA = {"type": "object", "properties": {"city": {"$ref": "#/$defs/c"}}, "$defs": {"c": {"type": "string"}}}
FORECAST = Tool("bmcp_weather_forecast", "forecast", "The weather to come.", SCHEMA, "http://weather.test/mcp")
CLOCK = Tool("bact_clock", "clock", "", {"type": "object", "properties": {}}, "action:clock")
TOOLS = (CLOCK, FORECAST)

Cut = Callable[[bytes], Sequence[bytes]]


def answered(call: ToolCall) -> ToolResult:
    return ToolResult((Text(f"result of {call.id}"),))


@dataclass
class Played:
    """`client` is what the client got, `bodies` what the provider was asked, `turns` how the rounds ended."""

    client: bytes
    bodies: list[bytes]
    turns: list[Turn]
    past: list[Round]
    composer: Composer
    hidden: HiddenTurn | None = field(init=False)

    def __post_init__(self) -> None:
        mixed = len(self.past) == len(self.turns)  # a round with results is the last one only then
        self.hidden = HiddenTurn(tuple(self.past), mixed, self.composer.response_id) if self.past else None

    @property
    def questions(self) -> list[Any]:
        return [json.loads(body) for body in self.bodies]

    def remembered(self) -> dict[str, HiddenTurn]:
        return dict.fromkeys(self.composer.keys(), self.hidden) if self.hidden else {}


def play(
    protocol: WireProtocol,
    body: bytes,
    answers: Sequence[bytes],
    *,
    stream: bool,
    cut: Cut = lambda answer: [answer],
    tools: Sequence[Tool] = TOOLS,
    results: Callable[[ToolCall], ToolResult] = answered,
    recalled: Mapping[str, HiddenTurn] | None = None,
    parallel: bool = True,
    rounds: int = 10,
) -> Played:
    """`answers` are what the provider says, round by round; of `rounds` the last one may not call tools."""
    request = protocol.tooling.request(protocol.parse(body), tools, recalled or {}, parallel)
    composer = request.compose(event_stream=stream)
    past: list[Round] = []
    bodies, turns, client = [], [], b""
    for number, answer in enumerate(answers, 1):
        bodies.append(request.body(past, last=number == rounds))
        client += b"".join(composer.feed(chunk) for chunk in cut(answer))
        turns.append(composer.turn())
        if not turns[-1].calls or turns[-1].cut or number == rounds:
            break
        past.append(composer.round([(call, results(call)) for call in turns[-1].calls]))
        if turns[-1].mixed:
            break
    return Played(client + composer.finish(), bodies, turns, past, composer)
