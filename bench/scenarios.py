"""What the systems are made to do, and one measurement of it: a load, what came of it, and what it cost."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench import meters
from bench.apis import Api
from bench.driver import Load, Outcome, drive
from bench.provider import control
from bench.systems import Provider, Running

Sample = dict[str, float]  # one measurement: figures by name, the unit at the end of the name

EVENTS = 200


@dataclass(frozen=True)
class Scenario:
    """Blocking requests, or streams if there is a `pace`: seconds between events; 0 sends all of them at once."""

    name: str
    told: str
    connections: int
    size: int = 20_000  # bytes of a request's body
    api: Api = "messages"
    pace: float | None = None
    tls: bool = False
    tools: bool = False  # for the systems that have tools, besides those that stand for comparison
    seconds: float = 1.0

    @property
    def events(self) -> int:
        return 0 if self.pace is None else EVENTS


SCENARIOS = [
    Scenario("b1", "one blocking request at a time", 1),
    Scenario("b16", "16 blocking requests at once", 16),
    Scenario("s32", "32 streams, an event every 10 ms", 32, pace=0.01),
]


def measure(running: Running, provider: Provider, scenario: Scenario) -> Sample:
    """One measurement. The CPU of the system is what its processes used from before the load until after it."""
    if scenario.pace is not None:
        control(provider.port, events=scenario.events, pace=scenario.pace)
    request = running.request(scenario.api, size=scenario.size, stream=scenario.pace is not None, tls=scenario.tls)
    load = Load(running.port, request, scenario.connections, scenario.seconds, scenario.events)
    before = meters.cpu_seconds(running.pid)
    outcome = drive(load)
    return figures(outcome, meters.cpu_seconds(running.pid) - before)


def figures(outcome: Outcome, cpu_seconds: float) -> Sample:
    sample = {
        "answered": float(outcome.answered),
        "failed": float(outcome.failed),
        "cut": float(outcome.cut),
        "cpu_share": cpu_seconds / outcome.seconds,
    }
    if outcome.answered:
        sample |= {
            "requests_per_second": outcome.answered / outcome.seconds,
            "cpu_ms_per_request": cpu_seconds * 1e3 / outcome.answered,
            "latency_p50_ms": percentile(outcome.whole, 0.5) / 1e6,
            "latency_p99_ms": percentile(outcome.whole, 0.99) / 1e6,
            "first_byte_p50_ms": percentile(outcome.first_byte, 0.5) / 1e6,
        }
    if outcome.delays:
        sample |= {
            "cpu_us_per_event": cpu_seconds * 1e6 / outcome.events,
            "delay_p50_ms": percentile(outcome.delays, 0.5) / 1e6,
            "delay_p99_ms": percentile(outcome.delays, 0.99) / 1e6,
        }
    return sample


def percentile(values: Sequence[int], share: float) -> float:
    """The value that `share` of the values are not above (of none: 0)."""
    ordered = sorted(values)
    return float(ordered[min(len(ordered) - 1, int(len(ordered) * share))]) if ordered else 0.0
