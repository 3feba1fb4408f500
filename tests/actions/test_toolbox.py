"""The toolbox: what it offers, what it tells of itself, and what becomes of a tool whose file has changed."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from aibridge import settings
from aibridge.actions.toolbox import ActionsToolbox
from aibridge.interception.toolbox import CallContext, Toolbox, ToolFailed
from tests.actions.samples import Workshop, declared, only_text

ECHO = 'kind = "command"\nargv = ["echo", "${args.a}"]'


def context() -> CallContext:
    return CallContext("alice", "i-1", deadline=time.monotonic() + 10)


def test_it_is_a_toolbox(tmp_path: Path) -> None:
    toolbox: Toolbox = ActionsToolbox(settings.Actions(dir=str(tmp_path / "none")))
    toolbox.start()
    assert toolbox.wait_until_settled(0)
    assert toolbox.tools() == ()
    assert toolbox.status() == {}
    toolbox.close()


def test_status(workshop: Workshop) -> None:
    assert workshop.toolbox.status() == {"actions": {"loaded": 0, "problems": []}}
    workshop.write(ECHO, inputs=declared("a"))
    workshop.write(ECHO, file="bad.md", name="bad")
    workshop.write('kind = "command"\nargv = ["true"]', file="off.md", name="off", front="enabled = false")
    assert workshop.toolbox.status() == {
        "actions": {"loaded": 1, "problems": ["bad.md:8: run.argv: ${args.a} is no declared input"]}
    }


def test_tools_are_sorted(workshop: Workshop) -> None:
    for name in ("b", "a", "c-1", "c_1"):
        workshop.write('kind = "command"\nargv = ["true"]', file=f"x{name}.md", name=name)
    assert [tool.wire_name for tool in workshop.toolbox.tools()] == ["bact_a", "bact_b", "bact_c-1", "bact_c_1"]
    assert workshop.text(tool="c-1") == workshop.text(tool="c_1")


@pytest.mark.parametrize("change", ["gone", "disabled"])
def test_a_tool_whose_action_is_gone_or_disabled_fails(workshop: Workshop, change: str) -> None:
    workshop.write(ECHO, inputs=declared("a"))
    (tool,) = workshop.toolbox.tools()
    if change == "gone":
        (workshop.folder / "sample.md").unlink()
    else:
        workshop.write(ECHO, inputs=declared("a"), front="enabled = false")
    with pytest.raises(ToolFailed, match="sample is no longer available"):
        workshop.toolbox.call(tool, {"a": "x"}, context())


def test_a_tool_whose_inputs_have_changed_fails(workshop: Workshop) -> None:
    workshop.write(ECHO, inputs=declared("a"))
    (tool,) = workshop.toolbox.tools()
    workshop.write(ECHO, inputs=declared("a", more='enum = ["x"]'))
    with pytest.raises(ToolFailed, match="its inputs have changed"):
        workshop.toolbox.call(tool, {"a": "y"}, context())


def test_a_tool_with_the_same_inputs_runs_as_its_file_says_now(workshop: Workshop) -> None:
    workshop.write(ECHO, inputs=declared("a"))
    (tool,) = workshop.toolbox.tools()
    workshop.write(ECHO.replace('"echo"', '"echo", "now"'), inputs=declared("a"), body="Other words.")
    assert only_text(workshop.toolbox.call(tool, {"a": "x"}, context())) == "now x\n"


def test_a_missing_argument_is_told(workshop: Workshop) -> None:
    workshop.write(ECHO, inputs=declared("a"))
    with pytest.raises(ToolFailed, match="the argument a is missing"):
        workshop.result()


def test_what_nobody_foresaw_is_told_without_its_text(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot_start(*_: object, **__: object) -> None:
        raise RuntimeError("can't start a process for hush")

    workshop.write('kind = "command"\nargv = ["echo"]')
    workshop.problems()
    monkeypatch.setattr(subprocess, "Popen", cannot_start)
    with capture_logs() as logs, pytest.raises(ToolFailed, match="the gateway failed to run it"):
        workshop.result()
    assert [(line["action"], line["error"]) for line in logs] == [("sample", "RuntimeError")]
    assert "hush" not in repr(logs)


def test_secrets_show_in_no_repr_or_log(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPLE_TOKEN", "hush-hush-4711")
    with capture_logs() as logs:
        workshop.write('kind = "command"\nargv = ["env"]\nenv = { A = "env:SAMPLE_TOKEN" }')
        text = workshop.text()
    assert "A=[secret]" in text
    assert "hush" not in repr((logs, workshop.toolbox, vars(workshop.toolbox), workshop.toolbox.tools()))


PRINT = """
import json, os
a = os.environ["A"]
print(a, a.splitlines()[0], json.dumps(a), json.dumps(a, ensure_ascii=False), sep="|")
"""


@pytest.mark.parametrize("secret", ["line one\nline two", 'quo"te\\back', "gr\u00fcne W\u00f6rter"])
def test_other_spellings_of_a_secret_are_taken_out_too(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    monkeypatch.setenv("SAMPLE_TOKEN", secret)
    (workshop.folder / "print.py").write_text(PRINT)
    argv = json.dumps([sys.executable, "print.py"])
    workshop.write(f'kind = "command"\nargv = {argv}\nenv = {{ A = "env:SAMPLE_TOKEN" }}')
    assert workshop.text() == '[secret]|[secret]|"[secret]"|"[secret]"\n'
