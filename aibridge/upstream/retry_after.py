"""How long a provider asks to be left alone: `retry-after-ms`, else `retry-after` (RFC 9110, section 10.2.3)."""

import re
from datetime import UTC
from email.utils import parsedate_to_datetime

from aibridge.upstream.call import Headers, header

_NUMBER = re.compile(r"\d{1,15}(\.\d{1,15})?", re.ASCII)


def retry_after(headers: Headers, now: float) -> float | None:
    """Seconds from `now`, which is in seconds since 1970. None if the headers do not say, or make no sense."""
    milliseconds = _number(header(headers, "retry-after-ms"))
    if milliseconds:
        return milliseconds / 1000
    told = header(headers, "retry-after")
    return _positive(_number(told)) or _positive(_date(told, now))


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text := text.strip()) else None


def _date(text: str, now: float) -> float | None:
    """Seconds until an HTTP date. One without a zone is in UTC, as all of them are to be."""
    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, OverflowError):
        return None


def _positive(seconds: float | None) -> float | None:
    return seconds if seconds is not None and seconds > 0 else None
