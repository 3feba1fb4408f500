"""What the systems are made to do, and one measurement of it: a load, what came of it, and what it cost."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import uvloop

from bench import meters
from bench.apis import Api
from bench.driver import Load, Outcome, driven
from bench.provider import control
from bench.results import Sample, percentile
from bench.systems.model import Provider, Running, System


@dataclass(frozen=True)
class Scenario:
    """Blocking requests, or streams if there is a `pace`: seconds between events; 0 sends all of them at once."""

    name: str
    connections: int
    size: int = 20_000  # bytes of a request's body
    api: Api = "messages"
    pace: float | None = None
    events: int = 200  # of a stream
    tls: bool = False
    tools: bool = False  # for the systems with tools only
    beside: int = 0  # connections with blocking requests beside the streams
    seconds: float = 1.0

    def suits(self, system: System) -> bool:
        return self.tools == system.tools and (system.tls or not self.tls)


PACE = 0.01

SCENARIOS = [
    Scenario("b1", 1),
    Scenario("b16", 16),
    Scenario("b64", 64),
    Scenario("b16-chat", 16, api="chat"),
    Scenario("b16-responses", 16, api="responses"),
    Scenario("b16-2k", 16, size=2_000),
    Scenario("b16-100k", 16, size=100_000),
    Scenario("b16-400k", 16, size=400_000),
    Scenario("b16-1m", 16, size=1_000_000),
    Scenario("b16-tls", 16, tls=True),
    Scenario("s4", 4, pace=PACE),
    Scenario("s32", 32, pace=PACE),
    Scenario("s100", 100, pace=PACE),
    Scenario("s32-chat", 32, api="chat", pace=PACE),
    Scenario("s32-responses", 32, api="responses", pace=PACE),
    Scenario("s32-tls", 32, pace=PACE, tls=True),
    Scenario("s32-tools", 32, pace=PACE, tools=True),
    Scenario("mixed", 16, pace=PACE, beside=8),
]
SCALING = [scenario for scenario in SCENARIOS if scenario.name in ("b16", "s32")]  # for several workers


def measure(running: Running, provider: Provider, scenario: Scenario) -> Sample:
    """One measurement. The CPU of the system is what its processes used from before the load until after it."""
    streams = scenario.pace is not None
    if scenario.pace is not None:
        control(provider.port, events=scenario.events, pace=scenario.pace)
    request = running.request(scenario.api, size=scenario.size, stream=streams, tls=scenario.tls)
    expected = scenario.events if streams else 0
    loads = [Load(running.port, request, scenario.connections, scenario.seconds, expected)]
    if scenario.beside:
        blocking = running.request(scenario.api, size=scenario.size, stream=False)
        lasting = scenario.seconds + scenario.events * PACE / 2
        loads.append(Load(running.port, blocking, scenario.beside, lasting))
    before = meters.cpu_seconds(running.pid)
    outcomes = uvloop.run(_together(loads))
    sample = figures(outcomes[0], meters.cpu_seconds(running.pid) - before)
    if scenario.beside:
        beside = outcomes[1]
        sample["failed"] += beside.failed
        sample["beside_per_second"] = beside.answered / beside.seconds
    return sample


async def _together(loads: Sequence[Load]) -> list[Outcome]:
    return await asyncio.gather(*(driven(load) for load in loads))


def figures(outcome: Outcome, cpu_seconds: float) -> Sample:
    """What a load came to. Figures of what there was none of are missing."""
    sample = {"answered": float(outcome.answered), "failed": float(outcome.failed), "cut": float(outcome.cut)}
    if outcome.answered:
        sample |= {
            "requests_per_second": outcome.answered / outcome.seconds,
            "requests_per_core_second": outcome.answered / cpu_seconds,
            "cpu_ms_per_request": cpu_seconds * 1e3 / outcome.answered,
            "latency_p50_ms": percentile(outcome.whole, 0.5) / 1e6,
            "latency_p99_ms": percentile(outcome.whole, 0.99) / 1e6,
            "first_byte_p50_ms": percentile(outcome.first_byte, 0.5) / 1e6,
        }
    if outcome.delays:
        sample |= {
            "cpu_us_per_event": cpu_seconds * 1e6 / len(outcome.delays),
            "delay_p50_ms": percentile(outcome.delays, 0.5) / 1e6,
            "delay_p99_ms": percentile(outcome.delays, 0.99) / 1e6,
        }
    return sample
