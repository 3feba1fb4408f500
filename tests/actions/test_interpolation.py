"""`${args.x}`: types are kept, text is text, and an argument stays an argument."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from aibridge.actions.interpolation import Absence, filled, filled_text, references, text

JSON = some.recursive(
    some.none()
    | some.booleans()
    | some.integers()
    | some.floats(allow_nan=False, allow_infinity=False)
    | some.text(),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_a_string_that_is_one_reference_becomes_the_argument_with_its_type(value: Any) -> None:
    template = {"a": "${args.x}", "b": ["${args.x}", {"c": "${args.x}"}]}
    assert filled(template, {"x": value}) == {"a": value, "b": [value, {"c": value}]}
    assert filled("${args.x}", {"x": value}) is value


@given(JSON)
def test_inside_a_longer_string_an_argument_is_its_text(value: Any) -> None:
    inside = filled("<${args.x}>", {"x": value})
    assert inside == f"<{text(value)}>"
    assert isinstance(value, str) or json.loads(inside[1:-1]) == value


@given(some.text())
def test_what_is_filled_in_is_never_looked_at_again(value: str) -> None:
    hostile = f"${{args.y}}$${{{value}"
    assert filled("a ${args.x}", {"x": hostile, "y": "no"}) == f"a {hostile}"


@given(some.text().filter(lambda text: "${" not in text))
def test_constants_stay_as_they_are(constant: str) -> None:
    assert filled({constant: [constant, 1]}, {"x": "y"}) == {constant: [constant, 1]}
    assert list(references([constant])) == []


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("$${args.x}", "${args.x}"),
        ("$$${args.x}", "$${args.x}"),
        ("$${", "${"),
        ("costs $5 {or} $x", "costs $5 {or} $x"),
        ("${args.x}${args.x}", "11"),
        ("${args.yes} ${args.list}", 'true ["ä",null]'),
    ],
)
def test_escapes_and_text(template: str, expected: str) -> None:
    assert filled(template, {"x": 1, "yes": True, "list": ["ä", None]}) == expected


def test_absent_inputs_take_their_place_with_them() -> None:
    template = {"gone": "${args.x}", "kept": ["a", "${args.x}", "<${args.x}>"], "deep": {"gone": "${args.x}"}}
    assert filled(template, {}) == {"kept": ["a", "<>"], "deep": {}}
    assert filled("${args.x}", {}) is Absence.ABSENT
    assert filled_text("${args.x}", {}) == ""


def test_references_are_found_at_any_depth() -> None:
    template = {"a": "${args.b} ${args.c}", "d": [{"e": ("${args.f}",)}, 1, None, True], "g": "$${args.h}"}
    assert set(references(template)) == {"b", "c", "f"}


@pytest.mark.parametrize(
    "template", ["${x}", "${args.}", "${args.X}", "${args.a-b}", "a ${", ["${ args.x }"], {"${args.x}": 1}]
)
def test_what_looks_like_a_reference_and_is_none_is_refused(template: Any) -> None:
    with pytest.raises(ValueError, match="refer"):
        list(references(template))
