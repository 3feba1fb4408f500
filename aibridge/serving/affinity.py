"""A worker of threads keeps to one core.

Python runs one thread of a process at a time; whoever asks the kernel for something gives its lock to the next.
The kernel wakes that one on whichever core is idle. So the work of one request goes from core to core some thirty
times, and finds cold caches wherever it comes: a third of its CPU time (docs/performance.md). nginx knows the same
as `worker_cpu_affinity`.

The core is not chosen for good, since others may have to share it: a worker looks around once a second, and moves
to a core that has clearly more room.
"""

import os
import random
import re
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from aibridge.cores import CORES, keep_to
from aibridge.interception.gateway import Gateway

INTERVAL = 1.0  # seconds
CLEARLY = 0.25  # of a core that must be freer than ours
# Two workers that are in each other's way must not both move, and meet again.
CHANCE = 0.5

_STAT = Path("/proc/stat")
_LINE = re.compile(r"^cpu(\d+) (.+)", re.MULTILINE)
_IDLE = slice(3, 5)  # the columns idle and iowait
_TICK = 1 / os.sysconf("SC_CLK_TCK")


def busy_seconds(stat: str) -> dict[int, float]:
    """For how long each core has worked since the start of the machine, from the text of /proc/stat (proc(5))."""
    return {int(core): _TICK * _busy(times.split()[:8]) for core, times in _LINE.findall(stat)}


def _busy(times: list[str]) -> int:
    return sum(map(int, times)) - sum(map(int, times[_IDLE]))


def freer(core: int, load: Mapping[int, float]) -> int:
    """The core to work on: `core`, unless another has clearly more room. `load` is the share of its time that each
    works for others."""
    best = min(load, key=lambda other: load[other])
    return best if load[core] - load[best] > CLEARLY else core


class Affinity:
    """Keeps all threads of this process on one of `cores`. Raises OSError where the system does not tell what its
    cores do, and KeyError where it calls them something else (as in some containers)."""

    def __init__(self, cores: Collection[int]) -> None:
        self._cores = sorted(cores)
        self.core = self._cores[os.getpid() % len(self._cores)]  # workers are forked one after the other
        self._seen = self._look()
        keep_to(self.core)

    def look_around(self) -> None:
        (then, own_then, busy_then), self._seen = self._seen, self._look()
        now, own, busy = self._seen
        load = {core: (busy[core] - busy_then[core]) / (now - then) for core in self._cores}
        load[self.core] -= (own - own_then) / (now - then)
        core = freer(self.core, load)
        if core != self.core and random.random() < CHANCE:
            self.core = core
            keep_to(core)

    def _look(self) -> tuple[float, float, dict[int, float]]:
        busy = busy_seconds(_STAT.read_text())
        return time.monotonic(), time.process_time(), {core: busy[core] for core in self._cores}


class OneCore:
    """To be mixed in before a gunicorn worker class whose `gateway` is the application's."""

    gateway: Gateway | None

    def run(self) -> None:
        assert self.gateway is not None
        self._affinity: Affinity | None = None
        self._look_at = time.monotonic() + INTERVAL
        if self.gateway.settings.server.cpu_affinity and len(CORES) > 1:
            with suppress(OSError, KeyError):
                self._affinity = Affinity(CORES)
        super().run()  # type: ignore[misc]  # gunicorn's

    def notify(self) -> None:
        """Called about once a second, or more often."""
        super().notify()  # type: ignore[misc]  # gunicorn's
        if self._affinity is not None and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + INTERVAL
            with suppress(OSError, KeyError):  # then it stays where it is
                self._affinity.look_around()
