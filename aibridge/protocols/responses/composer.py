"""The machine that makes one Responses answer of several rounds, without our tools' calls in it.

States of an answer: not begun; in a round; between rounds, with the round's terminal event withheld; ended.

- Of the events that announce a response only the first round's go out; the answer bears that response's id.
- An output item that calls one of our tools is withheld with every event of it. Places of the others go on where
  the round before ended. Events are numbered anew once one is missing.
- The terminal event of a round with such a call is withheld until it is known whether another round follows. The
  one that goes out has the items of all rounds and the sum of their usage.
- A response object echoes the request: what we have changed there reads as the client gave it.
- Everything else goes on as it came. As long as there is nothing to hide, bytes and numbers are the provider's.

A body that comes whole is one response object: it is held, and the answer is the last one, edited like the one in
a terminal event.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from aibridge.protocols.editing import ObjectText, array, elements
from aibridge.protocols.reading import dumped, mapping, parsed_object, text
from aibridge.protocols.responses.weaving import REASONING, Item, answer_key, item, response_key
from aibridge.protocols.rounds import Round, Turn, summed
from aibridge.protocols.sse import Event, Splitter, encode, event_in
from aibridge.protocols.tools import ToolCall, ToolResult

_ANNOUNCING = ("response.created", "response.queued", "response.in_progress")
_TERMINAL = ("response.completed", "response.incomplete", "response.failed")
_ITEMS = ("response.output_item.added", "response.output_item.done")

# States of a response after which a call is either not whole or not meant to be run.
_CUT = ("incomplete", "failed")

# Some servers end a stream as Chat Completions does, and SDKs read no further.
_DONE = b"[DONE]"


class ResponsesComposer:
    """A `rounds.Composer`. `ours` are the wire names of our tools, `asked` is what the answer answers, `given`
    what the client gave for the members of the request that we change. `stored`: the provider keeps the
    response."""

    def __init__(
        self, ours: frozenset[str], asked: str, *, given: Mapping[str, bytes], stored: bool, event_stream: bool
    ) -> None:
        self._ours = ours
        self._asked = asked
        self._echoes = dict(given)
        self._stored = stored
        self._splitter = Splitter() if event_stream else None
        self._ended = False
        self._later = False  # this is not the first round
        self._shown: list[Item] = []  # of the rounds before this one
        self._usages: list[dict[str, Any]] = []  # of the rounds before this one
        self._first_id = ""
        self._first_place = 0  # of this round's items in the answer
        self._next_place = 0
        self._number = -1  # of the last event that went out
        self._renumbers = False
        self._begin_round()

    def _begin_round(self) -> None:
        self._id = ""
        self._status = ""
        self._whole = False  # the round has come to its own end
        self._usage: dict[str, Any] = {}
        self._first_place = self._next_place
        self._places: dict[int, int] = {}
        self._hidden: set[Any] = set()
        self._index_of_id: dict[str, Any] = {}
        self._streamed: dict[Any, Item] = {}  # by their index, or by their id where they have none
        self._listed: list[Item] = []  # by the response itself
        self._body = b""  # of an answer that comes whole
        self._withheld: tuple[bytes, Event, dict[str, Any]] | None = None
        self._after_end = b""

    @property
    def response_id(self) -> str:
        return self._id

    @property
    def ended(self) -> bool:
        return self._ended

    @property
    def empty(self) -> bool:
        return not self._visible()

    def feed(self, chunk: bytes) -> bytes:
        if self._splitter is None:
            self._body += chunk
            return b""
        return b"".join([self._shown_of(written) for written in self._splitter.feed(chunk)])

    def turn(self) -> Turn:
        if self._splitter is None:
            self._read_body()
        calls = [_call(each) for each in self._output() if self._is_ours(each)]
        return Turn(tuple(calls), mixed=bool(self._client_calls()), cut=not self._whole or self._status in _CUT)

    def round(self, results: Sequence[tuple[ToolCall, ToolResult]]) -> Round:
        said = array(self._as_input(each) for each in self._output() if self._can_be_sent(each))
        done = Round(said, tuple(_rendered(call, result) for call, result in results))
        if not self._client_calls():
            self._shown = self._visible()
            self._usages.append(self._usage)
            self._later = True
            self._begin_round()
            if self._splitter is not None:
                self._splitter.rest()  # half an event is none, nor the beginning of the next round's first
        return done

    def finish(self) -> bytes:
        self._ended = True
        if self._splitter is None:
            return self._composed_body()
        end = b""
        if self._withheld is not None:
            written, event, data = self._withheld
            end = self._sent(written, event, data, self._with_response(event, terminal=True))
        return end + self._after_end + self._splitter.rest()

    def keys(self) -> tuple[str, ...]:
        said = "".join(each.said for each in self._visible())
        key = answer_key(self._asked, self._client_calls(), said)
        return (*([key] if key else ()), *([response_key(self._first_id)] if self._first_id else ()))

    def _output(self) -> list[Item]:
        """The round's items. The response may leave them out after they were streamed."""
        return self._listed or list(self._streamed.values())

    def _visible(self) -> list[Item]:
        return [*self._shown, *(each for each in self._output() if not self._is_ours(each))]

    def _hides(self) -> bool:
        return any(map(self._is_ours, self._output()))

    def _is_ours(self, each: Item) -> bool:
        """Whether it is a tool of ours, or a call of one."""
        return each.type in ("function", "function_call") and text(each.data.get("name")) in self._ours

    def _client_calls(self) -> list[str]:
        """A call that the output itself answers was run by the provider."""
        output = self._output()
        known = {"", *(each.answers for each in output)}
        return [each.calls for each in output if each.calls not in known and not self._is_ours(each)]

    def _can_be_sent(self, each: Item) -> bool:
        """The provider looks up what a reasoning item holds, unless it is encrypted in it."""
        return self._stored or each.type != REASONING or bool(each.data.get("encrypted_content"))

    def _as_input(self, each: Item) -> bytes:
        """A request may only hold an object as the arguments of a call."""
        if not self._is_ours(each) or _is_object(each.data.get("arguments")):
            return each.written
        arguments = _call(each).arguments.encode()
        whole = arguments if parsed_object(arguments) is not None else b"{}"
        return ObjectText(each.written).edited(put={"arguments": orjson.dumps(whole.decode())})

    def _shown_of(self, written: bytes) -> bytes:
        event = event_in(written)
        data = parsed_object(event.data) if event else None
        if event is None or data is None:
            return self._without_event(written, event)
        try:
            return self._understood(written, event, data)
        except ValueError:  # too deep for an edit
            return written

    def _without_event(self, written: bytes, event: Event | None) -> bytes:
        """Comments and garbage go on, but nothing may end the stream before its time."""
        if event is None or event.data.strip() != _DONE or self._withheld is None:
            return written
        self._after_end += written
        return b""

    def _understood(self, written: bytes, event: Event, data: dict[str, Any]) -> bytes:
        kind = text(data.get("type")) or event.name
        if kind == "error":
            return written
        if isinstance(data.get("response"), dict):
            return self._of_response(kind, written, event, data)
        index = self._index(data)
        if kind in _ITEMS and isinstance(data.get("item"), dict) and index != "":
            self._take_item(index, ObjectText(event.data).value("item") or b"", data["item"])
        if index in self._hidden:
            return self._dropped()
        put = {}
        if isinstance(index, int) and "output_index" in data and self._place(index) != index:
            put["output_index"] = b"%d" % self._place(index)
        return self._sent(written, event, data, put)

    def _index(self, data: dict[str, Any]) -> Any:
        """The item that an event is about. Some servers give their items other ids in each event, so these count
        only where there is no index."""
        index = data.get("output_index")
        if isinstance(index, int):
            return index
        known = text(data.get("item_id")) or text(mapping(data.get("item")).get("id"))
        return self._index_of_id.get(known, known)

    def _place(self, index: int) -> int:
        """Providers may skip indexes, so places keep their distance except for what is hidden."""
        return self._places.get(index, self._first_place + index - len(self._hidden))

    def _take_item(self, index: Any, written: bytes, data: dict[str, Any]) -> None:
        each = Item(written, data)
        if index not in self._streamed and self._is_ours(each):
            self._hidden.add(index)
        elif index not in self._streamed and isinstance(index, int):
            self._places[index] = self._place(index)
            self._next_place = max(self._next_place, self._places[index] + 1)
        if data.get("id"):
            self._index_of_id[text(data["id"])] = index
        self._streamed[index] = each

    def _of_response(self, kind: str, written: bytes, event: Event, data: dict[str, Any]) -> bytes:
        terminal = kind in _TERMINAL
        response = ObjectText(ObjectText(event.data).value("response") or b"")
        self._take_response(data["response"], response, terminal=terminal)
        if self._later and kind in _ANNOUNCING:
            return self._dropped()
        if terminal and self._hides():
            self._withheld = (written, event, data)
            return b""
        self._ended = self._ended or terminal
        return self._sent(written, event, data, self._with_response(event, terminal=terminal))

    def _take_response(self, response: dict[str, Any], written: ObjectText, *, terminal: bool) -> None:
        self._id = text(response.get("id")) or self._id
        self._first_id = self._first_id or self._id
        self._status = text(response.get("status")) or self._status
        self._usage = mapping(response.get("usage"))
        self._whole = self._whole or terminal
        if terminal and isinstance(response.get("output"), list):
            self._listed = [item(each) for each in elements(written.value("output") or b"")]
        # Of a choice that we did not change the provider's spelling counts. "none" is never the client's: such a
        # request gets no tools.
        if not self._later and response.get("tool_choice") not in (None, "none"):
            self._echoes["tool_choice"] = written.value("tool_choice") or b""

    def _with_response(self, event: Event, *, terminal: bool) -> dict[str, bytes]:
        """What has to change in an event that holds a response."""
        response = ObjectText(ObjectText(event.data).value("response") or b"")
        put = self._changes(response, terminal=terminal)
        return {"response": response.edited(put=put)} if put else {}

    def _changes(self, response: ObjectText, *, terminal: bool) -> dict[str, bytes]:
        """What has to change in a response."""
        put = {name: given for name, given in self._echoes.items() if response.value(name) not in (None, given)}
        put |= {name: kept for name in ("tools", "output") if (kept := self._without_ours(response.value(name)))}
        if self._later and response.value("id") is not None:
            put["id"] = orjson.dumps(self._first_id)
        if terminal and self._later:
            put["output"] = array(each.written for each in self._visible())
            usage = summed([*self._usages, self._usage])
            put |= {"usage": dumped(usage).encode()} if usage else {}
        return put

    def _without_ours(self, written: bytes | None) -> bytes | None:
        """A list of tools or items without ours; None if there is none of ours in it."""
        if written is None or not written.startswith(b"["):
            return None
        listed = elements(written)
        kept = [each for each in listed if not self._is_ours(item(each))]
        return array(kept) if len(kept) < len(listed) else None

    def _dropped(self) -> bytes:
        self._renumbers = True
        return b""

    def _sent(self, written: bytes, event: Event, data: dict[str, Any], put: dict[str, bytes]) -> bytes:
        """The event with these changes, and with its number in the answer."""
        number = data.get("sequence_number")
        if isinstance(number, int):
            self._number = self._number + 1 if self._renumbers else number
            put = put if self._number == number else {**put, "sequence_number": b"%d" % self._number}
        if not put:
            return written
        return encode(event.name, ObjectText(event.data).edited(put=put))

    def _read_body(self) -> None:
        data = parsed_object(self._body)
        try:
            self._take_response(data or {}, ObjectText(self._body if data else b"{}"), terminal=True)
        except ValueError:  # too deep for an edit
            return

    def _composed_body(self) -> bytes:
        if not self._id:
            return self._body  # no response at all, which the record of the round tells
        written = ObjectText(self._body)
        put = self._changes(written, terminal=True)
        return written.edited(put=put) if put else self._body


def _call(each: Item) -> ToolCall:
    given = each.data.get("arguments")
    arguments = given if isinstance(given, str) else dumped(given or {})
    return ToolCall(text(each.data.get("call_id")), text(each.data.get("name")), arguments or "{}")


def _is_object(arguments: Any) -> bool:
    return isinstance(arguments, str) and parsed_object(arguments.encode()) is not None


def _rendered(call: ToolCall, result: ToolResult) -> bytes:
    return orjson.dumps({"type": "function_call_output", "call_id": call.id, "output": result.as_text()})
