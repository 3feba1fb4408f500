"""Records on the local disk while the store is down.

An append-only file per process, one line of JSON per group of records that belong together, synced before
anyone relies on it. A lock marks the file as owned: what a dead process left is taken over by whoever finds
it unlocked. Records carry their ids, so replaying a group that did reach the store changes nothing.
"""

import fcntl
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import datetime
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import Any, get_args
from uuid import uuid4

import orjson

from aibridge.errors import RecordingError, RecordRefused
from aibridge.records import Record

SPOOL_LIMIT = 256 * 1024 * 1024

_TYPES: dict[str, type[Record]] = {kind.__name__: kind for kind in get_args(Record)}

Write = Callable[[Sequence[Record]], None]


class Spool:
    """The spool files of one directory; nothing is touched before the first use."""

    def __init__(self, directory: Path, limit: int = SPOOL_LIMIT) -> None:
        self._directory = directory
        self._limit = limit
        self._lock = Lock()
        self._own: _File | None = None
        self._full: _File | None = None  # ours, too, but being replayed
        self._adopted: _File | None = None  # a dead process's, being replayed

    def append(self, records: Sequence[Record]) -> None:
        """Keep one group. It is on the disk when this returns. Raises RecordingError when full or unwritable."""
        line = encode(records)
        with self._lock:
            try:
                self._own = self._own or self._create()
                if sum(_size(each.file) for each in self._ours()) + len(line) > self._limit:
                    raise RecordingError(f"the spool is full ({self._limit} bytes)")
                _append(self._own.file, line)
            except OSError as error:
                raise RecordingError(f"the spool cannot be written: {error}") from error

    def waiting(self) -> bool:
        """Whether records of this or of a dead process wait to be replayed."""
        if self._ours() or self._adopted:
            return True
        found = [file for path in self._others() if (file := _locked(path))]
        for file in found:
            file.close()
        return bool(found)

    def replay(self, write: Write, seconds: float = math.inf) -> bool:
        """Give every waiting group to `write`, in order, and forget the files of which it took all. Returns
        whether that is done; if not, so many seconds are over, and the next replay goes on from there. Raises
        RecordingError while the store is down; nothing is forgotten then. Who appends meanwhile does not wait:
        that goes to a new file."""
        until = time.monotonic() + seconds
        while (file := self._filled() or self._taken_over()) is not None:
            if not self._replay_file(file, write, until):
                return False
            with self._lock:
                if file is self._full:
                    self._full = None
                else:
                    self._adopted = None
                file.file.close()
        return True

    def _filled(self) -> "_File | None":
        """Our oldest file, to which nothing is appended any more. As long as it cannot be replayed, there is at
        most one other."""
        with self._lock:
            if self._full is None:
                self._full, self._own = self._own, None
            return self._full

    def _taken_over(self) -> "_File | None":
        """A file that a dead process left. It is locked until all of it has been replayed."""
        if self._adopted is None:
            found = ((path, _locked(path)) for path in self._others())
            self._adopted = next((_File(path, file) for path, file in found if file is not None), None)
        return self._adopted

    def write_all(self, records: Sequence[Record], write: Write) -> None:
        """`write` them together or, if one of them can never be written, each by itself; what is refused then is
        put aside. Raises RecordingError while the store is down."""
        try:
            write(records)
        except RecordRefused:
            for record in records:
                try:
                    write([record])
                except RecordRefused:
                    self._put_aside(encode([record]))

    def _replay_file(self, spooled: "_File", write: Write, until: float) -> bool:
        """Whether the time was enough for all of it, or for what an earlier replay has left of it."""
        with os.fdopen(spooled.file.fileno(), "rb", closefd=False) as lines:
            lines.seek(spooled.replayed)
            for line in lines:
                if line.endswith(b"\n"):  # a line cut by a crash was never relied upon
                    self._replay_line(line, write)
                spooled.replayed += len(line)
                if time.monotonic() >= until:
                    return False
        spooled.file.truncate(0)  # for whoever opened it before it was unlinked and gets the lock after us
        spooled.path.unlink(missing_ok=True)
        return True

    def _replay_line(self, line: bytes, write: Write) -> None:
        try:
            records = decode(line)
        except (ValueError, KeyError, TypeError):
            self._put_aside(line)
        else:
            self.write_all(records, write)

    def _put_aside(self, line: bytes) -> None:
        """For a person to look at: nothing that was recorded is thrown away."""
        self._directory.mkdir(parents=True, exist_ok=True)
        with (self._directory / "refused.log").open("ab", buffering=0) as file:
            _append(file, line)

    def _create(self) -> "_File":
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"{uuid4()}.jsonl"
        file = path.open("a+b", buffering=0)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _File(path, file)

    def _ours(self) -> "list[_File]":
        return [file for file in (self._full, self._own) if file is not None]

    def _others(self) -> list[Path]:
        ours = {file.path for file in self._ours()}
        return [path for path in sorted(self._directory.glob("*.jsonl")) if path not in ours]


@dataclass(slots=True)
class _File:
    """A spool file that this process has locked. What has been `replayed` is known to this process only: after its
    death all of the file is replayed again."""

    path: Path
    file: FileIO
    replayed: int = 0  # bytes


def _append(file: FileIO, line: bytes) -> None:
    """The line is on the disk when this returns; of one that does not fit nothing stays. Raises OSError."""
    before = _size(file)
    try:
        while line:
            line = line[file.write(line) :]
        os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            file.truncate(before)
        raise


def _size(file: FileIO) -> int:
    return os.fstat(file.fileno()).st_size


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


def _locked(path: Path) -> FileIO | None:
    """The file, now ours; None while its process lives, or if somebody else is replaying it or has removed it."""
    try:
        file = path.open("r+b", buffering=0)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
