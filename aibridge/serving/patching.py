"""gevent's patching of the standard library, which must come before anything else is imported.

That is why the one setting it depends on is read here by hand: pydantic would import sockets and threads.
"""

import os
import tomllib
from pathlib import Path


def wants_gevent() -> bool:
    """Whether server.worker_class is gevent. A file that cannot be read is reported later, with the settings."""
    configured = os.environ.get("AIBRIDGE_SERVER_WORKER_CLASS")
    if configured:
        return configured == "gevent"
    try:
        file = tomllib.loads(Path(os.environ.get("AIBRIDGE_CONFIG") or "aibridge.toml").read_text("utf-8"))
        return bool(file["server"]["worker_class"] == "gevent")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def patch_if_wanted() -> None:
    if wants_gevent():
        from gevent import monkey  # noqa: PLC0415  optional: only this worker class needs it

        monkey.patch_all()
