"""What Linux tells of a process."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

MIB = 1024.0
_TICK = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Sample:
    """`resident` is its memory, `proportional` with what it shares divided among the sharers, both in MiB."""

    resident: float
    proportional: float
    threads: int
    descriptors: int

    @classmethod
    def of(cls, pid: int) -> Self:
        folder = Path(f"/proc/{pid}")
        status, rollup = (folder / "status").read_text(), (folder / "smaps_rollup").read_text()
        return cls(
            _number("VmRSS", status) / MIB,
            _number("Pss", rollup) / MIB,
            _number("Threads", status),
            len(list((folder / "fd").iterdir())),
        )


def cpu_seconds(pid: int) -> float:
    """What it has used until now, in user and system mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK


def _number(name: str, text: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
    assert found, f"no {name}"
    return int(found[1])
