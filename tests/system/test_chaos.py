"""The short form of `make chaos`: kills and an outage in the middle of everything, then ledger = bill."""

from pathlib import Path

import pytest

from tests.chaos.run import Plan, run
from tests.conftest import NO_POSTGRESQL
from tests.postgresql import programs, running_server

pytestmark = pytest.mark.system


def test_the_ledger_is_the_bill_on_sqlite(worker_class: str, tmp_path: Path) -> None:
    report = run(Plan(), worker_class, tmp_path)

    assert report.problems == []
    assert report.outcomes["finished"] >= 20, report
    assert (report.events["kills"], report.events["outages"]) == (3, 1)


def test_the_ledger_is_the_bill_on_postgresql(worker_class: str, tmp_path: Path) -> None:
    folder = programs()
    if folder is None:
        pytest.skip(NO_POSTGRESQL)
    with running_server(folder) as server:
        report = run(Plan(seed=2), worker_class, tmp_path, server)

    assert report.problems == []
    assert report.outcomes["finished"] >= 20, report
    assert (report.events["kills"], report.events["outages"]) == (3, 1)
