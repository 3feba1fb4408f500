"""From the bytes of a Messages answer to records.

https://docs.anthropic.com/en/api/messages-streaming: `message_start` (id, model, first usage), then content
blocks (`content_block_start`, `_delta`, `_stop`), `message_delta` (stop reason and cumulative usage),
`message_stop`. `ping` and unknown events may come anywhere; `error` ends the stream.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aibridge.protocols.answer import Answer, Call, Thought, Tokens, estimated_tokens, provider_error
from aibridge.protocols.reading import (
    count,
    dumped,
    exact_object,
    mapping,
    parsed_object,
    plain_values,
    sequence,
    text,
)
from aibridge.protocols.sse import Event, skimmed

# Usage fields with columns of their own; every other number goes into the row's metadata.
_COLUMNS = {"input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"}
_CACHE_WRITES = {
    "ephemeral_5m_input_tokens": "cache_ephemeral_5m_input",
    "ephemeral_1h_input_tokens": "cache_ephemeral_1h_input",
}

# Which field of a delta holds the piece to append to the block.
_PIECES = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}

# A piece of text as Anthropic writes it; others are read like any event. %b: the pattern of its block's index.
TEXT_DELTA = (
    rb"event: content_block_delta\n"
    rb'data: \{"type": ?"content_block_delta", ?"index": ?%b, ?"delta": ?'
    rb'\{"type": ?"text_delta", ?"text": ?"([^"\\\x00-\x1f]*)"\} *\} *'
)
_TEXT_DELTAS = re.compile(rb"\n\n" + TEXT_DELTA % rb"\d+" + rb"(?=\n\n)")


@dataclass(slots=True)
class _Block:
    """A content block as it grows; `pieces` are what its deltas added."""

    start: dict[str, Any]
    pieces: list[str] = field(default_factory=list)

    @property
    def type(self) -> str:
        return text(self.start.get("type"))

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class MessagesAccount:
    """Everything that one answer told, whole or in events. Nothing in it can make this raise."""

    def __init__(self) -> None:
        self._answer = Answer()
        self._usage: dict[str, Any] = {}
        self._blocks: dict[Any, _Block] = {}
        self._output_told = False
        self._characters = 0  # of the output so far

    def skim(self, written: bytes) -> bytes:
        rest, characters = skimmed(_TEXT_DELTAS, written)
        self._characters += characters
        return rest

    def event(self, event: Event) -> None:
        data = parsed_object(event.data)
        if data is None:
            return
        match text(data.get("type")) or event.name:
            case "message_start":
                self._begin(mapping(data.get("message")))
            case "content_block_start":
                self._blocks[_index(data)] = _Block(mapping(data.get("content_block")))
            case "content_block_delta":
                self._grow(_index(data), mapping(data.get("delta")))
            case "message_delta":
                usage = mapping(data.get("usage"))
                self._merge_usage(usage)
                self._output_told = self._output_told or usage.get("output_tokens") is not None
            case "message_stop":
                self._answer.finished = True
            case "error":
                self._answer.error = provider_error(data)

    def body(self, body: bytes) -> None:
        data = exact_object(body)
        if data is None:
            return
        self._answer.finished = True
        if data.get("type") == "error":
            self._answer.error = provider_error(data)
            return
        self._begin(data)
        for index, content in enumerate(sequence(data.get("content"))):
            self._blocks[index] = _Block(mapping(content))

    def answer(self) -> Answer:
        blocks = self._blocks.values()
        self._answer.tokens = self._tokens() if self._usage else None
        self._answer.calls = [_call(block) for block in blocks if block.type.endswith("tool_use")]
        self._answer.thoughts = [
            Thought(text(block.start.get("thinking")) + block.text, "thinking")
            for block in blocks
            if block.type == "thinking"
        ]
        return self._answer

    def _begin(self, message: dict[str, Any]) -> None:
        self._answer.begun = True
        self._answer.response_id = text(message.get("id"))
        self._answer.model = text(message.get("model"))
        self._merge_usage(message.get("usage"))

    def _merge_usage(self, usage: Any) -> None:
        """The last value wins, field by field: the counts in `message_delta` are cumulative."""
        self._usage.update({name: value for name, value in mapping(usage).items() if value is not None})

    def _grow(self, index: Any, delta: dict[str, Any]) -> None:
        block = self._blocks.get(index)
        piece = text(delta.get(_PIECES.get(text(delta.get("type")), "")))
        if block is not None and piece:
            self._characters += len(piece)
            if block.type != "text":  # of which nothing is recorded
                block.pieces.append(piece)

    def _tokens(self) -> Tokens:
        usage = self._usage
        output = count(usage.get("output_tokens"))
        unknown = not self._answer.finished and not self._output_told
        return Tokens(
            input=count(usage.get("input_tokens")),
            output=max(output, estimated_tokens(self._characters)) if unknown else output,
            cache_read=count(usage.get("cache_read_input_tokens")),
            cache_write=count(usage.get("cache_creation_input_tokens")),
            estimated=unknown,
            extra=_extra_usage(usage),
        )


def _call(block: _Block) -> Call:
    """`tool_use` is the client's to run; `server_tool_use` and `mcp_tool_use` the provider ran itself."""
    return Call(
        name=text(block.start.get("name")),
        arguments=block.text or dumped(block.start.get("input", {})),
        call_id=text(block.start.get("id")),
        hosted="" if block.type == "tool_use" else block.type,
    )


def _index(data: dict[str, Any]) -> Any:
    index = data.get("index")
    return index if isinstance(index, int) else None


def _extra_usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Token classes without a column: cache writes by lifetime, server tools, service tier, what comes next."""
    extra: dict[str, Any] = {}
    for value in usage.values():
        if isinstance(value, dict):
            extra |= {_CACHE_WRITES.get(key, key): item for key, item in plain_values(value).items()}
    return plain_values({name: value for name, value in usage.items() if name not in _COLUMNS}) | extra
