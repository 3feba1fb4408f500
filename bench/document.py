"""docs/performance.md: its results are replaced by those of a run, and its plots drawn anew.

`python -m bench.document` does it once more with the last run, whole or not.
"""

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime

from bench.plot import Point, lines
from bench.report import name_of, replaced, report
from bench.results import Results
from bench.systems import nginx
from bench.systems.model import INSTALLED, ROOT

DOCUMENT = ROOT / "docs" / "performance.md"
FOLDER = ROOT / "docs" / "performance"
LAST_RUN = INSTALLED / "results.json"  # every sample

# By file: the title, what is across and where each scenario is there, what is upward and which figure that is.
PLOTS = {
    "requests.svg": (
        "CPU of a blocking request, 16 at once",
        ("KB of the request", {"b16-2k": 2, "b16": 20, "b16-100k": 100, "b16-400k": 400, "b16-1m": 1000}),
        ("ms", "cpu_ms_per_request"),
    ),
    "events.svg": (
        "CPU of a streamed event, an event per 10 ms and stream",
        ("streams", {"s4": 4, "s32": 32, "s100": 100}),
        ("us", "cpu_us_per_event"),
    ),
}

About = Mapping[str, str]  # where and with what a run took place


def surroundings(rounds: int) -> About:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "rounds": str(rounds),
        "cores": str(os.cpu_count()),
        "load before": f"{os.getloadavg()[0]:.1f}",
        "Linux": platform.release(),
        "Python": platform.python_version(),
        "aibridge": _told(r"\S+", "git", "-C", str(ROOT), "describe", "--always", "--dirty", "--tags"),
        "nginx": _told(r"nginx/(\S+)", nginx.program() or "nginx", "-v"),
        "LiteLLM": _pinned("litellm-requirements.in", r"==(\S+)"),
        "Portkey": _pinned("portkey/package.json", r'ai/gateway": "(\S+)"'),
        "node": _told(r"v(\S+)", "node", "--version"),
    }


def keep(results: Results, about: About) -> None:
    LAST_RUN.write_text(json.dumps({"about": dict(about), "samples": results.samples}, indent=1))


def write(results: Results, about: About) -> None:
    """The document, its plots, and the medians for programs."""
    FOLDER.mkdir(exist_ok=True)
    medians = {"about": dict(about), "medians": results.medians()}
    (FOLDER / "results.json").write_text(json.dumps(medians, indent=1) + "\n")
    for file, (title, (across, scenarios), (upward, figure)) in PLOTS.items():
        (FOLDER / file).write_text(lines(title, across, upward, _series(results, scenarios, figure)))
    told = ", ".join(f"{name} {value}" for name, value in about.items())
    text = DOCUMENT.read_text("utf-8")
    DOCUMENT.write_text(replaced(text, f"Measured with: {told}.\n\n{report(results)}"), "utf-8")


def _series(results: Results, scenarios: Mapping[str, int], figure: str) -> dict[str, list[Point]]:
    found = {}
    for system in results.systems():
        values = [(float(x), results.median(name, system, figure)) for name, x in scenarios.items()]
        points = [(x, value) for x, value in values if value]
        if points and system != "direct":
            found[name_of(system)] = points
    return found


def _told(pattern: str, *command: str) -> str:
    """What a program says of its version."""
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "absent"
    found = re.search(pattern, said.stdout + said.stderr)
    return found[found.re.groups] if found else "unknown"


def _pinned(file: str, pattern: str) -> str:
    found = re.search(pattern, (ROOT / "bench" / file).read_text("utf-8"))
    return found[1] if found else "unknown"


if __name__ == "__main__":
    last = json.loads(LAST_RUN.read_text())
    write(Results(last["samples"]), last["about"])
