"""`make bench`: all of it goes into docs/performance.md; a part of it is only printed.

BENCH_ROUNDS            how often everything is measured (5)
BENCH_SYSTEMS           names, separated by commas: direct, nginx, ours, ours-gevent, ours-tools, litellm, portkey
BENCH_SCENARIOS         names, separated by commas: those of bench/scenarios.py, `alone` and `workers`
BENCH_CHECKOUTS         name=/path,...: the gateway of other source trees, as name, name-gevent and name-tools
"""

import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

from bench.alone import run_alone
from bench.certificates import made
from bench.document import surroundings, write
from bench.report import report
from bench.results import Results
from bench.rounds import Run, say
from bench.scenarios import SCALING, SCENARIOS
from bench.systems import systems
from bench.systems.fake_provider import provider
from bench.systems.model import INSTALLED, Options, System

LAST_RESULTS = INSTALLED / "results.json"
WORKERS = 2


def main() -> int:
    signal.signal(signal.SIGTERM, _stop)
    rounds = int(os.environ.get("BENCH_ROUNDS", "5"))
    chosen, parts = _chosen(), _names("BENCH_SCENARIOS")
    with tempfile.TemporaryDirectory(prefix="run-", dir=INSTALLED) as path:
        folder = Path(path)
        with provider(folder, made(folder)) as upstream:
            results = _measured(Run(upstream, folder, rounds), chosen, parts)
    about = surroundings(rounds)
    LAST_RESULTS.write_text(json.dumps({"about": about, "samples": results.samples}, indent=1))
    if parts or os.environ.get("BENCH_SYSTEMS"):
        sys.stdout.write(report(results) + "\n")
    else:
        write(results, about)
        say("written to docs/performance.md")
    say(f"every sample: {LAST_RESULTS}")
    return 0


def _measured(run: Run, chosen: Sequence[System], parts: Sequence[str]) -> Results:
    run.together(chosen, [scenario for scenario in SCENARIOS if not parts or scenario.name in parts], Options())
    if not parts or "workers" in parts:
        scaling = [system for system in chosen if system.scales]
        run.together(scaling, SCALING, Options(workers=WORKERS), f"-{WORKERS}-workers")
    if not parts or "alone" in parts:
        seldom = replace(run, rounds=max(1, run.rounds // 2))
        for system in chosen:
            if not system.tools and system.name != "direct":
                run_alone(seldom, system)
    return run.results


def _chosen() -> list[System]:
    checkouts = dict(entry.split("=", 1) for entry in _names("BENCH_CHECKOUTS"))
    known = systems({name: Path(path) for name, path in checkouts.items()})
    wanted = _names("BENCH_SYSTEMS") or [system.name for system in known]
    for system in known:
        if system.name in wanted and system.missing:
            say(f"{system.name} IS LEFT OUT: {system.missing}")
    return [system for system in known if system.name in wanted and not system.missing]


def _names(variable: str) -> list[str]:
    return [name for name in os.environ.get(variable, "").split(",") if name]


def _stop(signal_number: int, frame: FrameType | None) -> None:
    sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
