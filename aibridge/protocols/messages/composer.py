"""The machine that makes one Messages answer of several rounds, without our tools' calls in it.

States of an answer: not begun; in a round; between rounds, with the round's end withheld; ended.

- `message_start` of the first round begins the answer; later ones only bring usage.
- A content block that calls one of our tools is withheld with everything that belongs to it. From then on the
  others get the next free index, so that indexes are dense over all rounds.
- The end (`message_delta`, `message_stop`) of a round with such a call is withheld until it is known whether
  another round follows. The usage in the end that goes out is the sum over the rounds.
- Everything else goes on as it came. As long as there is nothing to hide, bytes and indexes are the provider's.

A body that comes whole is the same content without events: it is held, and the answer is the last body with the
content of all of them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from aibridge.protocols.editing import ObjectText, array, elements
from aibridge.protocols.messages.accounting import TEXT_DELTA
from aibridge.protocols.messages.weaving import NAME
from aibridge.protocols.reading import dumped, mapping, parsed_object, text
from aibridge.protocols.rounds import Round, Trail, Turn, answer_key, summed
from aibridge.protocols.sse import Event, Splitter, encode, event_in, usual
from aibridge.protocols.tools import Image, Text, ToolCall, ToolResult

# Reasons to stop after which a call is either not whole or not meant to be run.
_CUT = ("max_tokens", "model_context_window_exceeded", "refusal", "pause_turn")

_TEXT_DELTA = re.compile(TEXT_DELTA % rb"(\d{1,9})" + rb"\n\n")

# Deltas whose piece is not simply appended to the block's text of the same name.
_ARGUMENTS, _CITATION = "partial_json", "citation"


@dataclass(slots=True)
class _Block:
    """A content block as it grows. `written` is how it began, `index` its place in the answer, None: it is
    hidden."""

    written: bytes
    start: dict[str, Any]
    index: int | None
    pieces: dict[str, list[str]] = field(default_factory=dict)
    citations: list[Any] = field(default_factory=list)

    @property
    def type(self) -> str:
        return text(self.start.get("type"))

    @property
    def id(self) -> str:
        return text(self.start.get("id"))

    @property
    def text(self) -> str:
        return text(self.start.get("text")) + "".join(self.pieces.get("text", ()))

    @property
    def arguments(self) -> str:
        return "".join(self.pieces.get(_ARGUMENTS, ())) or dumped(self.start.get("input", {}))

    def grow(self, delta: dict[str, Any]) -> None:
        for name, piece in delta.items():
            if name == _CITATION:
                self.citations.append(piece)
            elif name != "type" and isinstance(piece, str):
                self.pieces.setdefault(name, []).append(piece)

    def whole(self) -> bytes:
        """The block as a request carries it. A request may only hold an object as a call's input."""
        put = {
            name: orjson.dumps(text(self.start.get(name)) + "".join(pieces))
            for name, pieces in self.pieces.items()
            if name != _ARGUMENTS
        }
        if _ARGUMENTS in self.pieces or self.type == "tool_use":
            arguments = self.arguments.encode()
            put["input"] = arguments if parsed_object(arguments) is not None else b"{}"
        if self.citations:
            put["citations"] = orjson.dumps([*(self.start.get("citations") or ()), *self.citations])
        return ObjectText(self.written).edited(put=put) if put else self.written


class MessagesComposer:
    """A `rounds.Composer`. `ours` are the wire names of our tools, `trail` is what the answer follows upon."""

    def __init__(self, ours: frozenset[str], trail: Trail, *, event_stream: bool) -> None:
        self._ours = ours
        self._trail = trail
        self._streamed = event_stream
        self._ended = False
        self._shown: list[_Block] = []  # of all rounds
        self._next_place = 0
        self._usages: list[dict[str, Any]] = []  # of the rounds before this one
        self._first_id = ""
        self._begin_round()

    def _begin_round(self) -> None:
        self._splitter = Splitter()
        self._id = ""
        self._stop_reason = ""
        self._stopped = False  # the round has come to its own end
        self._usage: dict[str, Any] = {}
        self._blocks: dict[int | None, _Block] = {}
        self._held = bytearray()  # of an answer that comes whole
        self._body = b""
        self._withheld: list[Event] = []

    @property
    def response_id(self) -> str:
        return self._id

    @property
    def ended(self) -> bool:
        return self._ended

    @property
    def empty(self) -> bool:
        return not self._shown

    def feed(self, chunk: bytes) -> bytes:
        if not self._streamed:
            self._held += chunk
            return b""
        return b"".join([self._shown_of(written) for written in self._splitter.feed(chunk)])

    def turn(self) -> Turn:
        if not self._streamed:
            self._body = bytes(self._held)
            self._read_body()
        calls = tuple(
            ToolCall(block.id, text(block.start.get("name")), block.arguments)
            for block in self._blocks.values()
            if block.index is None
        )
        return Turn(calls, mixed=bool(self._client_calls()), cut=not self._stopped or self._stop_reason in _CUT)

    def round(self, results: Sequence[tuple[ToolCall, ToolResult]]) -> Round:
        said = array(block.whole() for block in self._blocks.values() if block.type != "text" or block.text)
        done = Round(said, tuple(_rendered(call, result) for call, result in results))
        if not self._client_calls():
            self._usages.append(self._usage)
            self._begin_round()
        return done

    def finish(self) -> bytes:
        self._ended = True
        if not self._streamed:
            return self._composed_body()
        end = b"".join(self._end(event) for event in self._withheld)
        return end + self._splitter.rest() if self._stopped else end

    def keys(self) -> tuple[str, ...]:
        said = "".join(block.text for block in self._shown)
        key = answer_key(NAME, self._trail, said, self._client_calls())
        return (key,) if key else ()

    def _client_calls(self) -> list[str]:
        return [b.id for b in self._blocks.values() if b.index is not None and b.type == "tool_use"]

    def _shown_of(self, written: bytes) -> bytes:
        """What the client sees of an event; one that cannot be read or edited it gets as it came."""
        if self._is_plain_text(written):
            return written
        event = event_in(written)
        data = parsed_object(event.data) if event else None
        if event is None or data is None:
            return written
        try:
            return self._taken(written, event, data)
        except ValueError:
            return written

    def _is_plain_text(self, written: bytes) -> bool:
        """Whether an event is a piece of text in a block that has its own place; such a piece is taken. Most are,
        and JSON is not read for them."""
        found = usual(_TEXT_DELTA, written)
        block = self._blocks.get(int(found[1])) if found else None
        if found is None or block is None or block.index != int(found[1]):
            return False
        block.grow({"text": found[2].decode()})
        return True

    def _taken(self, written: bytes, event: Event, data: dict[str, Any]) -> bytes:
        """Raises ValueError if the event has to be edited and cannot be."""
        match text(data.get("type")) or event.name:
            case "message_start":
                self._begun(mapping(data.get("message")))
                return b"" if self._usages else written
            case "content_block_start" | "content_block_delta" | "content_block_stop" as kind:
                return self._placed(written, event, _index(data), self._block_of(kind, event, data))
            case "message_delta" | "message_stop" as kind:
                self._take_end(data)
                self._stopped = kind == "message_stop"
                return self._closed(written, event)
        return written

    def _begun(self, message: dict[str, Any]) -> None:
        self._id = text(message.get("id"))
        self._first_id = self._first_id or self._id
        self._take_usage(message.get("usage"))

    def _block_of(self, kind: str, event: Event, data: dict[str, Any]) -> _Block | None:
        if kind == "content_block_start":
            written = ObjectText(event.data).value("content_block")
            return self._begin_block(_index(data), written or b"{}", mapping(data.get("content_block")))
        block = self._blocks.get(_index(data))
        if block is not None:
            block.grow(mapping(data.get("delta")))
        return block

    def _begin_block(self, index: int | None, written: bytes, start: dict[str, Any]) -> _Block:
        block = _Block(written, start, None if self._is_ours(start) else self._place(index))
        self._blocks[index] = block
        if block.index is not None:
            self._shown.append(block)
            self._next_place = max(self._next_place, block.index + 1)
        return block

    def _place(self, index: int | None) -> int:
        return self._next_place if index is None or self._hides or self._usages else index

    def _is_ours(self, block: dict[str, Any]) -> bool:
        return block.get("type") == "tool_use" and text(block.get("name")) in self._ours

    def _placed(self, written: bytes, event: Event, index: int | None, block: _Block | None) -> bytes:
        """The event of a block, at the block's place in the answer."""
        if block is None:
            return written
        if block.index is None:
            return b""
        if index in (None, block.index):
            return written
        return encode(event.name, ObjectText(event.data).edited(put={"index": b"%d" % block.index}))

    @property
    def _hides(self) -> bool:
        return any(block.index is None for block in self._blocks.values())

    def _closed(self, written: bytes, event: Event) -> bytes:
        """An event of the round's end, which is the answer's end if nothing is hidden."""
        if self._hides:
            self._withheld.append(event)
            return b""
        self._ended = self._stopped
        return self._end(event) if self._usages else written

    def _end(self, event: Event) -> bytes:
        """An event of the answer's end, with what only the whole answer tells."""
        written = ObjectText(event.data)
        put: dict[str, bytes] = {}
        delta = written.value("delta")
        if delta is not None:
            put["delta"] = self._with_stop_reason(ObjectText(delta))
            if self._usages:
                put["usage"] = dumped(summed([*self._usages, self._usage])).encode()
        return encode(event.name, written.edited(put=put))

    def _with_stop_reason(self, written: ObjectText) -> bytes:
        """A turn that only called our tools has, to the client, simply ended."""
        concluded = self._hides and self._stop_reason == "tool_use" and not self._client_calls()
        return written.edited(put={"stop_reason": b'"end_turn"'} if concluded else {})

    def _take_end(self, data: dict[str, Any]) -> None:
        self._take_usage(data.get("usage"))
        self._stop_reason = text(mapping(data.get("delta")).get("stop_reason")) or self._stop_reason

    def _take_usage(self, usage: Any) -> None:
        self._usage.update({name: value for name, value in mapping(usage).items() if value is not None})

    def _read_body(self) -> None:
        data = parsed_object(self._body) or {}
        self._begun(data)
        self._stop_reason = text(data.get("stop_reason"))
        self._stopped = isinstance(data.get("content"), list)
        written = ObjectText(self._body).value("content") if self._stopped else None
        for index, block in enumerate(elements(written or b"[]")):
            self._begin_block(index, block, parsed_object(block) or {})

    def _composed_body(self) -> bytes:
        if not self._hides and not self._usages:
            return self._body
        if not self._id:
            return self._body  # no message at all, which the record of the round tells
        written = ObjectText(self._with_stop_reason(ObjectText(self._body)))
        put = {"content": array(block.written for block in self._shown), "id": orjson.dumps(self._first_id)}
        if self._usages:
            put["usage"] = dumped(summed([*self._usages, self._usage])).encode()
        return written.edited(put=put)


def _index(data: dict[str, Any]) -> int | None:
    """Anything else than a number names no block."""
    index = data.get("index")
    return index if isinstance(index, int) else None


def _rendered(call: ToolCall, result: ToolResult) -> bytes:
    block = {"type": "tool_result", "tool_use_id": call.id, "content": [_part(part) for part in result.parts]}
    return orjson.dumps(block | ({"is_error": True} if result.is_error else {}))


def _part(part: Text | Image) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    return {"type": "image", "source": {"type": "base64", "media_type": part.media_type, "data": part.data}}
