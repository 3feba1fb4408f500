"""Where the gateway runs, as far as that decides whether its disk lasts."""

import os
from collections.abc import Mapping
from pathlib import Path

# Variables that platforms set, and whether a disk that lasts can be mounted there.
_PLATFORMS = {
    "DYNO": ("Heroku", False),
    "VCAP_APPLICATION": ("Cloud Foundry", False),
    "K_SERVICE": ("Cloud Run", False),
    "RENDER": ("Render", True),
    "RAILWAY_ENVIRONMENT": ("Railway", True),
    "FLY_APP_NAME": ("Fly.io", True),
    "KUBERNETES_SERVICE_HOST": ("Kubernetes", True),
}
_CONTAINER_FILES = ("/.dockerenv", "/run/.containerenv")

SQLITE = "sqlite:///"


def disk_warning(database_url: str, environ: Mapping[str, str], root: Path = Path("/")) -> str | None:
    """What is wrong with keeping the ledger where it is; None if nothing seems to be.

    A file on the same file system as `root` is taken for part of the image, which a platform throws away with the
    machine.
    """
    if not database_url.startswith(SQLITE):
        return None
    file = Path(database_url.removeprefix(SQLITE).partition("?")[0])
    found = _platform(environ, root)
    if found is None:
        return None
    platform, has_volumes = found
    if has_volumes and not _same_disk(file, root):
        return None
    return (
        f"THE LEDGER WILL BE LOST: {file} is on a disk that {platform} throws away with every restart. "
        "Set DATABASE_URL to a PostgreSQL server" + (", or keep the file on a volume." if has_volumes else ".")
    )


def _platform(environ: Mapping[str, str], root: Path) -> tuple[str, bool] | None:
    named = next((known for name, known in _PLATFORMS.items() if environ.get(name)), None)
    in_container = any((root / file.lstrip("/")).exists() for file in _CONTAINER_FILES)
    return named or (("a container", True) if in_container else None)


def _same_disk(file: Path, root: Path) -> bool:
    there = next(folder for folder in file.absolute().parents if folder.exists())
    return os.stat(there).st_dev == os.stat(root).st_dev
