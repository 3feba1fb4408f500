"""The machine that makes one Chat Completions answer of several rounds, without our tools' calls in it.

States of a round: open; waiting, while there is a call of which it is not known whose it is; closing, once its end
has come with calls of ours before it; over.

- The pieces of a call of ours are taken out of their chunks; a chunk that has nothing else is dropped. The
  client's calls get the next free index.
- While a call's name is not known, or may still become that of a tool of ours, all chunks wait.
- The end of a round with such a call (the chunk with the `finish_reason`, the usage, `[DONE]`) is withheld until
  it is known whether another round follows.
- Later rounds bear the id of the first and no `role`; what they tell of the usage is the sum over the rounds. The
  chunk that has nothing but the usage is only for clients that asked for it.
- Everything else goes on as it came. As long as there is nothing to hide, bytes and indexes are the provider's.

A body that comes whole is the same without chunks: it is held, and the answer is the last body with the texts of
all of them.
"""

import re
from collections.abc import Sequence
from typing import Any

import orjson

from aibridge.protocols.chat_completions.accounting import TEXT_CHUNK
from aibridge.protocols.chat_completions.interceptor import only_usage
from aibridge.protocols.chat_completions.pieces import Call, Chunk, merged, read_chunk
from aibridge.protocols.chat_completions.weaving import ASIDES, NAME, content_text
from aibridge.protocols.editing import ObjectText, array, elements
from aibridge.protocols.reading import dumped, mapping, parsed_object, sequence, text
from aibridge.protocols.rounds import Round, Trail, Turn, answer_key, summed
from aibridge.protocols.sse import Splitter, usual
from aibridge.protocols.tools import ToolCall, ToolResult

_TEXT_CHUNK = re.compile(TEXT_CHUNK + rb"\n\n")

# Reasons to stop after which a call is either not whole or not meant to be run; "error" is OpenRouter's.
_CUT = ("length", "content_filter", "error")

# What all rounds say together, and what else an answer may consist of.
_TEXTS = ("content", *ASIDES)
_SUBSTANCE = (*_TEXTS, "audio")

_NOTHING: tuple[Any, ...] = (None, "", [], {})


class ChatComposer:
    """A `rounds.Composer`. `ours` are the wire names of our tools, `trail` is what the answer follows upon;
    `usage_asked`: the client wants to know the usage of its stream."""

    def __init__(self, ours: frozenset[str], trail: Trail, *, usage_asked: bool, event_stream: bool) -> None:
        self._ours = ours
        self._trail = trail
        self._usage_asked = usage_asked
        self._event_stream = event_stream
        self._ended = False
        self._role_shown = False
        self._first_id = ""
        self._usages: list[dict[str, Any]] = []  # of the rounds before this one
        self._said: dict[str, list[Any]] = {}  # by those rounds
        self._begin_round()

    def _begin_round(self) -> None:
        self._splitter = Splitter()
        self._held = bytearray()  # of an answer that comes whole
        self._body = Chunk(b"")
        self._id = ""
        self._finish_reason = ""
        self._stopped = False  # the round has come to its own end
        self._failed = False
        self._spread = False
        self._closing = False
        self._usage: dict[str, Any] = {}
        self._fields: dict[str, list[Any]] = {}  # of the message, each with its pieces
        self._calls: list[Call] = []
        self._growing: dict[int, Call] = {}
        self._waiting: list[Chunk] = []
        self._withheld: list[bytes] = []

    @property
    def response_id(self) -> str:
        return self._id

    @property
    def ended(self) -> bool:
        return self._ended

    @property
    def empty(self) -> bool:
        return not self._client_called and not any(self._all_said(name) for name in _SUBSTANCE)

    def feed(self, chunk: bytes) -> bytes:
        if not self._event_stream:
            self._held += chunk
            return b""
        return b"".join([self._next(written) for written in self._splitter.feed(chunk)])

    def turn(self) -> Turn:
        if not self._event_stream:
            self._read_body()
        calls = tuple(ToolCall(call.id, call.name, call.arguments or "{}") for call in self._calls if call.ours)
        cut = not self._stopped or self._failed or self._finish_reason in _CUT
        return Turn(calls, mixed=self._client_called, cut=cut)

    def round(self, results: Sequence[tuple[ToolCall, ToolResult]]) -> Round:
        said = self._rebuilt() if self._event_stream else self._verbatim()
        done = Round(said, tuple(_rendered(call, result) for call, result in results))
        if not self._client_called:
            self._said = {name: self._pieces(name) for name in _TEXTS}
            self._usages.append(self._usage)
            self._begin_round()
        return done

    def finish(self) -> bytes:
        self._ended = True
        if not self._event_stream:
            return self._composed_body()
        return self._undecided() + b"".join(self._withheld) + self._rest()

    def keys(self) -> tuple[str, ...]:
        call_ids = [call.id for call in self._calls if not call.ours]
        key = answer_key(NAME, self._trail, content_text(self._all_said("content")), call_ids)
        return (key,) if key else ()

    @property
    def _hides(self) -> bool:
        return any(call.ours for call in self._calls)

    @property
    def _client_called(self) -> bool:
        """Also in the way of before there were tools."""
        return any(not call.ours for call in self._calls) or bool(merged(self._fields.get("function_call", ())))

    def _pieces(self, name: str) -> list[Any]:
        return [*self._said.get(name, ()), *self._fields.get(name, ())]

    def _all_said(self, name: str) -> Any:
        return merged(self._pieces(name))

    # --- what comes

    def _next(self, written: bytes) -> bytes:
        if self._is_plain_text(written):
            return written
        chunk = self._in_one_choice(read_chunk(written))
        self._take(chunk)
        self._waiting.append(chunk)
        return b"" if any(call.ours is None for call in self._calls) else self._flushed()

    def _is_plain_text(self, written: bytes) -> bool:
        """Whether a chunk is a piece of text in a round where nothing has to change yet; such a piece is taken.
        Most are one, and JSON is not read for them."""
        begun = self._id and not self._usages and not self._calls
        found = usual(_TEXT_CHUNK, written) if begun else None
        if found is None:
            return False
        self._fields.setdefault("content", []).append(found[1].decode())
        return True

    def _in_one_choice(self, chunk: Chunk) -> Chunk:
        """With a call of ours in another choice than the first, all are one, so that it can be taken out."""
        calls = chunk.spread_calls
        self._spread = self._spread or any(_name(call) in self._ours for call in calls)
        return chunk.with_one_choice() if calls and self._spread else chunk

    def _take(self, chunk: Chunk) -> None:
        self._id = self._id or text(chunk.data.get("id"))
        self._first_id = self._first_id or self._id
        self._usage = chunk.usage or self._usage  # the last one counts: some servers send running totals
        self._finish_reason = chunk.finish_reason or self._finish_reason
        self._failed = self._failed or bool(chunk.data.get("error"))
        for name, value in chunk.delta.items():
            self._fields.setdefault(name, []).append(value)
        pieces = sequence(chunk.delta.get("tool_calls"))
        chunk.calls = [self._called(at, mapping(piece)) for at, piece in enumerate(pieces)]
        if chunk.finish_reason or chunk.done:
            self._stopped = True
            for call in self._calls:
                call.ours = bool(call.ours)

    def _called(self, position: int, piece: dict[str, Any]) -> Call | None:
        """The call of which this is a piece, or a whole one: some servers send each of several calls whole, all
        with one index. None: it is an empty slot."""
        index = piece.get("index") if self._event_stream else position
        index = index if isinstance(index, int) else position
        call = self._growing.get(index)
        if call is None or (call.id and text(piece.get("id")) not in ("", call.id)):
            if not piece.keys() - {"index"}:
                return None
            call = self._growing[index] = Call(index)
            self._calls.append(call)
        call.grow(piece)
        call.ours = self._is_ours(call)
        return call

    def _is_ours(self, call: Call) -> bool | None:
        if call.ours is not None:
            return call.ours
        if call.kind == "custom" or call.name in self._ours:
            return call.kind != "custom"
        may_become = not call.name or (not call.begun and any(n.startswith(call.name) for n in self._ours))
        return None if may_become else False

    # --- what goes on

    def _flushed(self) -> bytes:
        waiting, self._waiting = self._waiting, []
        return b"".join([self._shown(chunk) for chunk in waiting])

    def _undecided(self) -> bytes:
        """What waits when a stream died before it told whose a call is: half a name may be one of ours."""
        for call in self._calls:
            if call.ours is None:
                call.ours = bool(call.name)
        return self._flushed()

    def _shown(self, chunk: Chunk) -> bytes:
        if chunk.data.get("error") or not (chunk.data or chunk.done):
            return chunk.written
        if only_usage(chunk.data) and not self._usage_asked:
            return b""
        try:
            return self._placed(chunk)
        except ValueError:
            # It is nested more deeply than can be edited.
            return b"" if any(call and call.ours for call in chunk.calls) else chunk.written

    def _placed(self, chunk: Chunk) -> bytes:
        """The chunk, or what goes on of it now."""
        put, choice = self._of_the_answer(chunk), self._delta(chunk)
        speaks = _speaks(parsed_object(choice["delta"]) or {} if choice else chunk.delta)
        ends = chunk.finish_reason or chunk.done
        if self._hides and (ends or only_usage(chunk.data) or (self._closing and not speaks)):
            self._closing = self._closing or bool(ends)
            return self._withhold(chunk, put, choice, speaks=speaks)
        self._ended = self._ended or chunk.done
        if choice and not (speaks or ends or chunk.usage):
            return b""
        return chunk.edited(put, choice)

    def _withhold(self, chunk: Chunk, put: dict[str, bytes], choice: dict[str, bytes], *, speaks: bool) -> bytes:
        """What the chunk says goes on; that it is the end, and the usage, have to wait."""
        shown = b""
        if speaks:
            no_usage = {"usage": b"null"} if chunk.usage else {}
            shown = chunk.edited(put | no_usage, choice | {"finish_reason": b"null"})
            choice = {"delta": b"{}"}
        if chunk.finish_reason:
            choice = choice | self._concluded()
        self._withheld.append(chunk.edited(put, choice))
        return shown

    def _of_the_answer(self, chunk: Chunk) -> dict[str, bytes]:
        """Edits of what only the whole answer tells."""
        put: dict[str, bytes] = {}
        if not self._usages:
            return put
        if text(chunk.data.get("id")) not in ("", self._first_id):
            put["id"] = orjson.dumps(self._first_id)
        if chunk.usage:
            put["usage"] = self._summed(chunk.usage)
        return put

    def _concluded(self) -> dict[str, bytes]:
        """A round that only called our tools has, to the client, simply stopped."""
        only_ours = self._hides and not self._client_called
        return {"finish_reason": b'"stop"'} if only_ours and self._finish_reason == "tool_calls" else {}

    def _summed(self, usage: dict[str, Any]) -> bytes:
        return dumped(summed([*self._usages, usage])).encode()

    def _delta(self, chunk: Chunk) -> dict[str, bytes]:
        """The delta without what the client must not see, unless it can stay as it is."""
        repeated = {"role"} & chunk.delta.keys() if self._usages and self._role_shown else set()
        self._role_shown = self._role_shown or bool(chunk.delta.get("role"))
        moved = [call for call in chunk.calls if call and (call.ours or self._place(call) != call.index)]
        if not repeated and not moved:
            return {}
        delta = chunk.written_part()
        pieces = zip(chunk.calls, elements(delta.value("tool_calls") or b"[]") if chunk.calls else [], strict=True)
        shown = [self._renumbered(call, piece) for call, piece in pieces if call and not call.ours]
        put = {"tool_calls": array(shown)} if shown else {}
        return {"delta": delta.edited(put=put, remove=repeated | ({"tool_calls"} - put.keys()))}

    def _place(self, call: Call) -> int:
        """As long as nothing is hidden, the provider's index."""
        if call.place is None:
            taken = [other.place for other in self._calls if other.place is not None]
            free = max(taken, default=-1) + 1
            call.place = free if self._hides or self._usages else call.index
        return call.place

    def _renumbered(self, call: Call, piece: bytes) -> bytes:
        place = self._place(call)
        return piece if place == call.index else ObjectText(piece).edited(put={"index": b"%d" % place})

    def _rest(self) -> bytes:
        """Half an event, unless it is half a call, which may be one of ours."""
        rest = self._splitter.rest()
        return b"" if self._hides or b"tool_calls" in rest else rest

    # --- what goes back to the provider

    def _rebuilt(self) -> bytes:
        """The message of the deltas."""
        told = {name: merged(pieces) for name, pieces in self._fields.items()}
        message = {"role": "assistant", "content": told.pop("content", None) or None}
        message |= {name: value for name, value in told.items() if value is not None and name != "role"}
        return dumped(message | {"tool_calls": [call.whole() for call in self._calls]}).encode()

    def _verbatim(self) -> bytes:
        """The message as it came. Many servers parse the arguments in the history."""
        message = self._body.written_part()
        unusable = {at for at, call in enumerate(self._body.calls) if call and call.unusable}
        if not unusable:
            return message.edited()
        calls = elements(message.value("tool_calls") or b"[]")
        repaired = [_without_arguments(call) if at in unusable else call for at, call in enumerate(calls)]
        return message.edited(put={"tool_calls": array(repaired)})

    # --- bodies

    def _read_body(self) -> None:
        written = bytes(self._held)
        body = Chunk(written, json=written, data=parsed_object(written) or {}, part="message")
        self._body = self._in_one_choice(body)
        self._take(self._body)
        self._stopped = True

    def _composed_body(self) -> bytes:
        if not self._fields or not (self._hides or self._usages):
            return self._body.written  # nothing to change, or no message at all
        try:
            choice = {"message": self._composed_message()} | self._concluded()
            return self._body.edited_json(self._of_the_answer(self._body), choice)
        except ValueError:
            return self._body.written  # nested more deeply than can be edited

    def _composed_message(self) -> bytes:
        message = self._body.written_part()
        put = {
            name: dumped(self._all_said(name)).encode()
            for name in _TEXTS
            if merged(self._said.get(name, ()))  # or it is in this body already
        }
        if not self._hides:
            return message.edited(put=put)
        pieces = zip(self._body.calls, elements(message.value("tool_calls") or b"[]"), strict=True)
        shown = [piece for call, piece in pieces if call and not call.ours]
        put |= {"tool_calls": array(shown)} if shown else {}
        return message.edited(put=put, remove={"tool_calls"} - put.keys())


def _speaks(delta: dict[str, Any]) -> bool:
    return any(value not in _NOTHING for value in delta.values())


def _name(call: Any) -> str:
    return text(mapping(mapping(call).get("function")).get("name"))


def _without_arguments(call: bytes) -> bytes:
    written = ObjectText(call)
    function = ObjectText(written.value("function") or b"{}").edited(put={"arguments": b'"{}"'})
    return written.edited(put={"function": function})


def _rendered(call: ToolCall, result: ToolResult) -> bytes:
    return orjson.dumps({"role": "tool", "tool_call_id": call.id, "content": result.as_text()})
