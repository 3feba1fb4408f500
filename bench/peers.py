"""Puts the other gateways below .bench/, as they are pinned in this folder, if they are not there yet.

Portkey's lock file names no registry (npm's `omit-lockfile-registry-resolved`): whatever registry the machine uses
serves it, and the hashes tell whether it is the same. Its `overrides` keep @hono/node-server at 1.3.5, since later
ones break Portkey's streams on node 20. No package's own script is run.
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.rounds import say
from bench.systems.model import INSTALLED, ROOT

PINS = {
    "litellm": [ROOT / "bench" / "litellm-requirements.txt"],
    "portkey": [ROOT / "bench" / "portkey" / name for name in ("package.json", "package-lock.json")],
}
Command = Sequence[str | Path]


def install(names: Sequence[str]) -> None:
    """Those of the peers that are named. What fails is told, and the bench goes on without it."""
    for name, pins in PINS.items():
        if name not in names:
            continue
        folder = INSTALLED / name
        pinned = b"".join(pin.read_bytes() for pin in pins)
        stamp = folder / "installed"
        if stamp.exists() and stamp.read_bytes() == pinned:
            continue
        say(f"installing {name}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            for command in _commands(name, folder):
                subprocess.run(command, cwd=folder, check=True, stdout=sys.stderr)
        except (OSError, subprocess.CalledProcessError) as error:
            shutil.rmtree(folder)
            say(f"{name} COULD NOT BE INSTALLED: {error}")
        else:
            stamp.write_bytes(pinned)


def _commands(name: str, folder: Path) -> list[Command]:
    if name == "litellm":
        # The pins are complete. With hashes pip takes the `pydantic[email]` of one of them for unpinned as soon as
        # there is a later pydantic.
        options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes")
        return [
            (sys.executable, "-m", "venv", folder),
            (folder / "bin/python", "-m", "pip", "install", *options, "-r", *PINS[name]),
        ]
    return [
        ("cp", *PINS[name], folder),
        ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"),
    ]
