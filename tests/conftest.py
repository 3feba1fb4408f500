"""What the machine offers beyond Python: used where it is there, and loudly missed where it is not."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.postgresql import programs, running_server

NO_POSTGRESQL = "PostgreSQL is not installed, nor does DATABASE_URL name a server: nothing was tested on it"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a server on which tests may create what they like."""
    given = os.environ.get("DATABASE_URL", "")
    folder = programs()
    if given.startswith("postgres"):
        yield given
    elif folder is not None:
        with running_server(folder) as url:
            yield url
    else:
        pytest.skip(NO_POSTGRESQL)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if any(NO_POSTGRESQL in str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_line(NO_POSTGRESQL, yellow=True)
