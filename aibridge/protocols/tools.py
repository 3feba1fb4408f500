"""Tools as the protocols see them: what is offered to the model, what it calls, what comes back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# The images that Anthropic and OpenAI take.
IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})

_REFUSED_AT_THE_TOP = ("oneOf", "anyOf", "allOf", "not", "enum")


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the gateway offers. `wire_name` is what the model calls it, `name` what its toolbox calls it.

    `schema` is the whole JSON Schema of its arguments, an object. `server` says where it runs, as it is recorded:
    a URL, or `stdio:NAME` or `action:NAME`. `timeout` (seconds) and `max_result_bytes` None: the settings' own.
    """

    wire_name: str
    name: str
    description: str
    schema: Mapping[str, Any]
    server: str
    timeout: float | None = None
    max_result_bytes: int | None = None

    def shown_schema(self) -> dict[str, Any]:
        """The schema as providers take it. They refuse alternatives at the top, and OpenAI an object without
        properties; arguments are checked against the whole schema all the same."""
        shown = {name: value for name, value in self.schema.items() if name not in _REFUSED_AT_THE_TOP}
        return shown if "properties" in shown else {**shown, "properties": {}}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of one of our tools. `arguments` is JSON text, or whatever the model made of it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """`data` is base64."""

    media_type: str
    data: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool gave. `whole` is the JSON of the tool's own result if `parts` are more than texts; protocols
    that only take texts send that instead."""

    parts: tuple[Text | Image, ...]
    is_error: bool = False
    whole: str = ""

    def as_text(self) -> str:
        """For APIs whose results are texts, and which have no other place for an error."""
        only_texts = bool(self.parts) and all(isinstance(part, Text) for part in self.parts)
        if self.whole and not only_texts:
            return self.whole
        told = "\n".join(part.text if isinstance(part, Text) else "[image]" for part in self.parts)
        return f"Error: {told}" if self.is_error else told
