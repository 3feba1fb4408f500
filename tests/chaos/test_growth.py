"""Growth is told from movement."""

import os
import random
from collections.abc import Callable

import pytest

from tests.chaos.growth import Series
from tests.chaos.process import Sample, cpu_seconds


def series(value: Callable[[int], float]) -> Series:
    dice = random.Random(1)
    times = range(0, 1800, 5)
    return Series("memory", "MiB", 2.0, times, [100 + value(time) + dice.gauss(0, 0.3) for time in times])


@pytest.mark.parametrize(
    ("value", "grows"),
    [
        (lambda time: 0.0, False),
        (lambda time: 8.0 * (time > 900), False),
        (lambda time: 8.0 * (time > 1300), False),
        (lambda time: 8.0 * (time % 300 < 150), False),
        (lambda time: -4.0 * time / 1800, False),
        (lambda time: 8.0 * (time % 900) / 900 - 12.0 * (time >= 900), False),
        (lambda time: 4.0 * time / 1800, True),
        (lambda time: time // 200, True),
    ],
    ids=["flat", "one step", "a late step", "up and down", "falls", "a saw", "a leak", "a leak in steps"],
)
def test_growth(value: Callable[[int], float], grows: bool) -> None:
    measured = series(value)
    assert measured.grows == grows
    assert ("GROWS" if grows else "flat") in str(measured)


def test_the_slope_is_per_hour() -> None:
    assert series(lambda time: 4.0 * time / 1800).slope == pytest.approx(8.0, abs=0.3)


def test_what_is_known_of_this_process() -> None:
    sample = Sample.of(os.getpid())
    assert sample.resident >= sample.proportional > 1
    assert sample.threads >= 1
    assert sample.descriptors >= 3
    assert cpu_seconds(os.getpid()) > 0
