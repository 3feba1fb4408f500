"""`make chaos`: at length, on every combination; the environment can change how much.

CHAOS_REQUESTS, CHAOS_KILLS, CHAOS_OUTAGES, CHAOS_RESTARTS, CHAOS_MCP_DEATHS, CHAOS_SEED: numbers, for each
combination. CHAOS_DATABASES, CHAOS_WORKERS: which ones, separated by commas. CHAOS_SECONDS: how long clients go on
asking at most.
"""

import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.chaos.run import Plan, Report, run
from tests.postgresql import programs, running_server


def main() -> int:
    plan = Plan(
        requests=_number("REQUESTS", 500),
        kills=_number("KILLS", 12),
        outages=_number("OUTAGES", 3),
        restarts=_number("RESTARTS", 1),
        mcp_deaths=_number("MCP_DEATHS", 3),
        workers=3,
        seconds=_number("SECONDS", 300),
        seed=_number("SEED", 1),
    )
    failed = False
    for database in os.environ.get("CHAOS_DATABASES", "sqlite,postgresql").split(","):
        for worker_class in os.environ.get("CHAOS_WORKERS", "gthread,gevent").split(","):
            report = _one(plan, database, worker_class)
            sys.stdout.write(f"{database} {worker_class}: {report}\n")
            sys.stdout.flush()
            failed = failed or bool(report.problems)
    return 1 if failed else 0


def _one(plan: Plan, database: str, worker_class: str) -> Report:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aibridge-chaos-")))
        installed = programs()
        if database == "sqlite":
            return run(plan, worker_class, folder)
        if installed is None:
            return Report(problems=["PostgreSQL is not installed"])
        return run(plan, worker_class, folder, stack.enter_context(running_server(installed)))


def _number(name: str, default: int) -> int:
    return int(os.environ.get(f"CHAOS_{name}", default))


if __name__ == "__main__":
    sys.exit(main())
