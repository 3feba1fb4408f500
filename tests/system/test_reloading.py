"""Replacing workers: nothing is cut before the deadline, and nobody is refused (behaviour.md 10)."""

import os
import signal
import time
from collections.abc import Sequence

import pytest

from tests.fake_provider import Reply
from tests.system.client import Exchange, HeaderList, eventually
from tests.system.conftest import Gateways
from tests.system.gateway import Gateway, Setup, children
from tests.system.test_draining import OPENING, REQUEST, REST, STOPPING, KeptAlive, allowing
from tests.system.test_operations import GUNICORN

pytestmark = pytest.mark.system


def begun(gateway: Gateway, count: int) -> Sequence[Exchange]:
    streams = [gateway.post(REQUEST, [("X-User-ID", "early")]) for _ in range(count)]
    for stream in streams:
        stream.read_until(OPENING[-1])
    return streams


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["plain", "preload"])
def test_a_reload_cuts_nothing_and_refuses_nobody(gateways: Gateways, options: Sequence[str]) -> None:
    command = (*GUNICORN[:-1], *options, GUNICORN[-1])
    gateway = gateways.own(Setup(command=command, in_root=True, environment=(("WEB_CONCURRENCY", "2"),))).start()
    hold = gateway.provider.hold()
    gateway.provider.always(Reply.sse((*OPENING, hold, *REST)))
    streams = begun(gateway, 6)
    kept = KeptAlive(gateway)
    kept.get("/healthz")
    before = set(gateway.worker_pids())

    gateway.signal(signal.SIGHUP)
    eventually(lambda: set(gateway.worker_pids()) - before)
    answer = kept.get("/readyz")
    statuses = {status_of(gateway, "/readyz") for _ in range(10)}
    late = begun(gateway, 2)
    assert before & set(gateway.worker_pids())  # the old ones are at it still

    hold.set()
    assert [stream.read().ended for stream in (*streams, *late)] == ["clean"] * 8
    assert statuses == {200}
    assert b" 200 " in answer
    eventually(lambda: not before & set(gateway.worker_pids()))
    assert gateway.stop() == 0
    assert {row["status"] for row in gateway.rows("interceptions")} == {"completed"}
    assert "Traceback" not in gateway.log_text()


def test_old_workers_hold_up_nothing(gateways: Gateways) -> None:
    """While they finish, a new worker that dies is replaced, another reload happens, and a stop is heard."""
    gateway = gateways.own().start()
    hold = gateway.provider.hold()
    gateway.provider.always(Reply.sse((*OPENING, hold, *REST)))
    (stream,) = begun(gateway, 1)
    known = set(gateway.worker_pids())

    gateway.signal(signal.SIGHUP)
    os.kill(newcomer(gateway, known), signal.SIGKILL)
    second = newcomer(gateway, known)
    assert gateway.is_ready()
    gateway.signal(signal.SIGHUP)
    newcomer(gateway, known)
    assert gateway.is_ready()
    eventually(lambda: second not in gateway.worker_pids())
    gateway.signal(signal.SIGTERM)
    eventually(lambda: not gateway.is_ready())
    hold.set()

    assert stream.read().ended == "clean"
    assert gateway.wait() == 0


def newcomer(gateway: Gateway, known: set[int]) -> int:
    """The one worker that is not known, as soon as it is there; then it is."""
    (pid,) = eventually(lambda: set(gateway.worker_pids()) - known)
    known.add(pid)
    return int(pid)


def status_of(gateway: Gateway, target: str, headers: HeaderList = ()) -> int:
    with gateway.get(target, headers) as answer:
        return answer.read().status


def test_another_master_takes_over(gateways: Gateways) -> None:
    """gunicorn's own way to upgrade: a second master on the same sockets, then the first one goes."""
    gateway = gateways.own(Setup(command=GUNICORN, in_root=True)).start()
    hold = gateway.provider.hold()
    gateway.provider.always(Reply.sse((*OPENING, hold, *REST)))
    (stream,) = begun(gateway, 1)

    gateway.signal(signal.SIGUSR2)
    eventually(
        lambda: any(children(pid) for pid in gateway.worker_pids())
    )  # one of ours is a master, with a worker
    gateway.signal(signal.SIGTERM)
    statuses = {status_of(gateway, "/readyz") for _ in range(10)}
    hold.set()

    assert stream.read().ended == "clean"
    assert statuses == {200}
    assert gateway.wait() == 0
    assert gateway.is_ready()


def test_a_worker_that_is_signalled_alone_is_replaced(gateways: Gateways) -> None:
    gateway = gateways.own().start()
    hold = gateway.provider.hold()
    gateway.provider.always(Reply.sse((*OPENING, hold, *REST)))
    (stream,) = begun(gateway, 1)
    (worker,) = gateway.worker_pids()

    os.kill(worker, signal.SIGTERM)
    os.kill(worker, signal.SIGTERM)
    time.sleep(0.5)
    hold.set()

    assert stream.read().ended == "clean"
    eventually(gateway.is_ready)
    assert gateway.worker_pids() != [worker]


def test_a_reload_has_an_end(gateways: Gateways) -> None:
    gateway = gateways.own(allowing(1)).start()
    gateway.provider.always(Reply.sse((*OPENING, gateway.provider.hold())))
    (stream,) = begun(gateway, 1)

    gateway.signal(signal.SIGHUP)

    assert stream.read().ended == "cut"
    assert STOPPING in bytes(stream.body).decode()
    eventually(gateway.is_ready)


def test_changed_code_under_reload_cuts_nothing(gateways: Gateways) -> None:
    extra = ("--reload", "--reload-extra-file", "changed.txt")
    base = gateways.own()
    (base.folder / "changed.txt").write_text("before")
    command = (*base.setup.command[:-3], "-m", "gunicorn", "-c", "python:aibridge.serving.gunicorn_conf")
    base.setup = Setup(command=(*command, *extra, "aibridge.serving.wsgi:app"))
    gateway = base.start()
    hold = gateway.provider.hold()
    gateway.provider.always(Reply.sse((*OPENING, hold, *REST)))
    (stream,) = begun(gateway, 1)
    before = gateway.worker_pids()

    for _ in range(8):  # gunicorn looks every second, and its first look only remembers
        (gateway.folder / "changed.txt").write_text("after")
        time.sleep(0.5)
    hold.set()

    assert stream.read().ended == "clean"
    eventually(lambda: gateway.worker_pids() != before and gateway.is_ready())
