"""What the gateway promises against the others, and whether a run kept it.

A target is one row of the results: conditions that must all hold. Most are ratios between systems that ran in the
same rounds, since absolute times are the machine's; docs/performance.md explains them.
"""

from dataclasses import dataclass
from typing import Protocol

SUBJECT = "ours"


class Medians(Protocol):
    def median(self, scenario: str, system: str, figure: str) -> float | None: ...


@dataclass(frozen=True)
class Figure:
    """One median of a run. `suffix` makes another system of the gateway's name; `over`: less what that system has;
    `per`: divided by the same figure of that scenario."""

    scenario: str
    name: str
    suffix: str = ""
    over: str = ""
    per: str = ""
    unit: str = ""

    def of(self, results: Medians, system: str) -> float | None:
        value = results.median(self.scenario, system + self.suffix, self.name)
        if value is not None and self.over:
            base = results.median(self.scenario, self.over, self.name)
            value = None if base is None else max(0.0, value - base)
        if value is not None and self.per:
            base = results.median(self.per, system + self.suffix, self.name)
            value = None if not base else value / base
        return value


@dataclass(frozen=True)
class Condition:
    """`limit` in the figure's own unit, or times what `of` has (of `reference`, if that is another figure)."""

    figure: Figure
    limit: float
    of: str = ""
    reference: Figure | None = None
    at_least: bool = False

    def value(self, results: Medians, system: str) -> float | None:
        """What is compared with the limit; None if something was not measured."""
        value = self.figure.of(results, system)
        if not self.of or value is None:
            return value
        base = (self.reference or self.figure).of(results, system if self.of == SUBJECT else self.of)
        return value / base if base else None

    def met(self, results: Medians, system: str) -> bool | None:
        value = self.value(results, system)
        if value is None:
            return None
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True)
class Target:
    told: str
    conditions: tuple[Condition, ...]

    def met(self, results: Medians, system: str) -> bool | None:
        """None if something was not measured and nothing is broken."""
        found = [condition.met(results, system) for condition in self.conditions]
        return False if False in found else None if None in found else True


def _ratios(told: str, figure: Figure, *limits: tuple[float, str]) -> Target:
    return Target(told, tuple(Condition(figure, limit, of) for limit, of in limits))


def _encrypted(scenario: str, figure: str) -> list[Condition]:
    """What TLS makes dearer may not be much more for us than for the others."""
    dearer = Figure(f"{scenario}-tls", figure, per=scenario, unit="x plain")
    return [Condition(dearer, 1.3, of) for of in ("nginx", "litellm")]


def _request(scenario: str) -> Figure:
    return Figure(scenario, "cpu_ms_per_request", unit="ms")


def _event(scenario: str, suffix: str = "") -> Figure:
    return Figure(scenario, "cpu_us_per_event", suffix, unit="us")


def _delay(figure: str) -> Figure:
    return Figure("s32", figure, over="direct", unit="ms")


TARGETS = (
    _ratios(
        "CPU per blocking request of 20 KB, 16 at once",
        _request("b16"),
        (1 / 10, "litellm"),
        (1 / 2, "portkey"),
        (45, "nginx"),
    ),
    _ratios("the same with 400 KB", _request("b16-400k"), (1 / 6, "litellm")),
    Target(
        "requests that a core can take, 16 at once",
        (Condition(Figure("b16", "requests_per_core_second", unit="/s"), 10, "litellm", at_least=True),),
    ),
    _ratios(
        "added latency, one request at a time, p50",
        Figure("b1", "latency_p50_ms", over="direct", unit="ms"),
        (1.5 / 12, "litellm"),
    ),
    _ratios("CPU per event, 32 Messages streams", _event("s32"), (2, "nginx"), (1 / 6, "litellm")),
    _ratios("CPU per event, 32 Chat Completions streams", _event("s32-chat"), (2, "nginx"), (1 / 6, "litellm")),
    Target(
        "added delay of an event, 32 streams, p50 and p99",
        (Condition(_delay("delay_p50_ms"), 0.6), Condition(_delay("delay_p99_ms"), 3)),
    ),
    Target(
        "1,000 open streams with an event per second each, one process",
        (
            Condition(Figure("idle", "open", unit="open"), 1000, at_least=True),
            Condition(Figure("idle", "kib_per_stream", unit="KiB each"), 25),
            Condition(Figure("idle", "threads", unit="threads"), 40),
            Condition(Figure("idle", "core_percent", unit="% of a core"), 6),
        ),
    ),
    Target(
        "the client closes: until the provider's connection is closed; in a silent stream",
        (
            Condition(Figure("leave", "last_seconds", unit="s"), 0.3),
            Condition(Figure("leave-silent", "last_seconds", unit="s"), 0.3),
        ),
    ),
    Target(
        "CPU per event with tools put in, 32 streams",
        (
            Condition(_event("s32-tools", "-tools"), 60 / 26, SUBJECT, _event("s32")),
            Condition(_event("s32-tools", "-tools"), 2 * 60 / 26, "nginx", _event("s32")),
        ),
    ),
    Target(
        "CPU with TLS to the provider, against what TLS costs the others; per request, per event",
        (*_encrypted("b16", "cpu_ms_per_request"), *_encrypted("s32", "cpu_us_per_event")),
    ),
    Target("memory of a worker at rest", (Condition(Figure("rest", "worker_mib", unit="MiB"), 130),)),
    Target(
        "the very first request after the start",
        (Condition(Figure("first", "first_ms", unit="ms"), 10, SUBJECT, Figure("first", "later_ms", unit="ms")),),
    ),
)
