"""Reading JSON that may hold anything: a wrong type counts as absent, nothing raises.

Clients and providers add fields and change their minds; what we record must not depend on their manners.
"""

import json
import math
from collections.abc import Callable, Iterable
from typing import Any

import orjson

_LARGEST = 2**63 - 1  # what a database's 64-bit column takes
_LONGEST_INTEGER = 4000  # digits
# Looking for one digit twenty times is ten times faster than a regular expression that looks for twenty digits.
_AS_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER = b"0" * 20


class TooDeep(ValueError):
    """JSON, as far as it was read, but nested more deeply than Python can follow."""


def parse(text: bytes) -> Any:
    """The JSON value. orjson first; the standard library for what only it accepts: integers of any size, NaN
    and lone surrogates (which become `?`, since no database takes them). Raises ValueError."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return _standard_parse(text)


def _standard_parse(text: bytes) -> Any:
    try:
        value = json.loads(text, parse_int=_integer)
        return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"), parse_int=_integer)
    except RecursionError:
        raise TooDeep from None


def _integer(digits: str) -> int | float:
    """Python refuses to convert very long ones (sys.set_int_max_str_digits); they count as infinite."""
    return int(digits) if len(digits) <= _LONGEST_INTEGER else math.copysign(math.inf, -(digits[0] == "-"))


def parsed_object(text: bytes) -> dict[str, Any] | None:
    """The JSON object, or None if `text` is anything else."""
    return _object(parse, text)


def exact_object(text: bytes) -> dict[str, Any] | None:
    """As `parsed_object`, with integers of any size, of which orjson makes floats. Looking for them costs a pass
    over the text, so this is for what is recorded, not for the hot path."""
    return _object(_standard_parse if _LONG_NUMBER in text.translate(_AS_ZEROS) else parse, text)


def _object(parser: Callable[[bytes], Any], text: bytes) -> dict[str, Any] | None:
    try:
        value = parser(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def last_turn(backwards: Iterable[Any]) -> dict[str, Any]:
    """The last message that is no instruction: clients append `system` messages to what the user said. The
    messages come from the last to the first."""
    for turn in backwards:
        if text(mapping(turn).get("role")) not in ("system", "developer"):
            return mapping(turn)
    return {}


def last_user_text(turn: dict[str, Any]) -> str | None:
    """What the user typed. Clients put context before it in the same message, so the last text counts."""
    if turn.get("role") != "user":
        return None
    content = turn.get("content")
    if isinstance(content, str):
        return content
    for part in reversed(sequence(content)):
        block = mapping(part)
        if block.get("type") == "text" and isinstance(block.get("text"), str):
            return text(block["text"])
    return None


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def count(value: Any) -> int:
    """A number of tokens: never negative, never more than a database holds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return 0
    return int(min(max(value, 0), _LARGEST))


def plain_values(values: dict[str, Any]) -> dict[str, Any]:
    """The members that are texts or numbers which a database holds."""
    return {str(name): value for name, value in values.items() if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | float) or (isinstance(value, int) and count(value) == value)


def dumped(value: Any) -> str:
    """JSON text of a parsed value."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # an integer over 64 bits
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
