"""The short form of `make chaos`: kills and an outage in the middle of everything, then ledger = bill."""

from pathlib import Path

import pytest

from tests.chaos.run import Plan, Report, run
from tests.postgresql import programs, running_server

pytestmark = pytest.mark.system


def test_the_ledger_is_the_bill(worker_class: str, tmp_path: Path) -> None:
    """Under threads on PostgreSQL where there is one, under gevent on SQLite; `make chaos` does all four."""
    report = played(worker_class, tmp_path)
    assert report.problems == []
    assert report.outcomes["finished"] >= 10, report  # of 60; the slower the machine, the more meet an outage
    assert [report.events[kind] for kind in ("kills", "outages", "MCP deaths")] == [3, 1, 1]


def played(worker_class: str, folder: Path) -> Report:
    postgresql = programs() if worker_class == "gthread" else None
    if postgresql is None:
        return run(Plan(), worker_class, folder)
    with running_server(postgresql) as server:
        return run(Plan(seed=2), worker_class, folder, server)
