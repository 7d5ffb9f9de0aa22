"""Where a Ray of this machine has its files: where Ray itself would put them, unless that place is none for it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from cvjobs.clusters import ray_folder
from cvjobs.common.errors import JobFailed, LimitReached


@pytest.fixture(autouse=True)
def no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)


def named(place: object, monkeypatch: pytest.MonkeyPatch) -> str | None:
    monkeypatch.setenv("RAY_TMPDIR", str(place))
    return ray_folder.chosen()


def test_the_place_of_the_environment_is_left_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="r") as short:
        assert named(short, monkeypatch) is None
        monkeypatch.setenv("TMPDIR", "/none")
        assert (ray_folder.wanted(), ray_folder.chosen()) == (short, None)


@pytest.mark.parametrize("name", ["é", "", "relative", "x" * 60, "file"])
def test_a_place_that_no_socket_can_be_in_is_left_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_folder, "LONGEST", 300 if name == "file" else ray_folder.LONGEST)
    (tmp_path / "file").touch()
    place = name if name in ("", "relative") else tmp_path / name
    assert named(place, monkeypatch) == "/tmp/ray"
    assert not (tmp_path / name / "ray").exists()


def test_a_place_without_room_or_that_is_read_only(
    small_disk: Path, read_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_folder, "LONGEST", 300)
    assert ray_folder.flaw(str(read_only)) == "cannot be written to (Read-only file system)"
    assert ray_folder.flaw(str(small_disk)).startswith("has no room (")
    monkeypatch.setattr(ray_folder, "PLACES", (str(read_only),))
    with pytest.raises(
        JobFailed, match=r"There is no folder for Ray's files \(.* has no room .*; .* name a good one in"
    ):
        named(small_disk, monkeypatch)
    monkeypatch.setattr(ray_folder, "PLACES", (str(small_disk),))
    with pytest.raises(LimitReached, match="has no room"):
        named(small_disk, monkeypatch)
    assert subprocess.run(["ls", "-A", str(read_only)], capture_output=True, check=True).stdout == b""


def test_a_socket_of_ray_has_a_name_that_fits() -> None:
    session = f"session_2026-11-28_16-04-38_073754_{2**22}"
    longest = os.path.join("x" * ray_folder.LONGEST, session, "sockets", "plasma_store")
    assert len(longest) <= 107
