"""Our tools in an Anthropic Messages request.

https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/implement-tool-use. Our tools go before the client's,
so that the cache breakpoints which the client has set on its own tools stay at the end of what is cached.
"""

from collections.abc import Mapping, Sequence

import orjson

from aibridge.protocols.editing import ObjectText, array, elements
from aibridge.protocols.interceptor import Declined, Payload, Tooling
from aibridge.protocols.messages.composer import MessagesComposer
from aibridge.protocols.messages.weaving import keys, spoken, trail, woven
from aibridge.protocols.reading import mapping, sequence, text
from aibridge.protocols.rounds import HiddenTurn, Round
from aibridge.protocols.tools import Tool

_FORCED = ("any", "tool")


def client_tools(payload: Payload) -> frozenset[str]:
    return frozenset(text(mapping(tool).get("name")) for tool in sequence(payload.data.get("tools")))


def declined(payload: Payload) -> Declined | None:
    if mapping(payload.data.get("tool_choice")).get("type") == "none":
        return "tool_choice_none"
    return "continued" if payload.data.get("thread") is not None else None


def definition(tool: Tool) -> bytes:
    described = {"description": tool.description} if tool.description else {}
    return orjson.dumps({"name": tool.wire_name, **described, "input_schema": tool.shown_schema()})


class MessagesRequest:
    """A client's request with our tools in it."""

    def __init__(
        self, payload: Payload, tools: Sequence[Tool], recalled: Mapping[str, HiddenTurn], parallel: bool
    ) -> None:
        self._payload = payload
        self._text = ObjectText(payload.body)
        self._names = frozenset(tool.wire_name for tool in tools)
        self._parallel = parallel
        given = self._text.value("tools") or b"null"
        self._client_tools = [] if given == b"null" else elements(given)
        self._tools = array([*map(definition, tools), *self._client_tools])
        self._given = elements(self._text.value("messages") or b"[]")
        # The API wants tools where there are calls.
        self._messages = woven(self._given, recalled) if tools or self._client_tools else self._given

    def body(self, past: Sequence[Round] = (), *, last: bool = False) -> bytes:
        put: dict[str, bytes] = {}
        messages = [*self._messages, *(message for each in past for message in spoken(each))]
        if messages != self._given:
            put["messages"] = array(messages)
        if self._names:
            put |= self._with_tools(later=bool(past), last=last)
        return self._text.edited(put=put)

    def compose(self, *, event_stream: bool) -> MessagesComposer:
        return MessagesComposer(self._names, trail(self._payload), event_stream=event_stream)

    def _with_tools(self, *, later: bool, last: bool) -> dict[str, bytes]:
        put = {"tools": self._tools} if not last or not self._client_tools else {}
        choice = self._tool_choice(later=later, last=last)
        return put if choice is None else put | {"tool_choice": choice}

    def _tool_choice(self, *, later: bool, last: bool) -> bytes | None:
        """What stands in place of the client's choice, None: it stays. A forced choice holds in the first round
        only: it would have the model call for ever."""
        if last and not self._client_tools:
            return b'{"type":"none"}'
        given = self._payload.data.get("tool_choice")
        if not isinstance(given, dict | None):
            return None  # nonsense, which the provider will refuse as it is
        choice = given or {"type": "auto"}
        if later and choice.get("type") in _FORCED:
            choice = {**choice, "type": "auto"}
            choice.pop("name", None)
        if not self._parallel and choice.get("type") in (*_FORCED, "auto"):
            choice = {**choice, "disable_parallel_tool_use": True}
        return orjson.dumps(choice) if choice != (given or {"type": "auto"}) else None


TOOLING = Tooling(
    client_tools=client_tools, declined=declined, unsupported=lambda _: None, keys=keys, request=MessagesRequest
)
