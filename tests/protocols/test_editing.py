"""Edits of JSON text: the edited members change, every other byte stays."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibridge.protocols.editing import ObjectText, array, elements

BODY = (
    b'\n{ "model" : "m",\t"seed":123456789012345678901234567890,'
    b' "x":1.0e0,"t":"caf\\u00e9 \xc3\xa9 \\/ \xf0\x9f\x98\x80","o":{"a":[1, -0.0 ],"a":2} , "stream":true }\n'
)

EDITS: list[tuple[bytes, dict[str, bytes], set[str], bytes]] = [
    (b"{}", {}, set(), b"{}"),
    (b" { } ", {}, {"a"}, b" { } "),
    (b"{ }", {"a": b"[1]"}, set(), b'{ "a":[1]}'),
    (b'{"a":1}', {}, {"a"}, b"{}"),
    (b'{"a":1}', {"b": b"2", "c": b'"\xc3\xa9"'}, set(), b'{"a":1,"b":2,"c":"\xc3\xa9"}'),
    (b'{ "a" : 1 , "b":2}', {"a": b"null"}, set(), b'{ "a" : null , "b":2}'),
    (b'{"a":1, "b":2, "c":3}', {}, {"a"}, b'{ "b":2, "c":3}'),
    (b'{"a":1, "b":2 ,"c":3}', {}, {"b"}, b'{"a":1,"c":3}'),
    (b'{"a":1, "b":2 }', {}, {"b"}, b'{"a":1}'),
    (b'{"a":1,"b":2}', {"a": b"3"}, {"a"}, b'{"b":2,"a":3}'),
    # A name counts as it is read, not as it is spelt, and every duplicate of it.
    (b'{"\\u0061":1,"b":2,"a":3}', {}, {"a"}, b'{"b":2}'),
    (b'{"\\u0061":1,"b":2,"a":3}', {"a": b"0"}, set(), b'{"\\u0061":0,"b":2,"a":0}'),
    # What looks like syntax inside a string is none.
    (b'{"a":"},\\"b\\":{","b":1}', {}, {"b"}, b'{"a":"},\\"b\\":{"}'),
    # Nothing is converted: not a number of 5000 digits, not NaN, not a lone surrogate.
    (b'{"a":' + b"9" * 5000 + b',"b":NaN}', {"c": b"1"}, {"b"}, b'{"a":' + b"9" * 5000 + b',"c":1}'),
    (b'{"a":"\\ud800","b":"\xed\xa0\x80"}', {}, {"c"}, b'{"a":"\\ud800","b":"\xed\xa0\x80"}'),
    (BODY, {}, {"stream", "model"}, BODY.replace(b' "model" : "m",', b"").replace(b', "stream":true ', b"")),
    (BODY, {"x": b"2"}, set(), BODY.replace(b"1.0e0", b"2")),
]


@pytest.mark.parametrize(("body", "put", "remove", "expected"), EDITS)
def test_an_edit_touches_its_members_only(
    body: bytes, put: dict[str, bytes], remove: set[str], expected: bytes
) -> None:
    assert ObjectText(body).edited(put=put, remove=remove) == expected


def test_values_are_given_as_they_are_written_and_the_last_duplicate_counts() -> None:
    text = ObjectText(BODY)
    assert text.value("o") == b'{"a":[1, -0.0 ],"a":2}'
    assert text.value("t") == b'"caf\\u00e9 \xc3\xa9 \\/ \xf0\x9f\x98\x80"'
    assert text.value("absent") is None
    assert ObjectText(b'{"a":1,"a":2}').value("a") == b"2"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32-le"])
def test_other_encodings_of_json_stay_what_they_are(encoding: str) -> None:
    text = ObjectText('{"a": "é", "b": 1}'.encode(encoding)).edited(put={"c": '"ü"'.encode()}, remove={"b"})
    assert text.decode(encoding) == '{"a": "é","c":"ü"}'


NO_OBJECTS = [
    b"",
    b"[]",
    b"1",
    b'"a"',
    b"\xff\xfe{",
    b"{",
    b"{,}",
    b"{} {}",
    b'{"a":1}x',
    b'{"a"}',
    b'{"a":}',
    b"{1:2}",
]
CUT_OR_WRONG = [b'{"a":1', b'{"a":1,}', b'{"a":1 2}', b'{"a":\xff}', b'{"a":[1,}', b'{"a":"\n"}']


@pytest.mark.parametrize("body", NO_OBJECTS + CUT_OR_WRONG)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        ObjectText(body)


def test_what_is_nested_too_deeply_is_refused() -> None:
    with pytest.raises(ValueError, match="deep"):
        ObjectText(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


NAMES = st.text(max_size=3) | st.sampled_from(["a", "b", "model"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
SPACES = st.sampled_from(["", " ", "\n\t", "\r\n "])


@st.composite
def written(draw: st.DrawFn) -> tuple[list[tuple[str, Any]], list[str], str]:
    """The members of an object, the text of each, and the whole text in some spelling."""
    pairs = draw(st.lists(st.tuples(NAMES, VALUES), max_size=5))
    texts = []
    for name, value in pairs:
        escaped = draw(st.booleans())
        spelt = [json.dumps(part, ensure_ascii=escaped) for part in (name, value)]
        texts.append(f"{draw(SPACES)}{spelt[0]}{draw(SPACES)}:{draw(SPACES)}{spelt[1]}{draw(SPACES)}")
    return pairs, texts, f"{draw(SPACES)}{{{','.join(texts) or draw(SPACES)}}}{draw(SPACES)}"


@given(
    object_=written(),
    put=st.dictionaries(NAMES, VALUES, max_size=3),
    remove=st.sets(NAMES, max_size=3),
)
def test_edited_text_reads_like_the_edited_object_and_keeps_the_spelling_of_the_rest(
    object_: tuple[list[tuple[str, Any]], list[str], str], put: dict[str, Any], remove: set[str]
) -> None:
    pairs, texts, text = object_
    encoded = text.encode("utf-8", "surrogatepass")
    values = {name: json.dumps(value).encode() for name, value in put.items()}
    result = ObjectText(encoded).edited(put=values, remove=remove).decode("utf-8", "surrogatepass")

    kept = [(name, put.get(name, value)) for name, value in pairs if name not in remove]
    appended = [(name, value) for name, value in put.items() if name not in dict(kept)]
    assert repr(json.loads(result, object_pairs_hook=list)) == repr(_as_pairs([*kept, *appended]))
    untouched = [
        written for (name, _), written in zip(pairs, texts, strict=True) if name not in remove and name not in put
    ]
    assert re.search(".*".join(map(re.escape, untouched)), result, re.DOTALL)
    assert ObjectText(text.encode("utf-8", "surrogatepass")).edited() == text.encode("utf-8", "surrogatepass")


def _as_pairs(pairs: list[tuple[str, Any]]) -> Any:
    """Objects as lists of pairs, all the way down, which is how they are read here."""

    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return [(name, convert(inner)) for name, inner in value.items()]
        return [convert(inner) for inner in value] if isinstance(value, list) else value

    return [(name, convert(value)) for name, value in pairs]


def test_an_array_is_cut_into_the_texts_of_its_elements() -> None:
    assert elements(b' [ 1.0e0, {"a":[1,2]} ,"x,]" ] ') == [b"1.0e0", b'{"a":[1,2]}', b'"x,]"']
    assert array(elements(b"[1 ,2]")) == b"[1,2]"
    assert elements(b"[]") == []


@pytest.mark.parametrize(
    "text", [b"[1,]", b"[1 2]", b"{}", b"[1]x", b"[", b"[,]", b"[" * 100_000 + b"]" * 100_000]
)
def test_what_is_no_array_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        elements(text)
