"""The front door's own limits."""

from collections.abc import Iterator

import pytest

from aibridge.errors import UpstreamError
from aibridge.web import front


def test_a_body_that_has_to_be_whole_is_held_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "LARGEST_BODY", 10)
    asked = 0

    def endless() -> Iterator[bytes]:
        nonlocal asked
        while True:
            asked += 1
            yield b"four"

    with pytest.raises(UpstreamError, match="too large"):
        list(front._bounded(endless(), lambda: False))
    assert asked == 3
