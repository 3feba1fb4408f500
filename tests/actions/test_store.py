"""The folder: good files are served while bad ones are reported, and changes are seen without a restart."""

import os
import threading
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from aibridge import settings
from aibridge.actions.hosts import allowed
from aibridge.actions.store import Store, check_folder
from tests.actions.samples import declared, document
from tests.fakes import FakeClock

RUN = 'kind = "command"\nargv = ["true"]'
BAD = "+++\nname = \n+++\nText"


class Folder:
    """A folder of files, with a store whose clock is moved by hand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = FakeClock()
        self.store = Store(settings.Actions(dir=str(path)), self.clock)

    def write(self, **files: str) -> None:
        self.path.mkdir(exist_ok=True)
        for name, text in files.items():
            (self.path / f"{name}.md").write_text(text)

    def names(self) -> list[str]:
        """What is served, looked up now."""
        self.clock.advance(1)
        return [tool.name for tool in self.store.snapshot().tools]

    def problems(self) -> list[str]:
        self.clock.advance(1)
        return [str(problem) for problem in self.store.snapshot().problems]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "actions")


class TestReading:
    def test_a_missing_folder_is_empty(self, folder: Folder) -> None:
        with capture_logs() as logs:
            assert folder.names() == []
        assert not folder.store.snapshot().exists
        assert logs == []

    def test_only_action_files_are_read(self, folder: Folder) -> None:
        folder.write(good=document(RUN))
        (folder.path / "notes.txt").write_text("no action")
        (folder.path / ".hidden.md").write_text("no action")
        (folder.path / ".#good.md").symlink_to("nowhere")
        (folder.path / "dangling.md").symlink_to("nowhere")
        (folder.path / "below").mkdir()
        (folder.path / "below" / "deep.md").write_text("no action")
        assert folder.names() == ["sample"]
        assert folder.problems() == []

    def test_good_files_are_served_and_bad_ones_reported(self, folder: Folder) -> None:
        folder.write(b=document(RUN, name="b"), c=BAD, a=document(RUN, name="a"), d="no front matter")
        (folder.path / "e.md").write_bytes(b"+++\n\n\xff\n+++\n")
        (folder.path / "f.md").write_bytes(b" " * (1024 * 1024 + 1))
        (folder.path / "g.md").mkdir()
        assert folder.names() == ["a", "b"]
        assert [problem.split(": ")[0] for problem in folder.problems()] == [
            *("c.md:2", "d.md:1", "e.md:3", "f.md", "g.md")
        ]

    def test_tools(self, folder: Folder) -> None:
        front = "timeout = 2.5\nmax_output_bytes = 100"
        folder.write(x=document(RUN, name="a-b", front=front, inputs=declared("c")), y=document(RUN, name="a_b"))
        first, second = folder.store.snapshot().tools
        assert (first.wire_name, first.name, first.server) == ("bact_a-b", "a-b", "action:a-b")
        assert (first.description, first.timeout, first.max_result_bytes) == ("Does it.", 2.5, 100 + 256)
        assert first.schema["required"] == ["c"]
        assert (second.wire_name, second.timeout) == ("bact_a_b", None)

    def test_of_two_files_with_one_name_the_first_one_has_it(self, folder: Folder) -> None:
        folder.write(b=document(RUN, body="second"), a=document(RUN, body="first"))
        assert [tool.description for tool in folder.store.snapshot().tools] == ["first"]
        assert folder.problems() == ["b.md: the name sample is taken by a.md"]

    def test_disabled_actions_are_left_out_and_keep_their_name(self, folder: Folder) -> None:
        folder.write(a=document(RUN, front="enabled = false"), b=document(RUN))
        assert folder.names() == []
        assert folder.problems() == ["b.md: the name sample is taken by a.md"]

    def test_a_folder_that_is_none(self, folder: Folder) -> None:
        folder.path.write_text("a file")
        with capture_logs() as logs:
            assert folder.problems() == [f"{folder.path}: cannot be read: Not a directory"]
            assert folder.problems() == [f"{folder.path}: cannot be read: Not a directory"]
        assert len([line for line in logs if line["log_level"] == "warning"]) == 1
        folder.path.unlink()
        assert folder.problems() == []
        folder.write(a=document(RUN))
        assert folder.names() == ["sample"]


class TestReloading:
    def test_changes_are_seen_after_a_second(self, folder: Folder) -> None:
        folder.write(a=document(RUN, name="a"))
        before = folder.store.snapshot()
        folder.write(b=document(RUN, name="b"))
        folder.clock.advance(0.9)
        assert folder.store.snapshot() is before
        folder.clock.advance(0.1)
        assert [tool.name for tool in folder.store.snapshot().tools] == ["a", "b"]
        assert [tool.name for tool in before.tools] == ["a"]

    def test_nothing_is_read_while_nothing_changes(self, folder: Folder) -> None:
        folder.write(a=document(RUN))
        before = folder.store.snapshot()
        folder.clock.advance(100)
        assert folder.store.snapshot() is before

    def test_a_change_of_the_time_alone_counts(self, folder: Folder) -> None:
        folder.write(a=document(RUN, body="one"))
        folder.names()
        status = (folder.path / "a.md").stat()
        folder.write(a=document(RUN, body="two"))
        os.utime(folder.path / "a.md", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        folder.clock.advance(1)
        assert folder.store.snapshot().tools[0].description == "two"

    def test_files_and_the_folder_may_go_and_come(self, folder: Folder) -> None:
        folder.write(a=document(RUN, name="a"))
        assert folder.names() == ["a"]
        (folder.path / "a.md").unlink()
        assert folder.names() == []
        folder.path.rmdir()
        assert folder.names() == []
        assert not folder.store.snapshot().exists
        folder.write(a=document(RUN, name="a"))
        assert folder.names() == ["a"]

    def test_the_last_good_version_stays_while_a_file_is_half_written(self, folder: Folder) -> None:
        folder.write(a=document(RUN, name="a", body="old"))
        assert folder.names() == ["a"]
        folder.write(a=document(RUN, name="a", body="new")[:20])
        assert folder.names() == ["a"]
        assert len(folder.problems()) == 1
        folder.write(a="", b=document(RUN, name="b"))
        assert folder.names() == ["a", "b"]
        folder.write(a=document(RUN, name="a", body="newest"))
        assert folder.names() == ["a", "b"]
        assert folder.problems() == []
        assert folder.store.snapshot().tools[0].description == "newest"
        folder.write(a="")
        assert folder.names() == ["a", "b"]
        (folder.path / "a.md").unlink()
        assert folder.names() == ["b"]
        assert folder.problems() == []

    def test_a_good_file_goes_before_an_older_version_of_its_name(self, folder: Folder) -> None:
        folder.write(a=document(RUN, body="old"))
        assert folder.names() == ["sample"]
        folder.write(a=BAD, b=document(RUN, body="new"))
        assert folder.names() == ["sample"]
        assert folder.store.snapshot().tools[0].description == "new"
        assert [problem.split(":")[0] for problem in folder.problems()] == ["a.md"]

    def test_each_change_and_each_problem_is_logged_once(self, folder: Folder) -> None:
        folder.write(a=document(RUN, name="a"), b=BAD)
        with capture_logs() as logs:
            for _ in range(3):
                folder.names()
        assert [line["event"] for line in logs] == ["actions loaded", "action file is bad"]
        assert (logs[0]["loaded"], logs[1]["file"], logs[1]["line"]) == (1, "b.md", 2)
        folder.write(c=document(RUN, name="c"))
        with capture_logs() as logs:
            for _ in range(3):
                folder.names()
        assert [(line["event"], line["loaded"]) for line in logs] == [("actions loaded", 2)]

    def test_threads_see_whole_snapshots(self, folder: Folder) -> None:
        names = [f"n{number}" for number in range(20)]
        seen: list[int] = []
        stop = threading.Event()

        def look() -> None:
            while not stop.is_set():
                seen.append(len(folder.store.snapshot().tools))
                time.sleep(0.001)

        def wait_for(number: int) -> None:
            end = time.monotonic() + 20
            while len(folder.names()) != number or seen[-1:] != [number]:
                assert time.monotonic() < end

        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        staging = folder.path.with_name("staging")
        staging.mkdir()
        for name in names:
            (staging / f"{name}.md").write_text(document(RUN, name=name))
        for _ in range(3):
            staging.rename(folder.path)
            wait_for(20)
            folder.path.rename(staging)
            wait_for(0)
        stop.set()
        for thread in threads:
            thread.join()
        assert set(seen) == {0, 20}


@pytest.mark.parametrize(
    ("url", "hosts", "expected"),
    [
        ("https://api.example.com/x", ["api.example.com"], True),
        ("https://API.example.com:8443/x", ["Api.Example.Com"], True),
        ("https://api.example.com", ["api.example.com:443"], True),
        ("http://api.example.com", ["api.example.com:443"], False),
        ("http://api.example.com:8080", ["api.example.com:8080"], True),
        ("https://api.example.com", ["*.example.com"], True),
        ("https://a.b.example.com", ["*.example.com"], True),
        ("https://example.com", ["*.example.com"], False),
        ("https://evilexample.com", ["*.example.com"], False),
        ("https://api.example.com.evil.net", ["api.example.com", "*.example.com"], False),
        ("https://api.example.com", ["example.com", "*.api.example.com", "*.com:80", "api", ""], False),
        ("https://api.example.com", ["*"], False),
        ("http://[::1]:80/", ["[::1]"], True),
        ("http://[::1]/", ["[::1", "::1:x"], False),
        ("http://127.0.0.1/", [], False),
    ],
)
def test_allowed_hosts(url: str, hosts: list[str], expected: bool) -> None:
    assert allowed(url, hosts) is expected


def test_the_examples_are_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "ghp_0000")
    examples = Path(__file__).parents[2] / "examples" / "actions"
    entries = check_folder(settings.Actions(allowed_hosts=("api.open-meteo.com", "api.github.com")), examples)
    assert {entry.action.manifest.run.kind for entry in entries if entry.action} == {"http", "command"}
    assert [entry.problem for entry in entries] == [None] * len(entries)
