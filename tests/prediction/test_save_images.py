"""``--save-images``: a folder of pictures with what the rows say drawn over them, one a row, and nothing else."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from commands import here, kill, sentence, started, until
from PIL import Image
from predictions import CATEGORIES, detection, output

from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse
from cvjobs.dataset import snapshot
from cvjobs.html import palette
from cvjobs.images.masks import png, rle
from cvjobs.prediction.side_folder import beside, manifest
from cvjobs.prediction.side_folder.beside import Accompanied
from cvjobs.prediction.summary import Summary
from cvjobs.storage.local_store import LocalStore

GRAY = (128, 128, 128)


def photo(folder: Path, name: str, size: tuple[int, int] = (120, 80)) -> dict[str, Any]:
    """A gray image, and the beginning of its row."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, GRAY).save(file, "PNG")
    content = xxhash.xxh3_128_digest(file.read_bytes())
    return {"path": name, "width": size[0], "height": size[1], "content": content}


def complete(out: Path, place: Path, source: Path | None = None) -> Accompanied:
    """What is said of the folder after a run on an output."""
    base = snapshot.latest(LocalStore(out))
    done = Summary(
        listed=base.wanted, ok=base.ok, failed=base.failed, skipped=0, remaining=0, reused=0, computed=0, seconds=0,
        images_per_second=0, out=str(out), version=base.version, exit_code=0,
    )  # fmt: skip
    folders = beside.check(str(source or "/nothing"), str(out), images=str(place))
    return beside.complete(done, folders, (), 80_000_000)


def files(place: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder with what tells whether it was written."""
    found = (Path(root, name) for root, _, names in os.walk(place) for name in names)
    return {str(file.relative_to(place)): (file.stat().st_ino, file.stat().st_mtime_ns) for file in found}


def jpegs(place: Path) -> set[str]:
    return {name for name in files(place) if not name.startswith(manifest.PICTURES.own)}


def close(pixel: Any, colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(np.asarray(pixel, int) - colour).max() < 40)


def test_boxes_are_drawn_and_only_what_changed_is_drawn_again(tmp_path: Path) -> None:
    source, place = tmp_path / "photos", tmp_path / "pictures"
    names = ["a.png", "a.png.jpg/b.png", "sub/a.png", "../strange%2E.png"[3:]]
    rows = [photo(source, name) | {"detections": [detection(30, 20, 90, 60, 0.75)]} for name in names]
    rows.append(photo(source, "empty.png") | {"detections": []})
    out = output(tmp_path / "out", "detect", CATEGORIES, rows, source=source)
    done = complete(out, place)
    assert (done.pictures, done.without_picture, done.pictures_dir) == (5, {}, str(place))
    assert jpegs(place) == {
        "a.png.jpg",
        "a.png%2Ejpg/b.png.jpg",
        "sub/a.png.jpg",
        "strange%252E.png.jpg",
        "empty.png.jpg",
    }
    with Image.open(place / "a.png.jpg") as image:
        assert image.size == (120, 80)
        pixels = np.asarray(image)
    colour = palette.rgb(1)
    assert close(pixels[40, 31], colour)
    assert close(pixels[20, 80], colour)
    assert close(pixels[40, 60], GRAY)
    assert close(pixels[70, 100], GRAY)
    assert (np.abs(pixels[4:19, 31:80].astype(int) - 17).max(-1) < 60).any()  # the name above the box
    before = files(place)
    assert complete(out, place).pictures == 0
    assert files(place) == before
    os.unlink(place / "sub" / "a.png.jpg")
    (place / "empty.png.jpg").write_bytes(b"cut")
    (place / manifest.PICTURES.own / "1.tmp").touch()
    assert complete(out, place).pictures == 2
    rows[0] = rows[0] | {"content": b"another", "detections": []}
    output(out, "detect", CATEGORIES, rows[:1], source=source)
    done = complete(out, place)
    assert done.without_picture == {"a.png": "changed since the run"}  # not of the state that the row is about
    assert jpegs(place) == set()
    assert "1 image has no picture: a.png (changed since the run); the same command tries again" in str(done)


def test_masks_have_a_legend(tmp_path: Path) -> None:
    source = tmp_path / "photos"
    known = [Category(0, "__background__"), Category(1, "cat"), Category(300, "dog")]
    ids = np.zeros((80, 120), np.uint16)
    ids[:, :60] = 300
    areas = [{"category_id": id_, "label": name, "pixels": 4800} for id_, name in ((0, "__background__"), (300, "dog"))]
    row = photo(source, "a.png") | {"class_map": png.encode(ids), "classes": areas}
    complete(output(tmp_path / "maps", "semantic", known, [row], source=source), tmp_path / "pictures")
    with Image.open(tmp_path / "pictures" / "a.png.jpg") as image:
        assert image.width == 120
        assert image.height > 90  # with the legend
        pixels = np.asarray(image)
    dog = palette.rgb(300)
    assert close(pixels[40, 90], GRAY)
    assert np.abs(pixels[40, 20].astype(int) - dog).sum() < np.abs(np.subtract(GRAY, dog)).sum()
    assert (np.abs(pixels[84:].astype(int) - dog).max(-1) < 30).sum() > 20
    mask = np.zeros((80, 120), np.uint8)
    mask[20:60, 30:90] = 1
    found = detection(30, 20, 90, 60, 0.5) | {"rle": rle.encode(mask[20:60, 30:90], (20, 30), (80, 120))}
    found |= {"area": 2400}
    row = photo(source, "b.png") | {"detections": [found]}
    complete(output(tmp_path / "objects", "instance", CATEGORIES, [row], source=source), tmp_path / "others")
    with Image.open(tmp_path / "others" / "b.png.jpg") as image:
        assert image.height > 90
        assert not close(np.asarray(image)[40, 60], GRAY)


def test_a_large_image_is_reduced_and_a_missing_one_is_told(tmp_path: Path) -> None:
    source = tmp_path / "photos"
    rows = [photo(source, name, size) for name, size in (("large.png", (4096, 512)), ("gone.png", (9, 9)))]
    out = output(tmp_path / "out", "detect", CATEGORIES, [row | {"detections": []} for row in rows], source=source)
    (source / "gone.png").unlink()
    done = complete(out, tmp_path / "pictures")
    with Image.open(tmp_path / "pictures" / "large.png.jpg") as image:
        assert image.size == (2048, 256)
    assert done.without_picture is not None
    assert list(done.without_picture) == ["gone.png"]
    photo(source, "gone.png", (9, 9))
    assert complete(out, tmp_path / "pictures").pictures in (0, 1)  # its time stamp may be another
    with pytest.raises(WrongUse, match="holds pictures"):
        beside.check("/nothing", str(out), masks=str(tmp_path / "pictures"))


def test_never_inside_the_source(tmp_path: Path) -> None:
    photo(tmp_path, "a.png")
    said = sentence(here("detect", tmp_path, "-o", tmp_path / "_out", "--save-images", tmp_path / "drawn"), 2)
    assert said.startswith(f"Pictures in {tmp_path}/drawn would be images of {tmp_path}: choose a --save-images")
    (tmp_path / "drawn" / manifest.PICTURES.own).mkdir(parents=True)
    photo(tmp_path / "drawn", "b.png")
    listed = here("embed", tmp_path, "-o", tmp_path.parent / f"{tmp_path.name}-out", "--model", "thumbnail/4")
    assert "2 listed = 1 ok + 0 failed + 1 skipped" in listed.out  # a folder of pictures is no source


@pytest.mark.faults(minutes=0.2)
def test_a_kill_is_repaired(tmp_path: Path) -> None:
    source = tmp_path / "photos"
    rows = [photo(source, f"{number // 50}/{number}.png") | {"detections": []} for number in range(400)]
    out, place = output(tmp_path / "out", "detect", CATEGORIES, rows, source=source), tmp_path / "pictures"
    program = (
        f"import sys; sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}\n"
        "import pathlib, test_save_images\n"
        "test_save_images.complete(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))\n"
    )
    with started([sys.executable, "-c", program, str(out), str(place)]) as process:
        until(lambda: (place / "1").exists() or process.poll() is not None)
        kill(process, signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert 40 < len(jpegs(place)) < 400
    written = complete(out, place).pictures
    assert written is not None
    assert 0 < written <= 400
    assert jpegs(place) == {f"{row['path']}.jpg" for row in rows}
    for name in jpegs(place):
        with Image.open(place / name) as image:
            image.load()
    assert complete(out, place).pictures == 0
