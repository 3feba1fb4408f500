"""Text for people: aligned, harmless to a terminal, and TOML that reads back as it was."""

import tomllib
from datetime import UTC, datetime

import pytest

from aibridge.tabular import indented, one_line, table, toml


def test_columns_are_aligned_numbers_to_the_right() -> None:
    when = datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert table(("who", "tokens", "when"), [("alice", 1234567, when), ("bo", 5, None), ("", None, "never")]) == (
        "who       tokens  when\n"
        "alice  1,234,567  2026-03-01 12:00:00\n"
        "bo             5  -\n"
        "-              -  never"
    )


@pytest.mark.parametrize("evil", ["\x1b[31mred", "a\nb", "\u202edrow", "bell\x07", "c1\x9b2J"])
def test_nothing_steers_the_terminal(evil: str) -> None:
    for shown in (table(("x",), [(evil,)]).removeprefix("x\n"), one_line(evil), indented(evil, "", 99)):
        assert all(character.isprintable() or character == "\n" for character in shown)
    assert "\n" not in one_line(evil)


def test_long_text_is_cut_visibly() -> None:
    assert one_line("one  two\nthree", 9) == "one two …"
    assert one_line("short", 5) == "short"
    assert indented("one\n\ntwo and more", "| ", 8) == "| one\n|\n| tw…"
    assert indented("one", "  ", 3) == "  one"


def test_toml_reads_back_as_it_was() -> None:
    server = {"host": "::1", "port": 8080, "odd": 'a"\\\n\x7fü', "on": True, "ratio": 0.5}
    first = {"name": "a", "keys": ["x", "y"], "empty": {}}
    second = {"name": "b", "keys": []}
    text = toml(
        {
            "server": {**server, "unset": None},
            "providers": [{**first, "retry": {"max": 2, "none": None}}, second],
            "mcp_servers": [],
        }
    )
    assert tomllib.loads(text) == {"server": server, "providers": [{**first, "retry": {"max": 2}}, second]}
