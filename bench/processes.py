"""Processes of the bench: started on free ports, logged, awaited, and ended with all that they started."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

START_SECONDS = 180.0
STOP_SECONDS = 5.0

# What of our own environment the systems see: nothing that would change their behaviour.
KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR")


class DidNotStart(Exception):
    """A process ended or did not answer; the message has the end of its log."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name in KEPT} | more


@contextmanager
def running(
    command: Sequence[str | Path], folder: Path, variables: Mapping[str, str], ready: str
) -> Iterator[int]:
    """The pid of `command`, run in `folder` once the URL `ready` answers. Raises DidNotStart."""
    log = folder / "output.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=dict(variables), stdout=output, stderr=output, start_new_session=True
        )
    try:
        _wait_until_ready(process, ready, log)
        yield process.pid
    finally:
        _end(process)


def _wait_until_ready(process: "subprocess.Popen[bytes]", ready: str, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while not _answers(ready):
        if process.poll() is not None or time.monotonic() > end:
            raise DidNotStart(f"{process.args!r}\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)


def _answers(url: str) -> bool:
    """Whether there is an answer, and none that speaks of a server that is not ready."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Politely, then by force; the group is the process's own, nothing else is in it."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
