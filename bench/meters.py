"""What a tree of processes costs: CPU, memory, threads, as the kernel (Linux) counts them."""

import os
import re
import time
from collections import defaultdict
from pathlib import Path


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    children = defaultdict(list)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended
        children[parent].append(int(folder.name))
    found = [pid]
    for member in found:
        found += children[member]
    return found


def cpu_seconds(pid: int) -> float:
    """CPU that a tree has used, in nanosecond resolution; threads that have ended are included."""
    return sum(_cpu_seconds(member) for member in tree(pid))


def _cpu_seconds(pid: int) -> float:
    try:
        # clock_getcpuclockid(3): the process's CLOCK_PROCESS_CPUTIME_ID seen from outside
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return 0.0


def memory_kib(pid: int) -> int:
    """Proportional set size of a tree: shared pages count once."""
    return sum(process_memory_kib(member) for member in tree(pid))


def process_memory_kib(pid: int) -> int:
    """Proportional set size of one process."""
    try:
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


def threads(pid: int) -> int:
    """Threads of the process of a tree that has the most."""
    return max(_threads(member) for member in tree(pid))


def _threads(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0
