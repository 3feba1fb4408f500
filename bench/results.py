"""What was measured: every sample, and medians over the rounds."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

Sample = dict[str, float]  # one measurement: figures by name, the unit at the end of the name


@dataclass
class Results:
    """scenario -> system -> one sample per round."""

    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)

    def add(self, scenario: str, system: str, sample: Sample) -> None:
        self.samples.setdefault(scenario, {}).setdefault(system, []).append(sample)

    def systems(self) -> list[str]:
        """In the order in which they were first measured."""
        return list({system: None for cells in self.samples.values() for system in cells})

    def median(self, scenario: str, system: str, figure: str) -> float | None:
        """None if it was not measured."""
        values = self._values(scenario, system, figure)
        return median(values) if values else None

    def best(self, scenario: str, system: str, figure: str) -> float | None:
        """The least of all rounds."""
        return min(self._values(scenario, system, figure), default=None)

    def failures(self, scenario: str, system: str) -> float:
        """Requests that failed, and streams that were cut."""
        return sum(sum(self._values(scenario, system, figure)) for figure in ("failed", "cut"))

    def medians(self) -> dict[str, dict[str, Sample]]:
        """Of everything, to four digits."""
        return {
            scenario: {
                system: {
                    figure: float(f"{self.median(scenario, system, figure):.4g}")
                    for figure in {name: None for sample in rounds for name in sample}
                }
                for system, rounds in cells.items()
            }
            for scenario, cells in self.samples.items()
        }

    def _values(self, scenario: str, system: str, figure: str) -> list[float]:
        rounds = self.samples.get(scenario, {}).get(system, [])
        return [sample[figure] for sample in rounds if figure in sample]


def percentile(values: Sequence[int], share: float) -> float:
    """The smallest value that at least `share` of the values are not above; 0 of none."""
    ordered = sorted(values)
    return float(ordered[min(len(ordered) - 1, int(len(ordered) * share))]) if ordered else 0.0
