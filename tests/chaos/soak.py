"""`make soak`: a steady, mixed load for a long time, in which no worker's memory, threads or descriptors may grow.

SOAK_MINUTES: how long it is measured, after a warm-up. SOAK_WORKERS: gthread, gevent. SOAK_RATE: requests per
second; the default leaves most of a core to others. A table at the end; exit status 1 if something grows, or if
the books are wrong.

It holds whatever might leave something behind: all protocols, blocking and streamed, tools of both kinds, clients
that leave, providers that are down or die, an MCP server that dies, large requests, and again and again a new
actor, session, model or key.
"""

import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from statistics import median

from tests.chaos.asking import Question, configuration
from tests.chaos.bill import Bill
from tests.chaos.growth import HEADLINE, Series
from tests.chaos.ledger import Ledger
from tests.chaos.process import Sample, cpu_seconds
from tests.fake_provider import Received, Reply
from tests.mcp.servers import ExampleServer
from tests.system.client import eventually
from tests.system.gateway import Gateway, Setup

CLIENTS = 12
WARM_UP = 3  # times the rate: what the allocator keeps for itself grows for the first thousands of requests
EVERY = 3.0  # seconds between two measurements
MCP_LIFE = 60.0  # seconds

# What clients may ask of the provider beyond an answer.
DOWN, DIES = "be down", "die halfway"

# Only a long time shows that breakers, limits and retries leave nothing behind, so there are all of them.
PROVIDER = """
retry = { max_retries = 1, base_delay = 0.1 }
circuit_breaker = { failure_threshold = 20 }
"""
ENVIRONMENT = {
    "AIBRIDGE_LIMITS_RATE": "1000/minute",
    "AIBRIDGE_LIMITS_PER_ACTOR_CONCURRENCY": "4",
    "AIBRIDGE_SERVER_THREADS": "32",
    "WEB_CONCURRENCY": "2",
}
# What is measured of a worker, in which unit, and how much of a rise is noise: so much and such a part of it. Of
# memory some percent, for what the allocator has freed and keeps, in pieces, grows ever more slowly.
MEASURED = {
    "resident": ("MiB", 0.0, 0.03),
    "proportional": ("MiB", 0.0, 0.03),
    "threads": ("threads", 4.0, 0.0),
    "descriptors": ("descriptors", 4.0, 0.0),
}


class Provider:
    """Answers and keeps the bill, unless it is asked to fail."""

    def __init__(self, bill: Bill) -> None:
        self._bill = bill

    def __call__(self, received: Received) -> Reply:
        if received.method == "GET":
            return Reply.json({"data": []})
        if DOWN.encode() in received.body:
            return Reply.json({"error": {"type": "overloaded_error", "message": "down"}}, status=529)
        reply = self._bill(received)
        if DIES.encode() not in received.body:
            return reply
        if reply.framing == "length":
            return Reply.nothing("reset")
        steps = list(reply.body)
        return reply.but(body=steps[: len(steps) // 2], ending="cut")


class Load:
    """Clients that ask at a steady pace, each once in `pause` seconds, as long as nobody says stop."""

    def __init__(self, gateway: Gateway, rate: float) -> None:
        self._gateway = gateway
        self.pause = CLIENTS / rate
        self._numbers = count(1)
        self._stopped = threading.Event()
        self.outcomes: dict[str, str] = {}
        self._threads = [threading.Thread(target=self._run, args=(at,), daemon=True) for at in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _run(self, at: int) -> None:
        due = time.monotonic() + self.pause * at / CLIENTS
        while not self._stopped.wait(max(0.0, due - time.monotonic())):
            due = max(due + self.pause, time.monotonic())
            question = asked(next(self._numbers))
            self.outcomes[question.name] = self._outcome(question)

    def _outcome(self, question: Question) -> str:
        if question.number % 29 == 0:
            with self._gateway.get("/anthropic/v1/models") as models:
                return f"models {models.read().status}"
        if question.number % 13:
            return question.outcome(self._gateway)
        with suppress(OSError), question.ask(self._gateway) as answer:
            answer.read_bytes(1)
        return "left"


def asked(number: int) -> Question:
    wishes = {3: DOWN, 9: DIES}
    more = wishes.get(number % 19, "") + ("long " * 40_000 if number % 31 == 0 else "")
    headers = [("User-Agent", "claude-cli/2.0"), ("X-Claude-Code-Session-Id", f"session-{number // 7}")]
    headers += [("X-Api-Key", f"sk-own-{number}")] if number % 11 == 0 else []
    return Question(number, f"m-{number // 40}", more, tuple(headers))


class Soak:
    """One gateway under load; `series` and `problems` tell of it once `run` is over."""

    def __init__(self, gateway: Gateway, mcp: ExampleServer, bill: Bill) -> None:
        self._gateway = gateway
        self._mcp = mcp
        self._bill = bill
        self._mcp_dies = time.monotonic() + MCP_LIFE
        self.outcomes: Counter[str] = Counter()
        self.core = 0.0
        self.series: list[Series] = []
        self.problems: list[str] = []

    def run(self, warm_up: float, seconds: float, rate: float) -> None:
        load = Load(self._gateway, WARM_UP * rate)
        self._measured(warm_up)
        load.pause = CLIENTS / rate
        began, used = time.monotonic(), self._used()
        samples = self._measured(seconds)
        self.core = (self._used() - used) / (time.monotonic() - began)
        load.stop()
        self.outcomes = Counter(load.outcomes.values())
        self.series = _series(samples)
        self.problems = self._problems(samples, load.outcomes)

    def _measured(self, seconds: float) -> list[tuple[float, dict[int, Sample]]]:
        samples = []
        began = time.monotonic()
        while (now := time.monotonic() - began) < seconds:
            samples.append((now, {pid: Sample.of(pid) for pid in self._gateway.worker_pids()}))
            self._gateway.provider.received.clear()
            if time.monotonic() > self._mcp_dies:
                self._mcp.kill()
                self._mcp.start(wait=False)
                self._mcp_dies = time.monotonic() + MCP_LIFE
            time.sleep(EVERY)
        return samples

    def _used(self) -> float:
        """CPU seconds of the gateway and of this process, which is clients and provider."""
        pids = (self._gateway.pid, os.getpid(), *self._gateway.worker_pids())
        return sum(cpu_seconds(pid) for pid in pids)

    def _problems(self, samples: Sequence[tuple[float, dict[int, Sample]]], outcomes: dict[str, str]) -> list[str]:
        url = f"sqlite:///{self._gateway.database}"
        with suppress(AssertionError):  # then they are among the problems
            eventually(lambda: not Ledger(url).open())
        finished = [name for name, outcome in outcomes.items() if outcome == "finished"]
        found = [f"{series.name} grows" for series in self.series if series.grows]
        found += Ledger(url).problems(self._bill, finished, outcomes.keys() - set(finished))
        found += ["a worker was replaced"] if len({frozenset(seen) for _, seen in samples}) > 1 else []
        found += ["there is a traceback in the log"] if "Traceback" in self._gateway.log_text() else []
        return found + ([] if self._gateway.stop() == 0 else ["it did not stop well"])


def _series(samples: Sequence[tuple[float, dict[int, Sample]]]) -> list[Series]:
    """Of the workers that were there all the time."""
    times = [at for at, _ in samples]
    there = set.intersection(*(set(seen) for _, seen in samples))
    found = []
    for pid in sorted(there):
        for name, (unit, noise, part) in MEASURED.items():
            values = [float(getattr(seen[pid], name)) for _, seen in samples]
            found.append(Series(f"{pid} {name}", unit, noise + part * median(values), times, values))
    return found


def main() -> int:
    minutes = float(os.environ.get("SOAK_MINUTES", "30"))
    worker_class = os.environ.get("SOAK_WORKERS", "gthread")
    rate = float(os.environ.get("SOAK_RATE", "8"))
    mcp, bill = ExampleServer("streamable-http"), Bill(seed=1)
    setup = Setup(configuration(mcp, PROVIDER), environment=tuple(ENVIRONMENT.items()))
    folder = tempfile.TemporaryDirectory(prefix="aibridge-soak-")
    with folder, mcp, Gateway(setup, worker_class, Path(folder.name)) as gateway:
        gateway.provider.always(Provider(bill))
        soak = Soak(gateway.start(), mcp, bill)
        soak.run(max(60.0, minutes * 60 / 6), minutes * 60, rate)
    lines = [HEADLINE, *map(str, soak.series)]
    lines += [f"{worker_class}, {minutes:g} min: {soak.core:.0%} of a core; {dict(soak.outcomes)}"]
    lines += [f"problems: {soak.problems[:10] or 'none'}"]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if soak.problems else 0


if __name__ == "__main__":
    sys.exit(main())
