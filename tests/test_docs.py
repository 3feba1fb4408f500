"""The documentation names everything that there is."""

import re
import typing
from pathlib import Path

import click
import pytest

from aibridge import errors
from aibridge.cli import main
from aibridge.settings import Settings
from aibridge.storage import tables

ROOT = Path(__file__).parent.parent
DOCS = {path.name: path.read_text("utf-8") for path in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]}


def settings() -> list[tuple[str, str]]:
    found = []
    for section, info in Settings.model_fields.items():
        model = (
            typing.get_args(info.annotation)[0] if typing.get_origin(info.annotation) is tuple else info.annotation
        )
        assert model is not None
        found += [(section, field) for field in model.model_fields]
    return found


@pytest.mark.parametrize(("section", "field"), settings())
def test_every_setting_is_documented(section: str, field: str) -> None:
    chapters = DOCS["settings.md"].split("\n## ")
    later = chapters[-1]
    described = next((chapter for chapter in chapters if f"[{section}]" in chapter.partition("\n")[0]), "")
    assert f"`{field}`" in described or f"`{field}`" in later or f"[{section}]" in later


def commands(group: click.Group, prefix: str = "aibridge") -> list[str]:
    found = []
    for name, command in group.commands.items():
        path = f"{prefix} {name}"
        found += commands(command, path) if isinstance(command, click.Group) else [path]
    return found


@pytest.mark.parametrize("command", commands(main))
def test_every_command_is_documented(command: str) -> None:
    assert command in DOCS["command-line.md"]


STATUSES = sorted({str(kind.status) for kind in vars(errors).values() if hasattr(kind, "status")})


@pytest.mark.parametrize("status", STATUSES)
def test_every_error_status_is_documented(status: str) -> None:
    assert f"| {status} |" in DOCS["http.md"]


@pytest.mark.parametrize("table", [name for name in tables.metadata.tables if name != "aibridge_tokens"])
def test_every_table_is_documented(table: str) -> None:
    assert f"`{table}`" in DOCS["records.md"]


@pytest.mark.parametrize("name", DOCS)
def test_links_lead_somewhere(name: str) -> None:
    base = ROOT if name == "README.md" else ROOT / "docs"
    for target in re.findall(r"\]\(([^)#:]+)\)", DOCS[name]):
        assert (base / target).exists(), f"{name} links to {target}"


def test_every_direct_dependency_is_justified() -> None:
    names = [
        re.split(r"[\[<=>]", line)[0]
        for line in (ROOT / "requirements.in").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    for name in names:
        assert f"| {name} |" in DOCS["dependencies.md"]


def promised() -> list[str]:
    return sorted(set(re.findall(r"`([\w/]+\.py::\w+)`", DOCS["durability.md"] + DOCS["bounds.md"])))


@pytest.mark.parametrize("name", promised())
def test_every_promise_has_its_test(name: str) -> None:
    file, _, test = name.partition("::")
    assert f"def {test}(" in (ROOT / "tests" / file).read_text("utf-8")
