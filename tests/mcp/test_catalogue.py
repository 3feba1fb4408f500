"""Which listed tools are offered."""

from typing import Any

import mcp_types
import pytest

from aibridge.mcp.catalogue import Catalogue, place, what_is_wrong
from aibridge.settings import McpServer


def server(**settings: Any) -> McpServer:
    return McpServer.model_validate({"name": "s", "url": "http://h/mcp", **settings})


def raw(name: str, schema: Any = None, **others: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object"} if schema is None else schema, **others}


def offered(catalogue: Catalogue, *tools: Any) -> list[str]:
    admitted = catalogue.admit(tools)
    return [tool.name for tool in catalogue.tools(mcp_types.Tool.model_validate(tool) for tool in admitted)]


@pytest.mark.parametrize(
    ("allow", "deny", "names"),
    [
        ("", "", ["Read", "read_file", "remove_file"]),
        ("file", "", ["read_file", "remove_file"]),
        ("^read", "", ["read_file"]),
        ("", "file$", ["Read"]),
        ("file", "^remove", ["read_file"]),
        ("read_file", "read", []),
        ("Read|read", "", ["Read", "read_file"]),
    ],
)
def test_allow_and_deny_search_the_raw_name(allow: str, deny: str, names: list[str]) -> None:
    catalogue = Catalogue(server(allow=allow, deny=deny))
    assert offered(catalogue, raw("read_file"), raw("remove_file"), raw("Read")) == names
    assert not catalogue.left_out


@pytest.mark.parametrize(
    "large",
    [raw("n" * 257), raw("t", description="d" * 200_000), raw("t", {"enum": ["x" * 200_000]})],
    ids=["name", "description", "schema"],
)
def test_what_is_too_large_is_left_out(large: dict[str, Any]) -> None:
    catalogue = Catalogue(server())
    for _ in range(2):
        assert offered(catalogue, large, raw("small")) == ["small"]
        (reason,) = catalogue.left_out.values()
        assert "larger" in reason


def test_of_an_endless_page_the_beginning_is_read() -> None:
    assert len(offered(Catalogue(server()), *(raw(f"t{number}") for number in range(2100)))) == 2000


def test_the_schema_is_kept_whole() -> None:
    schema = {
        "properties": {"a": {"$ref": "#/$defs/a"}},
        "additionalProperties": False,
        "$defs": {"a": {"type": "integer"}},
    }
    catalogue = Catalogue(server())
    (admitted,) = catalogue.admit([raw("t", schema, description="does it", outputSchema="broken", icons=7)])
    (tool,) = catalogue.tools([mcp_types.Tool.model_validate(admitted)])
    assert tool.schema == {"type": "object", **schema}
    assert (tool.wire_name, tool.name, tool.description, tool.server) == (
        "bmcp_s_t",
        "t",
        "does it",
        "http://h/mcp",
    )


@pytest.mark.parametrize(
    ("schema", "wrong"),
    [
        ({}, ""),
        ({"type": "object", "properties": {"a": True}}, ""),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {}}, ""),
        (None, "missing"),
        (["object"], "missing"),
        ({"type": "string"}, "not of an object"),
        ({"type": ["object", "null"]}, "not of an object"),
        ({"properties": {"a": {"type": "nonsense"}}}, "invalid"),
        ({"properties": []}, "invalid"),
        ({"required": "a"}, "invalid"),
    ],
)
def test_schemas_that_providers_would_refuse(schema: Any, wrong: str) -> None:
    assert wrong in what_is_wrong(schema)
    assert bool(what_is_wrong(schema)) == bool(wrong)


def test_one_bad_tool_costs_only_itself() -> None:
    catalogue = Catalogue(server())
    tools: tuple[Any, ...] = (
        "nonsense",
        {},
        {"name": 1},
        {"name": "a"},
        raw("b", {"type": "string"}),
        raw("c", description=5),
    )
    assert offered(catalogue, *tools) == ["c"]
    assert set(catalogue.left_out) == {"a", "b"}
    assert offered(catalogue, raw("c")) == ["c"]
    assert not catalogue.left_out


def test_a_schema_that_changes_is_checked_again() -> None:
    catalogue = Catalogue(server())
    assert offered(catalogue, raw("a")) == ["a"]
    assert offered(catalogue, raw("a", {"type": "string"})) == []
    assert offered(catalogue, raw("a", {"type": "string"})) == []
    assert offered(catalogue, raw("a")) == ["a"]


def test_of_two_tools_with_one_wire_name_the_first_is_kept() -> None:
    catalogue = Catalogue(server())
    assert offered(catalogue, raw("a_b"), raw("a.b"), raw("a.b")) == ["a.b"]
    assert list(catalogue.left_out) == ["a_b"]


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({}, "http://h/mcp"),
        ({"url": "https://me:secret@h:8443/mcp?key=secret"}, "https://h:8443/mcp"),
        ({"url": None, "command": ["run", "--token", "secret"]}, "stdio:s"),
    ],
)
def test_where_a_tool_runs_is_recorded_without_secrets(settings: dict[str, Any], where: str) -> None:
    assert place(server(**settings)) == where


@pytest.mark.parametrize(
    ("reference", "wrong"),
    [
        ("#/$defs/city", False),
        ("#/$defs/town", True),
        ("http://127.0.0.1:9/schema", True),
        ("#town", True),
    ],
)
def test_a_schema_refers_to_what_is_in_it(reference: str, wrong: bool) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"anyOf": [{"$ref": reference}, {"type": "null"}]}},
        "$defs": {"city": {"type": "string"}},
    }
    assert bool(what_is_wrong(schema)) == wrong
