"""What was measured: every sample, and medians over the rounds."""

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
        rounds = self.samples.get(scenario, {}).get(system, [])
        values = [sample[figure] for sample in rounds if figure in sample]
        return median(values) if values else None

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
