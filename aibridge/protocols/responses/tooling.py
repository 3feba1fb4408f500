"""Our tools in an OpenAI Responses request.

https://platform.openai.com/docs/api-reference/responses/create. Our tools go after the client's. The next round
repeats the whole input with what came of it, also after a `previous_response_id`, which stays: each round goes on
from where the client's request did. Only to a `conversation` the provider itself appends what it was sent and what
it said.
"""

from collections.abc import Mapping, Sequence

import orjson

from aibridge.protocols.editing import ObjectText, array, elements
from aibridge.protocols.interceptor import Declined, Payload, Tooling
from aibridge.protocols.reading import mapping, sequence, text
from aibridge.protocols.responses.composer import ResponsesComposer
from aibridge.protocols.responses.weaving import held, keys, resumed, spoken, trail, woven
from aibridge.protocols.rounds import HiddenTurn, Round
from aibridge.protocols.tools import Tool

MOST_TOOLS = 128


def client_tools(payload: Payload) -> frozenset[str]:
    """Tools may be grouped in a namespace."""
    tools = [mapping(tool) for tool in sequence(payload.data.get("tools"))]
    grouped = [mapping(tool) for group in tools for tool in sequence(group.get("tools"))]
    return frozenset(text(tool.get("name")) for tool in (*tools, *grouped))


def declined(payload: Payload) -> Declined | None:
    return "tool_choice_none" if payload.data.get("tool_choice") == "none" else None


def unsupported(payload: Payload) -> str | None:
    """A response in the background goes on without us."""
    if payload.data.get("background") is not True:
        return None
    return "background responses are not supported while the gateway adds tools"


def definition(tool: Tool) -> bytes:
    """`strict` is true unless it says otherwise, and then few schemas are taken."""
    described = {"description": tool.description} if tool.description else {}
    named = {"type": "function", "name": tool.wire_name, **described}
    return orjson.dumps({**named, "parameters": tool.shown_schema(), "strict": False})


class ResponsesRequest:
    """A client's request with our tools in it."""

    def __init__(
        self, payload: Payload, tools: Sequence[Tool], recalled: Mapping[str, HiddenTurn], parallel: bool
    ) -> None:
        self._payload = payload
        self._text = ObjectText(payload.body)
        self._names = frozenset(tool.wire_name for tool in tools)
        self._client_tools = elements(self._given("tools", b"[]"))
        self._tools = array([*self._client_tools, *map(definition, tools)])
        self._client_input = _items(self._given("input", b"[]"))
        self._input = woven(payload, self._client_input, recalled)
        self._put: dict[str, bytes] = {}  # in every round
        if tools and not parallel and payload.data.get("parallel_tool_calls") is not False:
            self._put["parallel_tool_calls"] = b"false"
        self._go_on(held(payload, recalled))

    def body(self, past: Sequence[Round] = (), *, last: bool = False) -> bytes:
        put = dict(self._put)
        items = self._items_after(past)
        if items != self._client_input:
            put["input"] = array(items)
        if self._names:
            put |= self._with_tools(later=bool(past), last=last)
        return self._text.edited(put=put)

    def compose(self, *, event_stream: bool) -> ResponsesComposer:
        defaults = {"parallel_tool_calls": b"true", "previous_response_id": b"null"}
        given = {name: self._given(name, defaults[name]) for name in self._put}
        return ResponsesComposer(
            self._names,
            trail(self._payload),
            given={**given, "tool_choice": self._given("tool_choice", b'"auto"')},
            stored=self._payload.data.get("store") is not False,
            event_stream=event_stream,
        )

    def _given(self, name: str, default: bytes) -> bytes:
        """What the client gave, as it wrote it."""
        value = self._text.value(name) or b"null"
        return default if value == b"null" else value

    def _go_on(self, turn: HiddenTurn | None) -> None:
        """From the real end of the answer that the provider holds. The client knows it by its first response, and
        could only answer its own calls."""
        if turn is None:
            return
        if self._payload.data.get("previous_response_id") and turn.response_id:
            self._put["previous_response_id"] = orjson.dumps(turn.response_id)
        if turn.mixed:
            self._input = resumed(self._input, turn.rounds[-1])

    def _items_after(self, past: Sequence[Round]) -> list[bytes]:
        if past and self._payload.data.get("conversation") is not None:
            return list(past[-1].results)
        return [*self._input, *(each for one in past for each in spoken(one))]

    def _with_tools(self, *, later: bool, last: bool) -> dict[str, bytes]:
        put = {"tools": self._tools} if not last or not self._client_tools else {}
        choice = self._tool_choice(later=later, last=last)
        return put if choice is None else put | {"tool_choice": choice}

    def _tool_choice(self, *, later: bool, last: bool) -> bytes | None:
        """What stands in place of the client's choice, None: it stays. A forced choice holds in the first round
        only: it would have the model call for ever."""
        if last and not self._client_tools:
            return b'"none"'
        given = self._payload.data.get("tool_choice")
        if not later or (given != "required" and not isinstance(given, dict)):
            return None
        if mapping(given).get("type") != "allowed_tools":
            return b'"auto"'
        if mapping(given).get("mode") != "required":
            return None
        return ObjectText(self._given("tool_choice", b"{}")).edited(put={"mode": b'"auto"'})


def _items(given: bytes) -> list[bytes]:
    """An input that is a text is short for one message."""
    return [b'{"role":"user","content":%b}' % given] if given.startswith(b'"') else elements(given)


TOOLING = Tooling(
    client_tools=client_tools,
    declined=declined,
    unsupported=unsupported,
    keys=keys,
    request=ResponsesRequest,
    most_tools=MOST_TOOLS,
)
