"""One run: clients ask, workers and the MCP server are killed, the database goes away and comes back, then the
books are compared."""

import os
import queue
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.asking import NOBODY, Question, configuration
from tests.chaos.bill import Bill
from tests.chaos.ledger import Ledger, spool_problems
from tests.mcp.servers import ExampleServer
from tests.postgresql import Server
from tests.system.client import eventually
from tests.system.gateway import Gateway, Setup


@dataclass(frozen=True)
class Plan:
    """How much of everything. `restarts`: kill -9 of the whole gateway, which is then started again; `mcp_deaths`:
    of the MCP server."""

    requests: int = 60
    kills: int = 3
    outages: int = 1
    restarts: int = 0
    mcp_deaths: int = 1
    clients: int = 12
    workers: int = 2
    outage_seconds: float = 1.0
    seconds: float = 600.0
    seed: int = 1


@dataclass
class Report:
    """`outcomes` counts how requests ended for their clients, `calls` how the tools' calls did."""

    outcomes: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        parts = [f"{name} {dict(getattr(self, name))}" for name in ("outcomes", "statuses", "calls", "events")]
        return f"{self.seconds:.0f} s; {'; '.join(parts)}; problems {self.problems[:10] or 'none'}"


class Clients:
    """They ask one thing after the other, each request under a name of its own, and never again what may have been
    heard."""

    def __init__(self, gateway: Gateway, plan: Plan) -> None:
        self._gateway = gateway
        self._latest = time.monotonic() + plan.seconds
        self._work: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in range(plan.requests):
            self._work.put(number)
        self.outcomes: dict[str, str] = {}
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(plan.clients)]
        for thread in self._threads:
            thread.start()

    @property
    def done(self) -> int:
        return len(self.outcomes)

    @property
    def running(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        with suppress(queue.Empty):
            while time.monotonic() < self._latest:
                question = Question(self._work.get_nowait())
                outcome = question.outcome(self._gateway)
                if outcome == NOBODY:
                    self._work.put(question.number)
                else:
                    self.outcomes[question.name] = outcome
                if outcome != "finished":
                    time.sleep(0.3)  # as a client would that was told to wait


class Database:
    """What the gateway keeps its ledger in, and how that is made unavailable."""

    def __init__(self, gateway: Gateway, server: Server | None) -> None:
        self._gateway = gateway
        self._server = server
        self.url = (
            server.url.replace("postgresql:", "postgresql+psycopg:") if server else f"sqlite:///{gateway.database}"
        )

    @contextmanager
    def away(self) -> Iterator[None]:
        if self._server is None:
            with self._gateway.without_table("interceptions"):
                yield
            return
        self._server.stop()
        try:
            yield
        finally:
            self._server.start()


def run(plan: Plan, worker_class: str, folder: Path, server: Server | None = None) -> Report:
    """On PostgreSQL if a `server` is given, an empty one that runs; else on SQLite."""
    began = time.monotonic()
    mcp = ExampleServer("streamable-http")
    environment = [("WEB_CONCURRENCY", str(plan.workers)), ("AIBRIDGE_SERVER_THREADS", "32")]
    environment += [("DATABASE_URL", server.url)] if server else []
    bill, report = Bill(plan.seed), Report()
    setup = Setup(configuration(mcp), environment=tuple(environment))
    with mcp, Gateway(setup, worker_class, folder) as gateway:
        gateway.provider.always(bill)
        database = Database(gateway, server)
        gateway.start()
        clients = Clients(gateway, plan)
        for after, happens in _schedule(plan, gateway, database, mcp, report):
            while clients.done < after and clients.running:
                time.sleep(0.01)
            happens()
        while clients.running:
            time.sleep(0.05)
        eventually(gateway.is_ready, 30)
        with suppress(AssertionError):  # then they are among the problems
            eventually(lambda: not Ledger(database.url).open() and not spool_problems(folder / "spool"), 30, 0.5)
        ledger = Ledger(database.url)
        report.outcomes = Counter(clients.outcomes.values())
        report.statuses = Counter(row["status"] for row in ledger.interceptions)
        report.calls = Counter(_call(row["tool"], row["invocation_error"]) for row in ledger.calls)
        finished = [request for request, outcome in clients.outcomes.items() if outcome == "finished"]
        unfinished = [request for request, outcome in clients.outcomes.items() if outcome != "finished"]
        report.problems = ledger.problems(bill, finished, unfinished) + spool_problems(folder / "spool")
        if clients.done < plan.requests:
            report.problems.append(f"only {clients.done} of {plan.requests} requests in {plan.seconds} s")
        if report.outcomes["ended cleanly without its end"]:
            report.problems.append("half an answer ended cleanly")
        report.events["groups that went through the spool"] = gateway.log_text().count("they wait in the spool")
        assert gateway.stop() == 0, gateway.log_text()[-5000:]
    report.seconds = time.monotonic() - began
    return report


def _schedule(
    plan: Plan, gateway: Gateway, database: Database, mcp: ExampleServer, report: Report
) -> list[tuple[int, Callable[[], None]]]:
    """What happens after how many requests: evenly spread, in a random order."""
    dice = random.Random(plan.seed)

    def kill() -> None:
        workers = gateway.worker_pids()
        if workers:
            with suppress(ProcessLookupError):
                os.kill(dice.choice(workers), signal.SIGKILL)
                report.events["kills"] += 1

    def outage() -> None:
        with database.away():
            time.sleep(plan.outage_seconds)
        report.events["outages"] += 1

    def restart() -> None:
        gateway.kill()
        gateway.start()
        report.events["restarts"] += 1

    def mcp_death() -> None:
        mcp.kill()
        time.sleep(plan.outage_seconds)
        mcp.start(wait=False)
        report.events["MCP deaths"] += 1

    events = [kill] * plan.kills + [outage] * plan.outages + [restart] * plan.restarts
    events += [mcp_death] * plan.mcp_deaths
    dice.shuffle(events)
    distance = plan.requests / (len(events) + 1)
    return [(round(distance * (number + 1)), event) for number, event in enumerate(events)]


def _call(tool: str, error: str | None) -> str:
    return f"{tool} failed" if error else tool
