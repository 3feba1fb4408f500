"""Gateways for the system tests: each worker class, one process per set of settings, logs shown on failure."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.system.gateway import DEFAULT, Gateway, Setup

LOG_SHOWN = 12_000


class Gateways:
    """Starts gateways and keeps them: tests with the same settings share one process."""

    def __init__(self, worker_class: str, folder: Path) -> None:
        self.worker_class = worker_class
        self._folder = folder
        self._shared: dict[Setup, Gateway] = {}
        self._own: list[Gateway] = []
        self._number = 0
        self.in_use: dict[Gateway, int] = {}

    def __call__(self, setup: Setup = DEFAULT) -> Gateway:
        """The shared gateway with these settings; its provider has forgotten earlier tests."""
        gateway = self._shared.get(setup)
        if gateway is None:
            gateway = self._prepared(setup)
            self._shared[setup] = gateway
            gateway.start()
        assert gateway.is_running, f"this gateway has stopped:\n{gateway.log_text()[-LOG_SHOWN:]}"
        gateway.provider.reset()
        self.in_use.setdefault(gateway, len(gateway.log_text()))
        return gateway

    def own(self, setup: Setup = DEFAULT) -> Gateway:
        """A gateway for this test alone, not started yet. It is killed when the test ends."""
        gateway = self._prepared(setup)
        self._own.append(gateway)
        self.in_use[gateway] = 0
        return gateway

    def _prepared(self, setup: Setup) -> Gateway:
        self._number += 1
        folder = self._folder / f"gateway-{self._number}"
        folder.mkdir()
        return Gateway(setup, self.worker_class, folder)

    def logs(self) -> str:
        """What the gateways of the running test have logged during it."""
        return "\n".join(gateway.log_text()[start:][-LOG_SHOWN:] for gateway, start in self.in_use.items())

    def end_test(self) -> None:
        for gateway in self._own:
            with gateway:
                pass
        self._own.clear()
        self.in_use.clear()

    def close(self) -> None:
        for gateway in self._shared.values():
            with gateway:  # stopping has tests of its own
                pass


GATEWAYS = pytest.StashKey[Gateways]()


@pytest.fixture(scope="session", params=["gthread", "gevent"])
def worker_class(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def all_gateways(worker_class: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    gateways = Gateways(worker_class, tmp_path_factory.mktemp(worker_class))
    yield gateways
    gateways.close()


@pytest.fixture
def gateways(all_gateways: Gateways, request: pytest.FixtureRequest) -> Iterator[Gateways]:
    """The factory: `gateways(Setup(...))` shares a process, `gateways.own(Setup(...))` does not."""
    request.node.stash[GATEWAYS] = all_gateways
    yield all_gateways
    all_gateways.end_test()


@pytest.fixture
def gateway(gateways: Gateways) -> Gateway:
    """The gateway with usual settings: one Anthropic provider with a central key, mode open."""
    return gateways()


@pytest.fixture
def actor() -> str:
    """A user id that no other test has, to find this test's rows by."""
    return f"user-{uuid4()}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[pytest.TestReport]:  # the wrapper is a generator that gets and returns the report
    report: pytest.TestReport = yield  # type: ignore[misc, assignment]
    gateways = item.stash.get(GATEWAYS, None)
    if report.failed and gateways:
        report.sections.append(("gateway log", gateways.logs()))
    return report  # type: ignore[return-value]
