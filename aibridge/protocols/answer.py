"""What one provider response told, in no protocol's words, and the records that it becomes.

The protocols' accounts differ in where they find things; what they make of them is the same and stands here.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

from aibridge.protocols.interceptor import Observation, Observed, ProviderError
from aibridge.protocols.reading import count, dumped, mapping, parsed_object, text
from aibridge.records import LONGEST_ID, ModelThought, PromptUsage, TokenUsage, ToolUsage

# Roughly what English text and code come to; used only where a cut stream leaves a count unknown.
CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Tokens:
    """`input` is without what the cache served or stored. `extra` are classes without a column of their own."""

    input: int
    output: int
    cache_read: int = 0
    cache_write: int = 0
    estimated: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call. `arguments` is JSON text, or whatever came of it. `hosted` is the type of a call that the
    provider ran itself; "" for one that the client has to run."""

    name: str
    arguments: str
    call_id: str = ""
    item_id: str = ""
    hosted: str = ""


@dataclass(frozen=True, slots=True)
class Thought:
    """`source`: `thinking`, `reasoning_summary`, `commentary` or `reasoning_content`."""

    content: str
    source: str


@dataclass(slots=True)
class Answer:
    """`begun`: the provider gave a response at all. `finished`: it came to the protocol's own end."""

    response_id: str = ""
    model: str = ""
    begun: bool = False
    finished: bool = False
    error: ProviderError | None = None
    tokens: Tokens | None = None
    calls: list[Call] = field(default_factory=list)
    thoughts: list[Thought] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    def observation(self, interception_id: str, prompt: str | None) -> Observation:
        records = tuple(self._records(interception_id, prompt)) if self.begun else ()
        return Observation(records, self.finished, self.error, self.notes)

    def _records(self, interception_id: str, prompt: str | None) -> list[Observed]:
        records: list[Observed] = []
        if prompt is not None:
            records.append(
                PromptUsage(
                    interception_id=interception_id,
                    provider_response_id=self.response_id[:LONGEST_ID],
                    prompt=prompt,
                )
            )
        if self.tokens is not None:
            records.append(self._usage(interception_id, self.tokens))
        records += [self._tool(interception_id, call) for call in self.calls]
        records += [
            ModelThought(
                interception_id=interception_id, content=thought.content, metadata={"source": thought.source}
            )
            for thought in self.thoughts
            if thought.content
        ]
        return records

    def _usage(self, interception_id: str, tokens: Tokens) -> TokenUsage:
        return TokenUsage(
            interception_id=interception_id,
            provider_response_id=self.response_id[:LONGEST_ID],
            provider_model=self.model[:LONGEST_ID],
            input_tokens=tokens.input,
            output_tokens=tokens.output,
            cache_read_input_tokens=tokens.cache_read,
            cache_write_input_tokens=tokens.cache_write,
            estimated=tokens.estimated,
            metadata=tokens.extra,
        )

    def _tool(self, interception_id: str, call: Call) -> ToolUsage:
        return ToolUsage(
            interception_id=interception_id,
            provider_response_id=self.response_id[:LONGEST_ID],
            provider_tool_call_id=call.call_id[:LONGEST_ID] or None,
            provider_item_id=call.item_id[:LONGEST_ID] or None,
            tool=call.name[:LONGEST_ID],
            input=call.arguments,
            metadata={"type": call.hosted} if call.hosted else {},
        )


def failed(status: int, body: bytes, overloaded_status: int) -> Answer:
    """An answer with an error status: nothing was used, only the reason counts."""
    data = parsed_object(body)
    error = provider_error(data) if data else ProviderError(_plain(body))
    return Answer(finished=True, error=replace(error, status=status, overloaded=status == overloaded_status))


def provider_error(data: dict[str, Any]) -> ProviderError:
    """The error in a body or an event, wherever the provider put it: `error` is an object or a text, or the
    fields stand at the top. OpenRouter tells a status as its `code`, Codex's backend beside the error."""
    error = mapping(data.get("error"))
    message = text(error.get("message")) or text(data.get("error")) or text(data.get("message")) or dumped(data)
    code = error.get("code") or data.get("code")
    told = (code, error.get("status"), data.get("status"))
    status = next((number for number in told if isinstance(number, int) and 400 <= number <= 599), None)
    return ProviderError(message, text(error.get("type")), text(code), status)


def tokens_of_total(
    total_input: Any, output: Any, input_details: Any, extra: dict[str, Any], service_tier: str
) -> Tokens:
    """OpenAI's way of counting: the input includes what the cache served or stored. Some servers report more
    cached than put in, which must not make a negative number. Of `extra` the counts that are there are kept."""
    details = mapping(input_details)
    cached, written = count(details.get("cached_tokens")), count(details.get("cache_write_tokens"))
    told: dict[str, Any] = {name: count(value) for name, value in extra.items() if value is not None}
    return Tokens(
        input=max(0, count(total_input) - cached - written),
        output=count(output),
        cache_read=cached,
        cache_write=written,
        extra=told | ({"service_tier": service_tier} if service_tier else {}),
    )


def estimated_tokens(characters: int) -> int:
    return math.ceil(characters / CHARACTERS_PER_TOKEN)


def _plain(body: bytes) -> str:
    return body[:1024].decode("utf-8", "replace")
