"""`${args.name}` in the strings of an action: found when its file is read, filled in when it is called.

A string that is one reference and nothing else becomes the argument itself, its JSON type kept; inside a longer
string a reference becomes the argument's text. `$${` stands for a plain `${`. What is filled in is never looked at
again, so an argument that spells a reference stays what it is. Keys of tables are constants.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any

Arguments = Mapping[str, Any]

_MARK = re.compile(r"\$\$\{|\$\{args\.([a-z][a-z0-9_]*)\}|\$\{")


class Absence(Enum):
    """ABSENT is the value of a reference to an optional input that has neither value nor default."""

    ABSENT = "absent"


def references(template: Any) -> Iterator[str]:
    """The inputs that a value refers to, at any depth. Raises ValueError for a `${` that is no reference."""
    match template:
        case str():
            yield from _names(template)
        case dict():
            if any(True for key in template for _ in _names(key)):
                raise ValueError("a key of a table cannot refer to an argument")
            for value in template.values():
                yield from references(value)
        case list() | tuple():
            for value in template:
                yield from references(value)


def _names(template: str) -> Iterator[str]:
    for mark in _MARK.finditer(template):
        if mark[0] == "${":
            raise ValueError("${ must begin a reference such as ${args.name}; $${ stands for a plain ${")
        if mark[1]:
            yield mark[1]


def filled(template: Any, arguments: Arguments) -> Any:
    """The value with the arguments in it. Keys and elements that refer to an absent one are dropped; ABSENT, if
    the whole value does."""
    match template:
        case str():
            reference = _MARK.fullmatch(template)
            if reference and reference[1]:
                return arguments.get(reference[1], Absence.ABSENT)
            return filled_text(template, arguments)
        case dict():
            values = {key: filled(value, arguments) for key, value in template.items()}
            return {key: value for key, value in values.items() if value is not Absence.ABSENT}
        case list() | tuple():
            elements = [filled(value, arguments) for value in template]
            return [value for value in elements if value is not Absence.ABSENT]
    return template


def text(value: Any) -> str:
    """A value inside a longer string: a string as it is, anything else as compact JSON."""
    return value if isinstance(value, str) else json_text(value)


def json_text(value: Any) -> str:
    """Compact JSON. Raises TypeError, ValueError or, when nested too deeply, RecursionError for what is none."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def filled_text(template: str, arguments: Arguments, spelled: Callable[[Any], str] = text) -> str:
    """The string with each argument spelled into it; an absent one leaves nothing."""

    def replacement(mark: re.Match[str]) -> str:
        if mark[1] is None:
            return "${"
        return spelled(arguments[mark[1]]) if mark[1] in arguments else ""

    return _MARK.sub(replacement, template)
