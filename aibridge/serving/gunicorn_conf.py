"""gunicorn's configuration, from our settings. ../../gunicorn.conf.py and `aibridge serve` both use it."""

# ruff: noqa: E402  the patching comes first
from aibridge.serving.patching import patch_if_wanted

patch_if_wanted()

import logging
import os
import resource
import sys
from typing import Any

from aibridge.app import gateway_of
from aibridge.hosting import disk_warning
from aibridge.serving.draining import LAST_WORDS, MARGIN
from aibridge.serving.memory import collect_seldom
from aibridge.serving.reloading import reload_without_waiting
from aibridge.serving.stopping import announce_stops
from aibridge.settings import Settings, SettingsError
from aibridge.storage.database import Database
from aibridge.telemetry.logging import configure_logging
from aibridge.web.received import RAW_HEADERS

try:
    _settings = Settings.load()
except SettingsError as error:
    sys.stderr.write(f"{error}\n")
    sys.exit(2)

_server = _settings.server
_host = f"[{_server.host}]" if ":" in _server.host else _server.host

bind = f"{_host}:{_server.port}"
workers = _server.workers
threads = _server.threads
worker_class = {
    "gthread": "aibridge.serving.thread_worker.ThreadWorker",
    "gevent": "aibridge.serving.gevent_worker.GeventWorker",
}[_server.worker_class]
worker_connections = 10_000
backlog = 2048
keepalive = 75  # above the idle time of nginx and of the SDKs, which would otherwise meet closed connections
timeout = 120  # a heartbeat, not a limit on requests
graceful_timeout = int(_server.drain_timeout + MARGIN)  # the workers keep the drain timeout by themselves
limit_request_line = 8190
control_socket_disable = True
loglevel = "warning"
# Names with underscores arrive too (Codex has sent session_id); `pre_request` takes care of them.
header_map = "dangerous"


def pre_request(worker: Any, req: Any) -> None:
    """Keep the header lines as they came, and names with underscores out of the environ, where `x_api_key`
    would be taken for `x-api-key`. While the worker drains every answer is its connection's last."""
    lines = tuple((name.lower(), value) for name, value in req.headers)
    if req.body is not None:
        setattr(req.body, RAW_HEADERS, lines)
    req.headers = [(name, value) for name, value in req.headers if "_" not in name]
    if gateway_of(worker.app.callable).drain.began:
        req.force_close()


def on_starting(server: Any) -> None:
    """Once, before the workers: bring the database to the schema of this version."""
    configure_logging()
    _allow_files()
    announce_stops(server)
    reload_without_waiting(server)
    for name in _settings.without_effect():
        server.log.warning("the setting %s has no effect in this version", name)
    warning = disk_warning(_settings.database.url, os.environ)
    if warning:
        server.log.critical("%s", warning)
    _upgrade()


def _upgrade() -> None:
    """Without leaving a connection behind. A worker that inherits one of SQLite's loses all of its own locks on
    the file when that one is collected as garbage, and then what it commits can vanish, since others may take the
    log away under it (sqlite.org/howtocorrupt.html, 2.6)."""
    database = Database(_settings.database.url)
    try:
        database.upgrade()
    finally:
        database.dispose()


def _allow_files() -> None:
    """As many open files as connections may need, if the system lets us: many shells and platforms give 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * worker_connections + 1024  # a client's, and one to its provider
    allowed = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def post_worker_init(worker: Any) -> None:
    configure_logging()
    gateway_of(worker.app.callable).start()
    collect_seldom()


def worker_exit(server: Any, worker: Any) -> None:
    """Also called for a worker that never came up."""
    app = getattr(worker.app, "callable", None)
    if app is None:
        return
    gateway = gateway_of(app)
    gateway.close()
    if gateway.drain.overdue(LAST_WORDS):
        # What did not end by then waits for something that may never come, and Python would wait for it.
        server.log.warning("requests that did not end in time are left behind")
        logging.shutdown()
        os._exit(0)
