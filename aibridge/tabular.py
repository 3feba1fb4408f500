"""Data as text for people: aligned tables, and settings in TOML's spelling.

What is shown was partly written by strangers (prompts, client names), so nothing that could steer a terminal
gets through.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

Cell = str | int | datetime | None


def table(headers: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Columns padded to their widest cell; numbers to the right, times in UTC, `-` for nothing."""
    lines = [list(headers), *([_shown(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    numeric = [any(isinstance(row[column], int) for row in rows) for column in range(len(headers))]
    return "\n".join(
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    )


def _shown(cell: Cell) -> str:
    match cell:
        case None | "":
            return "-"
        case int():
            return f"{cell:,}"
        case datetime():
            return cell.strftime("%Y-%m-%d %H:%M:%S")
        case str():
            return one_line(cell)


def printable(text: str) -> str:
    """`text` without control characters: escape sequences, changes of direction and the like."""
    return "".join(character if character.isprintable() else " " for character in text)


def one_line(text: str, limit: int | None = None) -> str:
    """`text` on one line, cut to `limit` characters."""
    line = " ".join(printable(text).split())
    return line if limit is None or len(line) <= limit else line[: limit - 1] + "…"


def indented(text: str, margin: str, limit: int) -> str:
    """The first `limit` characters of `text`, every line behind `margin`."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return "\n".join((margin + printable(line)).rstrip() for line in cut.splitlines())


def toml(data: Mapping[str, Any]) -> str:
    """Settings as TOML: sections and lists of sections. TOML has no None: it is left out."""
    blocks = []
    for name, value in data.items():
        if isinstance(value, Mapping):
            blocks.append(_block(f"[{name}]", value))
        else:
            blocks += [_block(f"[[{name}]]", entry) for entry in value]
    return "\n\n".join(blocks)


def _block(header: str, values: Mapping[str, Any]) -> str:
    lines = [f"{name} = {_value(value)}" for name, value in values.items() if value is not None]
    return "\n".join([header, *lines])


def _value(value: Any) -> str:
    """A TOML value. Strings, numbers and truth values are spelt as in JSON."""
    if isinstance(value, Mapping):
        pairs = [f"{json.dumps(name)} = {_value(item)}" for name, item in value.items() if item is not None]
        return f"{{ {', '.join(pairs)} }}" if pairs else "{}"
    if isinstance(value, list):
        return f"[{', '.join(_value(item) for item in value)}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
