"""Group commit, content policies, and what happens while the store is down."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event, Semaphore, Thread

import pytest

from aibridge.errors import RecordingError, RecordRefused
from aibridge.interception import recorder as recorder_module
from aibridge.interception.recorder import BackgroundRecorder, without_content
from aibridge.interception.spool import Spool, encode
from aibridge.records import InterceptionEnded, InterceptionStarted, Record, ToolUsage
from tests.fakes import MemoryRecorder
from tests.interception.samples import ended, everything, started

DOWN = RecordingError("the database is down")


@pytest.fixture
def store() -> MemoryRecorder:
    return MemoryRecorder()


@pytest.fixture
def recorder(store: MemoryRecorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BackgroundRecorder:
    monkeypatch.setattr(recorder_module, "REPLAY_INTERVAL", 0.02)
    return BackgroundRecorder(store, Spool(tmp_path / "spool"))


def in_background(count: int, work: object) -> list[Thread]:
    threads = [Thread(target=work, args=(number,)) for number in range(count)]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    return threads


def test_what_is_begun_and_settled_is_durable_on_return(
    store: MemoryRecorder, recorder: BackgroundRecorder
) -> None:
    recorder.start()
    recorder.start()
    recorder.begin(started())
    assert store.of(InterceptionStarted) == [started()]
    recorder.settle(everything())
    assert store.records[1:] == everything_like(store.records[1:])
    recorder.close()
    recorder.close()


def everything_like(records: list[Record]) -> list[Record]:
    """The sample records, which get new ids every time they are made, with the ids of these."""
    assert [type(record) for record in records] == [type(record) for record in everything()]
    return records


def test_of_two_ends_the_first_counts() -> None:
    """A group may fail after some of it has been written."""
    job = recorder_module._Job([], keep=False)
    job.end()
    job.end(DOWN)
    job.wait()


def test_what_waits_is_committed_together(store: MemoryRecorder, recorder: BackgroundRecorder) -> None:
    threads = in_background(20, lambda number: recorder.begin(started(f"i{number}")))
    while recorder._jobs.qsize() < 20:
        threads[0].join(0.001)
    recorder.start()
    for thread in threads:
        thread.join()
    recorder.close()
    assert store.groups == [20]


def test_more_than_a_group_takes_several_commits(
    store: MemoryRecorder, recorder: BackgroundRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "GROUP_LIMIT", 2)
    threads = in_background(5, lambda number: recorder.begin(started(f"i{number}")))
    while recorder._jobs.qsize() < 5:
        threads[0].join(0.001)
    recorder.start()
    for thread in threads:
        thread.join()
    recorder.close()
    assert max(store.groups) == 2


def test_a_start_that_cannot_be_kept_is_refused(store: MemoryRecorder, recorder: BackgroundRecorder) -> None:
    store.down = DOWN
    recorder.start()
    with pytest.raises(RecordingError, match="database is down"):
        recorder.begin(started())
    recorder.close()


def test_an_end_waits_in_the_spool_while_the_store_is_down_and_follows_once(
    store: MemoryRecorder, recorder: BackgroundRecorder, tmp_path: Path
) -> None:
    recorder.start()
    recorder.begin(started())
    store.down = DOWN
    recorder.settle(everything())
    degraded = recorder.degraded
    assert degraded
    assert len(store.records) == 1

    store.taken.clear()
    store.down = None
    assert store.taken.wait(5)
    recorder.close()
    assert [type(record) for record in store.records[1:]] == [type(record) for record in everything()]
    assert not recorder.degraded
    assert not list((tmp_path / "spool").iterdir())


def test_one_bad_record_does_not_take_its_group_with_it(
    store: MemoryRecorder, recorder: BackgroundRecorder
) -> None:
    store.refuses = "poison"
    failures: list[str] = []

    def begin(number: int) -> None:
        try:
            recorder.begin(started("poison" if number == 1 else f"i{number}"))
        except RecordingError:
            failures.append("poison")

    threads = in_background(4, begin)
    while recorder._jobs.qsize() < 4:
        threads[0].join(0.001)
    recorder.start()
    for thread in threads:
        thread.join()
    recorder.close()
    assert failures == ["poison"]
    assert len(store.records) == 3


def test_one_bad_record_does_not_take_its_interception_with_it(
    store: MemoryRecorder, recorder: BackgroundRecorder, tmp_path: Path
) -> None:
    store.refuses = "PromptUsage"
    recorder.start()
    recorder.settle(everything())
    recorder.close()
    assert [type(record) for record in store.records] == [type(record) for record in everything()[1:]]
    assert b"PromptUsage" in (tmp_path / "spool" / "refused.log").read_bytes()
    assert not recorder.degraded


def test_a_store_that_goes_down_in_between_leaves_the_interception_in_the_spool(
    store: MemoryRecorder, recorder: BackgroundRecorder
) -> None:
    class Failing(MemoryRecorder):
        def record(self, records: Sequence[Record]) -> None:
            if len(records) > 1:
                raise RecordRefused("one of them")
            raise DOWN

    recorder._recorder = Failing()
    recorder.start()
    recorder.settle(everything())
    assert recorder.degraded
    recorder._recorder = store
    assert store.taken.wait(5)
    recorder.close()
    assert len(store.records) == len(everything())


@pytest.mark.parametrize("error", [ValueError("not a RecordingError"), OSError("disk")])
def test_a_recorder_that_raises_anything_does_not_stop_recording(
    store: MemoryRecorder, recorder: BackgroundRecorder, error: Exception
) -> None:
    recorder.start()
    store.down = error
    with pytest.raises(RecordingError):
        recorder.begin(started())
    recorder.settle(everything())
    store.down = None
    recorder.begin(started("later"))
    recorder.close()
    assert started("later") in store.records


def test_a_bug_in_the_committing_thread_fails_its_group_and_no_other(
    store: MemoryRecorder, recorder: BackgroundRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    recorder.start()
    with monkeypatch.context() as patched:
        patched.setattr(recorder, "_keep", broken)
        store.down = DOWN
        with pytest.raises(RecordingError):
            recorder.begin(started())
    store.down = None
    recorder.begin(started("later"))
    recorder.close()


def test_what_is_settled_while_the_recorder_is_closed_goes_to_the_spool(
    store: MemoryRecorder, recorder: BackgroundRecorder
) -> None:
    recorder.settle(everything())
    assert recorder.degraded
    recorder.start()
    assert store.taken.wait(5)
    recorder.close()
    assert [type(record) for record in store.records] == [type(record) for record in everything()]


def test_a_hanging_store_and_a_waiting_spool_do_not_hold_answers(
    store: MemoryRecorder, recorder: BackgroundRecorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the replay hangs in the store, further records still find their way into the spool."""
    monkeypatch.setattr(recorder_module, "COMMIT_TIMEOUT", 0.05)
    left_by_a_dead_process(tmp_path / "spool")
    store.open.clear()
    recorder.start()
    for number in range(3):
        recorder.settle([ended(f"i{number}")])
    store.open.set()
    recorder.close()
    kept = {record.interception_id for record in store.of(InterceptionEnded)}  # type: ignore[union-attr]
    assert kept == {"dead", "i0", "i1", "i2"}


def test_a_dead_processes_records_are_found_under_steady_traffic(
    store: MemoryRecorder, recorder: BackgroundRecorder, tmp_path: Path
) -> None:
    recorder.start()
    left_by_a_dead_process(tmp_path / "spool")
    deadline = time.monotonic() + 5
    while not store.of(InterceptionEnded) and time.monotonic() < deadline:
        recorder.begin(started())
    recorder.close()
    assert store.of(InterceptionEnded)


def test_a_long_replay_does_not_hold_up_requests(tmp_path: Path) -> None:
    class Slow(MemoryRecorder):
        def record(self, records: Sequence[Record]) -> None:
            Event().wait(0.001)
            super().record(records)

    names = [f"i{number}" for number in range(2000)]
    left_by_a_dead_process(tmp_path, names)
    store = Slow()
    recorder = BackgroundRecorder(store, Spool(tmp_path))
    recorder.start()
    longest, begun = 0.0, 0
    deadline = time.monotonic() + 30
    while list(tmp_path.iterdir()) and time.monotonic() < deadline:
        before = time.monotonic()
        recorder.begin(started())
        longest, begun = max(longest, time.monotonic() - before), begun + 1
    recorder.close()
    assert longest < 1
    assert begun > 1
    assert [record.interception_id for record in store.of(InterceptionEnded)] == names  # type: ignore[union-attr]


def test_a_long_replay_needs_no_requests_to_go_on_and_is_over_when_all_is_done(
    store: MemoryRecorder, recorder: BackgroundRecorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "REPLAY_INTERVAL", 60)
    monkeypatch.setattr(recorder_module, "REPLAY_SLICE", 0)
    names = ["a", "b", "c"]
    for name in names:
        recorder.settle([ended(name)])  # not started yet
    tended: list[tuple[int, bool]] = []
    over = Event()

    def tend() -> None:
        tended.append((len(store.records), recorder.degraded))
        if not recorder.degraded:
            over.set()

    monkeypatch.setattr(recorder_module, "TEND_INTERVAL", 0)
    recorder._tend = tend
    recorder.start()
    assert over.wait(5)
    recorder.close()
    assert tended[:4] == [(1, True), (2, True), (3, True), (3, False)]
    assert [record.interception_id for record in store.of(InterceptionEnded)] == names  # type: ignore[union-attr]


def test_when_neither_store_nor_spool_takes_the_records_the_caller_is_told(
    store: MemoryRecorder, tmp_path: Path
) -> None:
    store.down = DOWN
    recorder = BackgroundRecorder(store, Spool(tmp_path / "spool", limit=10))
    recorder.start()
    with pytest.raises(RecordingError, match="full"):
        recorder.settle(everything())
    recorder.close()


def test_a_slow_store_does_not_hold_the_answer_for_ever(
    store: MemoryRecorder, recorder: BackgroundRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "COMMIT_TIMEOUT", 0.05)
    recorder.start()
    store.open.clear()
    recorder.settle([ended()])
    assert recorder.degraded
    with pytest.raises(RecordingError, match="slow"):
        recorder.begin(started("late"))
    store.open.set()
    recorder.close()
    late = [record for record in store.of(InterceptionEnded) if record.interception_id == "late"]  # type: ignore[union-attr]
    assert [record.status for record in late] == ["failed"]  # type: ignore[union-attr]
    assert ended() in store.of(InterceptionEnded)


def test_a_store_that_hangs_gathers_no_more_than_so_much(
    store: MemoryRecorder, recorder: BackgroundRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "COMMIT_TIMEOUT", 0.05)
    monkeypatch.setattr(recorder_module, "MOST_WAITING", 4)
    store.open.clear()
    for number in range(2):  # each leaves its start, and that it came too late
        with pytest.raises(RecordingError, match="slow"):
            recorder.begin(started(f"i{number}"))
    with pytest.raises(RecordingError, match="too much"):
        recorder.begin(started("one too many"))
    recorder.settle([ended("another")])  # what had begun is kept in any case
    store.open.set()
    recorder.start()
    recorder.close()
    assert [record.id for record in store.of(InterceptionStarted)] == ["i0", "i1"]  # type: ignore[union-attr]


def test_a_spool_that_cannot_be_replayed_yet_stays(
    store: MemoryRecorder, recorder: BackgroundRecorder, tmp_path: Path
) -> None:
    left_by_a_dead_process(tmp_path / "spool")
    store.down = DOWN
    recorder.start()
    while not recorder.degraded:
        store.taken.wait(0.005)
    store.down = None
    assert store.taken.wait(5)
    recorder.close()
    assert [record.interception_id for record in store.of(InterceptionEnded)] == ["dead"]  # type: ignore[union-attr]


def test_the_stores_chores_are_done_at_the_start_and_every_few_seconds_come_what_may(
    store: MemoryRecorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "TEND_INTERVAL", 0.02)
    monkeypatch.setattr(recorder_module, "REPLAY_INTERVAL", 0.02)
    often = Semaphore(0)

    def broken() -> None:
        often.release()
        raise ValueError("a bug")

    recorder = BackgroundRecorder(store, Spool(tmp_path), tend=broken)
    recorder.start()
    assert often.acquire(timeout=5)
    recorder.begin(started())
    assert often.acquire(timeout=5)
    recorder.close()
    assert store.of(InterceptionStarted) == [started()]


def left_by_a_dead_process(directory: Path, names: Sequence[str] = ("dead",)) -> None:
    directory.mkdir(exist_ok=True)
    (directory / "dead.jsonl").write_bytes(b"".join(encode([ended(name)]) for name in names))


def test_observers_see_each_record_once_even_if_it_is_not_kept_and_cannot_do_harm(
    store: MemoryRecorder, tmp_path: Path
) -> None:
    seen: list[Record] = []

    def broken(_: Sequence[Record]) -> None:
        raise BrokenPipeError

    store.down = DOWN
    recorder = BackgroundRecorder(store, Spool(tmp_path), observers=(broken, seen.extend))
    recorder.start()
    recorder.settle([ended()])
    store.down = None
    assert store.taken.wait(5)
    recorder.begin(started())
    recorder.close()
    assert seen == [ended(), started()]


def test_content_none_keeps_no_text() -> None:
    kept = [record for record in everything() if without_content(record, "none") is not None]
    assert [type(record).__name__ for record in kept] == ["TokenUsage", "ToolUsage", "InterceptionEnded"]
    tool = without_content(kept[1], "none")
    assert isinstance(tool, ToolUsage)
    assert (tool.input, tool.invocation_error) == ("", "")


def test_content_redacted_keeps_lengths_only() -> None:
    redacted = [without_content(record, "redacted") for record in everything()]
    assert "what?" not in repr(redacted)
    assert "secret" not in repr(redacted)
    assert "hmm" not in repr(redacted)
    assert "[redacted: 5 characters]" in repr(redacted)


@pytest.mark.parametrize(
    ("content", "kept"), [("full", "you said: x"), ("redacted", "[redacted: 11 characters]"), ("none", None)]
)
def test_what_a_provider_quotes_in_its_errors_is_content(content: str, kept: str | None) -> None:
    record = without_content(replace(ended(), error_message="you said: x"), content)
    assert isinstance(record, InterceptionEnded)
    assert record.error_message == kept


def test_the_content_policy_holds_for_the_spool_too(store: MemoryRecorder, tmp_path: Path) -> None:
    store.down = DOWN
    recorder = BackgroundRecorder(store, Spool(tmp_path / "spool"), content="none")
    recorder.start()
    recorder.settle(everything())
    spooled = b"".join(path.read_bytes() for path in (tmp_path / "spool").iterdir())
    recorder.close()
    assert b"interception_id" in spooled
    assert b"secret" not in spooled
