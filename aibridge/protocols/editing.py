"""Edits of a JSON text: what is not edited stays as it was written, byte for byte.

The text is cut at its top-level commas and put together again; nothing is encoded anew. So key order, white
space, duplicate names and the spelling of numbers and escapes survive. RFC 8259; read as leniently as
`reading.parse` reads it.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

_NOTHING: Mapping[str, bytes] = MappingProxyType({})
_SPACE = re.compile(r"[ \t\n\r]*")
# Of a value only its end counts, so no number is converted, however long it is.
_SCANNER = json.JSONDecoder(parse_int=len, parse_float=len)


@dataclass(frozen=True, slots=True)
class _Member:
    """`before` is the name, the colon and the white space around them, `after` the white space up to the comma."""

    name: str
    before: str
    value: str
    after: str

    @property
    def text(self) -> str:
        return self.before + self.value + self.after

    def put(self, value: bytes) -> str:
        return self.before + _text(value) + self.after


class ObjectText:
    """A JSON object as it is written. Values go in and out as UTF-8, whatever its own encoding. Raises ValueError
    for any other text, and for one nested too deeply."""

    def __init__(self, body: bytes) -> None:
        self._encoding = json.detect_encoding(body)
        text = body.decode(self._encoding, "surrogatepass")
        try:
            self._head, self._members, self._tail = _cut(text)
        except RecursionError:
            raise ValueError("nested too deeply") from None

    def value(self, name: str) -> bytes | None:
        """The text of a member's value, None if there is no such member; of duplicates the last one counts."""
        found = next((member.value for member in reversed(self._members) if member.name == name), None)
        return None if found is None else _bytes(found)

    def edited(self, *, put: Mapping[str, bytes] = _NOTHING, remove: Collection[str] = ()) -> bytes:
        """The object without the members in `remove`, with the values in `put`: where such a member stands (all
        of its duplicates), else appended."""
        kept = [member for member in self._members if member.name not in remove]
        present = {member.name for member in kept}
        members = [member.put(put[member.name]) if member.name in put else member.text for member in kept]
        members += [f"{json.dumps(name)}:{_text(value)}" for name, value in put.items() if name not in present]
        return (self._head + ",".join(members) + self._tail).encode(self._encoding, "surrogatepass")


def elements(array: bytes) -> list[bytes]:
    """The texts of a JSON array's elements, from UTF-8 to UTF-8. Raises ValueError for any other text."""
    text = _text(array)
    at = _after_space(text, _expect(text, _after_space(text, 0), "["))
    found: list[bytes] = []
    try:
        while text[at : at + 1] != "]":
            at = _after_space(text, _expect(text, at, ",")) if found else at
            _, end = _SCANNER.raw_decode(text, at)
            found.append(_bytes(text[at:end]))
            at = _after_space(text, end)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if _after_space(text, at + 1) != len(text):
        raise ValueError("something follows the JSON array")
    return found


def array(texts: Iterable[bytes]) -> bytes:
    """The JSON array of these texts."""
    return b"[" + b",".join(texts) + b"]"


def _cut(text: str) -> tuple[str, list[_Member], str]:
    """The text up to the first member, the members, and the closing brace with what follows it."""
    start = _expect(text, _after_space(text, 0), "{")
    at = _after_space(text, start)
    members: list[_Member] = []
    if text[at : at + 1] == "}":
        start = at
    else:
        members, at = _members(text, start)
    end = _expect(text, at, "}")
    if _after_space(text, end) != len(text):
        raise ValueError("something follows the JSON object")
    return text[:start], members, text[at:]


def _members(text: str, start: int) -> tuple[list[_Member], int]:
    """The members, the first of which begins at `start`, and where they end."""
    members = []
    while True:
        quote = _after_space(text, start)
        _expect(text, quote, '"')
        name, at = _SCANNER.raw_decode(text, quote)
        value = _after_space(text, _expect(text, _after_space(text, at), ":"))
        _, end = _SCANNER.raw_decode(text, value)
        at = _after_space(text, end)
        members.append(_Member(name, text[start:value], text[value:end], text[end:at]))
        if text[at : at + 1] != ",":
            return members, at
        start = at + 1


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()


def _expect(text: str, at: int, character: str) -> int:
    """Behind the character that must stand here."""
    if text[at : at + 1] != character:
        raise ValueError(f"{character} is missing at {at} in the JSON object")
    return at + 1


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogatepass")


def _bytes(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")
