"""What ``cvjobs embed`` refuses: one sentence, the right exit code, and an output that stays as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import embed, exact, rows, sentence, some

pytestmark = pytest.mark.slow


@pytest.fixture
def source(photos: Path, tmp_path: Path) -> Path:
    return some(photos, tmp_path / "source", 24)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_no_such_folder(tmp_path: Path, out: Path) -> None:
    assert f"There is no {tmp_path}/nowhere" in sentence(embed(tmp_path / "nowhere", out), 2)
    assert not out.exists()


def test_an_empty_folder_says_what_was_skipped_and_why(tmp_path: Path, out: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    assert "it is empty" in sentence(embed(folder, out), 2)
    (folder / "notes.txt").touch()
    (folder / ".hidden.jpg").touch()
    told = sentence(embed(folder, out), 2)
    assert "skipped: 1 " in told
    assert "hidden" in told
    assert not out.exists()


def test_an_unknown_model_has_near_names(source: Path, out: Path) -> None:
    told = sentence(embed(source, out, model="torchvision/resnet5"), 2)
    assert "(nearest: resnet50, " in told
    assert not out.exists()


@pytest.mark.usefixtures("offline")
def test_weights_that_cannot_be_had(source: Path, out: Path) -> None:
    told = sentence(embed(source, out, model="torchvision/resnet50"), 2)
    assert "resnet50-11ad3fa6.pth" in told
    assert "--weights" in told
    assert not out.exists()


def test_another_model_on_the_same_output(source: Path, out: Path) -> None:
    embed(source, out)
    before = rows(out)
    told = sentence(embed(source, out, model="thumbnail/2"), 2)
    assert "thumbnail/4 there" in told
    assert "thumbnail/2 here" in told
    assert "--overwrite" in told
    assert rows(out).equals(before)


def test_another_source_on_the_same_output(source: Path, photos: Path, out: Path) -> None:
    embed(source, out)
    before = rows(out)
    told = sentence(embed(photos, out), 2)
    assert str(source) in told
    assert str(photos) in told
    assert rows(out).equals(before)


def test_a_source_that_lost_most_of_its_images(source: Path, out: Path) -> None:
    embed(source, out)
    before = rows(out)
    for image in sorted(source.rglob("*.jpg"))[:12]:
        image.unlink()
    told = sentence(embed(source, out), 2)
    assert "12 of the 24" in told
    assert "--allow-deletions" in told
    for image in source.rglob("*.jpg"):
        image.unlink()
    assert "24 of the 24" in sentence(embed(source, out), 2)
    assert rows(out).equals(before)
    assert embed(source, out, "--allow-deletions").code == 0
    assert rows(out).num_rows == 0


def test_an_output_that_cannot_be_written(source: Path) -> None:
    assert "Cannot write to /sys/cvjobs" in sentence(embed(source, "/sys/cvjobs"), 2)


def test_an_output_that_is_a_file(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert f"{tmp_path / 'file'} is a file" in sentence(embed(source, out), 2)
    assert (tmp_path / "file").read_text() == "mine"


def test_more_workers_than_cores(source: Path, out: Path) -> None:
    told = sentence(embed(source, out, "--workers", 4096), 2)
    assert "--workers 4096 needs 4096 cores" in told
    assert not out.exists()


def test_a_full_disk(source: Path, small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes((1 << 20) - 150_000))
    out = small_disk / "out"
    # 24 vectors of 3,072 floats are 295 kB: the run's own small files find room, its results do not.
    told = sentence(embed(source, out, model="thumbnail/32"), 1)
    assert "No space left" in told
    assert "the same command" in told
    ballast.unlink()
    assert embed(source, out, model="thumbnail/32").code == 0
    exact(out, source, 24)
