"""The folder of action files: read whole, swapped whole, looked at again while it is served.

Problems stay with their file: the others are served. A file that was good and is not any more (half written, say)
keeps its last good version until it is good again or gone; the problem is told all the same. Whether secrets are
there and functions can be imported is looked at when the folder has changed, not in between.
"""

import importlib
import inspect
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import structlog

from aibridge import settings
from aibridge.actions.front_matter import Document, ManifestError, parse
from aibridge.actions.hosts import allowed
from aibridge.actions.manifest import HttpRun, Input, Manifest, PythonRun
from aibridge.actions.runners.output import OWN_WORDS
from aibridge.actions.secrets import Secrets
from aibridge.interception.toolbox import ToolFailed, wire_name
from aibridge.protocols.tools import Tool

SUFFIX = ".md"
LARGEST_FILE = 1024 * 1024  # bytes
LOOK_INTERVAL = 1.0  # seconds
ATTEMPTS = 3  # to read a folder that does not stand still

_log = structlog.get_logger("aibridge.actions")

# (name, mtime in ns, size) of each file; None: there is no folder.
Signature = tuple[tuple[str, int, int], ...] | None


@dataclass(frozen=True, slots=True)
class Problem:
    """`line` counts from 1; None: no line in particular."""

    file: str
    line: int | None
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.message}"


@dataclass(frozen=True, slots=True)
class Action:
    """An action as it can be run. `function` is that of kind python."""

    manifest: Manifest
    file: str
    tool: Tool
    function: Callable[..., Any] | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A file as it was read: its action, or the problem; both, when an older version is served."""

    file: str
    action: Action | None = None
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The folder at one time. `actions` are the enabled ones, by wire name and in its order."""

    exists: bool = False
    entries: tuple[Entry, ...] = ()
    actions: Mapping[str, Action] = field(default_factory=dict)
    tools: tuple[Tool, ...] = ()
    problems: tuple[Problem, ...] = ()


def check_folder(configured: settings.Actions, folder: Path) -> list[Entry]:
    """Every action file of the folder, in the order of names. Raises OSError if it cannot be listed."""
    files = [name for name, _, _ in _signature(folder) or ()]
    return _without_namesakes(_read(folder / name, configured) for name in files)


class Store:
    """The actions of `configured.dir`. A missing folder is an empty one. Any thread may ask at any time."""

    def __init__(self, configured: settings.Actions, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder = Path(configured.dir).absolute()
        self._configured = configured
        self._clock = clock
        self._lock = threading.Lock()
        self._snapshot = Snapshot()
        self._signature: Signature | Literal["unreadable"] = None
        self._next_look = float("-inf")

    def snapshot(self) -> Snapshot:
        """The actions as they are, at most LOOK_INTERVAL behind. Whoever comes while another thread reads the
        folder gets the last snapshot and does not wait, except for the very first."""
        first = self._next_look == float("-inf")
        if self._clock() >= self._next_look and self._lock.acquire(blocking=first):
            try:
                self._look()
            finally:
                self._lock.release()
        return self._snapshot

    def _look(self) -> None:
        now = self._clock()
        if now < self._next_look:
            return
        try:
            if _signature(self.folder) != self._signature:
                self._signature, snapshot = self._reload()
                self._swap(snapshot)
        except OSError as error:
            problem = Problem(str(self.folder), None, f"cannot be read: {error.strerror}")
            if self._snapshot.problems != (problem,):
                self._swap(replace(self._snapshot, exists=True, problems=(problem,)))
            self._signature = "unreadable"
        finally:
            self._next_look = now + LOOK_INTERVAL

    def _reload(self) -> tuple[Signature, Snapshot]:
        """The folder as it is. It is read again when it changed meanwhile: a file that was listed may be gone."""
        for _ in range(ATTEMPTS):
            signature = _signature(self.folder)
            snapshot = self._read_all(signature)
            if _signature(self.folder) == signature:
                break
        return signature, snapshot

    def _read_all(self, signature: Signature) -> Snapshot:
        if signature is None:
            return Snapshot()
        last_good = {entry.file: entry.action for entry in self._snapshot.entries}
        entries = [_read(self.folder / name, self._configured) for name, _, _ in signature]
        return snapshot_of(
            _without_namesakes(
                replace(entry, action=entry.action or last_good.get(entry.file)) for entry in entries
            )
        )

    def _swap(self, snapshot: Snapshot) -> None:
        known = self._snapshot.problems
        self._snapshot = snapshot
        _log.info("actions loaded", loaded=len(snapshot.actions), problems=len(snapshot.problems))
        for problem in snapshot.problems:
            if problem not in known:
                _log.warning("action file is bad", file=problem.file, line=problem.line, problem=problem.message)


def snapshot_of(entries: Iterable[Entry]) -> Snapshot:
    entries = tuple(entries)
    enabled = [entry.action for entry in entries if entry.action and entry.action.manifest.enabled]
    actions = {
        action.tool.wire_name: action for action in sorted(enabled, key=lambda action: action.tool.wire_name)
    }
    problems = tuple(entry.problem for entry in entries if entry.problem)
    return Snapshot(True, entries, actions, tuple(action.tool for action in actions.values()), problems)


def _signature(folder: Path) -> Signature:
    """Of the action files, by name; what begins with a dot is an editor's. Raises OSError."""
    found = []
    try:
        with os.scandir(folder) as files:
            for file in files:
                if file.name.endswith(SUFFIX) and not file.name.startswith("."):
                    with suppress(FileNotFoundError):  # gone since it was listed
                        status = file.stat()
                        found.append((file.name, status.st_mtime_ns, status.st_size))
    except FileNotFoundError:
        return None
    return tuple(sorted(found))


def _without_namesakes(entries: Iterable[Entry]) -> list[Entry]:
    """Of two files with one name the first one has it; a file that is good goes before an older version."""
    taken: dict[str, str] = {}
    found = []
    for entry in sorted(entries, key=lambda entry: (entry.problem is not None, entry.file)):
        if entry.action is None:
            found.append(entry)
            continue
        owner = taken.setdefault(entry.action.tool.wire_name, entry.file)
        if owner == entry.file:
            found.append(entry)
        else:
            problem = Problem(entry.file, None, f"the name {entry.action.manifest.name} is taken by {owner}")
            found.append(Entry(entry.file, None, entry.problem or problem))
    return sorted(found, key=lambda entry: entry.file)


def _read(path: Path, configured: settings.Actions) -> Entry:
    try:
        return Entry(path.name, _action(path, configured))
    except ManifestError as error:
        return Entry(path.name, problem=Problem(path.name, error.line, error.message))


def _action(path: Path, configured: settings.Actions) -> Action:
    """Raises ManifestError."""
    document = parse(_text(path))
    manifest = document.manifest
    run = manifest.run
    if isinstance(run, HttpRun) and not allowed(run.url, configured.allowed_hosts):
        raise ManifestError("run.url: the host is not in actions.allowed_hosts", document.line("run", "url"))
    _check_secrets(document)
    function = _function(run.call, document, configured.python) if isinstance(run, PythonRun) else None
    tool = Tool(
        wire_name=wire_name("bact", manifest.name),
        name=manifest.name,
        description=document.description,
        schema=manifest.schema_of_arguments(),
        server=f"action:{manifest.name}",
        timeout=manifest.timeout,
        max_result_bytes=manifest.max_output_bytes + OWN_WORDS,
    )
    return Action(manifest, path.name, tool, function)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise ManifestError(f"cannot be read: {error.strerror}") from None
    if len(data) > LARGEST_FILE:
        raise ManifestError(f"is larger than {LARGEST_FILE} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ManifestError("is not UTF-8", data.count(b"\n", 0, error.start) + 1) from None


def _check_secrets(document: Document) -> None:
    """Raises ManifestError unless every secret is there, and fit for its place."""
    secrets = Secrets()
    run = document.manifest.run
    read = secrets.header if isinstance(run, HttpRun) else secrets.value
    for reference in run.secrets():
        try:
            read(reference)
        except ToolFailed as error:
            line = document.line_with(reference.partition(":")[2])
            raise ManifestError(f"run: {error}", line) from None


def _function(call: str, document: Document, listed: Iterable[str]) -> Callable[..., Any]:
    """The function, imported. Raises ManifestError if it is not listed, not there, or does not take the inputs."""
    line = document.line("run", "call")
    if call not in listed:
        raise ManifestError("run.call: the function is not in actions.python", line)
    module, _, name = call.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:
        raise ManifestError(f"run.call: cannot be imported: {type(error).__name__}: {error}", line) from None
    if not callable(function):
        raise ManifestError("run.call: is not a function", line)
    misfit = _misfit(function, document.manifest.inputs)
    if misfit:
        raise ManifestError(f"run.call: the function does not fit the inputs: {misfit}", line)
    return function  # type: ignore[no-any-return]


def _misfit(function: Callable[..., Any], inputs: Iterable[Input]) -> str:
    """Why the function does not take the inputs, with or without the optional ones; empty if it does."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some of those written in C do not tell
        return ""
    always = [declared.name for declared in inputs if declared.required or declared.default is not None]
    for names in ([declared.name for declared in inputs], always):
        try:
            signature.bind(**dict.fromkeys(names))
        except TypeError as error:
            return str(error)
    return ""
