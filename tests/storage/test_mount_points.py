"""An output on a disk of fstab that is not mounted is refused; folders above an output are made, and said."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import embed, said, sentence
from PIL import Image

from cvjobs.storage import mount_points

ROOT = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    point = tmp_path / "my disk"
    point.mkdir()
    listed = tmp_path / "fstab"
    name = str(point).replace(" ", "\\040")
    listed.write_text(f"# a comment\nUUID=1 / ext4 defaults 0 1\nnas:/x {name} nfs rw 0 0\n/swap none swap sw 0 0\n")
    monkeypatch.setattr(mount_points, "LISTED", str(listed))
    monkeypatch.setattr(mount_points, "MOUNTED", str(tmp_path / "mountinfo"))
    (tmp_path / "mountinfo").write_text(ROOT)
    return point


def test_a_disk_that_is_not_mounted(disk: Path, tmp_path: Path) -> None:
    for place in (disk, disk / "out", disk / "a" / "b"):
        assert mount_points.missing(place) == str(disk)
    assert mount_points.missing(tmp_path / "other") == ""
    (disk / "out").mkdir()
    (disk / "out" / "report.html").touch()
    assert mount_points.missing(disk / "out") == ""  # what is there goes on
    name = str(disk).replace(" ", "\\040")
    (tmp_path / "mountinfo").write_text(f"{ROOT}23 22 0:4 / {name} rw - nfs nas:/x rw\n")
    assert mount_points.missing(disk / "new") == ""
    (tmp_path / "mountinfo").unlink()
    assert mount_points.missing(disk / "new") == ""


def test_an_output_there_is_refused(disk: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "a.png")
    refused = sentence(embed(tmp_path / "photos", disk / "out"), 2)
    assert refused.startswith(
        f"{disk}/out is on {disk}, which {tmp_path}/fstab lists and which is not mounted: mount it, or"
    )
    assert list(disk.iterdir()) == []


def test_folders_above_an_output_are_made_and_said(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "a.png")
    ended = embed(tmp_path / "photos", tmp_path / "x" / "y" / "out")
    assert ended.code == 0
    assert said(ended.err) == [f"cvjobs: {tmp_path}/x was not there and is made, for -o {tmp_path}/x/y/out."]
    assert said(embed(tmp_path / "photos", tmp_path / "x" / "other").err) == []
