"""Command actions: a program of its own, without a shell, in a process group of its own.

One thread reads, writes and watches the clock, through `select`: so an end is noticed in time, no output piles up
in memory, and gevent's patching turns the waiting into that of a greenlet. What the program leaves running when it
ends is killed.
"""

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from aibridge.actions.interpolation import Absence, Arguments, filled, filled_text, text
from aibridge.actions.manifest import CommandRun
from aibridge.actions.runners.call import Call
from aibridge.actions.runners.output import Head, Output, Tail
from aibridge.actions.runners.time_limit import TICK, TimeLimit
from aibridge.actions.secrets import Secrets, is_reference
from aibridge.cores import all_cores
from aibridge.interception.toolbox import ToolFailed

# The only variables of ours that a program gets.
INHERITED = ("PATH", "HOME", "LANG", "TZ")

STDERR_TAIL = 2000  # bytes of it that an error tells

# Seconds that outputs stay open after the program's exit, for what it has left running: then that is killed, and
# after as many more we stop listening to what has escaped.
GRACE = 0.5

_CHUNK = 65536


def run(run: CommandRun, folder: Path, call: Call) -> Output:
    """Starts it and waits for its end. `folder`: where a relative `cwd` begins. Raises ToolFailed if it cannot be
    started, or the limit is over."""
    stdin = _stdin(run.stdin, call.arguments)
    process = _started(run, folder, call)
    stdout, stderr = Head(call.max_output_bytes), Tail(STDERR_TAIL)
    try:
        status = _Conversation(process, stdin, stdout.feed, stderr.feed).hold(call.limit)
    finally:
        _end(process)
    if status == 0:
        return Output(stdout.text(), stdout.size, stdout.is_cut)
    told = stderr.text(call.secrets)
    if told:
        return Output(told, introduction=_told(status), is_error=True)
    return Output(stdout.text(), stdout.size, stdout.is_cut, _told(status), is_error=True)


def _started(run: CommandRun, folder: Path, call: Call) -> "subprocess.Popen[bytes]":
    argv = [text(value) for value in filled(run.argv, call.arguments)]
    try:
        with all_cores():
            return subprocess.Popen(
                argv,
                bufsize=0,
                cwd=folder / run.cwd,
                env=_environment(run.env, call.secrets),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ToolFailed(f"{argv[0]} cannot be started: {reason}") from None


def _environment(own: Mapping[str, str], secrets: Secrets) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return inherited | {
        name: secrets.value(value) if is_reference(value) else value for name, value in own.items()
    }


def _stdin(template: str | Mapping[str, Any] | None, arguments: Arguments) -> bytes:
    """A table becomes JSON whose values keep their types, a string is text."""
    if template is None:
        return b""
    if isinstance(template, str):
        return filled_text(template, arguments).encode()
    value = filled(template, arguments)
    return text({} if value is Absence.ABSENT else value).encode()


def _told(status: int) -> str:
    if status > 0:
        return f"exit status {status}"
    try:
        return f"ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"ended by signal {-status}"


class _Conversation:
    """Feeds a process its input, takes its outputs, and waits for its end."""

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        stdin: bytes,
        take_stdout: Callable[[bytes], None],
        take_stderr: Callable[[bytes], None],
    ) -> None:
        self._process = process
        self._unsent = memoryview(stdin)
        assert process.stdin
        assert process.stdout
        assert process.stderr
        self._input = process.stdin
        self._outputs = {process.stdout.fileno(): take_stdout, process.stderr.fileno(): take_stderr}

    def hold(self, limit: TimeLimit) -> int:
        """The exit status. Raises ToolFailed when the limit is over."""
        self._listen(limit)
        while self._process.poll() is None:
            limit.check()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(TICK)
        return int(self._process.returncode)

    def _listen(self, limit: TimeLimit) -> None:
        """Until both outputs are at their end, or the program is gone and only what it left running holds them."""
        give_up = float("inf")
        with selectors.DefaultSelector() as selector:
            self._register(selector)
            while any(descriptor in selector.get_map() for descriptor in self._outputs):
                limit.check()
                for key, _ in selector.select(TICK):
                    self._serve(selector, key.fd)
                if self._process.poll() is not None:
                    now = time.monotonic()
                    give_up = min(give_up, now + 2 * GRACE)
                    if now >= give_up - GRACE:
                        kill_group(self._process)
                    if now >= give_up:
                        return

    def _register(self, selector: selectors.BaseSelector) -> None:
        for descriptor in self._outputs:
            selector.register(descriptor, selectors.EVENT_READ)
        os.set_blocking(self._input.fileno(), False)
        if self._unsent:
            selector.register(self._input.fileno(), selectors.EVENT_WRITE)
        else:
            self._input.close()

    def _serve(self, selector: selectors.BaseSelector, descriptor: int) -> None:
        if descriptor not in self._outputs:
            self._send(selector, descriptor)
        elif data := os.read(descriptor, _CHUNK):
            self._outputs[descriptor](data)
        else:
            selector.unregister(descriptor)

    def _send(self, selector: selectors.BaseSelector, descriptor: int) -> None:
        try:
            self._unsent = self._unsent[os.write(descriptor, self._unsent[:_CHUNK]) :]
        except BrokenPipeError:  # it does not want to know more
            self._unsent = self._unsent[:0]
        if not self._unsent:
            selector.unregister(descriptor)
            self._input.close()


def kill_group(process: "subprocess.Popen[bytes]") -> None:
    """Ends the program and whatever it started, unless that left the group. When the program is gone its number
    stays the group's for as long as anyone is in it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _end(process: "subprocess.Popen[bytes]") -> None:
    kill_group(process)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe:
            pipe.close()
