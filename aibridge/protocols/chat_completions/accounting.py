"""From the bytes of a Chat Completions answer to records.

https://platform.openai.com/docs/api-reference/chat-streaming: unnamed events with one JSON chunk each, deltas per
choice, tool calls in pieces by index, the usage in a chunk of its own without choices (only if it was asked for;
some servers put running totals into every chunk), `[DONE]` at the end.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from aibridge.protocols.answer import (
    Answer,
    Call,
    Thought,
    Tokens,
    estimated_tokens,
    provider_error,
    tokens_of_total,
)
from aibridge.protocols.interceptor import Payload
from aibridge.protocols.reading import mapping, parsed_object, sequence, text
from aibridge.protocols.sse import Event, skimmed

DONE = b"[DONE]"

# Where servers put a model's reasoning: DeepSeek, vLLM and others; OpenRouter and newer vLLM; Copilot.
_REASONING = ("reasoning_content", "reasoning", "reasoning_text")

# A chunk with a piece of text and nothing else that is not plain; of these, the first tells all.
_MEMBERS = rb'"(?!error"|choices")[a-z_]+": ?(?:null|\d+|"[^"\\\x00-\x1f]*")'
TEXT_CHUNK = (
    rb"data: \{(?:" + _MEMBERS + rb', ?)*"choices": ?\[\{"index": ?\d+, ?"delta": ?'
    rb'\{"content": ?"([^"\\\x00-\x1f]*)"\}(?:, ?"(?:logprobs|finish_reason)": ?null)*\}\](?:, ?'
    + _MEMBERS
    + rb")*\}"
)
_TEXT_CHUNKS = re.compile(rb"\n\n" + TEXT_CHUNK + rb"(?=\n\n)")


@dataclass(slots=True)
class _ToolCall:
    """A tool call as it grows."""

    id: str = ""
    type: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)

    def add(self, delta: dict[str, Any]) -> None:
        """`function` calls have arguments, `custom` ones an input."""
        body = mapping(delta.get("function")) or mapping(delta.get("custom"))
        self.id = text(delta.get("id")) or self.id
        self.type = text(delta.get("type")) or self.type
        self.name = text(body.get("name")) or self.name
        self.pieces.append(text(body.get("arguments")) or text(body.get("input")))


class ChatAccount:
    """Everything that one answer told, whole or in chunks. Nothing in it can make this raise."""

    def __init__(self, payload: Payload) -> None:
        self._asked = len(payload.body)
        self._answer = Answer()
        self._usage: dict[str, Any] | None = None
        self._service_tier = ""
        self._calls: list[_ToolCall] = []
        self._growing: dict[tuple[Any, Any], _ToolCall] = {}
        self._reasoning: dict[Any, list[str]] = {}
        self._characters = 0
        self._skims = False

    def skim(self, written: bytes) -> bytes:
        start = 0
        if not self._skims and (first := _TEXT_CHUNKS.search(written)):
            # It may be the first of all chunks, with only comments before it.
            self._skims, start = True, first.end()
        rest, characters = skimmed(_TEXT_CHUNKS, written[start:])
        self._characters += characters
        return written[:start] + rest

    def event(self, event: Event) -> None:
        if event.data.strip() == DONE:
            self._answer.finished = True
            return
        data = parsed_object(event.data)
        if data is not None:
            self._chunk(data, "delta")

    def body(self, body: bytes) -> None:
        data = parsed_object(body)
        if data is not None:
            self._answer.finished = True
            self._chunk(data, "message")

    def answer(self) -> Answer:
        answer = self._answer
        answer.tokens = self._tokens() if answer.begun else None
        answer.calls = [
            Call(call.name, "".join(call.pieces), call_id=call.id) for call in self._calls if call.name
        ]
        answer.thoughts = [Thought("".join(pieces), "reasoning_content") for pieces in self._reasoning.values()]
        return answer

    def _chunk(self, data: dict[str, Any], part: str) -> None:
        if data.get("error"):
            self._answer.error = provider_error(data)
            return
        answer = self._answer
        answer.begun = True
        answer.response_id = answer.response_id or text(data.get("id"))
        answer.model = answer.model or text(data.get("model"))
        self._service_tier = text(data.get("service_tier")) or self._service_tier
        self._usage = mapping(data.get("usage")) or self._usage
        for position, choice in enumerate(sequence(data.get("choices"))):
            index = mapping(choice).get("index")
            self._said(index if isinstance(index, int) else position, mapping(mapping(choice).get(part)))

    def _said(self, choice: int, part: dict[str, Any]) -> None:
        self._characters += len(text(part.get("content"))) + len(text(part.get("refusal")))
        reasoning = next((text(part.get(name)) for name in _REASONING if text(part.get(name))), "")
        if reasoning:
            self._characters += len(reasoning)
            self._reasoning.setdefault(choice, []).append(reasoning)
        for position, delta in enumerate(sequence(part.get("tool_calls"))):
            index = mapping(delta).get("index")
            self._called((choice, index if isinstance(index, int) else position), mapping(delta))
        if isinstance(part.get("function_call"), dict):  # what tool calls were before there were several
            self._called((choice, "function_call"), {"function": part["function_call"]})

    def _called(self, key: tuple[Any, Any], delta: dict[str, Any]) -> None:
        """A piece of a call, or a whole one: some servers send each of several calls whole, all with one index."""
        call = self._growing.get(key)
        if call is None or (call.id and text(delta.get("id")) not in ("", call.id)):
            call = self._growing[key] = _ToolCall()
            self._calls.append(call)
        call.add(delta)
        self._characters += len(call.pieces[-1])

    def _tokens(self) -> Tokens | None:
        if self._usage is not None:
            return tokens(self._usage, self._service_tier)
        if self._answer.finished and not self._characters:
            return None
        # The provider did not tell, or the stream was cut before it could.
        return Tokens(estimated_tokens(self._asked), estimated_tokens(self._characters), estimated=True)


def tokens(usage: dict[str, Any], service_tier: str) -> Tokens:
    """https://platform.openai.com/docs/api-reference/chat/object#chat/object-usage"""
    prompt = mapping(usage.get("prompt_tokens_details"))
    completion = mapping(usage.get("completion_tokens_details"))
    extra = {
        "prompt_audio": prompt.get("audio_tokens"),
        "completion_reasoning": completion.get("reasoning_tokens"),
        "completion_audio": completion.get("audio_tokens"),
        "completion_accepted_prediction": completion.get("accepted_prediction_tokens"),
        "completion_rejected_prediction": completion.get("rejected_prediction_tokens"),
    }
    return tokens_of_total(usage.get("prompt_tokens"), usage.get("completion_tokens"), prompt, extra, service_tier)
