"""Whether what was measured again and again grows, or only moves.

Memory moves in steps that end somewhere; a leak goes on. So there is growth only if a straight line rises through
the first half of the measurements and through the second, each by more than half of what counts as noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import linear_regression

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
        return all(_rise(self.times[half], self.values[half]) > self.noise / 2 for half in halves)

    def __str__(self) -> str:
        low, high = min(self.values), max(self.values)
        verdict = "GROWS" if self.grows else "flat"
        return (
            f"{self.name:<24} {self.values[0]:>8.1f} {self.values[-1]:>8.1f} {low:>8.1f} {high:>8.1f} "
            f"{self.slope:>+9.1f} {self.unit}/h  {verdict}"
        )


HEADLINE = f"{'':<24} {'first':>8} {'last':>8} {'least':>8} {'most':>8} {'slope':>9}"


def _rise(times: Sequence[float], values: Sequence[float]) -> float:
    return linear_regression(times, values).slope * (times[-1] - times[0])
