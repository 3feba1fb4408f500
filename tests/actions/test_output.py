"""Outputs of any size, in any pieces: what is kept is a beginning or an end of them, and never half a secret."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from aibridge.actions.runners.output import OWN_WORDS, Head, Output, Tail, result
from aibridge.actions.secrets import Secrets
from tests.actions.samples import only_text

SECRET = "hush-hush-4711"

PIECES = some.lists(some.text(max_size=20).map(str.encode) | some.binary(max_size=20), max_size=10)


@given(PIECES, some.integers(1, 100))
def test_a_head_is_a_beginning(pieces: list[bytes], limit: int) -> None:
    whole, head = b"".join(pieces), Head(limit)
    for piece in pieces:
        head.feed(piece)
    assert head.content() == whole[:limit]
    assert (head.size, head.is_cut) == (len(whole), len(whole) > limit)
    assert whole.decode("utf-8", "replace").startswith(head.text())


@given(PIECES, some.integers(1, 100))
def test_a_tail_is_an_end(pieces: list[bytes], limit: int) -> None:
    whole, tail = b"".join(pieces), Tail(limit)
    for piece in pieces:
        tail.feed(piece)
    assert tail.text(Secrets()) == whole[-limit:].decode("utf-8", "replace").strip()


@given(some.text(max_size=200), some.integers(1, 100))
def test_a_result_is_bounded(text: str, limit: int) -> None:
    shown = only_text(result(Output(text, len(text.encode())), Secrets(), limit))
    assert len(shown.encode()) <= limit + OWN_WORDS
    if text.strip() and len(text.encode()) <= limit:
        assert shown == text


@pytest.mark.parametrize("limit", range(1, 70))
def test_no_cut_leaves_a_part_of_a_secret(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPLE_TOKEN", SECRET)
    secrets = Secrets()
    secrets.value("env:SAMPLE_TOKEN")
    whole = f"a {SECRET} b {SECRET}{SECRET} c".encode()
    head, tail = Head(limit), Tail(limit)
    for feed in (head.feed, tail.feed):
        feed(whole)
    shown = only_text(result(Output(head.text(), head.size, head.is_cut), secrets, limit)).partition("[cut")[0]
    assert not set("hu-471") & set(shown)
    assert not set("hu-471") & set(tail.text(secrets))
