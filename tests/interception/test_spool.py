"""Records on the disk: complete, in order, once."""

import resource
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from aibridge.errors import RecordingError, RecordRefused
from aibridge.interception.spool import Spool, decode, encode
from aibridge.records import Record
from tests.interception.samples import ended, everything, started


def test_every_kind_of_record_survives() -> None:
    records = [started(), *everything()]
    assert decode(encode(records)) == records


def test_nothing_is_touched_before_the_first_use(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    assert not spool.waiting()
    spool.replay(lambda _: None)
    assert not (tmp_path / "spool").exists()


def test_groups_come_back_in_order_and_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append([ended("a")])
    spool.append([ended("b"), ended("c")])
    assert spool.waiting()
    got: list[Sequence[Record]] = []
    spool.replay(got.append)
    spool.replay(got.append)
    assert got == [[ended("a")], [ended("b"), ended("c")]]
    assert not spool.waiting()
    spool.append([ended("d")])
    spool.replay(got.append)
    assert got[2:] == [[ended("d")]]


def test_a_replay_goes_on_where_its_time_was_over(tmp_path: Path) -> None:
    left = b"".join(encode([ended(name)]) for name in "cd")
    dead = tmp_path / "dead.jsonl"
    dead.write_bytes(left)
    spool, other = Spool(tmp_path), Spool(tmp_path)
    for name in "ab":
        spool.append([ended(name)])
    got: list[Sequence[Record]] = []
    for number in range(1, 4):
        assert not spool.replay(got.append, 0)
        assert len(got) == number
    assert dead.read_bytes() == left  # whole until all of it has been replayed, should this process die
    assert spool.waiting()
    assert not other.waiting()

    def down(_: Sequence[Record]) -> None:
        raise RecordingError("down")

    with pytest.raises(RecordingError):
        spool.replay(down, 0)
    assert not spool.replay(got.append, 0)
    assert spool.replay(got.append, 0)
    assert got == [[ended(name)] for name in "abcd"]
    assert not spool.waiting()
    assert not list(tmp_path.iterdir())


def test_nothing_is_forgotten_while_the_store_is_down(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append([ended("a")])

    def down(_: Sequence[Record]) -> None:
        raise RecordingError("down")

    with pytest.raises(RecordingError):
        spool.replay(down)
    got: list[Sequence[Record]] = []
    spool.replay(got.append)
    assert got == [[ended("a")]]


def test_a_dead_process_file_is_taken_over_without_its_torn_last_line(tmp_path: Path) -> None:
    (tmp_path / "dead.jsonl").write_bytes(encode([ended("a")]) + encode([ended("b")])[:-9])
    spool = Spool(tmp_path)
    assert spool.waiting()
    got: list[Sequence[Record]] = []
    spool.replay(got.append)
    assert got == [[ended("a")]]
    assert not spool.waiting()


def test_a_living_process_file_is_left_alone(tmp_path: Path) -> None:
    other, spool = Spool(tmp_path), Spool(tmp_path)
    other.append([ended("a")])
    assert not spool.waiting()
    spool.replay(lambda _: pytest.fail("taken from its owner"))


def test_what_can_never_be_written_is_put_aside_and_the_rest_goes_on(tmp_path: Path) -> None:
    (tmp_path / "dead.jsonl").write_bytes(
        b'[{"type": "Unknown"}]\n' + encode([ended("bad")]) + encode([ended("a")])
    )
    got: list[Sequence[Record]] = []

    def write(records: Sequence[Record]) -> None:
        if records == [ended("bad")]:
            raise RecordRefused("no such column")
        got.append(records)

    Spool(tmp_path).replay(write)
    assert got == [[ended("a")]]
    assert (tmp_path / "refused.log").read_bytes().count(b"\n") == 2


def test_a_full_spool_says_so(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit=len(encode([ended()])) + 5)
    spool.append([ended()])
    with pytest.raises(RecordingError, match="full"):
        spool.append([ended()])


def test_what_waits_for_a_store_that_stays_down_is_bounded_too(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit=4 * len(encode([ended("a")])))

    def down(_: Sequence[Record]) -> None:
        raise RecordingError("down")

    for name in "abcd":
        spool.append([ended(name)])
        with pytest.raises(RecordingError, match="down"):
            spool.replay(down)
    with pytest.raises(RecordingError, match="full"):
        spool.append([ended("e")])
    assert len(list(tmp_path.iterdir())) <= 2  # each is an open file of this process
    got: list[Sequence[Record]] = []
    spool.replay(got.append)
    assert got == [[ended(name)] for name in "abcd"]


def test_a_disk_that_was_full_leaves_no_half_line_and_no_stuck_spool(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append([ended("a")])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(encode([ended("a")])) + 20, hard))
        with pytest.raises(RecordingError, match="cannot be written"):
            spool.append([ended("b")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    spool.append([ended("c")])
    got: list[Sequence[Record]] = []
    spool.replay(got.append)
    assert got == [[ended("a")], [ended("c")]]
    assert not spool.waiting()


def test_a_file_that_somebody_else_replayed_meanwhile_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "dead.jsonl").write_bytes(encode([ended("a")]))
    spool = Spool(tmp_path)

    class Overtaken(Spool):
        def _others(self) -> list[Path]:
            found = super()._others()
            spool.replay(lambda _: None)
            return found

    Overtaken(tmp_path).replay(lambda _: pytest.fail("it was replayed already"))


def test_an_unwritable_directory_is_a_recording_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RecordingError, match="cannot be written"):
        Spool(tmp_path / "file").append([ended()])
