"""What the gateway promises against the others, and whether a run kept it.

A target is one row of the results: conditions that must all hold. Most of them are ratios between systems that ran in
the same rounds, since absolute times are the machine's. Issue-sized numbers only: why they are what they are is
told in docs/performance.md.
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
    unit: str = ""

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
    dearer = Figure(f"{scenario}-tls", figure, per=scenario)
    return [Condition(dearer, 1.3, of) for of in ("nginx", "litellm")]


REQUEST = "cpu_ms_per_request"
EVENT = "cpu_us_per_event"

TARGETS = (
    _ratios(
        "CPU per blocking request of 20 KB, 16 at once",
        Figure("b16", REQUEST),
        (1 / 10, "litellm"),
        (1 / 2, "portkey"),
        (45, "nginx"),
    ),
    _ratios("the same with 400 KB", Figure("b16-400k", REQUEST), (1 / 6, "litellm")),
    Target(
        "requests per second of one core, 16 at once",
        (Condition(Figure("b16", "requests_per_core_second"), 10, "litellm", at_least=True),),
    ),
    Target(
        "added latency, one request at a time, p50",
        (
            Condition(Figure("b1", "latency_p50_ms", over="direct"), 1.5 / 12, "litellm"),
            Condition(Figure("b1", "latency_p50_ms", over="direct"), 1.5, unit="ms"),
        ),
    ),
    _ratios(
        "CPU per event of 32 Messages streams", Figure("s32", EVENT), (2, "nginx"), (1 / 6, "litellm")
    ),
    _ratios(
        "CPU per event of 32 Chat Completions streams",
        Figure("s32-chat", EVENT),
        (2, "nginx"),
        (1 / 6, "litellm"),
    ),
    Target(
        "added delay of an event, 32 streams, p50 and p99",
        (
            Condition(Figure("s32", "delay_p50_ms", over="direct"), 0.6, unit="ms"),
            Condition(Figure("s32", "delay_p99_ms", over="direct"), 3, unit="ms"),
        ),
    ),
    Target(
        "1,000 open streams with an event per second in one process",
        (
            Condition(Figure("idle", "open"), 1000, at_least=True, unit="open"),
            Condition(Figure("idle", "kib_per_stream"), 25, unit="KiB each"),
            Condition(Figure("idle", "threads"), 40, unit="threads"),
            Condition(Figure("idle", "core_percent"), 6, unit="% of a core"),
        ),
    ),
    Target(
        "the client closes: until the provider's connection is closed, while events flow and in a silent stream",
        (
            Condition(Figure("leave", "last_seconds"), 0.3, unit="s"),
            Condition(Figure("leave-silent", "last_seconds"), 0.3, unit="s"),
        ),
    ),
    Target(
        "CPU per event with tools put in, 32 streams",
        (
            Condition(Figure("s32-tools", EVENT, "-tools"), 60 / 26, SUBJECT, Figure("s32", EVENT)),
            Condition(Figure("s32-tools", EVENT, "-tools"), 2 * 60 / 26, "nginx", Figure("s32", EVENT)),
        ),
    ),
    Target(
        "TLS to the provider makes it no dearer than it makes the others: CPU per request and per event",
        (*_encrypted("b16", REQUEST), *_encrypted("s32", EVENT)),
    ),
    Target("memory of a worker at rest", (Condition(Figure("rest", "worker_mib"), 130, unit="MiB"),)),
    Target(
        "the very first request after the start",
        (
            Condition(
                Figure("first", "first_ms"), 10, SUBJECT, Figure("first", "later_ms")
            ),
        ),
    ),
)
