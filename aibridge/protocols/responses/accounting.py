"""From the bytes of a Responses answer to records.

https://platform.openai.com/docs/api-reference/responses-streaming: the response object comes in `response.created`
and, whole, in one of the terminal events `response.completed`, `.incomplete` and `.failed`. Output items come in
`response.output_item.done` as they end; they count where there is no terminal event, or where it leaves them out.
"""

import re
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
from aibridge.protocols.interceptor import Payload, ProviderError
from aibridge.protocols.reading import dumped, mapping, parsed_object, sequence, text
from aibridge.protocols.sse import Event, skimmed

_TERMINAL = ("response.completed", "response.incomplete", "response.failed")

# Calls that the client has to run; it is told their arguments in the named field.
_CLIENT_CALLS = {"function_call": "arguments", "custom_tool_call": "input", "tool_search_call": "arguments"}

# Calls of tools that belong to the API. Those with a call id are the client's to carry out.
_HOSTED_CALLS = {
    "web_search_call",
    "file_search_call",
    "code_interpreter_call",
    "image_generation_call",
    "computer_call",
    "local_shell_call",
    "shell_call",
    "apply_patch_call",
    "mcp_call",
}

_MEMBERS = rb'(?:, ?"(?!delta")[a-z_]+": ?(?:null|\d+|\[\]|"[^"\\]*"))*'
_TEXT_DELTA = re.compile(
    rb"\n\nevent: response\.output_text\.delta\n"
    rb'data: \{"type": ?"response\.output_text\.delta"'
    + _MEMBERS
    + rb', ?"delta": ?"([^"\\]*)"'
    + _MEMBERS
    + rb"\}(?=\n\n)"
)


class ResponsesAccount:
    """Everything that one answer told, whole or in events. Nothing in it can make this raise."""

    def __init__(self, payload: Payload) -> None:
        self._asked = len(payload.body)
        self._answer = Answer()
        self._response: dict[str, Any] = {}
        self._items: list[dict[str, Any]] = []
        self._characters = 0

    def skim(self, written: bytes) -> bytes:
        rest, characters = skimmed(_TEXT_DELTA, written)
        self._characters += characters
        return rest

    def event(self, event: Event) -> None:
        data = parsed_object(event.data)
        if data is None:
            return
        kind = text(data.get("type")) or event.name
        match kind:
            case "response.output_item.done":
                self._items.append(mapping(data.get("item")))
            case "error":
                self._answer.error = provider_error(data)
            case _ if kind.endswith(".delta"):
                self._characters += len(text(data.get("delta")))
            case _ if isinstance(data.get("response"), dict):
                self._take(data["response"], final=kind in _TERMINAL)

    def body(self, body: bytes) -> None:
        data = parsed_object(body)
        if data is None:
            return
        if data.get("object") != "response" and data.get("error"):
            self._answer.finished = True
            self._answer.error = provider_error(data)
        else:
            self._take(data, final=True)

    def answer(self) -> Answer:
        items = [mapping(item) for item in sequence(self._response.get("output"))] or self._items
        self._answer.tokens = self._tokens()
        self._answer.calls = [call for item in items if (call := _call(item))]
        self._answer.thoughts = [thought for item in items for thought in _thoughts(item)]
        return self._answer

    def _take(self, response: dict[str, Any], *, final: bool) -> None:
        """A response object; of two final ones the first counts."""
        answer = self._answer
        if answer.finished:
            return
        answer.begun = True
        answer.finished = final
        answer.response_id = answer.response_id or text(response.get("id"))
        answer.model = text(response.get("model")) or answer.model
        if final:
            self._response = response
            reason = text(mapping(response.get("incomplete_details")).get("reason"))
            answer.notes = (f"incomplete: {reason}",) if reason else ()
            if response.get("error"):
                answer.error = provider_error({"error": response["error"]})
            elif response.get("status") == "failed":
                answer.error = ProviderError("the response failed")

    def _tokens(self) -> Tokens | None:
        usage = mapping(self._response.get("usage"))
        if usage:
            return tokens(usage, text(self._response.get("service_tier")))
        if not self._answer.begun or self._answer.finished:
            return None
        return Tokens(estimated_tokens(self._asked), estimated_tokens(self._characters), estimated=True)


def tokens(usage: dict[str, Any], service_tier: str) -> Tokens:
    """https://platform.openai.com/docs/api-reference/responses/object#responses/object-usage"""
    extra = {
        "output_reasoning": mapping(usage.get("output_tokens_details")).get("reasoning_tokens"),
        "total_tokens": usage.get("total_tokens"),
    }
    details = usage.get("input_tokens_details")
    return tokens_of_total(usage.get("input_tokens"), usage.get("output_tokens"), details, extra, service_tier)


def _call(item: dict[str, Any]) -> Call | None:
    kind = text(item.get("type"))
    if kind not in _HOSTED_CALLS and kind not in _CLIENT_CALLS:
        return None
    arguments = item.get(_CLIENT_CALLS.get(kind, "arguments"), "")
    return Call(
        name=text(item.get("name")) or kind,
        arguments=arguments if isinstance(arguments, str) else dumped(arguments),
        call_id=text(item.get("call_id")),
        item_id=text(item.get("id")),
        hosted="" if kind in _CLIENT_CALLS else kind,
    )


def _thoughts(item: dict[str, Any]) -> list[Thought]:
    """Reasoning is shown as summaries; models comment their own work in messages of that phase."""
    if item.get("type") == "reasoning":
        parts = sequence(item.get("summary"))
        return [Thought(text(mapping(part).get("text")), "reasoning_summary") for part in parts]
    if item.get("type") == "message" and item.get("phase") == "commentary":
        parts = [mapping(part) for part in sequence(item.get("content"))]
        return [
            Thought(text(part.get("text")), "commentary") for part in parts if part.get("type") == "output_text"
        ]
    return []
