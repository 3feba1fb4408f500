"""A worker keeps to one core, and leaves it to others who need it."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from aibridge import cores as kept_cores
from aibridge.cores import all_cores, keep_to
from aibridge.serving import affinity
from aibridge.serving.affinity import Affinity, busy_seconds, freer

STAT = """cpu  30 0 30 400 20 3 7 10 5 0
cpu0 10 2 10 300 10 1 4 3 5 0
cpu1 20 1 20 100 10 2 3 7 0 0
intr 4711 0 0
ctxt 1
"""


def test_what_the_kernel_tells_of_each_core() -> None:
    tick = 1 / os.sysconf("SC_CLK_TCK")
    assert busy_seconds(STAT) == {0: pytest.approx(30 * tick), 1: pytest.approx(53 * tick)}


@pytest.mark.parametrize(
    ("load", "chosen"),
    [
        ({0: 0.0, 1: 0.0}, 0),
        ({0: 0.3, 1: 0.1}, 0),  # it does not pay
        ({0: 0.6, 1: 0.1}, 1),
        ({0: 0.9, 1: 0.5, 2: 0.2, 3: 0.4}, 2),
        ({0: 0.5, 1: 1.0}, 0),
        ({0: -0.02, 1: 0.0}, 0),  # clocks differ a little
    ],
)
def test_a_core_is_left_for_one_with_clearly_more_room(load: dict[int, float], chosen: int) -> None:
    assert freer(0, load) == chosen


@pytest.fixture
def cores() -> Iterator[set[int]]:
    """Those of this process; it may have them again after the test."""
    before = os.sched_getaffinity(0)
    if len(before) < 2:
        pytest.skip("this machine has one core")
    yield before
    kept_cores._process.kept_to = None
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), before)


def test_the_process_follows(cores: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = tmp_path / "stat"
    monkeypatch.setattr(affinity, "_STAT", stat)
    monkeypatch.setattr(affinity, "CHANCE", 1.0)

    def tell(busy: dict[int, int]) -> None:
        stat.write_text("".join(f"cpu{core} {busy.get(core, 0)} 0 0 0 0 0 0 0\n" for core in cores))

    tell({})
    kept = Affinity(cores)
    first = kept.core
    assert os.sched_getaffinity(0) == {first}
    hours = 10**6
    tell({first: hours})
    kept.look_around()
    assert kept.core != first
    assert os.sched_getaffinity(0) == {kept.core}
    tell(dict.fromkeys(cores, hours))
    second = kept.core
    kept.look_around()
    assert kept.core != second, "what they did since the last look counts"


def test_what_is_started_meanwhile_gets_all_cores(cores: set[int]) -> None:
    core = min(cores)
    keep_to(core)

    async def start() -> None:
        with all_cores():
            await asyncio.sleep(0)
            assert os.sched_getaffinity(0) == cores

    async def some() -> None:
        await asyncio.gather(start(), start(), start())

    asyncio.run(some())
    assert os.sched_getaffinity(0) == {core}


def test_an_unusual_stat_tells_of_no_core() -> None:
    assert busy_seconds("cpu\ncpu\t1 2\nprocesses 4\n") == {}


def test_cores_by_other_names_are_left_alone(
    cores: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu4711 1 0 0 0 0 0 0 0\n")
    monkeypatch.setattr(affinity, "_STAT", stat)
    with pytest.raises(KeyError):
        Affinity(cores)
    assert os.sched_getaffinity(0) == cores
