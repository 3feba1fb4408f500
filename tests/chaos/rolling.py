"""`make rolling`: two gateways behind nginx are restarted again and again while streams are open; none is cut.

ROLLING_STREAMS, ROLLING_RESTARTS: how many, for each worker class; a restart is of both gateways, one after the
other. ROLLING_WORKERS: which classes, separated by commas. `tests/system/test_nginx.py` is the short form.
"""

import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from tests.chaos.ledger import Ledger
from tests.fake_provider import Received, Reply, Step
from tests.fake_provider.conversations import block, message_end, message_start, request_bytes, user
from tests.postgresql import programs, running_server
from tests.system.client import Exchange, eventually
from tests.system.gateway import Gateway, Setup
from tests.system.nginx import Nginx

EVENTS_PER_SECOND = 400  # of all streams together, so that many are no more work than few
OPENING = message_start("msg_rolling", {"input_tokens": 1234, "output_tokens": 1})
REQUEST = request_bytes(user("go on"), stream=True)


@dataclass(frozen=True)
class Plan:
    """`streams` in all: most are there when the first restart begins, the others come after each gateway's."""

    streams: int = 30
    restarts: int = 1

    @property
    def later(self) -> int:
        """How many begin after each restart of a gateway."""
        return self.streams // 3 // (2 * self.restarts)


class Talk:
    """A provider whose streams go on, numbered event by event, until `over` is set."""

    def __init__(self, plan: Plan) -> None:
        self.over = Event()
        self._pause = plan.streams / EVENTS_PER_SECOND

    def __call__(self, _: Received) -> Reply:
        return Reply.sse(self._steps())

    def _steps(self) -> Iterator[Step]:
        number = 0
        yield OPENING
        while not self.over.is_set():
            yield said(number)
            yield self._pause
            number += 1
        yield from message_end("end_turn", {"output_tokens": number})


def said(number: int) -> bytes:
    return b"".join(block(number, {"type": "text", "text": f"{number}"}))


def whole(stream: Exchange) -> bool:
    """Whether every byte arrived that the provider sent, to the very end."""
    stream.read()
    number = stream.body.count(b"event: content_block_start")
    sent = (OPENING, *map(said, range(number)), *message_end("end_turn", {"output_tokens": number}))
    return stream.ended == "clean" and bytes(stream.body) == b"".join(sent)


def roll(plan: Plan, pair: Sequence[Gateway], nginx: Nginx, database: str) -> list[str]:
    """What went wrong; both gateways run, and share the database."""
    talk = Talk(plan)
    for gateway in pair:
        gateway.provider.always(talk)
    streams = _begun(nginx, plan.streams - 2 * plan.restarts * plan.later)
    problems = [f"{gateway.url} got nothing to do" for gateway in pair if not gateway.provider.received]
    for _ in range(plan.restarts):
        for gateway in pair:
            _restart(gateway)
            streams += _begun(nginx, plan.later)
    talk.over.set()
    problems += [f"stream {number} was cut" for number, stream in enumerate(streams) if not whole(stream)]
    statuses = Counter(row["status"] for row in Ledger(database).interceptions)
    if statuses != {"completed": plan.streams}:
        problems.append(f"recorded {dict(statuses)}")
    for stream in streams:
        stream.close()
    return problems


def _begun(nginx: Nginx, count: int) -> list[Exchange]:
    streams = [nginx.post(REQUEST) for _ in range(count)]
    for stream in streams:
        stream.read_until(OPENING)
    return streams


def _restart(gateway: Gateway) -> None:
    """Until new workers are there; the old ones still have their streams."""
    before = set(gateway.worker_pids())
    gateway.signal(signal.SIGHUP)
    eventually(lambda: set(gateway.worker_pids()) - before, 60)


def main() -> int:
    plan = Plan(int(os.environ.get("ROLLING_STREAMS", "500")), int(os.environ.get("ROLLING_RESTARTS", "5")))
    postgresql = programs()
    nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if postgresql is None or nginx is None:
        sys.exit("PostgreSQL or nginx is not installed")
    failed = False
    for worker_class in os.environ.get("ROLLING_WORKERS", "gthread,gevent").split(","):
        began = time.monotonic()
        problems = _one(plan, worker_class, postgresql, nginx)
        seconds = time.monotonic() - began
        sys.stdout.write(f"{worker_class}: {plan}; {seconds:.0f} s; problems {problems[:10] or 'none'}\n")
        sys.stdout.flush()
        failed = failed or bool(problems)
    return 1 if failed else 0


def _one(plan: Plan, worker_class: str, postgresql: Path, nginx: str) -> list[str]:
    with ExitStack() as stack:
        server = stack.enter_context(running_server(postgresql))
        database = server.url.replace("postgresql:", "postgresql+psycopg:")
        environment = {
            "DATABASE_URL": database,
            "AIBRIDGE_SERVER_THREADS": str(2 * plan.streams),
            "AIBRIDGE_SERVER_DRAIN_TIMEOUT": "600",
        }
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(3)]
        setup = Setup(environment=tuple(environment.items()))
        pair = [stack.enter_context(Gateway(setup, worker_class, folder)) for folder in folders[:2]]
        for gateway in pair:
            gateway.launch()
        for gateway in pair:
            gateway.wait_until_ready()
        proxy = stack.enter_context(Nginx(nginx, folders[2], [gateway.port for gateway in pair]))
        return roll(plan, pair, proxy, database)


if __name__ == "__main__":
    sys.exit(main())
