"""Rounds: every system in turn, scenario by scenario, so that what else the machine does hits all alike."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
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
        them is asked at a time. One that died is started again. `suffix` makes other names of the scenarios."""
        wanted = [system for system in systems if any(scenario.suits(system) for scenario in scenarios)]
        running: dict[str, Running | None] = {}
        starts = count()
        with ExitStack() as stack:

            def start(system: System) -> None:
                place = f"{system.name}{suffix}-{next(starts)}"
                one = running[system.name] = stack.enter_context(self.started(system, options, place))
                if one is not None:
                    self.warm_up(one, {scenario.api: None for scenario in scenarios})

            def ask() -> None:
                for number in range(self.rounds):
                    for scenario in scenarios:
                        # reversed every second time, so that nobody always comes after the same one
                        for system in wanted if number % 2 == 0 else reversed(wanted):
                            one = running[system.name]
                            if one is None or not scenario.suits(system):
                                continue
                            if not self._measure(one, scenario, suffix):
                                start(system)

            for system in wanted:
                start(system)
            yield ask

    def _measure(self, running: Running, scenario: Scenario, suffix: str) -> bool:
        """False if there is no sample, because the system did not answer."""
        name = f"{scenario.name + suffix:14} {running.name:14}"
        try:
            sample = measure(running, self.provider, scenario)
        except OSError as error:
            say(f"{name} COULD NOT BE MEASURED: {error}")
            return False
        say(f"{name} {_told(sample)}")
        if sample["failed"] > sample["answered"]:
            say(f"{name} HAS FAILED")
            return False
        self.results.add(scenario.name + suffix, running.name, sample)
        return True

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
