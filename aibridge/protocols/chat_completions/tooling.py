"""Our tools in a Chat Completions request.

https://platform.openai.com/docs/guides/function-calling. Our tools go behind the client's, so that the beginning
of the prompt, which the provider caches, is the client's own.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from aibridge.protocols.chat_completions.composer import ChatComposer
from aibridge.protocols.chat_completions.payload import asks_for_usage
from aibridge.protocols.chat_completions.weaving import keys, spoken, trail, woven
from aibridge.protocols.editing import ObjectText, array, elements
from aibridge.protocols.interceptor import Declined, Payload, Tooling
from aibridge.protocols.reading import mapping, sequence, text
from aibridge.protocols.rounds import HiddenTurn, Round
from aibridge.protocols.tools import Tool

# https://platform.openai.com/docs/api-reference/chat/create#chat-create-tools
MOST_TOOLS = 128

_AUTO = b'"auto"'
_KINDS = ("function", "custom")


def client_tools(payload: Payload) -> frozenset[str]:
    return frozenset(name for name in map(text, _given_names(payload.data)) if name)


def _given_names(data: Mapping[str, Any]) -> Iterator[Any]:
    for tool in sequence(data.get("tools")):
        yield from (mapping(mapping(tool).get(kind)).get("name") for kind in _KINDS)
    for function in sequence(data.get("functions")):  # what tools were before there were others than functions
        yield mapping(function).get("name")


def declined(payload: Payload) -> Declined | None:
    if payload.data.get("tool_choice") == "none":
        return "tool_choice_none"
    answers = payload.data.get("n")
    return "several_answers" if isinstance(answers, int | float) and answers > 1 else None


def definition(tool: Tool) -> bytes:
    described = {"description": tool.description} if tool.description else {}
    function = {"name": tool.wire_name, **described, "parameters": tool.shown_schema()}
    return orjson.dumps({"type": "function", "function": function})


class ChatRequest:
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
        self._tools = array([*self._client_tools, *map(definition, tools)])
        self._given = elements(self._text.value("messages") or b"[]")
        self._messages = woven(self._given, recalled)

    def body(self, past: Sequence[Round] = (), *, last: bool = False) -> bytes:
        put: dict[str, bytes] = {}
        messages = [*self._messages, *(message for each in past for message in spoken(each))]
        if messages != self._given:
            put["messages"] = array(messages)
        if self._names:
            put |= self._with_tools(later=bool(past), last=last)
        return self._text.edited(put=put)

    def compose(self, *, event_stream: bool) -> ChatComposer:
        asks = asks_for_usage(self._payload)
        return ChatComposer(self._names, trail(self._payload), usage_asked=asks, event_stream=event_stream)

    def _with_tools(self, *, later: bool, last: bool) -> dict[str, bytes]:
        put: dict[str, bytes] = {}
        if not last or not self._client_tools:
            put["tools"] = self._tools
        if last and not self._client_tools:
            put["tool_choice"] = b'"none"'
        elif later:
            put |= self._relaxed_choice()
        if not self._parallel:
            put["parallel_tool_calls"] = b"false"
        return put

    def _relaxed_choice(self) -> dict[str, bytes]:
        """A forced choice holds in the first round only: it would have the model call for ever."""
        choice = self._payload.data.get("tool_choice")
        kind = mapping(choice).get("type")
        if choice == "required" or kind in _KINDS:
            return {"tool_choice": _AUTO}
        if kind == "allowed_tools" and mapping(mapping(choice).get(kind)).get("mode") == "required":
            written = ObjectText(self._text.value("tool_choice") or b"{}")
            allowed = ObjectText(written.value(kind) or b"{}").edited(put={"mode": _AUTO})
            return {"tool_choice": written.edited(put={kind: allowed})}
        return {}


TOOLING = Tooling(
    client_tools=client_tools,
    declined=declined,
    unsupported=lambda _: None,
    keys=keys,
    request=ChatRequest,
    most_tools=MOST_TOOLS,
)
