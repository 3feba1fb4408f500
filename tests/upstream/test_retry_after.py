"""What providers say about waiting."""

import pytest

from aibridge.upstream.retry_after import retry_after

NOW = 1767355200.0  # Fri, 02 Jan 2026 12:00:00 GMT

TOLD = [
    ((("retry-after", "5"),), 5.0),
    ((("retry-after", " 7 "),), 7.0),
    ((("retry-after", "0.5"),), 0.5),
    ((("retry-after-ms", "1500"), ("retry-after", "9")), 1.5),
    ((("retry-after-ms", "0"), ("retry-after", "9")), 9.0),
    ((("retry-after-ms", "x"), ("retry-after", "9")), 9.0),
    ((("retry-after", "Fri, 02 Jan 2026 12:00:30 GMT"),), 30.0),
    ((("retry-after", "Fri Jan  2 12:00:30 2026"),), 30.0),
    ((("retry-after", "Fri, 02 Jan 2026 11:59:30 GMT"),), None),
    ((("retry-after", "Fri, 02 Jan 99999 11:59:30 GMT"),), None),
    ((("retry-after", "0"),), None),
    ((("retry-after", "-1"),), None),
    ((("retry-after", "1e5"),), None),
    ((("retry-after", "nan"),), None),
    ((("retry-after", "\u0665"),), None),
    ((("retry-after", "9" * 400),), None),
    ((("retry-after", ""),), None),
    ((), None),
]


@pytest.mark.parametrize(("headers", "seconds"), TOLD)
def test_seconds_milliseconds_and_dates(headers: tuple[tuple[str, str], ...], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds
