"""Records on the local disk while the store is down.

An append-only file per process, one line of JSON per group of records that belong together, synced before
anyone relies on it. A lock marks the file as owned: what a dead process left is taken over by whoever finds
it unlocked. Records carry their ids, so replaying a group that did reach the store changes nothing.
"""

import fcntl
import os
from collections.abc import Callable, Sequence
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO
from uuid import uuid4

import orjson

from aibridge.errors import RecordingError, RecordRefused
from aibridge.records import (
    InterceptionEnded,
    InterceptionStarted,
    ModelThought,
    PromptUsage,
    Record,
    TokenUsage,
    ToolUsage,
)

SPOOL_LIMIT = 256 * 1024 * 1024

_TYPES: dict[str, type[Record]] = {
    kind.__name__: kind
    for kind in (InterceptionStarted, InterceptionEnded, TokenUsage, PromptUsage, ToolUsage, ModelThought)
}

Write = Callable[[Sequence[Record]], None]


class Spool:
    """The spool files of one directory; nothing is touched before the first use."""

    def __init__(self, directory: Path, limit: int = SPOOL_LIMIT) -> None:
        self._directory = directory
        self._limit = limit
        self._lock = Lock()
        self._own: tuple[Path, BinaryIO] | None = None

    def append(self, records: Sequence[Record]) -> None:
        """Keep one group. It is on the disk when this returns. Raises RecordingError when full or unwritable."""
        line = encode(records)
        with self._lock:
            try:
                _, file = self._own = self._own or self._create()
                if file.tell() + len(line) > self._limit:
                    raise RecordingError(f"the spool is full ({self._limit} bytes)")
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                raise RecordingError(f"the spool cannot be written: {error}") from error

    def waiting(self) -> bool:
        """Whether records of this or of a dead process wait to be replayed."""
        if self._own is not None:
            return True
        found = [file for path in self._others() if (file := _locked(path))]
        for file in found:
            file.close()
        return bool(found)

    def replay(self, write: Write) -> None:
        """Give every waiting group to `write`, in order, and forget what it took. What can never be written
        is put aside into a `.refused` file. Raises RecordingError while the store is down; nothing is
        forgotten then."""
        with self._lock:
            if self._own is not None:
                path, own = self._own
                _replay_file(path, write)
                path.unlink(missing_ok=True)
                own.close()
                self._own = None
        for path in self._others():
            file = _locked(path)
            if file is not None:
                with file:
                    _replay_file(path, write)
                    path.unlink(missing_ok=True)

    def _create(self) -> tuple[Path, BinaryIO]:
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"{uuid4()}.jsonl"
        file = path.open("ab")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return path, file

    def _others(self) -> list[Path]:
        own = self._own[0] if self._own else None
        return [path for path in sorted(self._directory.glob("*.jsonl")) if path != own]


def encode(records: Sequence[Record]) -> bytes:
    """One line: a list of records, each with the name of its type."""
    return orjson.dumps([{"type": type(record).__name__, "record": record} for record in records]) + b"\n"


def decode(line: bytes) -> list[Record]:
    return [_restored(_TYPES[item["type"]], item["record"]) for item in orjson.loads(line)]


def _restored(kind: type[Record], values: dict[str, Any]) -> Record:
    for field in fields(kind):
        value = values[field.name]
        if field.name.endswith("_at"):
            values[field.name] = datetime.fromisoformat(value)
        elif isinstance(value, list):
            values[field.name] = tuple(value)
    return kind(**values)


def _replay_file(path: Path, write: Write) -> None:
    with path.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):  # a line cut by a crash was never relied upon
                _replay_line(line, write, path.with_suffix(".refused"))


def _replay_line(line: bytes, write: Write, refused: Path) -> None:
    try:
        write(decode(line))
    except (RecordRefused, ValueError, KeyError, TypeError):
        with refused.open("ab") as file:
            file.write(line)


def _locked(path: Path) -> BinaryIO | None:
    """The file, now ours; None while its process lives or somebody else is replaying it."""
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
