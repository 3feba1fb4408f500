"""`make bench`. BENCH_ROUNDS, BENCH_SYSTEMS, BENCH_SCENARIOS (names, separated by commas) say how much of it;
BENCH_CHECKOUTS="name=/path,..." adds the gateway of other source trees."""

import os
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from bench.certificates import made
from bench.rounds import Results, run, say, started
from bench.scenarios import SCENARIOS
from bench.systems import Options, provider, systems


def main() -> int:
    signal.signal(signal.SIGTERM, _stop)
    checkouts = dict(entry.split("=", 1) for entry in _names("BENCH_CHECKOUTS"))
    known = systems({name: Path(path) for name, path in checkouts.items()})
    wanted = _names("BENCH_SYSTEMS") or [system.name for system in known]
    chosen = [system for system in known if system.name in wanted]
    for system in chosen:
        if system.missing:
            say(f"{system.name} IS LEFT OUT: {system.missing}")
    scenarios = [s for s in SCENARIOS if s.name in (_names("BENCH_SCENARIOS") or [x.name for x in SCENARIOS])]
    results = Results()
    with tempfile.TemporaryDirectory(prefix="aibridge-bench-", dir=".bench") as path:
        folder = Path(path).resolve()
        with (
            provider(folder, made(folder)) as upstream,
            started([s for s in chosen if not s.missing], upstream, folder, Options()) as running,
        ):
            run(running, upstream, scenarios, int(os.environ.get("BENCH_ROUNDS", "3")), results)
    for scenario, cells in results.samples.items():
        for system in cells:
            figures = [
                results.median(scenario, system, f) or 0
                for f in (
                    "requests_per_second",
                    "cpu_ms_per_request",
                    "cpu_us_per_event",
                    "delay_p50_ms",
                    "delay_p99_ms",
                    "latency_p50_ms",
                )
            ]
            sys.stdout.write(f"| {scenario} | {system} | " + " | ".join(f"{x:.3f}" for x in figures) + " |\n")
    return 0


def _names(variable: str) -> list[str]:
    return [name for name in os.environ.get(variable, "").split(",") if name]


def _stop(signal_number: int, frame: FrameType | None) -> None:
    sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
