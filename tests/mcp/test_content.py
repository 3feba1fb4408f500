"""What a tool gave, in the protocols' words."""

import json
from typing import Any

import pytest
from mcp_types import CallToolResult

from aibridge.mcp.content import NOTHING, tool_result
from aibridge.protocols.tools import Image, Text

PNG = {"type": "image", "data": "aGk=", "mimeType": "image/png"}


def resource(**contents: Any) -> dict[str, Any]:
    return {"type": "resource", "resource": {"uri": "file:///a", **contents}}


def result(*content: Any, **others: Any) -> CallToolResult:
    return CallToolResult.model_validate({"content": list(content), **others})


CASES: list[tuple[dict[str, Any], Text | Image]] = [
    ({"type": "text", "text": "hello"}, Text("hello")),
    (PNG, Image("image/png", "aGk=")),
    ({**PNG, "mimeType": "image/webp"}, Image("image/webp", "aGk=")),
    ({**PNG, "mimeType": "image/tiff"}, Text("[image/tiff cannot be shown]")),
    ({**PNG, "type": "audio", "mimeType": "audio/wav"}, Text("[audio/wav cannot be shown]")),
    (resource(text="x = 1", mimeType="text/x-python"), Text("Resource file:///a (text/x-python):\nx = 1")),
    (resource(text="x"), Text("Resource file:///a (text/plain):\nx")),
    (resource(blob="aGk=", mimeType="image/jpeg"), Image("image/jpeg", "aGk=")),
    (
        resource(blob="aGk=", mimeType="application/zip"),
        Text("Binary resource (MIME: application/zip, URI: file:///a): aGk="),
    ),
    (
        resource(blob="aGk="),
        Text("Binary resource (MIME: application/octet-stream, URI: file:///a): aGk="),
    ),
    (
        {"type": "resource_link", "uri": "file:///a", "name": "a", "description": "all of it"},
        Text("Resource link file:///a (a): all of it"),
    ),
    ({"type": "resource_link", "uri": "file:///a", "name": "a"}, Text("Resource link file:///a (a)")),
]


@pytest.mark.parametrize(("content", "part"), CASES)
def test_each_kind_of_content(content: dict[str, Any], part: Text | Image) -> None:
    made = tool_result(result(content))
    assert made.parts == (part,)
    assert not made.is_error
    assert bool(made.whole) == (content["type"] != "text")


def test_there_is_no_empty_text() -> None:
    empty = {"type": "text", "text": ""}
    assert tool_result(result()).parts == (NOTHING,)
    assert tool_result(result(empty)).parts == (NOTHING,)
    assert tool_result(result(empty, {"type": "text", "text": "a"})).parts == (Text("a"),)


def test_structured_content_alone_becomes_text() -> None:
    made = tool_result(result(structuredContent={"a": [1, None]}))
    assert made.parts == (Text('{"a":[1,null]}'),)
    both = tool_result(result({"type": "text", "text": "one"}, structuredContent={"a": 1}))
    assert both.parts == (Text("one"),)


def test_an_error_says_so() -> None:
    assert tool_result(result({"type": "text", "text": "no"}, isError=True)).is_error


def test_the_whole_result_goes_along_when_texts_cannot_say_it() -> None:
    made = tool_result(result(PNG, structuredContent={"n": 1}, _meta={"k": "v"}, isError=True))
    assert json.loads(made.whole) == {
        "content": [PNG],
        "structuredContent": {"n": 1},
        "_meta": {"k": "v"},
        "isError": True,
    }
    assert json.loads(tool_result(result(PNG)).whole) == {"content": [PNG]}
    assert ": " not in made.whole
