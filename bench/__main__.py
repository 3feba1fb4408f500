"""`make bench`: all of it goes into docs/performance.md; a part of it is only printed.

BENCH_ROUNDS            how often everything is measured (3)
BENCH_SYSTEMS           names, separated by commas: direct, nginx, ours, ours-gevent, ours-tools, litellm, portkey
BENCH_SCENARIOS         names, separated by commas: those of bench/scenarios.py, `alone` and `workers`
BENCH_CHECKOUTS         name=/path,...: the gateway of other source trees, as name, name-gevent and name-tools
"""

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
from bench.document import LAST_RUN, keep, surroundings, write
from bench.peers import PINS, install
from bench.report import report
from bench.results import Results
from bench.rounds import Run, say
from bench.scenarios import SCALING, SCENARIOS
from bench.systems import systems
from bench.systems.fake_provider import provider
from bench.systems.model import INSTALLED, Options, System

WORKERS = 2


def main() -> int:
    signal.signal(signal.SIGTERM, _stop)
    rounds = int(os.environ.get("BENCH_ROUNDS", "3"))
    chosen, parts = _chosen(), _names("BENCH_SCENARIOS")
    about, results = surroundings(rounds), Results()
    with tempfile.TemporaryDirectory(prefix="run-", dir=INSTALLED) as path:
        folder = Path(path)
        try:
            with provider(folder, made(folder)) as upstream:
                _measure(Run(upstream, folder, rounds, results), chosen, parts)
        finally:
            keep(results, about)
    if parts or _names("BENCH_SYSTEMS") or _names("BENCH_CHECKOUTS"):
        sys.stdout.write(report(results) + "\n")
    else:
        write(results, about)
        say("written to docs/performance.md")
    say(f"every sample: {LAST_RUN}")
    return 0


def _measure(run: Run, chosen: Sequence[System], parts: Sequence[str]) -> None:
    scenarios = [scenario for scenario in SCENARIOS if not parts or scenario.name in parts]
    if scenarios:
        with run.asking(chosen, scenarios, Options()) as ask:
            ask()
    if not parts or "workers" in parts:
        scaling = [system for system in chosen if system.scales]
        with run.asking(scaling, SCALING, Options(workers=WORKERS), f"-{WORKERS}-workers") as ask:
            ask()
    if not parts or "alone" in parts:
        seldom = replace(run, rounds=max(1, run.rounds // 2))
        for system in chosen:
            if not system.tools and system.name != "direct":
                run_alone(seldom, system)


def _chosen() -> list[System]:
    """The systems that are wanted and there."""
    checkouts = {name: Path(path) for name, _, path in (e.partition("=") for e in _names("BENCH_CHECKOUTS"))}
    wanted = _names("BENCH_SYSTEMS")
    install(wanted or list(PINS))
    chosen = [system for system in systems(checkouts) if not wanted or system.name in wanted]
    for system in chosen:
        if system.missing:
            say(f"{system.name} IS LEFT OUT: {system.missing}")
    return [system for system in chosen if not system.missing]


def _names(variable: str) -> list[str]:
    return [name for name in os.environ.get(variable, "").split(",") if name]


def _stop(signal_number: int, frame: FrameType | None) -> None:
    sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
