"""Rounds: every system in turn, scenario by scenario, so that what else the machine does hits all alike."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from bench.apis import PATHS
from bench.processes import DidNotStart
from bench.scenarios import Sample, Scenario, measure
from bench.systems import Options, Provider, Running, System

WARM_UP = Scenario("warm", "warm-up", 8, seconds=0.7)


@dataclass
class Results:
    """All samples of a run: scenario -> system -> one sample per round."""

    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)

    def add(self, scenario: str, system: str, sample: Sample) -> None:
        self.samples.setdefault(scenario, {}).setdefault(system, []).append(sample)

    def median(self, scenario: str, system: str, figure: str) -> float | None:
        """The median over the rounds; None if it was not measured."""
        rounds = self.samples.get(scenario, {}).get(system, [])
        values = [sample[figure] for sample in rounds if figure in sample]
        return median(values) if values else None


@contextmanager
def started(
    systems: Sequence[System], provider: Provider, folder: Path, options: Options
) -> Iterator[list[tuple[System, Running]]]:
    """The systems, running and warm. One that does not start is told about and left out."""
    with ExitStack() as stack:
        found = []
        for system in systems:
            place = folder / system.name
            place.mkdir(parents=True)
            try:
                found.append((system, stack.enter_context(system.start(provider, place, options))))
            except DidNotStart as error:
                say(f"{system.name} DID NOT START and is left out: {error}")
        for _, running in found:
            warm_up(running, provider)
        yield found


def warm_up(running: Running, provider: Provider) -> None:
    for api in PATHS:
        for pace in (None, 0.0):
            sample = measure(running, provider, replace(WARM_UP, api=api, pace=pace))
            if sample["failed"] or not sample["answered"]:
                say(f"{running.name} fails at {api}, {'blocking' if pace is None else 'streaming'}: {sample}")


def run(
    systems: Sequence[tuple[System, Running]],
    provider: Provider,
    scenarios: Sequence[Scenario],
    rounds: int,
    results: Results,
) -> None:
    """Every second round goes through the systems in reversed order."""
    for number in range(rounds):
        for scenario in scenarios:
            for system, running in systems if number % 2 == 0 else reversed(systems):
                if scenario.tools == system.tools:
                    sample = measure(running, provider, scenario)
                    results.add(scenario.name, system.name, sample)
                    say(f"{number + 1}/{rounds} {scenario.name:12} {system.name:14} {told(sample)}")


def told(sample: Sample) -> str:
    shown = ("requests_per_second", "cpu_ms_per_request", "cpu_us_per_event", "delay_p50_ms", "delay_p99_ms")
    figures = " ".join(f"{name}={sample[name]:.3f}" for name in shown if name in sample)
    return f"{figures} failed={sample['failed']:.0f} cut={sample['cut']:.0f}"


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
