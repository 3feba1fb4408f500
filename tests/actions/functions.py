"""Functions that python actions of the tests call."""

import math
import sys
from datetime import UTC, datetime
from typing import Any

NOT_A_FUNCTION = 1


def greet(who: str, loud: bool = False) -> str:
    return f"HELLO {who}" if loud else f"hello {who}"


def give(what: str) -> Any:
    values: dict[str, Any] = {
        "none": None,
        "table": {"ä": [1, 2.5, True, None]},
        "bytes": "grün".encode(),
        "broken bytes": b"a\xffb",
        "date": datetime.now(UTC),
        "nan": math.nan,
        "much": "ü" * 1000,
        "surrogate": "\ud800",
    }
    return values[what]


def fail(how: str) -> str:
    if how == "exit":
        sys.exit(3)
    raise ValueError(f"cannot do {how}" + "!" * 5000)
