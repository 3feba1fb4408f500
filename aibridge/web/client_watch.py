"""Noticing that the client has gone while there is nothing to write to it."""

from collections.abc import Callable
from typing import Any

from aibridge.sockets import hung_up


def client_watch(environ: dict[str, Any]) -> Callable[[], bool]:
    """Tells, at any time and without waiting, whether the client has closed its connection. Servers that do
    not show their socket leave it unnoticed until the next write."""
    sock = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    return (lambda: hung_up(sock)) if sock is not None else (lambda: False)
