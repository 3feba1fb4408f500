"""One run: clients ask, workers are killed, the database goes away and comes back, then the books are compared."""

import json
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

from tests.chaos.bill import Bill
from tests.chaos.ledger import Ledger, spool_problems
from tests.postgresql import Server
from tests.system.client import Exchange, eventually
from tests.system.gateway import ROOT, Gateway, Setup

TOML = f"""
[[providers]]
name = "anthropic"
type = "anthropic"
base_url = "{{url}}"
keys = ["sk-ant-central"]

[[providers]]
name = "openai"
type = "openai"
base_url = "{{url}}/v1"
keys = ["sk-central-openai"]

[actions]
dir = "{ROOT / "tests/system/actions"}"
"""
ROUTES = {
    "messages": "/anthropic/v1/messages",
    "chat_completions": "/openai/v1/chat/completions",
    "responses": "/openai/v1/responses",
}
# Without this at its end a stream is half an answer.
LAST = {"messages": b"message_stop", "chat_completions": b"[DONE]", "responses": b"response.completed"}


@dataclass(frozen=True)
class Plan:
    """How much of everything. `restarts`: kill -9 of the whole gateway, which is then started again."""

    requests: int = 60
    kills: int = 3
    outages: int = 1
    restarts: int = 0
    clients: int = 12
    workers: int = 3
    outage_seconds: float = 1.0
    seconds: float = 600.0
    seed: int = 1


@dataclass
class Report:
    """`outcomes` counts how requests ended for their clients."""

    outcomes: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        parts = [f"{name} {dict(getattr(self, name))}" for name in ("outcomes", "statuses", "events")]
        return f"{self.seconds:.0f} s; {'; '.join(parts)}; problems {self.problems[:10] or 'none'}"


class Clients:
    """They ask one thing after the other, each request under a name of its own, and never again."""

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
                number = self._work.get_nowait()
                outcome = self._asked(number)
                self.outcomes[f"chaos-{number}"] = outcome
                if outcome != "finished":
                    time.sleep(0.3)  # as a client would that was told to wait

    def _asked(self, number: int) -> str:
        protocol = list(ROUTES)[number % 3]
        stream, tool = bool(number // 3 % 3), number // 9 % 2
        prompt = f"chaos-{number} {'with a tool' if tool else ''}"
        turns = [{"role": "user", "content": prompt}]
        asked = {"model": "m", "stream": stream, "input" if protocol == "responses" else "messages": turns}
        asked |= {"max_tokens": 99} if protocol == "messages" else {}
        headers = [("X-User-ID", f"chaos-{number}")]
        try:
            with self._gateway.post(json.dumps(asked).encode(), headers, ROUTES[protocol]) as answer:
                return _outcome(answer.read(), protocol, stream=stream)
        except OSError:
            return "unreachable"


def _outcome(answer: Exchange, protocol: str, *, stream: bool) -> str:
    if answer.status != 200:
        return f"refused with {answer.status}"
    if answer.ended != "clean":
        return "cut"
    if stream and LAST[protocol] not in answer.body:
        return "ended cleanly without its end" if b"error" not in answer.body else "cut"
    return "finished"


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
    environment = [("WEB_CONCURRENCY", str(plan.workers)), ("AIBRIDGE_SERVER_THREADS", "32")]
    environment += [("DATABASE_URL", server.url)] if server else []
    bill, report = Bill(plan.seed), Report()
    with Gateway(Setup(TOML, environment=tuple(environment)), worker_class, folder) as gateway:
        gateway.provider.always(bill)
        database = Database(gateway, server)
        gateway.start()
        clients = Clients(gateway, plan)
        for after, happens in _schedule(plan, gateway, database, report):
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
    plan: Plan, gateway: Gateway, database: Database, report: Report
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

    events = [kill] * plan.kills + [outage] * plan.outages + [restart] * plan.restarts
    dice.shuffle(events)
    distance = plan.requests / (len(events) + 1)
    return [(round(distance * (number + 1)), event) for number, event in enumerate(events)]
