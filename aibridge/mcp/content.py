"""What an MCP tool gave, as the protocols know it. Pure.

Follows the CallToolResult of https://modelcontextprotocol.io/specification/2025-11-25/server/tools#tool-result.
Providers refuse empty text blocks, so there is never one.
"""

from typing import Any

import orjson
from mcp_types import (
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from aibridge.protocols.tools import IMAGE_TYPES, Image, Text, ToolResult

NOTHING = Text("the tool returned nothing")


def tool_result(result: CallToolResult) -> ToolResult:
    parts = tuple(part for content in result.content if (part := _part(content)) is not None)
    if not parts and result.structured_content is not None:
        parts = (Text(orjson.dumps(result.structured_content, default=str).decode()),)
    only_texts = all(isinstance(content, TextContent) for content in result.content)
    return ToolResult(
        parts=parts or (NOTHING,),
        is_error=bool(result.is_error),
        whole="" if only_texts else _whole(result),
    )


def _part(content: Any) -> Text | Image | None:
    match content:
        case TextContent(text=""):
            return None
        case TextContent(text=text):
            return Text(text)
        case ImageContent(mime_type=media_type, data=data) if media_type in IMAGE_TYPES and data:
            return Image(media_type, data)
        case EmbeddedResource(resource=resource):
            return _resource(resource)
        case ResourceLink():
            return Text(_link(content))
    kind = getattr(content, "mime_type", None) or getattr(content, "type", None) or "content"
    return Text(f"[{kind} cannot be shown]")


def _resource(resource: TextResourceContents | BlobResourceContents) -> Text | Image:
    media_type = resource.mime_type or ""
    if isinstance(resource, TextResourceContents):
        return Text(f"Resource {resource.uri} ({media_type or 'text/plain'}):\n{resource.text}")
    if media_type in IMAGE_TYPES and resource.blob:
        return Image(media_type, resource.blob)
    return Text(
        f"Binary resource (MIME: {media_type or 'application/octet-stream'}, URI: {resource.uri}): {resource.blob}"
    )


def _link(link: ResourceLink) -> str:
    description = f": {link.description}" if link.description else ""
    return f"Resource link {link.uri} ({link.title or link.name}){description}"


def _whole(result: CallToolResult) -> str:
    """The result as its server sent it, without the fields that speak to clients of the MCP protocol only."""
    keys = {"content", "structured_content", "meta"} | ({"is_error"} if result.is_error else set())
    return orjson.dumps(result.model_dump(mode="json", by_alias=True, exclude_none=True, include=keys)).decode()
