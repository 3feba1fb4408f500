"""`aibridge actions check`: one line per file, and an exit status for scripts."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from aibridge.cli import main
from tests.actions.samples import document

RUN = 'kind = "command"\nargv = ["true"]'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in os.environ:
        if name.startswith("AIBRIDGE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "actions").mkdir()
    return tmp_path / "actions"


def check(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["actions", "check", *arguments])


def test_good_files(folder: Path) -> None:
    (folder / "b.md").write_text(document(RUN, name="two", front="enabled = false"))
    (folder / "a.md").write_text(document(RUN, name="one"))
    result = check()
    assert (result.exit_code, result.stdout) == (0, "a.md: ok, one (command)\nb.md: ok, two (command, disabled)\n")
    assert check(str(folder)).stdout == result.stdout


def test_bad_files(folder: Path) -> None:
    (folder / "a.md").write_text(document(RUN + '\nshell = "\x1b[31m"'))
    (folder / "b.md").write_text(document(RUN))
    (folder / "c.md").write_text(document(RUN))
    result = check()
    assert result.exit_code == 1
    assert result.stdout.splitlines()[1:] == [
        "b.md: ok, sample (command)",
        "c.md: the name sample is taken by b.md",
    ]
    assert result.stdout.startswith("a.md:9: is not valid TOML")
    assert json.loads(check("--json").stdout)[1:] == [
        {"file": "b.md", "name": "sample", "kind": "command", "enabled": True, "line": None, "problem": None},
        {
            **dict.fromkeys(("name", "kind", "enabled", "line")),
            "file": "c.md",
            "problem": "the name sample is taken by b.md",
        },
    ]


def test_nothing_to_check(folder: Path) -> None:
    assert (check().exit_code, check().stdout) == (0, "no action files\n")
    assert json.loads(check("--json").stdout) == []
    folder.rmdir()
    assert (check().exit_code, check().stdout) == (0, "no action files\n")
    folder.write_text("a file")
    assert check().exit_code == 1
    assert "Not a directory" in check().stderr


def test_a_folder_that_is_not_there_is_a_wrong_command_line(folder: Path) -> None:
    result = check(str(folder / "none"))
    assert result.exit_code == 2
    assert "does not exist" in result.stderr


def test_wrong_settings_end_with_2(folder: Path) -> None:
    assert CliRunner().invoke(main, ["actions", "check"], env={"AIBRIDGE_SERVER_PORT": "many"}).exit_code == 2
