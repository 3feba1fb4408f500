"""Whether what was measured again and again grows, or only moves.

Memory moves in steps that end somewhere; a leak goes on. So there is growth only if a straight line rises through
all measurements by more than what counts as noise, and through the first half of them and the second by more than
half of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import linear_regression, median

HOUR = 3600.0


@dataclass(frozen=True)
class Series:
    """`values` in `unit`, at `times` in seconds; a rise of less than `noise` over all of it means nothing."""

    name: str
    unit: str
    noise: float
    times: Sequence[float]
    values: Sequence[float]

    @property
    def slope(self) -> float:
        """Of the line through all of it, in units per hour."""
        return linear_regression(self.times, self.values).slope * HOUR

    @property
    def grows(self) -> bool:
        middle = len(self.times) // 2
        halves = (slice(None, middle), slice(middle, None))
        steadily = all(_rise(self.times[half], self.values[half]) > self.noise / 2 for half in halves)
        return steadily and _rise(self.times, self.values) > self.noise

    def __str__(self) -> str:
        """The medians of its quarters, its slope and the verdict."""
        size = len(self.values) // 4
        quarters = [median(self.values[at * size : (at + 1) * size]) for at in range(4)]
        verdict = "GROWS" if self.grows else "flat"
        told = " ".join(f"{quarter:>8.1f}" for quarter in quarters)
        return f"{self.name:<24} {told} {self.slope:>+9.1f} {self.unit}/h  {verdict}"


HEADLINE = f"{'medians of quarters':<24} {'first':>8} {'second':>8} {'third':>8} {'fourth':>8} {'slope':>9}"


def _rise(times: Sequence[float], values: Sequence[float]) -> float:
    return linear_regression(times, values).slope * (times[-1] - times[0])
