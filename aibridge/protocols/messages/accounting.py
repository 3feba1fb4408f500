"""From the bytes of a Messages answer to records.

https://docs.anthropic.com/en/api/messages-streaming: `message_start` (id, model, first usage), then content
blocks (`content_block_start`, `_delta`, `_stop`), `message_delta` (stop reason and cumulative usage),
`message_stop`. `ping` and unknown events may come anywhere; `error` ends the stream.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aibridge.protocols.interceptor import Observation, Observed, ProviderError
from aibridge.protocols.reading import count, dumped, exact_object, mapping, parsed_object, sequence, text
from aibridge.protocols.sse import Event
from aibridge.records import ModelThought, PromptUsage, TokenUsage, ToolUsage

# Roughly what English text and code come to; used only where a cut stream leaves the output unknown.
CHARACTERS_PER_TOKEN = 4

# Usage fields with columns of their own; every other number goes into the row's metadata.
_COLUMNS = {"input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"}
_CACHE_WRITES = {
    "ephemeral_5m_input_tokens": "cache_ephemeral_5m_input",
    "ephemeral_1h_input_tokens": "cache_ephemeral_1h_input",
}

# Which field of a delta holds the piece to append to the block.
_PIECES = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}


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

    def __init__(self, interception_id: str, prompt: str | None) -> None:
        self._interception_id = interception_id
        self._prompt = prompt
        self._message: dict[str, Any] | None = None
        self._usage: dict[str, Any] = {}
        self._blocks: dict[Any, _Block] = {}
        self._output_told = False
        self._finished = False
        self._error: ProviderError | None = None

    def event(self, event: Event) -> None:
        data = parsed_object(event.data)
        if data is None:
            return
        match text(data.get("type")) or event.name:
            case "message_start":
                self._message = mapping(data.get("message"))
                self._merge_usage(self._message.get("usage"))
            case "content_block_start":
                self._blocks[_index(data)] = _Block(mapping(data.get("content_block")))
            case "content_block_delta":
                self._grow(_index(data), mapping(data.get("delta")))
            case "message_delta":
                usage = mapping(data.get("usage"))
                self._merge_usage(usage)
                self._output_told = self._output_told or usage.get("output_tokens") is not None
            case "message_stop":
                self._finished = True
            case "error":
                self._error = _provider_error(data)

    def body(self, body: bytes) -> None:
        data = exact_object(body)
        if data is None:
            return
        self._finished = True
        if data.get("type") == "error":
            self._error = _provider_error(data)
            return
        self._message = data
        self._merge_usage(data.get("usage"))
        for index, content in enumerate(sequence(data.get("content"))):
            self._blocks[index] = _Block(mapping(content))

    def failure(self, status: int, body: bytes) -> None:
        """An answer with an error status: nothing was used, only the reason counts."""
        self._finished = True
        data = parsed_object(body) or {}
        self._error = _provider_error(data, status) if data else ProviderError(_plain(body), status=status)

    def observation(self, notes: tuple[str, ...] = ()) -> Observation:
        return Observation(tuple(self._records()), self._finished, self._error, notes)

    def _merge_usage(self, usage: Any) -> None:
        """The last value wins, field by field: the counts in `message_delta` are cumulative."""
        self._usage.update({name: value for name, value in mapping(usage).items() if value is not None})

    def _grow(self, index: Any, delta: dict[str, Any]) -> None:
        block = self._blocks.get(index)
        piece = text(delta.get(_PIECES.get(text(delta.get("type")), "")))
        if block is not None and piece:
            block.pieces.append(piece)

    def _records(self) -> list[Observed]:
        if self._message is None:
            return []
        response_id = text(self._message.get("id"))
        records: list[Observed] = []
        if self._prompt is not None:
            records.append(
                PromptUsage(
                    interception_id=self._interception_id,
                    provider_response_id=response_id,
                    prompt=self._prompt,
                )
            )
        if self._usage:
            records.append(self._tokens(response_id, text(self._message.get("model"))))
        for block in self._blocks.values():
            record = self._tool(block, response_id) or self._thought(block)
            if record is not None:
                records.append(record)
        return records

    def _tokens(self, response_id: str, model: str) -> TokenUsage:
        usage = self._usage
        output = count(usage.get("output_tokens"))
        unknown = not self._finished and not self._output_told
        return TokenUsage(
            interception_id=self._interception_id,
            provider_response_id=response_id,
            provider_model=model,
            input_tokens=count(usage.get("input_tokens")),
            output_tokens=max(output, self._estimated_output()) if unknown else output,
            cache_read_input_tokens=count(usage.get("cache_read_input_tokens")),
            cache_write_input_tokens=count(usage.get("cache_creation_input_tokens")),
            estimated=unknown,
            metadata=_extra_usage(usage),
        )

    def _estimated_output(self) -> int:
        characters = sum(len(piece) for block in self._blocks.values() for piece in block.pieces)
        return math.ceil(characters / CHARACTERS_PER_TOKEN)

    def _tool(self, block: _Block, response_id: str) -> ToolUsage | None:
        """`tool_use` is the client's to run; `server_tool_use` and `mcp_tool_use` the provider ran itself."""
        if not block.type.endswith("tool_use"):
            return None
        hosted = {} if block.type == "tool_use" else {"type": block.type}
        return ToolUsage(
            interception_id=self._interception_id,
            provider_response_id=response_id,
            provider_tool_call_id=text(block.start.get("id")) or None,
            tool=text(block.start.get("name")),
            input=block.text or dumped(block.start.get("input", {})),
            metadata=hosted,
        )

    def _thought(self, block: _Block) -> ModelThought | None:
        content = text(block.start.get("thinking")) + block.text if block.type == "thinking" else ""
        if not content:
            return None
        return ModelThought(
            interception_id=self._interception_id, content=content, metadata={"source": "thinking"}
        )


def _index(data: dict[str, Any]) -> Any:
    index = data.get("index")
    return index if isinstance(index, int) else None


def _extra_usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Token classes without a column: cache writes by lifetime, server tools, service tier, what comes next."""
    extra: dict[str, Any] = {}
    for name, value in usage.items():
        if name in _COLUMNS:
            continue
        if isinstance(value, dict):
            nested = {str(key): item for key, item in value.items() if _plain_value(item)}
            extra |= {_CACHE_WRITES.get(key, key): item for key, item in nested.items()}
        elif _plain_value(value):
            extra[name] = value
    return extra


def _plain_value(value: Any) -> bool:
    return isinstance(value, str | float) or (isinstance(value, int) and count(value) == value)


def _provider_error(data: dict[str, Any], status: int | None = None) -> ProviderError:
    error = mapping(data.get("error"))
    message = text(error.get("message")) or text(data.get("message")) or dumped(data)
    return ProviderError(message, text(error.get("type")), status)


def _plain(body: bytes) -> str:
    return body[:1024].decode("utf-8", "replace")
