"""A request's JSON object, read no further than somebody asks.

An agent's request is a tree of thousands of values, of which the gateway wants a handful: the model, the last
message, whether to stream. Making them all and freeing them costs a large request a quarter of its CPU time. So
the whole text is checked, and each member is read when it is asked for.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from aibridge.errors import InvalidRequest
from aibridge.protocols.reading import TooDeep, parse, sequence

_Unread = dict[str, msgspec.Raw]

_members = msgspec.json.Decoder(_Unread)
_elements = msgspec.json.Decoder(list[msgspec.Raw])


class Members(Mapping[str, Any]):
    """The members of a JSON object; of duplicates the last one counts."""

    __slots__ = ("_read", "_unread")

    def __init__(self, read: dict[str, Any], unread: _Unread) -> None:
        self._read = read
        self._unread = unread

    def __getitem__(self, name: str) -> Any:
        unread = self._unread.get(name)
        if unread is not None:
            self._read[name] = _value(unread)
            self._unread.pop(name, None)  # not earlier: another thread may look for it
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        yield from (*self._read, *self._unread)

    def __len__(self) -> int:
        return len(self._read) + len(self._unread)

    def backwards(self, name: str) -> Iterator[Any]:
        """The elements of an array from the last to the first, each read when its turn comes; of anything else
        there are none."""
        unread = self._unread.get(name)
        if unread is None:
            yield from reversed(sequence(self._read.get(name)))
        elif bytes(memoryview(unread)[:1]) == b"[":
            yield from map(_value, reversed(_elements.decode(unread)))


def request_object(body: bytes) -> Members:
    """A request's JSON object. What it says is the provider's to judge; only something else raises
    InvalidRequest."""
    try:
        body.decode()  # nothing else looks into the texts
        return Members({}, _members.decode(body))
    except (ValueError, RecursionError):  # it is no JSON object, or one that only a lenient reader takes
        return Members(_leniently(body), {})


def _leniently(body: bytes) -> dict[str, Any]:
    try:
        data = parse(body)
    except TooDeep:
        data = {} if body.lstrip().startswith(b"{") else None  # an object goes on unread
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise InvalidRequest("the request body is not a JSON object")
    return data


def _value(written: msgspec.Raw) -> Any:
    try:
        return parse(bytes(written))
    except TooDeep:  # by a little, with something in it that only the slower reader takes
        return None
