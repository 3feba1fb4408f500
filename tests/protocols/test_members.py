"""A request's object is read piece by piece, and says what it would say if it were read at once."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from aibridge.errors import InvalidRequest
from aibridge.protocols.members import request_object

VALUES = some.recursive(
    some.none()
    | some.booleans()
    | some.integers(-(2**63), 2**64 - 1)
    | some.floats(allow_nan=False)
    | some.text(),
    lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner),
    max_leaves=20,
)


@given(some.dictionaries(some.text(), VALUES), some.booleans(), some.sampled_from([None, 2]))
def test_every_member_is_what_was_written(members: dict[str, Any], ascii_only: bool, indent: int | None) -> None:
    assert dict(request_object(json.dumps(members, ensure_ascii=ascii_only, indent=indent).encode())) == members


@given(some.lists(VALUES))
def test_an_array_from_its_end(values: list[Any]) -> None:
    data = request_object(json.dumps({"messages": values}).encode())
    assert list(data.backwards("messages")) == values[::-1]
    assert data["messages"] == values
    assert list(data.backwards("messages")) == values[::-1]  # also once it has been read


def test_only_arrays_have_elements() -> None:
    data = request_object(b'{"text": "[]", "object": {"a": 1}, "null": null}')
    assert [list(data.backwards(name)) for name in ("text", "object", "null", "missing")] == [[], [], [], []]


def test_of_duplicates_the_last_counts_and_absent_members_are_absent() -> None:
    data = request_object(b'{"model": "a", "model": "b", "stream": true}')
    assert (data["model"], data.get("stream"), data.get("tools")) == ("b", True, None)
    assert sorted(data) == ["model", "stream"]
    assert len(data) == 2
    with pytest.raises(KeyError):
        data["tools"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'"text"',
        b'{"a": 1',
        b'{"a": tru}',
        b'{"a": 1} x',
        b'{"a": "\xff"}',
        b"\xff\xfe{}",
        b"[",
    ],
)
def test_what_is_no_json_object(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        request_object(body)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": NaN}', "nan"),
        (b'{"a": "\\ud800"}', "?"),
        (b'\xef\xbb\xbf{"a": 1}', "1"),
    ],
)
def test_what_only_lenient_readers_take(body: bytes, value: str) -> None:
    assert str(request_object(body)["a"]) == value


@pytest.mark.parametrize("depth", [900, 1100, 100_000])
def test_a_deeply_nested_object_is_no_error(depth: int) -> None:
    data = request_object(b'{"model": "m", "deep": %b%b}' % (b"[" * depth, b"]" * depth))
    assert data.get("model") in ("m", None)
    list(data.backwards("deep"))


def test_a_member_that_is_too_deep_for_its_second_reading_is_no_error() -> None:
    """msgspec takes 1e999; what reads it then may follow less deeply."""
    for depth in range(900, 1000):
        body = b'{"model": "m", "deep": %b1e999%b}' % (b"[" * depth, b"]" * depth)
        data = request_object(body)
        assert data.get("model") in ("m", None)
        assert data.get("deep") == data.get("deep")
