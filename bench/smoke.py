"""`make bench-smoke`: the gateway against nginx in a few seconds; status 1 if it became grossly slower.

Ratios only, measured in turns, the best of several rounds on both sides: what else the machine does makes a round
worse, never better. A limit is about twice what the gateway needed when it was last set; whoever makes the gateway
faster lowers it in the same change.
"""

import sys
import tempfile
from pathlib import Path

from bench.certificates import made
from bench.results import Results
from bench.rounds import Run, say
from bench.scenarios import Scenario
from bench.systems import systems
from bench.systems.fake_provider import provider
from bench.systems.model import INSTALLED, Options

REQUESTS = Scenario("requests", 16, seconds=0.5)
EVENTS = Scenario("events", 32, pace=0.01, events=100, seconds=0.1)

# scenario, figure, what it is, how many times nginx's it may be. In November 2026 it was 36 to 60, and 3 to 4.5.
LIMITS = (
    (REQUESTS, "cpu_ms_per_request", "CPU of a blocking request", 120),
    (EVENTS, "cpu_us_per_event", "CPU of a streamed event", 9),
)
ROUNDS = 2  # at a time
TIMES = 3  # as long as a limit is exceeded


def main() -> int:
    chosen = [system for system in systems({}) if system.name in ("nginx", "ours")]
    missing = [f"{system.name}: {system.missing}" for system in chosen if system.missing]
    if missing:
        say(f"THE BENCH IS SKIPPED: {', '.join(missing)}")
        return 0
    with tempfile.TemporaryDirectory(prefix="smoke-", dir=INSTALLED) as path:
        folder = Path(path)
        with provider(folder, made(folder)) as upstream:
            run = Run(upstream, folder, ROUNDS, warm_up_seconds=0.4)
            with run.asking(chosen, [scenario for scenario, *_ in LIMITS], Options()) as more:
                for _ in range(TIMES):
                    more()
                    problems = [problem for limit in LIMITS if (problem := _problem(run.results, *limit))]
                    if not problems:
                        break
    for problem in problems:
        say(problem)
    return 1 if problems else 0


def _problem(results: Results, scenario: Scenario, figure: str, told: str, limit: float) -> str:
    """What is wrong; "" if nothing is. The ratio is told in any case."""
    ours, nginx = (results.best(scenario.name, system, figure) for system in ("ours", "nginx"))
    if ours is None or nginx is None or results.failures(scenario.name, "ours"):
        return f"{told}: REQUESTS FAILED"
    ratio = ours / nginx
    say(f"{told}: {ratio:.1f} times nginx, at most {limit}")
    return f"{told}: TOO MUCH" if ratio > limit else ""


if __name__ == "__main__":
    sys.exit(main())
