"""A ledger on a disk that does not last is warned of, and no other."""

from pathlib import Path

import pytest

from aibridge.hosting import disk_warning

SQLITE = "sqlite:///var/aibridge.db"


@pytest.mark.parametrize("variable", ["DYNO", "VCAP_APPLICATION", "K_SERVICE"])
def test_platforms_without_lasting_disks(variable: str, tmp_path: Path) -> None:
    warning = disk_warning(SQLITE, {variable: "web.1"}, tmp_path)
    assert warning
    assert "DATABASE_URL" in warning
    assert "volume" not in warning
    assert "var/aibridge.db" in warning


def test_a_volume_is_a_disk_of_its_own(tmp_path: Path) -> None:
    on_the_image = disk_warning(f"sqlite:///{tmp_path}/new/folder/aibridge.db", {"RENDER": "1"}, tmp_path)
    assert on_the_image
    assert "volume" in on_the_image
    assert disk_warning("sqlite:////proc/aibridge.db?timeout=1", {"RENDER": "1"}, tmp_path) is None


def test_a_container_is_known_by_its_marks(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/aibridge.db"
    assert disk_warning(url, {}, tmp_path) is None
    (tmp_path / ".dockerenv").touch()
    assert "a container" in (disk_warning(url, {}, tmp_path) or "")


def test_elsewhere_nothing_is_said(tmp_path: Path) -> None:
    assert disk_warning(SQLITE, {"DYNO": ""}, tmp_path) is None
    assert disk_warning("postgresql+psycopg://db/aibridge", {"DYNO": "web.1"}, tmp_path) is None
