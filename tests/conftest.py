"""What the machine offers beyond Python: used where it is there, and loudly missed where it is not."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from tests.postgresql import programs, running_server
from tests.redis_server import RedisServer, running_redis

# `make fuzz`: pytest --hypothesis-profile fuzz
settings.register_profile("fuzz", max_examples=int(os.environ.get("FUZZ_EXAMPLES", "4000")), deadline=None)

NO_NGINX = "nginx is not installed: deploy/nginx.conf was not tested"
NO_POSTGRESQL = "PostgreSQL is not installed, nor does DATABASE_URL name a server: nothing was tested on it"
NO_REDIS = "redis-server is not installed: nothing was tested on it"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a server on which tests may create what they like."""
    given = os.environ.get("DATABASE_URL", "")
    folder = programs()
    if given.startswith("postgres"):
        yield given
    elif folder is not None:
        with running_server(folder) as server:
            yield server.url
    else:
        pytest.skip(NO_POSTGRESQL)


@pytest.fixture
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """An empty Redis for this test alone."""
    pytest.importorskip("redis", reason=NO_REDIS)
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        if server is None:
            pytest.skip(NO_REDIS)
        yield server


@pytest.fixture(scope="session")
def nginx_program() -> str:
    """The path of nginx; a package manager may have put it where only root looks."""
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(NO_NGINX)
    return found


def pytest_terminal_summary(terminalreporter: Any) -> None:
    skipped = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    for missing in (NO_NGINX, NO_POSTGRESQL, NO_REDIS):
        if any(missing in reason for reason in skipped):
            terminalreporter.write_line(missing, yellow=True)
