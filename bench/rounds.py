"""Rounds: every system in turn, scenario by scenario, so that what else the machine does hits all alike."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.apis import Api
from bench.processes import DidNotStart
from bench.results import Results, Sample
from bench.scenarios import Scenario, measure
from bench.systems.model import Options, Provider, Running, System


@dataclass
class Run:
    """One run of the bench: in front of which provider, where, how often, and what came of it."""

    provider: Provider
    folder: Path
    rounds: int
    results: Results = field(default_factory=Results)
    warm_up_seconds: float = 1.0

    @contextmanager
    def started(self, system: System, options: Options, name: str = "") -> Iterator[Running | None]:
        """The system in a folder `name` of its own; None if it does not start, which is told."""
        place = self.folder / (name or system.name)
        place.mkdir(parents=True)
        with ExitStack() as stack:
            try:
                running = stack.enter_context(system.start(self.provider, place, options))
            except DidNotStart as error:
                say(f"{system.name} DID NOT START and is left out: {error}")
                yield None
            else:
                yield running

    @contextmanager
    def asking(
        self, systems: Sequence[System], scenarios: Sequence[Scenario], options: Options, suffix: str = ""
    ) -> Iterator[Callable[[], None]]:
        """Starts and warms up all systems; the function that it gives goes through all rounds, in which one of
        them is asked at a time. `suffix` makes other names of the scenarios."""
        with ExitStack() as stack:
            candidates = [
                (system, stack.enter_context(self.started(system, options, system.name + suffix)))
                for system in systems
                if any(scenario.suits(system) for scenario in scenarios)
            ]
            found = [(system, running) for system, running in candidates if running is not None]
            for _, running in found:
                self.warm_up(running, {scenario.api: None for scenario in scenarios})

            def ask() -> None:
                for number in range(self.rounds):
                    for scenario in scenarios:
                        # reversed every second time, so that nobody always comes after the same one
                        for system, running in found if number % 2 == 0 else reversed(found):
                            if scenario.suits(system):
                                self._measure(running, scenario, suffix)

            yield ask

    def _measure(self, running: Running, scenario: Scenario, suffix: str) -> None:
        try:
            sample = measure(running, self.provider, scenario)
        except OSError as error:
            say(f"{scenario.name + suffix:14} {running.name:14} COULD NOT BE MEASURED: {error}")
        else:
            self.results.add(scenario.name + suffix, running.name, sample)
            say(f"{scenario.name + suffix:14} {running.name:14} {_told(sample)}")

    def warm_up(self, running: Running, apis: Iterable[Api]) -> None:
        """A little of everything; what does not work is told."""
        for api in apis:
            for pace in (None, 0.0):
                scenario = Scenario("warm-up", 8, api=api, pace=pace, events=20, seconds=self.warm_up_seconds)
                sample = measure(running, self.provider, scenario)
                if sample["failed"] or sample["cut"] or not sample["answered"]:
                    say(f"{running.name} FAILS at {api}, {'blocking' if pace is None else 'streams'}: {sample}")


def _told(sample: Sample) -> str:
    shown = ("requests_per_second", "cpu_ms_per_request", "cpu_us_per_event", "delay_p50_ms", "delay_p99_ms")
    figures = " ".join(f"{name}={sample[name]:.3f}" for name in shown if name in sample)
    return f"{figures} failed={sample['failed']:.0f} cut={sample['cut']:.0f}"


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
