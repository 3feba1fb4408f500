"""command actions: real programs, their input and output, and their end."""

import json
import os
import signal
import sys
import time
import tracemalloc
from pathlib import Path
from threading import Event, Timer

import pytest

from aibridge.interception.toolbox import ToolFailed
from tests.actions.samples import Workshop, declared

SECRET = "hush-hush-4711"


def python(code: str, more: str = "", *arguments: str) -> str:
    """A [run] that runs a Python program."""
    argv = json.dumps([sys.executable, "-c", code, *arguments])
    return f'kind = "command"\nargv = {argv}\n{more}'


def shell(code: str, more: str = "") -> str:
    return f'kind = "command"\nargv = ["/bin/sh", "-c", {json.dumps(code)}]\n{more}'


def wait_until_gone(pid: int) -> None:
    end = time.monotonic() + 5
    while _is_running(pid):
        assert time.monotonic() < end, f"{pid} is still running"
        time.sleep(0.01)


def _is_running(pid: int) -> bool:
    """A zombie that its new parent has not reaped yet does not run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class TestInput:
    def test_arguments_are_words_and_never_a_shells(self, workshop: Workshop) -> None:
        inputs = declared("a") + declared("n", "integer") + declared("list", "array")
        inputs += declared("no", more="required = false")
        words = [
            "${args.a}",
            "n=${args.n}",
            "${args.n}",
            "${args.list}",
            "${args.no}",
            "<${args.no}>",
            "$${args.a}",
        ]
        workshop.write(python("import sys, json; print(json.dumps(sys.argv[1:]))", "", *words), inputs=inputs)
        hostile = "; rm -rf / $(id) `id` ' \" \n * ü"
        given = json.loads(workshop.text(a=hostile, n=3, list=["x", None, True], argv="mine", cwd="/"))
        assert given == [hostile, "n=3", "3", '["x",null,true]', "<>", "${args.a}"]

    def test_standard_input_is_text_or_json_with_its_types(self, workshop: Workshop) -> None:
        inputs = declared("a") + declared("n", "integer") + declared("no", more="required = false")
        cat = "import sys; print(sys.stdin.read())"
        workshop.write(python(cat, 'stdin = "<${args.a}> ${args.n}"'), inputs=inputs)
        assert workshop.text(a="ü\n", n=3) == "<ü\n> 3\n"
        table = 'stdin = { a = "${args.a}", n = "${args.n}", no = "${args.no}", c = [1] }'
        workshop.write(python(cat, table), inputs=inputs)
        assert json.loads(workshop.text(a="ü", n=3)) == {"a": "ü", "n": 3, "c": [1]}
        workshop.write(python(cat), inputs=inputs)
        assert workshop.text(a="ü", n=3) == "the action returned nothing"

    def test_large_inputs_and_outputs_do_not_wait_for_each_other(self, workshop: Workshop) -> None:
        front = "max_output_bytes = 10000000"
        workshop.write('kind = "command"\nargv = ["cat"]\nstdin = "${args.a}"', inputs=declared("a"), front=front)
        text = "ü" * 1_000_000
        assert workshop.text(a=text) == text

    def test_a_program_need_not_read_its_input(self, workshop: Workshop) -> None:
        workshop.write('kind = "command"\nargv = ["echo", "done"]\nstdin = "${args.a}"', inputs=declared("a"))
        assert workshop.text(a="x" * 1_000_000) == "done\n"

    def test_it_gets_four_variables_and_its_own(self, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant")
        monkeypatch.setenv("LANG", "C.UTF-8")
        monkeypatch.setenv("SAMPLE_TOKEN", SECRET)
        code = "import os, json; print(json.dumps({k: v[::-1] for k, v in os.environ.items()}))"
        workshop.write(python(code, 'env = { A = "b $HOME", TOKEN = "env:SAMPLE_TOKEN" }'))
        given = json.loads(workshop.text())
        assert given.keys() - {"LC_CTYPE", "TZ"} == {"PATH", "HOME", "LANG", "A", "TOKEN"}
        assert given["A"] == "b $HOME"[::-1]
        assert given["TOKEN"] == SECRET[::-1]

    def test_where_it_runs(self, workshop: Workshop, tmp_path: Path) -> None:
        workshop.write('kind = "command"\nargv = ["pwd"]')
        assert workshop.text() == f"{workshop.folder}\n"
        workshop.write('kind = "command"\nargv = ["pwd"]\ncwd = ".."')
        assert workshop.text() == f"{tmp_path}\n"
        (workshop.folder / "tool.sh").write_text("#!/bin/sh\necho mine\n")
        (workshop.folder / "tool.sh").chmod(0o755)
        workshop.write('kind = "command"\nargv = ["./tool.sh"]')
        assert workshop.text() == "mine\n"

    def test_it_is_not_kept_to_the_workers_core(self, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
        cores = os.sched_getaffinity(0)
        monkeypatch.setattr("aibridge.cores._process.kept_to", min(cores))
        workshop.write(python("import os; print(len(os.sched_getaffinity(0)))"))
        os.sched_setaffinity(0, {min(cores)})
        try:
            assert workshop.text() == f"{len(cores)}\n"
            assert os.sched_getaffinity(0) == {min(cores)}
        finally:
            os.sched_setaffinity(0, cores)

    @pytest.mark.parametrize(
        ("run", "reason"),
        [
            ('kind = "command"\nargv = ["no-such-program"]', "no-such-program cannot be started: No such file"),
            ('kind = "command"\nargv = ["."]', "Permission denied"),
            ('kind = "command"\nargv = ["pwd"]\ncwd = "nowhere"', "pwd cannot be started: No such file"),
            ('kind = "command"\nargv = ["echo", "${args.a}"]', "null byte"),
        ],
    )
    def test_what_cannot_be_started(self, workshop: Workshop, run: str, reason: str) -> None:
        workshop.write(run, inputs=declared("a"))
        with pytest.raises(ToolFailed, match=reason):
            workshop.result(a="a\0b")

    def test_too_many_arguments(self, workshop: Workshop) -> None:
        workshop.write('kind = "command"\nargv = ["echo", "${args.a}"]', inputs=declared("a"))
        with pytest.raises(ToolFailed, match="Argument list too long"):
            workshop.result(a="x" * 10_000_000)


class TestOutput:
    @pytest.mark.parametrize(
        ("code", "text"),
        [
            ("printf 'grün\\n'", "grün\n"),
            ("printf 'a\\377b'", "a\ufffdb"),
            ("true", "the action returned nothing"),
            ("echo; echo", "the action returned nothing"),
            ("echo out; echo err >&2", "out\n"),
        ],
    )
    def test_text(self, workshop: Workshop, code: str, text: str) -> None:
        workshop.write(shell(code))
        assert workshop.text() == text

    def test_50_megabytes_are_counted_and_not_kept(self, workshop: Workshop) -> None:
        workshop.write(shell("head -c 50000000 /dev/zero | tr '\\0' x"))
        tracemalloc.start()
        try:
            text = workshop.text()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert text == "x" * 65536 + "\n[cut: the first 65536 of at least 50000000 bytes]"
        assert peak < 3_000_000

    @pytest.mark.parametrize(("limit", "kept"), [(1, ""), (2, "ü"), (3, "ü"), (5, "üö"), (6, "üöä")])
    def test_it_is_cut_between_characters(self, workshop: Workshop, limit: int, kept: str) -> None:
        workshop.write(shell("printf üöä"), front=f"max_output_bytes = {limit}")
        marker = "" if limit == 6 else f"\n[cut: the first {limit} of at least 6 bytes]"
        assert workshop.text() == kept + marker

    @pytest.mark.parametrize(
        ("code", "error"),
        [
            ("echo out; echo err >&2; exit 3", "exit status 3\nerr"),
            ("echo only out; exit 1", "exit status 1\nonly out\n"),
            ("exit 127", "exit status 127"),
            ("kill -SEGV $$", "ended by SIGSEGV"),
            ("kill -40 $$", "ended by signal 40"),
        ],
    )
    def test_other_exit_statuses_are_errors(self, workshop: Workshop, code: str, error: str) -> None:
        workshop.write(shell(code))
        assert workshop.error() == error

    def test_of_a_long_standard_error_the_end_is_told(self, workshop: Workshop) -> None:
        workshop.write(shell("head -c 1000000 /dev/zero | tr '\\0' x >&2; echo the end >&2; exit 1"))
        error = workshop.error()
        assert error.endswith("xxxthe end")
        assert len(error) < 2100


class TestSecrets:
    @pytest.fixture(autouse=True)
    def _secret(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SAMPLE_TOKEN", SECRET)

    @pytest.mark.parametrize("code", ["echo $A", "echo $A >&2; exit 1", "echo $A; exit 1"])
    def test_they_are_taken_out_of_outputs(self, workshop: Workshop, code: str) -> None:
        workshop.write(shell(code, 'env = { A = "env:SAMPLE_TOKEN" }'))
        result = repr(workshop.result())
        assert "[secret]" in result
        assert "hush" not in result

    def test_a_cut_at_the_beginning_leaves_no_half(self, workshop: Workshop) -> None:
        for more in range(len(SECRET) + 2):
            code = f"printf %s $A >&2; head -c {2000 - more} /dev/zero | tr '\\0' x >&2; exit 1"
            workshop.write(shell(code, 'env = { A = "env:SAMPLE_TOKEN" }'))
            assert "4711" not in workshop.error()

    def test_those_that_are_too_short_are_left(self, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SAMPLE_TOKEN", "e")
        workshop.write(shell("echo hello", 'env = { A = "env:SAMPLE_TOKEN" }'))
        assert workshop.text() == "hello\n"

    def test_a_missing_one_is_the_files_problem(self, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("SAMPLE_TOKEN")
        workshop.write(shell("echo", 'env = { A = "env:SAMPLE_TOKEN", B = "file:/no/such" }'))
        (problem,) = workshop.problems()
        assert problem.startswith("sample.md:9: run: the secret env:SAMPLE_TOKEN is missing")


class TestEnd:
    def test_the_deadline_ends_the_whole_group_also_one_that_ignores_sigterm(self, workshop: Workshop) -> None:
        workshop.write(shell("trap '' TERM INT HUP; sleep 60 & echo $$ $! > pids; while :; do sleep 1; done"))
        begin = time.monotonic()
        with pytest.raises(ToolFailed, match=r"timed out after 0\.\d s"):
            workshop.result(timeout=0.4)
        assert time.monotonic() - begin < 2
        for pid in (workshop.folder / "pids").read_text().split():
            wait_until_gone(int(pid))

    def test_the_actions_own_timeout(self, workshop: Workshop) -> None:
        workshop.write('kind = "command"\nargv = ["sleep", "60"]', front="timeout = 0.2")
        with pytest.raises(ToolFailed, match="timed out"):
            workshop.result()

    def test_endless_output(self, workshop: Workshop) -> None:
        workshop.write('kind = "command"\nargv = ["yes"]', front="timeout = 0.3")
        with pytest.raises(ToolFailed, match="timed out"):
            workshop.result()

    def test_a_program_that_closes_its_outputs_and_stays(self, workshop: Workshop) -> None:
        workshop.write(shell("echo $$ > pid; exec >&- 2>&-; sleep 60"), front="timeout = 0.3")
        with pytest.raises(ToolFailed, match="timed out"):
            workshop.result()
        wait_until_gone(int((workshop.folder / "pid").read_text()))

    def test_cancelling(self, workshop: Workshop) -> None:
        workshop.write(shell("echo $$ > pid; sleep 60"))
        cancelled = Event()
        Timer(0.2, cancelled.set).start()
        with pytest.raises(ToolFailed, match="cancelled"):
            workshop.result(cancelled=cancelled)
        wait_until_gone(int((workshop.folder / "pid").read_text()))
        with pytest.raises(ToolFailed, match="cancelled"):
            workshop.result(cancelled=cancelled)

    def test_what_it_leaves_running_is_killed(self, workshop: Workshop) -> None:
        workshop.write(shell("sleep 60 & echo $! > pid; echo done"))
        begin = time.monotonic()
        assert workshop.text() == "done\n"
        assert time.monotonic() - begin < 2
        wait_until_gone(int((workshop.folder / "pid").read_text()))
        workshop.write(shell("sleep 60 >/dev/null 2>&1 & echo $! > pid; echo done"))
        assert workshop.text() == "done\n"
        wait_until_gone(int((workshop.folder / "pid").read_text()))

    def test_what_it_leaves_writing_may_finish_soon(self, workshop: Workshop) -> None:
        workshop.write(shell("(sleep 0.1; echo later) & echo now"))
        assert workshop.text() == "now\nlater\n"

    def test_what_escapes_from_the_group_holds_nobody_up(self, workshop: Workshop) -> None:
        workshop.write(shell("setsid sleep 60 & echo $! > pid; sleep 0.2; echo done"))
        begin = time.monotonic()
        assert workshop.text() == "done\n"
        assert time.monotonic() - begin < 3
        os.kill(int((workshop.folder / "pid").read_text()), signal.SIGKILL)

    def test_nothing_is_left_open(self, workshop: Workshop) -> None:
        workshop.write(shell("echo done"))
        workshop.text()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            workshop.text()
        assert len(os.listdir("/proc/self/fd")) <= before
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
