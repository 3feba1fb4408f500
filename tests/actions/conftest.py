"""A folder of actions, and a real server for those that call one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.actions.samples import Workshop
from tests.fake_provider.server import FakeProvider


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "actions")


@pytest.fixture
def server() -> Iterator[FakeProvider]:
    with FakeProvider() as server:
        yield server
